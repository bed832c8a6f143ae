"""Runs what is due: any number of schedulers at once, none of which can double, lose or shift a due time.

A due time is decided once: its :class:`~django_taskq.models.ScheduleTick` is unique, and is written in the
transaction that enqueues the run and moves the schedule on. Whoever holds the lease looks; that saves work, nothing
depends on it. What is due is compared by the clock of the database.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from django.db import IntegrityError, connections, transaction
from django.db.models import F

from django_taskq import back_pressure, client, clock, conf, registry, routing, serializers
from django_taskq.brokers.database.broker import get_dialect
from django_taskq.cancelling import cancel_records
from django_taskq.conf_routes import Route
from django_taskq.exceptions import EnqueueError, InvalidSchedule
from django_taskq.message import Message, new_ids
from django_taskq.models import PeriodicTask, SchedulerLease, ScheduleTick, TaskRecord
from django_taskq.models.clock import aware, database_now, stored
from django_taskq.models.schedule import PROGRESS, Decision, PeriodicTaskQuerySet, SchedulerLeaseQuerySet
from django_taskq.overdue import Overdue, find_overdue
from django_taskq.schedules import Overlap
from django_taskq.status import FINAL
from django_taskq.unique_keys import Holder

logger = logging.getLogger("django_taskq")

DECIDED_AT_ONCE = 200
DUPLICATE = "the task is unique, and this run was there already"
# Seconds after which the database ends a transaction of a scheduler that was frozen inside it.
MOST_FROZEN = 5.0


def periodic_tasks() -> PeriodicTaskQuerySet:
    """All periodic tasks, on the database that holds them."""
    found: PeriodicTaskQuerySet = PeriodicTask.objects.using(conf.get_settings().database)
    return found


def lease() -> SchedulerLeaseQuerySet:
    """The lease of the schedulers, on the same database."""
    found: SchedulerLeaseQuerySet = SchedulerLease.objects.using(conf.get_settings().database)
    return found


def seconds_until_due() -> float | None:
    """Seconds until the next due time (0 for overdue); None when nothing is planned."""
    planned = periodic_tasks().active().filter(next_start_at__isnull=False).order_by("next_start_at")
    row = planned.annotate(now=database_now(planned.db)).values_list("next_start_at", "now").first()
    return None if row is None else max(0.0, (row[0] - row[1]).total_seconds())


def has_queued() -> bool:
    """Whether a run waits for the previous one of its schedule to end."""
    return periodic_tasks().pending().exists()


def run_due() -> int:
    """Decide everything that is due; returns how many schedules that was."""
    using = conf.get_settings().database
    count = 0
    while True:
        ids = [*periodic_tasks().due().values_list("pk", flat=True)[:DECIDED_AT_ONCE], *_released()]
        if not ids:
            return count
        try:
            decided = _decide(using, ids)
        except IntegrityError:
            # Somebody restored or edited rows by hand: a due time is decided already. Find out which, one by one.
            decided = sum(_decide_alone(using, pk) for pk in ids)
        count += decided
        if not decided:
            return count


def _released() -> list[int]:
    """Schedules whose queued run may start now, because the one before it has ended."""
    pending = dict(periodic_tasks().pending().values_list("pk", "last_run_id"))
    if not pending:
        return []
    going_on = _going_on(pending.values())
    return [pk for pk, run_id in pending.items() if run_id not in going_on]


def _going_on(ids: Iterable[UUID | None]) -> set[UUID]:
    """Those of these runs that have not ended."""
    wanted = {id for id in ids if id is not None}
    if not wanted:
        return set()
    rows = TaskRecord.objects.using(conf.get_settings().database).filter(pk__in=wanted).exclude(status__in=FINAL)
    return set(rows.values_list("pk", flat=True))


@dataclass(slots=True)
class Round:
    """What one transaction decides for its schedules, to be written in a few statements."""

    now: datetime
    going_on: set[UUID]
    ticks: list[ScheduleTick] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    cancelled: list[UUID] = field(default_factory=list)


def _decide(using: str, ids: Sequence[int]) -> int:
    with transaction.atomic(using=using):
        rows = _lock(using, ids)
        if not rows:
            return 0
        this = Round(
            aware(cast(Any, rows[0]).now), _going_on(row.last_run_id for row in rows if row.overlap != Overlap.ALLOW)
        )
        for row in rows:
            _decide_one(row, this)
        _write(using, rows, this)
    return len(rows)


def _lock(using: str, ids: Sequence[int]) -> list[PeriodicTask]:
    """The rows, held until the transaction ends; those that another scheduler holds are its own business."""
    connection = connections[using]
    chosen = periodic_tasks().active().filter(pk__in=ids).order_by("pk").annotate(now=database_now(using))
    if connection.features.has_select_for_update_skip_locked:
        get_dialect(using).limit_idle_transaction(connection, MOST_FROZEN)
        return list(chosen.select_for_update(skip_locked=True))
    # SQLite: the first statement of a transaction that writes must be a write, and holds the whole database then.
    periodic_tasks().filter(pk=ids[0]).update(source=F("source"))
    return list(chosen)


def _decide_one(row: PeriodicTask, this: Round) -> None:
    try:
        schedule = row.get_schedule()
    except InvalidSchedule as error:
        logger.error("periodic task %s cannot be scheduled and is disabled: %s", row.name, error)
        row.is_enabled = False
        due = aware(row.next_due_at) if row.next_due_at else this.now
        _note(row, Decision.REFUSED, due, due, 1, this, reason=f"disabled: {error}")
        return
    if row.pending_due_at is not None and row.last_run_id not in this.going_on:
        due, row.pending_due_at = aware(row.pending_due_at), None
        _enqueue(row, due, this)
    if row.next_start_at is None or aware(row.next_start_at) > this.now or not row.is_enabled:
        return
    first = aware(row.next_due_at or row.next_start_at)
    overdue = find_overdue(schedule, row.name, first, this.now)
    _note_missed(row, overdue, this)
    for due in _in_time(row, overdue.runs, this):
        if row.is_enabled:
            _run_or_skip(row, due, this)
    last = overdue.last or first
    row.last_due_at = stored(last)
    row.plan_next(last, schedule)


def _note_missed(row: PeriodicTask, overdue: Overdue, this: Round) -> None:
    if overdue.missed and overdue.missed_from and overdue.missed_to:
        _note(row, Decision.MISSED, overdue.missed_from, overdue.missed_to, overdue.missed, this)


def _in_time(row: PeriodicTask, runs: list[datetime], this: Round) -> list[datetime]:
    """Those within the lateness limit; the others are noted, as one."""
    if row.max_lateness is None:
        return runs
    limit = this.now - timedelta(seconds=row.max_lateness)
    late = [due for due in runs if due < limit]
    if late:
        _note(row, Decision.LATE, late[0], late[-1], len(late), this)
    return runs[len(late) :]


def _run_or_skip(row: PeriodicTask, due: datetime, this: Round) -> None:
    is_busy = row.last_run_id in this.going_on
    if is_busy and row.overlap == Overlap.SKIP:
        _note(row, Decision.OVERLAP, due, due, 1, this)
    elif is_busy and row.overlap == Overlap.QUEUE_ONE:
        if row.pending_due_at is None:
            row.pending_due_at = stored(due)
        else:
            _note(row, Decision.OVERLAP, due, due, 1, this)
    else:
        if is_busy and row.overlap == Overlap.CANCEL_PREVIOUS and row.last_run_id is not None:
            this.cancelled.append(row.last_run_id)
        _enqueue(row, due, this)


def _enqueue(row: PeriodicTask, due: datetime, this: Round) -> None:
    message = build_message(row, due, this.now)
    try:
        client.check(message)
        # Now, so that one which does not fit is left out, and the others are not.
        back_pressure.make_room([each for each in this.messages if each.queue_name == message.queue_name] + [message])
    except EnqueueError as error:
        logger.error("periodic task %s could not be enqueued: %s", row.name, error)
        _note(row, Decision.REFUSED, due, due, 1, this, reason=f"{type(error).__name__}: {error}")
        return
    this.messages.append(message)
    row.last_run_id = UUID(message.id)
    this.going_on.add(row.last_run_id)
    if row.is_one_off:
        row.is_enabled = False
    tick = ScheduleTick(periodic_task=row, due_at=stored(due), decision=Decision.ENQUEUED, run_id=row.last_run_id)
    this.ticks.append(tick)


def _note(
    row: PeriodicTask, decision: Decision, first: datetime, last: datetime, count: int, this: Round, reason: str = ""
) -> None:
    since = stored(first) if count > 1 else None
    this.ticks.append(
        ScheduleTick(
            periodic_task=row, due_at=stored(last), decision=decision, first_due_at=since, count=count, reason=reason
        )
    )


def build_message(row: PeriodicTask, due: datetime, now: datetime) -> Message:
    """The run of one due time. A task that this process does not know gets what the row says: workers may know it."""
    task = registry.find(row.task_name)
    routed = _route(row)
    queue_name = row.queue_name or routed.queue_name or (task.options.queue_name if task else conf.DEFAULT_QUEUE)
    own_priority = (task.options.priority if task else 0) if routed.priority is None else routed.priority
    priority = row.priority if row.priority is not None else own_priority
    expires = row.expires if row.expires is not None else (task.options.expires if task else None)
    limits = [seconds for seconds in (expires, row.max_lateness) if seconds is not None]
    expires_at = due + timedelta(seconds=min(limits)) if limits else None
    return Message(new_ids(1)[0], row.task_name, queue_name, priority, row.payload, None, now, None, expires_at)


def _route(row: PeriodicTask) -> Route:
    """What the project's routes say of it. Not of exchanges: their copies are no single run that could overlap."""
    if not conf.get_settings().routes:
        return Route()
    args, kwargs = serializers.loads(row.payload)
    return routing.find(row.task_name, args, kwargs) or Route()


