"""The rows of queues with a bound: how many wait, and which of them make room for others.

What waits is READY, or stands at a gate. What is due later or waits for other steps does not count, nor does what a
worker has claimed. Counting stops at the bound; it costs as much as so many entries of an index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from uuid import UUID

from django.db import connections, transaction
from django.db.models import F
from django.db.models.functions import Coalesce

from django_taskq.conf_brokers import QueueConfig, WhenFull
from django_taskq.conflicts import persist
from django_taskq.gates import AT_GATE
from django_taskq.message import Message
from django_taskq.models import Queue, TaskRecord
from django_taskq.models.task import TaskQuerySet
from django_taskq.status import Status

# The place in the line, as the index has it.
_LINE = Coalesce("place", "pk")
_REASONS = {
    WhenFull.KEEP_NEWEST: "QueueFull: newer runs took its place in queue {!r}",
    WhenFull.DROP_LOWEST: "QueueFull: runs of a higher priority took its place in queue {!r}",
}


def make_room(using: str, name: str, queue: QueueConfig, joining: Sequence[Message], *, with_gates: bool) -> bool:
    """Whether these fit into the queue now; others are dropped for them where it says so.

    A call never drops more than it brings. ``with_gates``: runs may wait at gates, too.
    """
    most = queue.max_length or 0
    if connections[using].in_atomic_block:
        _begin(using)
    waiting = _waiting(using, name, with_gates)
    excess = _count(waiting, most) + len(joining) - most
    if excess <= 0 or queue.when_full is WhenFull.REFUSE:
        return excess <= 0
    return persist(using, lambda: _drop(using, waiting, joining, excess, queue, name))


def _begin(using: str) -> None:
    """SQLite refuses a transaction that read before another one wrote: the first statement has to be a write."""
    if not connections[using].features.has_select_for_update_skip_locked:
        Queue.objects.using(using).filter(name="").update(name=F("name"))


def _waiting(using: str, name: str, with_gates: bool) -> list[TaskQuerySet]:
    """What waits in a queue, as one query for each index."""
    rows: TaskQuerySet = TaskRecord.objects.using(using).filter(queue_name=name)
    ready = rows.filter(status=Status.READY)
    return [ready, rows.filter(status=Status.WAITING, waits_at=AT_GATE)] if with_gates else [ready]


def _count(waiting: Sequence[TaskQuerySet], most: int) -> int:
    found = 0
    for rows in waiting:
        found += rows[: most - found].count()
    return found


def _droppable(waiting: Sequence[TaskQuerySet], queue: QueueConfig, joining: Sequence[Message]) -> list[TaskQuerySet]:
    """What may go, the first to go first. No workflow drops steps of its own to make room for others of its own."""
    own = {message.workflow_id for message in joining if message.workflow_id is not None}
    rows = [each.exclude(workflow_id__in=own) for each in waiting] if own else list(waiting)
    if queue.when_full is WhenFull.KEEP_NEWEST:
        return [each.filter(priority=priority).order_by(_LINE) for each in rows for priority in _priorities(each)]
    lowest = min(message.priority for message in joining)
    # Against the order of the line: what would be started last goes first.
    return [each.filter(priority__lt=lowest).order_by("priority", _LINE.desc()) for each in rows]


def _priorities(rows: TaskQuerySet) -> Iterator[int]:
    """Those that there are, with one step along the index for each: sorting all that waits would take far longer."""
    falling = rows.order_by("-priority").values_list("priority", flat=True)
    priority = falling.first()
    while priority is not None:
        yield priority
        priority = falling.filter(priority__lt=priority).first()


def _drop(
    using: str, waiting: Sequence[TaskQuerySet], joining: Sequence[Message], count: int, queue: QueueConfig, name: str
) -> bool:
    with transaction.atomic(using=using):
        _begin(using)
        # Not before: others may have replaced all that waited a moment ago.
        rows = _droppable(waiting, queue, joining)
        if connections[using].features.has_select_for_update_skip_locked:
            # What another transaction holds is being claimed, or dropped: either way it makes no room for this one.
            found = _first([each.select_for_update(skip_locked=True) for each in rows], count, queue.when_full)
            if len(found) < count and sum(each[:count].count() for each in rows) < count:
                return False
        else:
            found = _first(rows, count, queue.when_full)
            if len(found) < count:
                return False
        chosen: TaskQuerySet = TaskRecord.objects.using(using).filter(pk__in=found)
        chosen.cancel(_REASONS[queue.when_full].format(name))
    return True


def _first(rows: Sequence[TaskQuerySet], count: int, when_full: WhenFull) -> list[UUID]:
    """The ids of the first ``count`` of all these."""
    found = list(chain.from_iterable(each.values_list("pk", "priority", "place")[:count] for each in rows))

    def by_age(row: tuple[UUID, int, UUID | None]) -> UUID:
        pk, _, place = row
        return place or pk

    def from_the_end(row: tuple[UUID, int, UUID | None]) -> tuple[int, int]:
        pk, priority, place = row
        return priority, -(place or pk).int

    found.sort(key=by_age if when_full is WhenFull.KEEP_NEWEST else from_the_end)
    return [pk for pk, *_ in found[:count]]
