"""Handles on workflows: ``WorkflowResult``, and ``GroupResult`` for those that yield a list."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from asgiref.sync import sync_to_async
from django.apps import apps
from django.utils.module_loading import import_string

from django_taskq import conf, context, serializers
from django_taskq.cancelling import wake_supervisors
from django_taskq.exceptions import ResultNotFound, ResultUnavailable, TaskCancelled
from django_taskq.result import OpenTransaction, TaskResult
from django_taskq.status import Status
from django_taskq.steps import LinkKind, StepError, Value, joined
from django_taskq.workflow_sinks import Sink, Wait, links_to, members, records, sinks_of, using

if TYPE_CHECKING:
    from django_taskq.adding import Addition
    from django_taskq.models import TaskRecord, Workflow

VERBS = "django_taskq.brokers.database.workflow_verbs."


class Progress(NamedTuple):
    """How many steps of a workflow are where. ``total`` grows when steps are added."""

    total: int
    successful: int
    failed: int
    cancelled: int
    running: int
    waiting: int

    @property
    def ended(self) -> int:
        """Steps that have a final status."""
        return self.successful + self.failed + self.cancelled

    @property
    def fraction(self) -> float:
        """From 0.0 to 1.0."""
        return self.ended / self.total if self.total else 1.0


class WorkflowResult:
    """A workflow's handle. Reading attributes costs nothing, every method but those reads the database.

    Every method that waits or writes has an async twin with an ``a`` in front.
    """

    def __init__(self, id: str | UUID, *, name: str = "", size: int = 0, open: OpenTransaction | None = None) -> None:
        self.id = str(id)
        self.name = name
        self.size = size
        self._open = open
        self._row: Workflow | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.id} {self.status}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkflowResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def status(self) -> str:
        """RUNNING, SUCCESSFUL, FAILED or CANCELLED, when last read."""
        return "RUNNING" if self._row is None else self._row.status

    @property
    def is_finished(self) -> bool:
        """Whether every step had ended when last read."""
        return self._row is not None and self._row.finished_at is not None

    @property
    def finished_at(self) -> datetime | None:
        """When its last step ended, as last read."""
        return self._row.finished_at if self._row is not None else None

    def refresh(self) -> None:
        """Read the workflow's row again. Raises :exc:`ResultNotFound` when there is none."""
        try:
            self._row = (
                apps.get_model("django_taskq", "Workflow").objects.using(using()).filter(pk=UUID(self.id)).first()
            )
        except ValueError as error:
            raise ResultNotFound(f"{self.id!r} is not the id of a workflow") from error
        if self._row is None:
            raise ResultNotFound(f"no workflow has the id {self.id}: it was rolled back, pruned, or never started")
        self.name, self.size = self._row.name, self._row.size

    def get(self, timeout: float | None = None) -> Any:
        """Wait for its results and return their value, or raise the error of what failed.

        ``timeout`` is in seconds. It does not wait for what yields nothing to the result, such as ``link`` callbacks.
        Raises ``TimeoutError``, :exc:`TaskCancelled`, and :exc:`ResultUnavailable` where waiting could never end.
        """
        wait = Wait(self, timeout)
        while not wait.is_over():
            self._check_may_wait()
            time.sleep(wait.pause())
        return self._value()

    async def aget(self, timeout: float | None = None) -> Any:
        """Async :meth:`get`; waits without blocking the loop."""
        wait = Wait(self, timeout)
        while not await sync_to_async(wait.is_over)():
            self._check_may_wait()
            await asyncio.sleep(wait.pause())
        return await sync_to_async(self._value)()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until every step has ended, whatever became of it. Raises ``TimeoutError``."""
        wait = Wait(self, timeout)
        self.refresh()
        while not self.is_finished:
            self._check_may_wait()
            time.sleep(wait.pause())
            self.refresh()

    def progress(self) -> Progress:
        """How many steps are where."""
        self.refresh()
        counts = dict.fromkeys(Status, 0)
        for status in self.steps().order_by().values_list("status", flat=True).distinct():
            counts[Status(status)] = self.steps().filter(status=status).count()
        waiting = counts[Status.WAITING] + counts[Status.READY] + counts[Status.SCHEDULED]
        return Progress(
            self.size,
            counts[Status.SUCCESSFUL],
            counts[Status.FAILED],
            counts[Status.CANCELLED],
            counts[Status.RUNNING],
            waiting,
        )

    def completed_count(self) -> int:
        """How many steps are SUCCESSFUL."""
        return int(self.steps().filter(status=Status.SUCCESSFUL).count())

    def steps(self) -> Any:
        """The rows of its steps, a queryset in the order of the plan."""
        return records().filter(workflow_id=UUID(self.id)).order_by("pk")

    def step(self, name: str) -> TaskResult[Any]:
        """The run of the step that was given this name in ``Workflow.add``, or has this id."""
        label = f'"label":{serializers.dumps(name)}'
        # To SQLite small and capital letters are the same here.
        rows = self.steps().filter(headers__contains=label)
        row = next((row for row in rows.iterator() if label in row.headers), None)
        if row is None:
            with suppress(ValueError):
                row = self.steps().filter(pk=UUID(name)).first()
        if row is None:
            raise ResultNotFound(f"workflow {self.id} has no step named {name!r}")
        return _handle(row)

    def failed_steps(self) -> list[TaskResult[Any]]:
        """The runs of its steps that are FAILED, the first to fail first."""
        return [_handle(row) for row in self.steps().filter(status=Status.FAILED).order_by("finished_at", "pk")]

    @contextmanager
    def adding(self) -> Iterator[Addition]:
        """A block that adds steps to the workflow while it runs; they are written together when it ends::

            with result.adding() as more:
                more.add(tidy.si(), after=result.step("load"))

        Raises :exc:`InvalidWorkflow` where the workflow has ended by then, and what ``Workflow.start`` raises.
        """
        addition: Addition = import_string("django_taskq.adding.Addition")(self.id)
        yield addition
        growth = addition.growth()
        if growth is not None:
            import_string("django_taskq.workflows.add")(growth)

    def cancel(self, reason: str = "TaskCancelled") -> int:
        """Cancel what waits and have what runs stopped; returns how many steps that reached."""
        count: int = import_string(f"{VERBS}cancel")(using(), self.id, reason)
        if count:
            wake_supervisors(using())
        return count

    def retry_failed(self) -> int:
        """Run what is FAILED again, and then what was cancelled because of it; returns how many are FAILED no more."""
        count: int = import_string(f"{VERBS}retry_failed")(using(), self.id)
        return count

    def resume(self) -> int:
        """Run everything again that is FAILED or CANCELLED; what has succeeded stays. Returns how many steps."""
        count: int = import_string(f"{VERBS}resume")(using(), self.id)
        return count

    def resume_from(self, step: str | TaskResult[Any]) -> int:
        """Run this step again, and everything that comes after it, whatever became of that; returns how many.

        ``step`` is its handle, its id, or the name it was given in ``Workflow.add``.
        """
        id = self.step(step.id if isinstance(step, TaskResult) else step).id
        count: int = import_string(f"{VERBS}resume_from")(using(), self.id, id)
        return count

    def rerun(self) -> WorkflowResult:
        """Start the same plan anew, as a workflow of its own; what was added while this one ran is not part of it."""
        found: tuple[str, str, int] = import_string(f"{VERBS}rerun")(using(), self.id)
        id, name, size = found
        return type(self)(id, name=name, size=size)

    async def arefresh(self) -> None:
        """Async :meth:`refresh`."""
        await sync_to_async(self.refresh)()

    async def await_end(self, timeout: float | None = None) -> None:
        """Async :meth:`wait`."""
        await sync_to_async(self.wait)(timeout)

    async def aprogress(self) -> Progress:
        """Async :meth:`progress`."""
        return await sync_to_async(self.progress)()

    async def acancel(self, reason: str = "TaskCancelled") -> int:
        """Async :meth:`cancel`."""
        return await sync_to_async(self.cancel)(reason)

    async def aretry_failed(self) -> int:
        """Async :meth:`retry_failed`."""
        return await sync_to_async(self.retry_failed)()

    async def aresume(self) -> int:
        """Async :meth:`resume`."""
        return await sync_to_async(self.resume)()

    async def aresume_from(self, step: str | TaskResult[Any]) -> int:
        """Async :meth:`resume_from`."""
        return await sync_to_async(self.resume_from)(step)

    async def arerun(self) -> WorkflowResult:
        """Async :meth:`rerun`."""
        return await sync_to_async(self.rerun)()

    # How the value is found.

    def _value(self) -> Any:
        """The value, once all that yields it has ended."""
        database = using()
        if self._row is not None and self._row.constant is not None:
            return serializers.loads(self._row.constant)
        self._raise_failure()
        dialect = import_string("django_taskq.brokers.database.get_dialect")(database)
        values = import_string("django_taskq.brokers.database.feeding.values_of")(database, dialect, self.id)
        if len(values) < links_to(self.id).count():
            raise ResultNotFound(f"a step whose value is part of the result of workflow {self.id} was deleted")
        return serializers.loads(joined(values) or "null")

    def _raise_failure(self) -> None:
        """Raise the error of the first result that should have succeeded and did not."""
        needed = links_to(self.id).filter(kind=LinkKind.SUCCESS).values("parent_id")
        bad = self.steps().filter(pk__in=needed, status__in=(Status.FAILED, Status.CANCELLED)).first()
        if bad is None:
            return
        failed = self.failed_steps()
        if bad.status == Status.CANCELLED and bad.reason.startswith("UpstreamFailed") and failed:
            failed[0].get()
        if bad.status == Status.CANCELLED:
            raise TaskCancelled(f"workflow {self.id} {self.name}: {bad.name} {bad.pk}: {bad.reason}")
        _handle(bad).get()

    def _check_may_wait(self) -> None:
        if context.current_context() is not None and not conf.get_settings().eager:
            raise ResultUnavailable(
                "get() inside a task would hold a worker's slot while waiting for others, and enough of them stop "
                "everything. Let the rest be a step of the workflow, or put the workflow in this run's place with "
                "current_task.replace()."
            )
        if self._open is not None and self._open.is_open and not conf.get_settings().eager:
            raise ResultUnavailable(
                "get() was called in the transaction that started this workflow, and no worker can see it before that "
                "commits. Call get() after the atomic block."
            )


class GroupResult(WorkflowResult):
    """The handle of a group: its value is a list, in the order of the group's signatures."""

    def join(self, timeout: float | None = None) -> list[Any]:
        """Celery's name for :meth:`get` of a group."""
        found: list[Any] = self.get(timeout)
        return found

    def __len__(self) -> int:
        return sum(1 for _ in members(self.id))

    @property
    def results(self) -> list[TaskResult[Any]]:
        """The handles of the runs that yield the values, in order."""
        return [TaskResult(sink.id) for sink in sinks_of(self.id)]

    def iter_results(self, timeout: float | None = None) -> Iterator[Any]:
        """The members' values in their order, each as soon as it and those before it are there.

        ``timeout`` (seconds) is for all of them together. Raises the error of the first that fails when it is its turn.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        self.refresh()
        if not self.is_finished:
            self._check_may_wait()
        for member in members(self.id):
            values = []
            for sink in member:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                values.append(Value(sink.opens, sink.closes, True, serializers.dumps(_wait_for(sink, left))))
            yield serializers.loads(joined(values))

    def completed_count(self) -> int:
        """How many of the runs that yield its values are SUCCESSFUL."""
        sinks = links_to(self.id).values("parent_id")
        return int(self.steps().filter(pk__in=sinks, status=Status.SUCCESSFUL).count())


def _wait_for(sink: Sink, timeout: float | None) -> Any:
    run = TaskResult[Any](sink.id)
    try:
        return run.get(timeout)
    except Exception as error:
        if sink.kind == LinkKind.SUCCESS or not run.is_finished:
            raise
        cls = type(error)
        return StepError(f"{cls.__module__}.{cls.__qualname__}", str(error), run.id, run.name)


def _handle(row: TaskRecord) -> TaskResult[Any]:
    return TaskResult(row.pk, row.name, status=row.shown_status)