def _write(using: str, rows: list[PeriodicTask], this: Round) -> None:
    ScheduleTick.objects.using(using).bulk_create(this.ticks)
    if this.messages:
        _note_duplicates(using, rows, this, client.enqueue(this.messages, has_room=True))
    if this.cancelled:
        # After that: when several due times are decided at once, the previous run may be one of these.
        cancel_records(TaskRecord.objects.using(using).filter(pk__in=this.cancelled))
    # One INSERT ... ON CONFLICT for all: bulk_update's CASE for each row and column takes several times as long.
    PeriodicTask.objects.using(using).bulk_create(
        rows, update_conflicts=True, unique_fields=["id"], update_fields=[*PROGRESS, "is_enabled"]
    )


def _note_duplicates(using: str, rows: list[PeriodicTask], this: Round, duplicates: Mapping[str, Holder]) -> None:
    """Runs of unique tasks that were there already: they are what these due times stand for."""
    holders = {UUID(id): UUID(holder.id) for id, holder in duplicates.items()}
    if not holders:
        return
    ticks = [tick for tick in this.ticks if tick.run_id in holders]
    for tick in ticks:
        tick.run_id, tick.reason = holders[cast(UUID, tick.run_id)], DUPLICATE
    ScheduleTick.objects.using(using).bulk_update(ticks, ["run_id", "reason"])
    for row in rows:
        row.last_run_id = holders.get(cast(UUID, row.last_run_id), row.last_run_id)
    this.cancelled = [id for id in this.cancelled if id not in holders.values()]


