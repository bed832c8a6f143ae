"""``TASKQ["EAGER"]``: runs happen inside the enqueue call, through the same rows, executor and recorder as anywhere.

Retries follow at once, whatever their delay. Meant for tests and debugging.
"""

from __future__ import annotations

from typing import cast
from uuid import UUID

from django.db import connections, transaction

from django_taskq import conf, maintenance, open_resources
from django_taskq.brokers import get_broker
from django_taskq.brokers.database.broker import get_dialect, to_delivery
from django_taskq.brokers.database.feeding import feed
from django_taskq.message import Action, Delivery, Outcome
from django_taskq.status import FINAL, Status
from django_taskq.worker import executor
from django_taskq.worker.interrupting import Drive
from django_taskq.worker.recorder import Recorder

# No worker process has this id: real ones count from 1.
EAGER_PROCESS = 0


class _Guard:
    """Nothing watches an eager run; a transactional success is recorded like in a worker."""

    stop_requested = None

    def begin(self, delivery: Delivery, hard: float | None, memory: int = 0, *, commit_first: bool) -> bool:
        return True

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
            while _attempt(id):
                pass
        became = maintenance.records().filter(pk__in=[UUID(id) for id in ids], status=Status.WAITING)
        for workflow_id in list(became.values_list("workflow_id", flat=True)):
            _run_steps(workflow_id)


def run_workflow(id: str) -> None:
    """Run a workflow's steps, as they become ready, until none is left."""
    with open_resources.scope():
        _run_steps(UUID(id))


def _run_steps(workflow_id: UUID) -> None:
    ready = maintenance.records().filter(workflow_id=workflow_id, status__in=(Status.READY, Status.SCHEDULED))
    while ids := list(ready.order_by("pk").values_list("pk", flat=True)):
        for id in ids:
            while _attempt(str(id)):
                pass


def _execute(delivery: Delivery) -> Outcome:
    """Inside somebody's transaction, what a failed attempt wrote is undone, or the transaction could not go on."""
    using = conf.get_settings().database
    if not connections[using].in_atomic_block:
        return executor.execute(delivery, _Guard())
    savepoint = cast(str, connections[using].savepoint())
    outcome = executor.execute(delivery, _Guard())
    if outcome.action is Action.SUCCESS:
        connections[using].savepoint_commit(savepoint)
    else:
        transaction.set_rollback(False, using=using)
        connections[using].savepoint_rollback(savepoint)
    return outcome


def _attempt(id: str) -> bool:
    """One attempt; True when another is to follow."""
    row = maintenance.records().filter(pk=UUID(id))
    if not row.exclude(status__in=[*FINAL, Status.RUNNING, Status.WAITING]).update(
        status=Status.RUNNING, worker_id=EAGER_PROCESS, claim=1
    ):
        return False
    using = conf.get_settings().database
    (delivery,) = feed(using, get_dialect(using), [to_delivery(row.get())])
    return run_claimed(delivery)


def run_claimed(delivery: Delivery) -> bool:
    """Run what this process has claimed, and record it; True when another attempt is to follow."""
    outcome = _execute(delivery)
    recorder = Recorder(get_broker(), EAGER_PROCESS)
    with get_broker().transaction():
        lost = recorder.record([outcome])
    recorder.announce([outcome], lost)
    return outcome.is_counted and not lost
