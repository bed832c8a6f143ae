"""Runs as the framework's results: from their rows, and in a worker from what it holds in its hands."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.utils import timezone

from django_taskq import clock, conf, context, exceptions, registry, serializers
from django_taskq import result as own
from django_taskq.backend import framework, tasks
from django_taskq.backend.twins import Twin
from django_taskq.exceptions import SerializationError
from django_taskq.message import Action, Delivery, ErrorText, Headers, Message, Outcome
from django_taskq.status import Status

if TYPE_CHECKING:
    from django_taskq.models import TaskAttempt, TaskRecord

STATUSES = {
    Status.SCHEDULED: framework.TaskResultStatus.READY,
    Status.WAITING: framework.TaskResultStatus.READY,
    Status.READY: framework.TaskResultStatus.READY,
    Status.RUNNING: framework.TaskResultStatus.RUNNING,
    Status.SUCCESSFUL: framework.TaskResultStatus.SUCCESSFUL,
    Status.FAILED: framework.TaskResultStatus.FAILED,
    Status.CANCELLED: framework.TaskResultStatus.FAILED,
}
REFRESHED = (
    "status", "enqueued_at", "started_at", "finished_at", "last_attempted_at", "errors", "worker_ids", "_return_value",
    "taskq_status",
)  # fmt: skip


class NotOfTheFramework(framework.TaskResultDoesNotExist, framework.TaskResultMismatch):
    """The run exists, but it is of a task that is not the framework's, so the framework has no result for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskqError(framework.TaskError):  # type: ignore[misc]  # frozen, but in the stubs
    """The framework's error, whose class is found in classes as well: ``shop.models.Order.DoesNotExist``."""

    @property
    def exception_class(self) -> type[BaseException]:
        """The error's class; ``ValueError`` or ``ImportError`` when there is none."""
        try:
            return own.TaskError(0, self.exception_class_path, "", "").exception_class
        except ValueError:
            found: type[BaseException] = framework.TaskError.exception_class.fget(self)  # type: ignore[attr-defined]
            return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskqResult(framework.TaskResult):  # type: ignore[type-arg, misc]  # the stubs differ
    """The framework's result. ``taskq_status`` is the finer word of ours: SCHEDULED, CANCELLED and so on."""

    taskq_status: Status = Status.READY

    @property
    def handle(self) -> own.TaskResult[Any]:
        """Our own handle on the run, which can wait for its end and cancel it."""
        return own.TaskResult(self.id, self.task.module_path, status=self.taskq_status)

    def refresh(self) -> None:
        """Read the row again."""
        self._take(read(self.id))

    async def arefresh(self) -> None:
        """Async :meth:`refresh`."""
        self._take(await sync_to_async(read)(self.id))

    def _take(self, fresh: TaskqResult) -> None:
        for name in REFRESHED:
            object.__setattr__(self, name, getattr(fresh, name))


_running: ContextVar[TaskqResult | None] = ContextVar("django_taskq_backend_running", default=None)


def read(id: Any) -> TaskqResult:
    """The result of the run with this id. Raises ``TaskResultDoesNotExist``."""
    try:
        key = UUID(str(id))
    except ValueError:
        raise framework.TaskResultDoesNotExist(f"{id!r} is not the id of a run") from None
    records = apps.get_model("django_taskq", "TaskRecord").objects.using(conf.get_settings().database)
    record = records.select_related("worker__worker").filter(pk=key).first()
    if record is None:
        raise framework.TaskResultDoesNotExist(f"no run has the id {key}: it was rolled back, pruned or never enqueued")
    try:
        result = _of_record(record, _attempts(record.pk))
    except (SerializationError, TypeError, ValueError) as error:
        raise NotOfTheFramework(f"run {key} of {record.name} is not plain JSON: {error}") from error
    running = _running.get()
    if running is not None and running.id == result.id and not result.is_finished:
        # The row of a run is written a moment after its start; the run itself knows that it runs.
        for name in ("status", "started_at", "last_attempted_at", "worker_ids", "taskq_status"):
            object.__setattr__(result, name, getattr(running, name))
    return result


def _attempts(id: Any) -> list[TaskAttempt]:
    attempts = apps.get_model("django_taskq", "TaskAttempt").objects.using(conf.get_settings().database)
    return list(attempts.filter(task_id=id).order_by("id"))


def _of_record(record: TaskRecord, attempts: Sequence[TaskAttempt]) -> TaskqResult:
    status = record.shown_status
    begun = [attempt.started_at for attempt in attempts if attempt.started_at is not None]
    worker_ids = [attempt.worker for attempt in attempts]
    if record.started_at is not None and status in (Status.RUNNING, Status.SUCCESSFUL):
        worker_ids.append(_worker_id(record))
        begun.append(record.started_at)
    errors: list[framework.TaskError] = [
        _error(ErrorText(row.class_path, row.message, row.traceback)) for row in attempts
    ]
    if status is Status.CANCELLED or (status is Status.FAILED and not _explains(attempts)):
        errors.append(_error(_reason(record.reason)))
    headers = Headers.loads(record.headers)
    result = TaskqResult(
        task=_task(
            record.name,
            headers,
            queue_name=record.queue_name,
            priority=record.priority,
            run_after=record.run_after,
        ),
        id=str(record.pk),
        status=STATUSES[status],
        enqueued_at=record.enqueued_at,
        started_at=min(begun, default=None),
        finished_at=record.finished_at if status.is_final else None,
        last_attempted_at=max(begun, default=None),
        args=record.args,
        kwargs=record.kwargs,
        backend=_alias(record.name, headers),
        errors=errors,
        worker_ids=worker_ids,
        taskq_status=status,
    )
    if status is Status.SUCCESSFUL:
        object.__setattr__(result, "_return_value", record.return_value)
    return result


