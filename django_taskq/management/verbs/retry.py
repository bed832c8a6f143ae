"""``taskq retry``: another attempt for what failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser

from django_taskq import control, registry
from django_taskq.brokers.database.uniqueness import rival
from django_taskq.maintenance import records
from django_taskq.management.storage import RUNTIME_EXIT, USAGE_EXIT
from django_taskq.management.verbs.base import Verb
from django_taskq.management.verbs.lookup import find_records, suggest_task
from django_taskq.models import TaskRecord
from django_taskq.status import Status

CHUNK = 1000


class Retry(Verb):
    """By id, or everything that failed."""

    help = "Run failed (or cancelled) runs again: by id, or all failed ones with --failed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", metavar="ID", nargs="*", help="Ids of runs that are FAILED or CANCELLED.")
        parser.add_argument("--failed", action="store_true", help="Everything that is FAILED now.")
        parser.add_argument("--task", metavar="NAME", help="With --failed: only the runs of this task.")

    def run(self, **options: Any) -> None:
        if bool(options["ids"]) == options["failed"]:
            raise CommandError("give either ids or --failed", returncode=USAGE_EXIT)
        if options["task"] is not None and not options["failed"]:
            raise CommandError("argument --task: it goes with --failed", returncode=USAGE_EXIT)
        if options["failed"]:
            self._retry_failed(options["task"])
        else:
            self._retry_ids(options["ids"])

    def _retry_failed(self, name: str | None) -> None:
        if name is not None and registry.find(name) is None and not _has_failed(name):
            raise CommandError(f"no task is named {name!r}.{suggest_task(name)}", returncode=USAGE_EXIT)
        count = sum(control.retry(records().filter(pk__in=ids)) for ids in _failed(name))
        self.write(f"{count} run(s) will be tried again")

    def _retry_ids(self, texts: Sequence[str]) -> None:
        refused = 0
        for record in find_records(texts):
            if control.retry(records().filter(pk=record.pk)):
                self.write(f"{record.pk} will be tried again")
            else:
                refused += 1
                self.say(_refusal(record))
        if refused:
            raise CommandError(f"{refused} run(s) not changed", returncode=RUNTIME_EXIT)


def _refusal(record: TaskRecord) -> str:
    other = rival(record)
    if other is not None:
        return f"{record.pk} is unique, and run {other} has its key now: let that end, or cancel it"
    return f"{record.pk} is {record.shown_status}: only FAILED and CANCELLED runs can be tried again"


def _has_failed(name: str) -> bool:
    return records().filter(status=Status.FAILED, name=name).exists()


def _failed(name: str | None) -> Iterator[list[UUID]]:
    """Ids of FAILED runs in chunks, each run once, even if it fails again in the meantime: by task and rising id.

    That is the order of their index, so no chunk costs more than its own rows.
    """
    failed = records().filter(status=Status.FAILED)
    task = name if name is not None else failed.order_by("name").values_list("name", flat=True).first()
    while task is not None:
        rows = failed.filter(name=task).order_by("pk").values_list("pk", flat=True)
        ids = list(rows[:CHUNK])
        while ids:
            yield ids
            ids = list(rows.filter(pk__gt=ids[-1])[:CHUNK])
        later = failed.filter(name__gt=task).order_by("name").values_list("name", flat=True)
        task = later.first() if name is None else None
