"""What a person may do to periodic tasks: each verb takes one row, and says what came of it or why nothing did."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_taskq import conf, scheduler
from django_taskq.admin import words
from django_taskq.exceptions import EnqueueError, InvalidSchedule
from django_taskq.models import PeriodicTask

# Changing when code runs is running code.
_SCHEDULE = ("change_periodictask", "schedule_task")


class Refused(Exception):
    """The verb did nothing to this row, and this is why."""


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb with its words. ``permissions`` are codenames, all needed; ``perform`` returns a run's id or ""."""

    name: str
    permissions: tuple[str, ...]
    label: Any
    label_many: Any
    help: Any
    allows: Callable[[PeriodicTask], bool]
    perform: Callable[[PeriodicTask], str]
    done: Callable[[int], str]


def _set_enabled(row: PeriodicTask, is_enabled: bool) -> str:
    rows = scheduler.periodic_tasks().filter(pk=row.pk, **({"is_retired": False} if is_enabled else {}))
    try:
        if not scheduler.set_enabled(rows, is_enabled):
            raise Refused(_("nothing to change"))
    except InvalidSchedule as error:
        raise Refused(words.one_line(str(error))) from error
    return ""


def _run(row: PeriodicTask) -> str:
    try:
        return scheduler.run_now(row)
    except EnqueueError as error:
        raise Refused(words.one_line(str(error))) from error


def _skip(row: PeriodicTask) -> str:
    try:
        due = scheduler.skip_next(row)
    except InvalidSchedule as error:
        raise Refused(words.one_line(str(error))) from error
    except IntegrityError as error:
        raise Refused(_("this due time was decided at the same moment")) from error
    if due is None:
        raise Refused(_("no run is planned"))
    return ""


def _restore(row: PeriodicTask) -> str:
    row.restore_declared()
    try:
        row.save(using=conf.get_settings().database)
    except InvalidSchedule as error:
        raise Refused(words.one_line(str(error))) from error
    return ""


def _verbs() -> Iterable[Verb]:
    yield Verb(
        "enable",
        _SCHEDULE,
        gettext_lazy("Enable"),
        gettext_lazy("Enable: run from now on"),
        gettext_lazy("It runs from now on. What fell due meanwhile is not made up for."),
        lambda row: not row.is_enabled and not row.is_retired,
        lambda row: _set_enabled(row, True),
        lambda n: ngettext("%(n)d periodic task was enabled.", "%(n)d periodic tasks were enabled.", n) % {"n": n},
    )
    yield Verb(
        "disable",
        _SCHEDULE,
        gettext_lazy("Disable"),
        gettext_lazy("Disable: do not run any more"),
        gettext_lazy("It does not run until it is enabled again. A run that was enqueued stays."),
        lambda row: row.is_enabled,
        lambda row: _set_enabled(row, False),
        lambda n: ngettext("%(n)d periodic task was disabled.", "%(n)d periodic tasks were disabled.", n) % {"n": n},
    )
    yield Verb(
        "run",
        ("run_periodictask",),
        gettext_lazy("Run now"),
        gettext_lazy("Run now: once, beside the schedule"),
        gettext_lazy("Enqueues it once, at once. Its schedule stays as it is."),
        lambda row: not row.is_retired,
        _run,
        lambda n: ngettext("%(n)d run was enqueued.", "%(n)d runs were enqueued.", n) % {"n": n},
    )
    yield Verb(
        "skip",
        _SCHEDULE,
        gettext_lazy("Skip next"),
        gettext_lazy("Skip next: leave out the next run"),
        gettext_lazy("Leaves out the next due time. The one after it stays."),
        lambda row: row.is_enabled and not row.is_retired and row.next_due_at is not None,
        _skip,
        lambda n: ngettext("%(n)d due time is left out.", "%(n)d due times are left out.", n) % {"n": n},
    )
    yield Verb(
        "restore",
        _SCHEDULE,
        gettext_lazy("Take the timing from the code again"),
        gettext_lazy("Take the timing from the code again"),
        gettext_lazy("What was changed here about when it runs is forgotten."),
        lambda row: row.is_declared and row.is_overridden,
        _restore,
        lambda n: (
            ngettext("%(n)d periodic task follows the code again.", "%(n)d periodic tasks follow the code again.", n)
            % {"n": n}
        ),
    )


VERBS = {verb.name: verb for verb in _verbs()}
