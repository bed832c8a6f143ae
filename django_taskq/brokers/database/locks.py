"""Locks that running tasks take by themselves: permits which hold as long as the claim of their run does."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.db.models import F

from django_taskq import gates as gates_module
from django_taskq.brokers.database.admission import Admission
from django_taskq.brokers.database.broker import DatabaseBroker
from django_taskq.conflicts import persist
from django_taskq.exceptions import InvalidLock
from django_taskq.gates import Gate
from django_taskq.models import Limit, Permit, TaskRecord
from django_taskq.models.flow import PermitState
from django_taskq.status import Status


def take_lock(using: str, task_id: str, claim: int, gate: Gate) -> bool:
    """Whether this run has the lock now: it is free and nobody waits for it, or the run came through its gate.

    Raises :exc:`InvalidLock` for a run without a row.
    """
    return persist(using, lambda: _take(using, task_id, claim, gate))


def _take(using: str, task_id: str, claim: int, gate: Gate) -> bool:
    with transaction.atomic(using=using):
        # The write comes first: SQLite refuses a transaction that read before another one wrote.
        Limit.objects.using(using).filter(pk=gate.key).update(opens_at=F("opens_at"))
        Admission(DatabaseBroker(using)).look({gate.key: gate})
        permits = Permit.objects.using(using).filter(key=gate.key)
        mine = permits.filter(task_id=task_id, state=PermitState.HELD)
        if mine.exists():
            return True
        run = TaskRecord.objects.using(using).filter(pk=task_id, status=Status.RUNNING, claim=claim)
        worker_id = run.values_list("worker_id", flat=True).first()
        if worker_id is None:
            raise InvalidLock(
                f"run {task_id} has no row that could hold the lock {gate.name!r}: its task has track_pending=False, "
                f"or it was taken over"
            )
        is_closed = Limit.objects.using(using).filter(pk=gate.key, set_most__lt=1).exists()
        if is_closed or permits.exists():
            return False
        permits.create(
            task_id=UUID(task_id),
            key=gate.key,
            state=PermitState.HELD,
            priority=0,
            gates=gates_module.dumps([gate]),
            worker_id=worker_id,
            claim=claim,
        )
        return True


def free_lock(using: str, task_id: str, gate: Gate) -> bool:
    """The run is done with the lock: the next one may have it; whether somebody is READY for that."""

    def free() -> int:
        with transaction.atomic(using=using):
            Permit.objects.using(using).filter(task_id=task_id, key=gate.key).delete()
            return Admission(DatabaseBroker(using)).look({gate.key: gate})

    return persist(using, free) > 0
