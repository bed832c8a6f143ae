"""Circuit breakers: failures in a row are counted with the outcomes, and what is READY is taken back when one trips."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from django_taskq import clock
from django_taskq.brokers.database.admission import Admission
from django_taskq.gates import AT_GATE, Kind, gates_of
from django_taskq.message import Action, Outcome
from django_taskq.models import Limit, Permit, TaskRecord
from django_taskq.models.flow import PermitState
from django_taskq.status import Status

AT_ONCE = 500


def judge(using: str, admission: Admission, outcomes: Sequence[Outcome]) -> None:
    """Count these outcomes for the breakers of their tasks, in the transaction that recorded them."""
    by_key: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        for gate in gates_of(outcome.delivery.headers):
            if gate.kind == Kind.BREAKER and (outcome.trips or outcome.action is Action.SUCCESS):
                by_key[gate.key].append(outcome)
    for key in sorted(by_key):
        limit = Limit.objects.using(using).select_for_update().filter(pk=key).first()
        if limit is not None and _count(limit, by_key[key]):
            limit.save(using=using, update_fields=["failures", "failure", "tripped_at", "opens_at"])
            if limit.tripped_at is not None:
                _take_back(using, admission, limit)


def _count(limit: Limit, outcomes: Sequence[Outcome]) -> bool:
    """Whether this changes anything. In a row are those of one kind without a success between them."""
    before = (limit.failures, limit.failure, limit.tripped_at, limit.opens_at)
    for outcome in outcomes:
        if outcome.action is Action.SUCCESS:
            limit.failures, limit.failure, limit.tripped_at, limit.opens_at = 0, "", None, None
            continue
        limit.failures = limit.failures + 1 if limit.failure == outcome.trips else 1
        limit.failure = outcome.trips[:255]
        most = limit.most if limit.set_most is None else limit.set_most
        if limit.tripped_at is not None or (most is not None and limit.failures >= most):
            limit.tripped_at = limit.tripped_at or clock.time()
            limit.opens_at = clock.time() + (limit.rest or 0.0)
    return before != (limit.failures, limit.failure, limit.tripped_at, limit.opens_at)


def _take_back(using: str, admission: Admission, limit: Limit) -> None:
    """What has passed the breaker and is in no worker yet comes back to it."""
    passed = Permit.objects.using(using).filter(key=limit.key, state=PermitState.HELD).values("task_id")
    ready = TaskRecord.objects.using(using).filter(pk__in=passed, status=Status.READY).order_by("pk")
    while rows := list(ready.values_list("pk", "headers")[:AT_ONCE]):
        ids = [pk for pk, _ in rows]
        still = TaskRecord.objects.using(using).filter(pk__in=ids, status=Status.READY)
        still.update(status=Status.WAITING, waits_at=AT_GATE, publish_after=None)
        back = TaskRecord.objects.using(using).filter(pk__in=ids, status=Status.WAITING)
        taken = set(back.values_list("pk", flat=True))
        admission.leave([(str(pk), headers) for pk, headers in rows if pk in taken])
        Permit.objects.using(using).put_at_gates(taken)
