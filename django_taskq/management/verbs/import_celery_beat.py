"""``taskq import-celery-beat``: the schedules of Celery beat as periodic tasks of this package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from django_taskq import client, conf, registry, scheduler, serializers
from django_taskq.conf_brokers import parse_queue_name
from django_taskq.contrib import celery_beat
from django_taskq.contrib.celery_beat import NOT_NEEDED, Found
from django_taskq.exceptions import EnqueueError
from django_taskq.management.storage import RUNTIME_EXIT
from django_taskq.management.text import one_line
from django_taskq.management.verbs.base import Verb
from django_taskq.management.verbs.lookup import suggest_task
from django_taskq.models import PeriodicTask
from django_taskq.models.schedule import CALL, TIMING, Source, timing_of

COMPARED = (*CALL, *TIMING, "is_one_off")
LEFT_OUT = "left out"


class ImportCeleryBeat(Verb):
    """Reads only what belongs to Celery. Matched by name, so that a second time changes nothing more."""

    help = "Take over the schedules of Celery beat: django-celery-beat's tables and CELERY_BEAT_SCHEDULE."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only say what would be done.")
        parser.add_argument(
            "--disabled", action="store_true", help="Import them disabled, for as long as Celery beat still runs."
        )
        parser.add_argument(
            "--overwrite", action="store_true", help="Also change schedules of these names that exist and differ."
        )

    def run(self, **options: Any) -> None:
        counts: Counter[str] = Counter()
        using = conf.get_settings().database
        existing = {row.name: row for row in scheduler.periodic_tasks()}
        with transaction.atomic(using=using):
            for found in find_all():
                row = None if found.refusal else make_row(found)
                if row is not None and options["disabled"] and row.is_enabled:
                    row.is_enabled = False
                    found.notes.append("disabled: --disabled was given")
                before = existing.get(found.name)
                word, saved = _decide(found, row, before, options["overwrite"])
                counts[word] += 1
                if saved is not None and not options["dry_run"]:
                    saved.save(using=using)
                self._show(word, found, row)
        summary = ", ".join(f"{count} {word}" for word, count in counts.items())
        self.write(f"{summary or 'nothing to import'}{' (nothing was written)' if options['dry_run'] else ''}")
        if counts[LEFT_OUT]:
            raise CommandError(f"{counts[LEFT_OUT]} schedule(s) not imported", returncode=RUNTIME_EXIT)

    def _show(self, word: str, found: Found, row: PeriodicTask | None) -> None:
        zone = f" ({row.timezone})" if row is not None and row.timezone else ""
        what = found.refusal or found.task_name
        if row is not None:
            what = f"{row.schedule}{zone}  {row.task_name}{'' if row.is_enabled else '  (disabled)'}"
        style = self.style.ERROR if word == LEFT_OUT else self.style.SUCCESS if word == "imported" else str
        self.write(style(one_line(f"{word:<11}{found.name}: {what}")))
        for note in found.notes:
            self.write(one_line(f"             {note}"))


def find_all() -> Iterator[Found]:
    """The rows of the tables, then what only the setting has. Raises ``CommandError`` when there is neither."""
    rows = celery_beat.read_tables()
    entries = {found.name: found for found in celery_beat.read_setting()}
    if rows is None and not entries:
        raise CommandError(
            "found neither the tables of django-celery-beat nor CELERY_BEAT_SCHEDULE, so there is nothing to import. "
            "Run this with the settings of the project that used Celery beat.",
            returncode=RUNTIME_EXIT,
        )
    for found in rows or ():
        entry = entries.pop(found.name, None)
        if entry is not None and not entry.refusal and (entry.schedule, entry.args) != (found.schedule, found.args):
            found.notes.append(
                "CELERY_BEAT_SCHEDULE has another schedule or other arguments for it; the row of the table was taken"
            )
        yield found
    yield from entries.values()


def make_row(found: Found) -> PeriodicTask | None:
    """The periodic task, unsaved; what this project cannot run yet is disabled, with a note that says why."""
    if found.task_name in NOT_NEEDED or found.schedule is None:
        return None
    try:
        payload = serializers.dumps([found.args, found.kwargs])
    except EnqueueError as error:
        found.refusal = str(error)
        return None
    queue_name = _check_queue(found)
    task = registry.find(found.task_name)
    if task is None:
        found.disable(f"no task is named {found.task_name!r} here.{suggest_task(found.task_name)}")
    else:
        try:
            task.check_arguments(found.args, found.kwargs)
        except EnqueueError as error:
            found.disable(str(error))
    return PeriodicTask(
        name=found.name,
        task_name=found.task_name,
        payload=payload,
        queue_name=queue_name,
        expires=found.expires,
        is_one_off=found.is_one_off,
        is_enabled=found.is_enabled,
        **timing_of(found.schedule),
    )


def _check_queue(found: Found) -> str:
    if found.queue in ("", getattr(settings, "CELERY_TASK_DEFAULT_QUEUE", "celery")):
        return ""
    try:
        client.check_queue(found.queue)
    except EnqueueError as error:
        found.disable(f"{error}")
        try:
            return parse_queue_name(found.queue)
        except ValueError:
            return ""
    return found.queue


def _decide(
    found: Found, row: PeriodicTask | None, before: PeriodicTask | None, overwrite: bool
) -> tuple[str, PeriodicTask | None]:
    """What becomes of it, and the row to save."""
    if found.task_name in NOT_NEEDED:
        found.notes = [NOT_NEEDED[found.task_name]]
        return "not needed", None
    if row is None:
        return LEFT_OUT, None
    if before is None:
        return "imported", row
    differing = [name for name in COMPARED if getattr(before, name) != getattr(row, name)]
    if not differing:
        # Told at the first import; what has been mended since then is nobody's business any more.
        found.notes = []
        return "exists", None
    if before.source != Source.DATABASE:
        found.notes = ["it is declared in the project's code or settings, which stays as it is"]
        return "exists", None
    if not overwrite:
        found.notes = [f"it differs and stays as it is ({', '.join(differing)}); --overwrite changes it"]
        return "exists", None
    for name in (*COMPARED, "is_enabled"):
        setattr(before, name, getattr(row, name))
    return "overwritten", before
