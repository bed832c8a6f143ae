"""What a periodic task will do and has done: the next runs in three zones, clock changes near them, and due times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from django_taskq import conf, schedules
from django_taskq.admin import words
from django_taskq.exceptions import InvalidSchedule
from django_taskq.models import PeriodicTask, ScheduleTick, TaskRecord
from django_taskq.models.clock import aware
from django_taskq.models.schedule import Decision
from django_taskq.schedules import Schedule

RUNS = 5
SHOWN_TICKS = 20
SHOWN_CHANGES = 3
NEAR = timedelta(days=1)
FAR = timedelta(days=730)  # later clock changes are told only where they are near a run
_LOOKS = {
    Decision.ENQUEUED: "successful",
    Decision.BY_HAND: "running",
    Decision.MISSED: "lost",
    Decision.LATE: "cancelled",
    Decision.OVERLAP: "cancelled",
    Decision.SKIPPED: "cancelled",
    Decision.REFUSED: "failed",
}


@dataclass(frozen=True, slots=True)
class Preview:
    """The words, the zones, and the runs as texts; ``error`` when there is no schedule to read."""

    error: str = ""
    description: str = ""
    text: str = ""
    zones: tuple[str, str, str] = ("", "", "")
    runs: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


def of_row(row: PeriodicTask) -> Preview:
    """What the stored row will do; the run that is planned comes first, wherever a skip has moved it."""
    is_active = row.is_enabled and not row.is_retired
    try:
        planned = aware(row.next_due_at) if is_active and row.next_due_at else None
        return of_schedule(row.get_schedule(), planned)
    except InvalidSchedule as error:
        return Preview(error=words.visible(str(error)), text=words.one_line(row.schedule))


def of_schedule(schedule: Schedule, planned: datetime | None = None) -> Preview:
    """The next runs from now on, or from the planned one."""
    now = aware(timezone.now())
    due = [planned] if planned else []
    while len(due) < RUNS:
        following = schedule.next_run(due[-1] if due else now)
        if following is None:
            break
        due.append(following)
    zone = schedule.zone
    changes = _near(zone, now, due)
    local = timezone.get_current_timezone()
    return Preview(
        description=describe(schedule),
        text=words.one_line(str(schedule)),
        zones=(zone.key, timezone.get_current_timezone_name(), "UTC"),
        runs=tuple(
            {
                "times": [_wall(one.astimezone(each)) for each in (zone, local, UTC)],
                "is_near": any(abs(one - at) <= NEAR for at, _by in changes),
            }
            for one in due
        ),
        notes=tuple(_notes(schedule, changes)),
    )


def describe(schedule: Schedule) -> str:
    """In words, on one line."""
    said = words.one_line(schedule.describe())
    return said[:1].upper() + said[1:]


def relative(value: datetime | None) -> str:
    """How far away a time is, with the time itself below it."""
    if value is None:
        return words.NONE
    seconds = (aware(value) - aware(timezone.now())).total_seconds()
    if seconds >= 0:
        text = pgettext("time", "in %(duration)s") % {"duration": words.duration(seconds)}
    else:
        text = pgettext("time", "%(duration)s ago") % {"duration": words.duration(-seconds)}
    return format_html('<span class="tq-when">{}</span><span class="tq-why">{}</span>', text, words.moment(value))


def decision_badge(decision: str) -> str:
    """Icon and word for what became of a due time."""
    known = decision in Decision.values
    word = str(Decision(decision).label) if known else words.one_line(decision)
    return words.badge(words.Look(_LOOKS[Decision(decision)] if known else "lost", word))


def ticks(row: PeriodicTask, *, sees_payload: bool) -> list[dict[str, Any]]:
    """The newest due times, each with its run where the record of that still exists. Two queries."""
    using = conf.get_settings().database
    found = list(ScheduleTick.objects.using(using).filter(periodic_task_id=row.pk).order_by("-due_at")[:SHOWN_TICKS])
    existing = existing_runs(tick.run_id for tick in found)
    return [
        {
            "due": words.moment(tick.due_at),
            "since": words.moment(tick.first_due_at) if tick.first_due_at else "",
            "count": tick.count,
            "badge": decision_badge(tick.decision),
            "reason": words.visible(tick.reason) if sees_payload else words.reason_class(tick.reason),
            "run_id": tick.run_id if tick.run_id in existing else None,
            "is_gone": tick.run_id is not None and tick.run_id not in existing,
        }
        for tick in found
    ]


def existing_runs(ids: Iterable[UUID | None]) -> set[UUID]:
    """Those of these runs whose records still exist."""
    wanted = {id for id in ids if id is not None}
    if not wanted:
        return set()
    rows = TaskRecord.objects.using(conf.get_settings().database).filter(pk__in=wanted)
    return set(rows.values_list("pk", flat=True))


def _near(zone: ZoneInfo, now: datetime, due: list[datetime]) -> list[tuple[datetime, timedelta]]:
    """The clock changes before the last of the runs, and those within a day of one."""
    if not due:
        return []
    found = schedules.clock_changes(zone.key, now, min(due[-1], now + FAR))
    beside = {change for one in due for change in schedules.clock_changes(zone.key, one - NEAR, one + NEAR)}
    # The beside ones come first when not all are shown: runs once a year have ten changes between them.
    return sorted(beside) + [change for change in found if change not in beside]


def _notes(schedule: Schedule, changes: list[tuple[datetime, timedelta]]) -> Iterable[str]:
    for at, by in sorted(changes[:SHOWN_CHANGES]):
        wall = at.astimezone(schedule.zone)
        values = {"zone": schedule.zone.key, "time": _wall(wall), "by": words.duration(abs(by).total_seconds())}
        if by > timedelta(0):
            yield _("The clocks of %(zone)s go forward by %(by)s: from then on it is %(time)s.") % values
        else:
            yield _("The clocks of %(zone)s go back by %(by)s: from then on it is %(time)s.") % values
    if schedule.jitter:
        yield _("Each starts up to %(time)s later (jitter).") % {"time": words.duration(schedule.jitter)}


def _wall(value: datetime) -> str:
    seconds = f"{value:%H:%M:%S}" if value.second else f"{value:%H:%M}"
    return f"{date_format(value, 'D')} {value:%Y-%m-%d} {seconds}"
