"""``TASKQ["EAGER"]``: runs happen inside the enqueue call, through the same rows, executor and recorder as anywhere.

Retries follow at once, whatever their delay. What is snoozed, or waits for a resource, is left as it is: SCHEDULED.
Calls of a batch task that were enqueued together come in batches. Meant for tests and debugging.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import cast
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Q

from django_taskq import conf, maintenance, open_resources, registry
from django_taskq.brokers import get_broker
from django_taskq.brokers.database.broker import get_dialect
from django_taskq.brokers.database.feeding import feed
from django_taskq.brokers.database.rows import to_delivery
from django_taskq.gates import AT_GATE
from django_taskq.message import Action, Delivery, Outcome
from django_taskq.status import FINAL, Status
from django_taskq.worker import executor
from django_taskq.worker.batching import execute_batch, goes_alone
from django_taskq.worker.interrupting import Drive
from django_taskq.worker.recorder import Recorder

# No worker process has this id: real ones count from 1.
EAGER_PROCESS = 0


class _Guard:
    """Nothing watches an eager run; a transactional success is recorded like in a worker."""

    stop_requested = None

    def begin(self, delivery: Delivery, hard: float | None, memory: int = 0, *, commit_first: bool) -> bool:
        return True

    def begin_batch(self, deliveries: Sequence[Delivery], hard: float | None, memory: int = 0) -> Collection[int]:
        return [delivery.claim for delivery in deliveries]

    def arm(self, soft: float | None, drive: Drive | None = None) -> None:
        return None

    def end(self) -> None:
        return None

    def commit(self, outcome: Outcome) -> bool:
        return not Recorder(get_broker(), EAGER_PROCESS).record([outcome])

    def is_cancel(self, error: BaseException) -> bool:
        return False


def run(ids: list[str]) -> None:
    """Run these to their end, retries included, and the workflows that came of them."""
    with open_resources.scope():
        for id in ids:
            _finish(id, ids)
        became = maintenance.records().filter(pk__in=[UUID(id) for id in ids], status=Status.WAITING)
        for workflow_id in list(became.values_list("workflow_id", flat=True)):
            _run_steps(workflow_id)


def run_workflow(id: str) -> None:
    """Run a workflow's steps, as they become ready, until none is left."""
    with open_resources.scope():
        _run_steps(UUID(id))


def _run_steps(workflow_id: UUID) -> None:
    goes = Q(status__in=(Status.READY, Status.SCHEDULED)) | Q(status=Status.WAITING, waits_at=AT_GATE)
    ready = maintenance.records().filter(goes, workflow_id=workflow_id)
    left: list[UUID] = []
    while ids := list(ready.exclude(pk__in=left).order_by("pk").values_list("pk", flat=True)):
        left += [id for id in ids if not _finish(str(id))]


def _finish(id: str, ids: Sequence[str] = ()) -> bool:
    """Run it to its end, retries included; False when it is left for later. Others of ``ids`` may be in its batch."""
    while (outcome := _attempt(id, ids)) is not None:
        if not outcome.is_counted:
            return False
    return True


def _execute(deliveries: Sequence[Delivery]) -> list[Outcome]:
    task = registry.find(deliveries[0].name)
    if task is not None and task.options.batch_size is not None:
        return execute_batch(deliveries, _Guard())
    return [executor.execute(delivery, _Guard()) for delivery in deliveries]


def _execute_undoing(deliveries: Sequence[Delivery]) -> list[Outcome]:
    """Inside somebody's transaction, what a failed attempt wrote is undone, or the transaction could not go on."""
    using = conf.get_settings().database
    if not connections[using].in_atomic_block:
        return _execute(deliveries)
    savepoint = cast(str, connections[using].savepoint())
    outcomes = _execute(deliveries)
    if any(outcome.action is Action.SUCCESS for outcome in outcomes):
        connections[using].savepoint_commit(savepoint)
    else:
        transaction.set_rollback(False, using=using)
        connections[using].savepoint_rollback(savepoint)
    return outcomes


def _attempt(id: str, ids: Sequence[str] = ()) -> Outcome | None:
    """One attempt, and what became of it; None when there is none to make."""
    delivery = _claim(UUID(id), 1)
    return None if delivery is None else run_claimed(delivery, *mates_of(delivery, ids))


def mates_of(first: Delivery, ids: Sequence[str] | None = None) -> list[Delivery]:
    """Claim what is called in one batch with this delivery: what is READY, of ``ids`` where they are given."""
    task = registry.find(first.name)
    if task is None or task.options.batch_size is None or goes_alone(first):
        return []
    waiting = maintenance.records().filter(status=Status.READY, name=first.name, queue_name=first.queue_name)
    if ids is not None:
        waiting = waiting.filter(pk__in=ids)
    ready = waiting.filter(crashes=0, is_suspect=False).order_by("-priority", "pk")[: task.options.batch_size - 1]
    claimed = [_claim(pk, claim) for claim, pk in enumerate(list(ready.values_list("pk", flat=True)), first.claim + 1)]
    return [delivery for delivery in claimed if delivery is not None]


def _claim(pk: UUID, claim: int) -> Delivery | None:
    row = maintenance.records().filter(pk=pk)
    # Limits hold nothing back here: there is never more than one at a time.
    waits = Q(status=Status.WAITING) & ~Q(waits_at=AT_GATE)
    if not row.exclude(waits | Q(status__in=[*FINAL, Status.RUNNING])).update(
        status=Status.RUNNING, worker_id=EAGER_PROCESS, claim=claim
    ):
        return None
    using = conf.get_settings().database
    (delivery,) = feed(using, get_dialect(using), [to_delivery(row.get())])
    return delivery


def run_claimed(delivery: Delivery, *mates: Delivery) -> Outcome | None:
    """Run what this process has claimed, with the rest of its batch, and record it; None when its claim was lost."""
    outcomes = _execute_undoing([delivery, *mates])
    recorder = Recorder(get_broker(), EAGER_PROCESS)
    with get_broker().transaction():
        lost = recorder.record(outcomes)
    recorder.announce(outcomes, lost)
    return next((o for o in outcomes if o.delivery.id == delivery.id and o not in lost), None)