def of_message(message: Message, task: Any = None) -> TaskqResult:
    """A run that has just been enqueued; ``task`` where the caller has it."""
    headers = Headers.loads(message.headers)
    status = Status.READY
    if message.run_after is not None and message.run_after > message.enqueued_at:
        status = Status.SCHEDULED
    args, kwargs = serializers.loads(message.payload)
    changes = {"queue_name": message.queue_name, "priority": message.priority, "run_after": message.run_after}
    return TaskqResult(
        task=task or _task(message.name, headers, **changes),
        id=message.id,
        status=framework.TaskResultStatus.READY,
        enqueued_at=_shown(message.enqueued_at),
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=args,
        kwargs=kwargs,
        backend=_alias(message.name, headers),
        errors=[],
        worker_ids=[],
        taskq_status=status,
    )


def of_run(run: context.TaskContext) -> TaskqResult:
    """The run whose attempt begins here, now; earlier attempts are read where there were any."""
    delivery = run.delivery
    now = _shown(clock.now())
    result = _of_delivery(delivery, run.headers, run.args, run.kwargs, now)
    if delivery.attempt > 1 or delivery.crashes:
        attempts = _attempts(UUID(delivery.id))
        result.errors.extend(_errors(attempts))
        result.worker_ids[:0] = [row.worker for row in attempts]
        begun = [row.started_at for row in attempts if row.started_at is not None]
        object.__setattr__(result, "started_at", min(begun, default=now))
    _running.set(result)
    return result


def of_outcome(outcome: Outcome) -> TaskqResult:
    """The run that ended so: from what is at hand where its first attempt ended it, else from its row."""
    delivery = outcome.delivery
    if delivery.attempt > 1 or delivery.crashes or outcome.started_at is None or outcome.finished_at is None:
        return read(delivery.id)
    args, kwargs = serializers.loads(delivery.payload)
    started_at = _shown(datetime.fromtimestamp(outcome.started_at, UTC))
    result = _of_delivery(delivery, Headers.loads(delivery.headers), args, kwargs, started_at)
    is_success = outcome.action is Action.SUCCESS
    status = Status.SUCCESSFUL if is_success else Status.FAILED
    object.__setattr__(result, "finished_at", _shown(datetime.fromtimestamp(outcome.finished_at, UTC)))
    object.__setattr__(result, "status", STATUSES[status])
    object.__setattr__(result, "taskq_status", status)
    if is_success and outcome.result is not None:
        object.__setattr__(result, "_return_value", serializers.loads(outcome.result))
    if outcome.error is not None:
        result.errors.append(_error(outcome.error))
    return result


def _of_delivery(
    delivery: Delivery, headers: Headers, args: list[Any], kwargs: dict[str, Any], started_at: datetime
) -> TaskqResult:
    run_after = None if delivery.run_after is None else _shown(datetime.fromtimestamp(delivery.run_after, UTC))
    return TaskqResult(
        task=_task(delivery.name, headers, queue_name=delivery.queue_name, run_after=run_after),
        id=delivery.id,
        status=framework.TaskResultStatus.RUNNING,
        enqueued_at=_shown(datetime.fromtimestamp(delivery.enqueued_at, UTC)),
        started_at=started_at,
        finished_at=None,
        last_attempted_at=started_at,
        args=args,
        kwargs=kwargs,
        backend=_alias(delivery.name, headers),
        errors=[],
        worker_ids=[f"{socket.gethostname()}:{os.getpid()}"],
        taskq_status=Status.RUNNING,
    )


def _task(name: str, headers: Headers, **changes: Any) -> Any:
    twin = registry.find(name)
    if twin is None:
        return tasks.lost(name, **changes, **({} if headers.backend is None else {"backend": headers.backend}))
    if not isinstance(twin, Twin):
        raise NotOfTheFramework(f"{name} is a task of django_taskq itself, not one of the tasks framework")
    return tasks.restored(twin.framework_task, backend=_alias(name, headers), **changes)


def _alias(name: str, headers: Headers) -> str:
    twin = registry.find(name)
    default: str = twin.framework_task.backend if isinstance(twin, Twin) else "default"
    return headers.backend or default


def _worker_id(record: TaskRecord) -> str:
    return str(record.worker) if record.worker is not None else f"#{record.worker_id}"


def _explains(attempts: Sequence[TaskAttempt]) -> bool:
    """Whether the last recorded error is what ended the run."""
    return bool(attempts) and attempts[-1].kind != "RETRIED"


def _reason(reason: str) -> ErrorText:
    """A row's reason, which begins with the name of one of our errors."""
    name, _, message = reason.partition(": ")
    known = name if isinstance(getattr(exceptions, name, None), type) else exceptions.TaskFailed.__name__
    return ErrorText(f"{exceptions.__name__}.{known}", message or reason)


def _errors(attempts: Sequence[TaskAttempt]) -> list[framework.TaskError]:
    return [_error(ErrorText(row.class_path, row.message, row.traceback)) for row in attempts]


def _error(error: ErrorText) -> TaskqError:
    text = error.traceback or f"{error.class_path}: {error.message}\n"
    return TaskqError(exception_class_path=error.class_path, traceback=text)


def _shown(moment: datetime) -> datetime:
    """An aware time as the framework shows it: naive without ``USE_TZ``."""
    return moment if settings.USE_TZ else timezone.make_naive(moment)
