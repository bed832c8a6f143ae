"""What the death of a worker process means for each run that it had started: tried again, or over."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from django.utils import timezone

from django_taskq import conf, registry
from django_taskq.brokers.database.rows import UNCLAIMED, to_delivery
from django_taskq.exceptions import PoisonTask, TaskCancelled, TaskqError, WorkerLost
from django_taskq.message import Action, ErrorText, Outcome
from django_taskq.models import TaskAttempt, TaskRecord, WorkerProcess
from django_taskq.models.clock import database_now
from django_taskq.models.outbox import publication
from django_taskq.models.task import AttemptKind
from django_taskq.status import Status

MAX_CRASHES = 3


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker process ended: ``running`` are the claims it had started, None when nobody knows.

    ``errors`` are what some of them end with, such as those that ran into their hard limit; with a
    :exc:`TaskCancelled` it is charged nothing. ``is_charged`` is False when the process was killed for reasons that
    are not its runs' fault.
    """

    process_id: int
    cause: str
    running: Collection[int] | None
    errors: Mapping[int, TaskqError] = field(default_factory=dict)
    is_charged: bool = True


def charge(record: TaskRecord, death: Death) -> Outcome | None:
    """Count a crash against a run that had started, and say what comes of it; None when nothing is to be written."""
    using = record._state.db or conf.get_settings().database
    error = _verdict(record, death)
    if error is None:
        return None
    cls = type(error)
    text = ErrorText(f"{cls.__module__}.{cls.__qualname__}", str(error))
    outcome = Outcome(to_delivery(record), Action.RELEASED, finished_at=time.time(), error=text)
    mine = TaskRecord.objects.using(using).filter(
        pk=record.pk, status=Status.RUNNING, worker_id=death.process_id, claim=record.claim
    )
    crashes = record.crashes + (not isinstance(error, TaskCancelled))
    # The row first: whoever finds that the claim was lost meanwhile has nothing to say.
    if isinstance(error, WorkerLost) and _starts_again(record):
        is_mine = mine.update(status=Status.READY, crashes=crashes, **UNCLAIMED, **publication(using))
    else:
        is_cancelled = record.cancel_requested_at is not None or isinstance(error, TaskCancelled)
        outcome.action = Action.CANCELLED if is_cancelled else Action.FAILED
        is_mine = mine.update(
            status=Status.CANCELLED if is_cancelled else Status.FAILED,
            crashes=crashes,
            started_at=record.started_at or timezone.now(),
            finished_at=database_now(using),
            reason="TaskCancelled" if is_cancelled else text.summary,
        )
    if not is_mine:
        return None
    if not isinstance(error, TaskCancelled):
        record.attempt_set.add(_crash(record, text, death), bulk=False)
    return outcome


def _verdict(record: TaskRecord, death: Death) -> Exception | None:
    if record.claim is not None and record.claim in death.errors:
        return death.errors[record.claim]
    if not _is_repeatable(record):
        return WorkerLost(f"{death.cause}; acks_late=False, so it is not started again")
    if not death.is_charged:
        return None
    if record.crashes + 1 >= MAX_CRASHES:
        return PoisonTask(f"it took its worker process down {MAX_CRASHES} times, the last time: {death.cause}")
    return WorkerLost(death.cause)


def _is_repeatable(record: TaskRecord) -> bool:
    task = registry.find(record.name)
    return task is None or task.options.acks_late


def _starts_again(record: TaskRecord) -> bool:
    return _is_repeatable(record) and record.cancel_requested_at is None


def _crash(record: TaskRecord, error: ErrorText, death: Death) -> TaskAttempt:
    process = WorkerProcess.objects.using(record._state.db).filter(pk=death.process_id).first()
    return TaskAttempt(
        attempt=record.attempt,
        kind=AttemptKind.CRASHED,
        worker=str(process) if process else f"#{death.process_id}",
        started_at=record.started_at,
        finished_at=timezone.now(),
        class_path=error.class_path,
        message=error.message,
    )