def _decide_alone(using: str, pk: int) -> int:
    try:
        return _decide(using, [pk])
    except IntegrityError:
        row = periodic_tasks().get(pk=pk)
        logger.warning("a due time of periodic task %s was decided already; it goes on after that", row.name)
        latest = row.ticks.using(using).order_by("-due_at").values_list("due_at", flat=True)[0]
        row.plan_next(max(aware(latest), aware(row.next_due_at or latest)))
        row.pending_due_at = None
        row.save(using=using, update_fields=PROGRESS)
        return 1


# What people ask of a schedule.


def run_now(row: PeriodicTask) -> str:
    """Enqueue it once, beside its schedule; returns the id of the run. Raises ``EnqueueError``."""
    using = conf.get_settings().database
    now = clock.now()
    message = build_message(row, now, now)
    with transaction.atomic(using=using):
        tick = ScheduleTick.objects.using(using).create(
            periodic_task=row, due_at=stored(now), decision=Decision.BY_HAND, run_id=UUID(message.id)
        )
        duplicates = client.enqueue([message])
        _note_duplicates(using, [row], Round(now, set(), [tick]), duplicates)
        id = duplicates[message.id].id if duplicates else message.id
        periodic_tasks().filter(pk=row.pk).update(last_run_id=UUID(id))
    return id


def skip_next(row: PeriodicTask) -> datetime | None:
    """Leave out the next due time; returns it (aware), or None when there is none."""
    using = conf.get_settings().database
    with transaction.atomic(using=using):
        # The write comes first: SQLite refuses a transaction that read before another one wrote.
        periodic_tasks().filter(pk=row.pk).update(source=F("source"))
        row.refresh_from_db()
        if row.next_due_at is None or not row.is_enabled or row.is_retired:
            return None
        due = aware(row.next_due_at)
        ScheduleTick.objects.using(using).create(periodic_task=row, due_at=row.next_due_at, decision=Decision.SKIPPED)
        row.last_due_at = row.next_due_at
        row.plan_next(due)
        row.save(using=using, update_fields=["next_due_at", "next_start_at", "last_due_at"])
    return due


def set_enabled(rows: PeriodicTaskQuerySet, is_enabled: bool) -> int:
    """Enable or disable; returns how many changed. What fell due while disabled is not caught up.

    Raises :exc:`InvalidSchedule` for one that cannot be read, once all the others are done.
    """
    changed = 0
    unreadable: list[InvalidSchedule] = []
    for row in rows.exclude(is_enabled=is_enabled):
        row.is_enabled = is_enabled
        try:
            row.save()
            changed += 1
        except InvalidSchedule as error:
            unreadable.append(InvalidSchedule(f"{row.name} cannot be enabled: {error}"))
    if unreadable:
        raise unreadable[0]
    return changed
