"""Places that are passed on within a process: one commit for many runs of a limit, where it would be one for each.

A process that runs one at a time needs one place of a limit, however many of its runs it has claimed. So behind a run
with a place it claims others that wait for one. They hold no permit: they follow. When the run before them ends, the
first that is left steps up, in the transaction that records the end; the place is free when nobody follows any more.

Those who follow are RUNNING as all that is claimed. Whoever gives them back puts them at their gate again, at the place
in its line that they had; and a place that others follow is not given back without them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from django.db import connections
from django.db.models import Exists, OuterRef, QuerySet

from django_taskq.brokers.database.admission import Rows
from django_taskq.brokers.database.limit_dialect import Place
from django_taskq.gates import AT_GATE, Kind, gates_of
from django_taskq.message import Delivery
from django_taskq.models import Permit, TaskRecord
from django_taskq.models.flow import PermitState
from django_taskq.status import Status

MOST_PLACES = 100
# What a rate lets start is counted one by one, and so is what a breaker tries.
_SHARED = frozenset({Kind.LOCK, Kind.TASK, Kind.GROUP, Kind.QUEUE})


def places_of(leaders: Sequence[Delivery], limit: int) -> list[Place]:
    """The places of these runs, which a process has just claimed, that others may follow: up to ``limit`` in all."""
    places: dict[str, Delivery] = {}
    for run in leaders:
        gates = gates_of(run.headers)
        if gates and gates[-1].kind in _SHARED:
            places.setdefault(gates[-1].key, run)
    chosen = list(places.items())[: min(limit, MOST_PLACES)]
    if not chosen:
        return []
    most = limit // len(chosen)
    return [Place(run.id, key, run.name, run.queue_name, most) for key, run in chosen]


def give_places_back(rows: Rows, process_id: int, released: Collection[str]) -> None:
    """This process has given back some of its runs: ``released``, and any that followed. In the same transaction."""
    disband(rows.using, process_id)
    hand_over(rows, process_id, released)


def hand_over(rows: Rows, process_id: int, ids: Collection[str]) -> None:
    """Give the places of these runs, which this process holds no more, to those who follow them there.

    In the transaction that took the runs from it. What has not ended waits at its gate again.
    """
    followed = set(_following(rows.using, process_id).values_list("key", flat=True))
    if not followed:
        return
    places = Permit.objects.using(rows.using).filter(task_id__in=ids, state=PermitState.HELD, key__in=followed)
    keys = sorted(set(places.values_list("key", flat=True)))
    _send_to_gate(places)
    rows.dialect.step_up(connections[rows.using], process_id, keys)


def disband(using: str, process_id: int) -> None:
    """Put at their gates whoever followed in this process, and is not held by it any more. In the same transaction."""
    held = TaskRecord.objects.using(using).filter(
        pk=OuterRef("task_id"), status=Status.RUNNING, worker_id=process_id, claim=OuterRef("claim")
    )
    _send_to_gate(_following(using, process_id).exclude(Exists(held)))


def _following(using: str, process_id: int) -> QuerySet[Permit]:
    found: QuerySet[Permit] = Permit.objects.using(using).filter(state=PermitState.FOLLOWING, worker_id=process_id)
    return found


def _send_to_gate(permits: QuerySet[Permit]) -> None:
    found = dict(permits.values_list("pk", "task_id"))
    if not found:
        return
    Permit.objects.using(permits.db).filter(pk__in=found).update(state=PermitState.NEW, worker_id=None, claim=None)
    ready = TaskRecord.objects.using(permits.db).filter(pk__in=found.values(), status=Status.READY)
    ready.update(status=Status.WAITING, waits_at=AT_GATE, publish_after=None)
