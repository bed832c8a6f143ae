"""Periodic tasks as ``taskq schedules`` shows them: documents, columns, and their coming runs in the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.utils import timezone

from django_taskq.exceptions import InvalidSchedule, SerializationError
from django_taskq.management.text import one_line
from django_taskq.models import PeriodicTask
from django_taskq.models.clock import aware
from django_taskq.schedules import Schedule

SHOWN_RUNS, SHOWN_DUE_TIMES = 5, 10


def summary(row: PeriodicTask) -> dict[str, Any]:
    """A line of the list as a document."""
    return {
        "name": row.name,
        "task": row.task_name,
        "schedule": row.schedule,
        "timezone": row.timezone or None,
        "next_due_at": _aware(row.next_due_at) if row.is_enabled and not row.is_retired else None,
        "last_due_at": _aware(row.last_due_at),
        "is_enabled": row.is_enabled,
        "is_declared": row.is_declared,
        "is_overridden": row.is_overridden,
        "is_retired": row.is_retired,
    }


def describe(row: PeriodicTask) -> dict[str, Any]:
    """Everything about one as a document."""
    schedule = schedule_of(row)
    found = summary(row)
    found["words"] = schedule.describe() if schedule else "(cannot be read here)"
    found["source"] = row.source
    for key in ("starts_at", "ends_at", "pending_due_at"):
        found[key] = _aware(getattr(row, key))
    for key in ("jitter", "catch_up", "catch_up_limit", "overlap", "max_lateness", "is_one_off"):
        found[key] = getattr(row, key)
    try:
        found |= {"args": row.args, "kwargs": row.kwargs}
    except SerializationError as error:
        found |= {"args": f"({error})", "kwargs": f"({error})"}
    found |= {"queue_name": row.queue_name or None, "priority": row.priority, "expires": row.expires}
    found["last_run_id"] = row.last_run_id
    runs = coming_runs([(row, schedule)] if schedule else [], None)
    found["next_runs"] = [due for due, _, _ in islice(runs, SHOWN_RUNS)]
    found["due_times"] = [
        {
            "due_at": _aware(tick.due_at),
            "decision": tick.decision,
            "decision_text": tick.get_decision_display(),
            "first_due_at": _aware(tick.first_due_at),
            "count": tick.count,
            "run_id": tick.run_id,
            "reason": tick.reason,
            "decided_at": _aware(tick.decided_at),
        }
        for tick in row.ticks.using(row._state.db).order_by("-due_at")[:SHOWN_DUE_TIMES]
    ]
    return found


def coming_runs(
    rows: Iterable[tuple[PeriodicTask, Schedule]], until: datetime | None
) -> Iterator[tuple[datetime, PeriodicTask, Schedule]]:
    """The due times of all these (row, schedule) in the order of time, without end where there is none."""
    queue = []
    for number, (row, schedule) in enumerate(rows):
        if row.next_due_at is not None and row.is_enabled and not row.is_retired:
            queue.append((aware(row.next_due_at).astimezone(UTC), number, row, schedule))
    heapq.heapify(queue)
    while queue and (until is None or queue[0][0] <= until):
        due, number, row, schedule = queue[0]
        yield due, row, schedule
        following = None if row.is_one_off else schedule.next_run(due)
        if following is None:
            heapq.heappop(queue)
        else:
            heapq.heapreplace(queue, (following, number, row, schedule))


def columns(row: PeriodicTask) -> tuple[str, ...]:
    schedule, said = schedule_of(row), summary(row)
    marks = {
        "disabled": not row.is_enabled,
        "declared": row.is_declared,
        "overridden": row.is_overridden,
        "retired": row.is_retired,
        "unreadable": schedule is None,
    }
    times = (in_zone(said[key], schedule) if said[key] else "-" for key in ("next_due_at", "last_due_at"))
    zone = schedule.zone.key if schedule else row.timezone
    texts = (
        row.name,
        row.task_name,
        row.schedule,
        zone,
        *times,
        ", ".join(key for key, holds in marks.items() if holds),
    )
    return tuple(map(one_line, texts))


def schedule_of(row: PeriodicTask) -> Schedule | None:
    try:
        return row.get_schedule()
    except InvalidSchedule:
        return None


def in_zone(moment: datetime, schedule: Schedule | None) -> str:
    """By the clocks of the schedule; the zone's short name tells the two hours apart that autumn has."""
    return _shown(moment.astimezone(schedule.zone)) if schedule else local(moment)


def local(moment: datetime) -> str:
    return _shown(timezone.localtime(moment))


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S %Z}"


def _aware(moment: datetime | None) -> datetime | None:
    return None if moment is None else aware(moment).astimezone(UTC)
