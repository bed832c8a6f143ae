"""Who holds a limit, who waits for it, and where a run stands: read from the permits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from django.db.models import F, Q, QuerySet

from django_taskq.gates import AT_GATE, Gate
from django_taskq.models.clock import stored
from django_taskq.models.flow import Limit, Permit, PermitState
from django_taskq.models.task import TaskRecord
from django_taskq.status import Status

# Counting stops here: a look must not cost the database a scan of millions of rows.
MOST_AHEAD = 1000
# What a list shows of a run.
_SHOWN = ("name", "queue_name", "status", "started_at", "place", "enqueued_at", "run_after", "attempt", "worker")


@dataclass(frozen=True, slots=True)
class Stand:
    """A run at, or past, one gate; its row may be gone for a moment."""

    task_id: UUID
    state: int
    record: TaskRecord | None

    @property
    def since(self) -> datetime | None:
        """When it began, or else when it had passed its last gate; None for one that has not yet."""
        if self.record is None or self.state != PermitState.HELD:
            return None
        place = self.record.place
        if self.record.started_at is not None or place is None or place.version != 7:
            return self.record.started_at
        return stored(datetime.fromtimestamp((place.int >> 80) / 1000, UTC))


@dataclass(frozen=True, slots=True)
class Standing:
    """The gate that a run waits for, as its row has it (None before anybody looked), and who comes before it."""

    gate: Gate
    limit: Limit | None
    ahead: int
    holders: list[Stand]


def holders(using: str, key: str, most: int) -> list[Stand]:
    """The first who are past a gate, in the order in which they came to it: two queries."""
    # A sum, so that no planner walks the primary key for the order.
    return _stands(using, _permits(using, key, is_held=True).order_by(F("pk") + 0), most)


def waiters(using: str, key: str, most: int) -> list[Stand]:
    """The first who wait, in the order in which they pass: two queries."""
    return _stands(using, _permits(using, key, is_held=False).order_by("-priority", "pk"), most)


def standing_of(using: str, record: TaskRecord, most_holders: int) -> Standing | None:
    """Where a run stands; None for one that waits at no gate. Five queries at most."""
    if record.status != Status.WAITING or record.waits_at != AT_GATE:
        return None
    mine = next(iter(Permit.objects.using(using).filter(task_id=record.pk, state__lt=PermitState.HELD)[:1]), None)
    if mine is None:
        return None
    before = Q(priority__gt=mine.priority) | Q(priority=mine.priority, pk__lt=mine.pk)
    ahead = _permits(using, mine.key, is_held=False).filter(before)[: MOST_AHEAD + 1].count()
    limit = Limit.objects.using(using).in_force().filter(pk=mine.key).first()
    return Standing(mine.gate, limit, ahead, holders(using, mine.key, most_holders))


def _permits(using: str, key: str, *, is_held: bool) -> QuerySet[Permit]:
    states = {"state": PermitState.HELD} if is_held else {"state__lt": PermitState.HELD}
    permits: QuerySet[Permit] = Permit.objects.using(using).filter(key=key, **states)
    return permits


def _stands(using: str, permits: QuerySet[Permit], most: int) -> list[Stand]:
    found = list(permits.values_list("task_id", "state")[:most])
    records = (
        TaskRecord.objects.using(using)
        .select_related("worker__worker")
        .only(*_SHOWN, "worker__pid", "worker__worker__hostname")
    )
    rows = records.in_bulk([task_id for task_id, _ in found])
    return [Stand(task_id, state, rows.get(task_id)) for task_id, state in found]
