"""What a running task may ask about its own run: ``current_task`` and the context passed to ``takes_context`` tasks."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from django.utils.module_loading import import_string

from django_taskq import open_resources, options
from django_taskq.exceptions import InvalidLock, MaxRetriesExceeded, Release, Replace, Retry, Snooze
from django_taskq.message import Delivery, Headers
from django_taskq.open_resources import Resources

if TYPE_CHECKING:
    from django_taskq.adding import Addition
    from django_taskq.locks import Lock
    from django_taskq.task import Task


class TaskContext:
    """One attempt, seen from inside. Valid for as long as the attempt runs."""

    __slots__ = ("_stop_requested", "additions", "args", "delivery", "headers", "kwargs", "locks", "started_at", "task")

    def __init__(
        self,
        task: Task[Any, Any],
        delivery: Delivery,
        headers: Headers,
        args: list[Any],
        kwargs: dict[str, Any],
        stop_requested: Callable[[], bool] | None = None,
    ) -> None:
        """``stop_requested`` is the worker's answer to that question; None where no worker runs the task."""
        self.task = task
        self.delivery = delivery
        self.headers = headers
        self.args = args
        self.kwargs = kwargs
        self.started_at = 0.0
        self.additions: Addition | None = None
        self.locks: set[str] = set()
        self._stop_requested = stop_requested

    @property
    def id(self) -> str:
        """The run's id."""
        return self.delivery.id

    @property
    def name(self) -> str:
        """The task's name."""
        return self.delivery.name

    @property
    def queue_name(self) -> str:
        """The queue the run came from."""
        return self.delivery.queue_name

    @property
    def attempt(self) -> int:
        """The number of this attempt; the first is 1."""
        return self.delivery.attempt

    @property
    def retries(self) -> int:
        """How many retries came before (Celery's count)."""
        return self.delivery.attempt - 1

    @property
    def max_retries(self) -> int | None:
        """The bound on retries that holds for this run; None means no bound."""
        changed = self.headers.max_retries
        return self.task.options.max_retries if changed is None else changed

    @property
    def enqueued_at(self) -> datetime:
        """When the run was enqueued (an aware datetime, in UTC), however often it has been tried or snoozed since."""
        return datetime.fromtimestamp(self.delivery.enqueued_at, UTC)

    @property
    def resources(self) -> Resources:
        """The open resources of this process, by name; what is not open yet is opened when it is asked for."""
        return open_resources.current()

    def retry(
        self,
        exc: BaseException | None = None,
        *,
        countdown: float | None = None,
        run_after: datetime | None = None,
        max_retries: int | None = None,
        eta: datetime | None = None,
    ) -> NoReturn:
        """Leave the task and try again: in ``countdown`` seconds, at ``run_after``, or by the task's back-off.

        Raises :exc:`Retry`, which the task must let through. With no retries left it raises ``exc``, or
        :exc:`MaxRetriesExceeded` when none was given.
        """
        policy = self.task.retry_policy
        limit = self.max_retries if max_retries is None else options.parse_retries(max_retries)
        if limit is not None and self.attempt > limit:
            raise exc or MaxRetriesExceeded(f"{self.name} was tried {self.attempt} times")
        if run_after is not None or eta is not None:  # eta is Celery's name for it
            raise Retry(None, options.parse_run_after(run_after or eta), exc) from exc
        delay = policy.delay(self.attempt) if countdown is None else _parse_delay("retry(countdown={!r})", countdown)
        raise Retry(delay, None, exc) from exc

    def snooze(self, delay: float | timedelta) -> NoReturn:
        """Leave the task and run again after ``delay`` (seconds, or a timedelta), from the beginning.

        No attempt is counted, no error is kept, and meanwhile no worker is held. Raises :exc:`Snooze`, which the task
        must let through.
        """
        raise Snooze(_parse_delay("snooze({!r})", delay))

    def stop_requested(self) -> bool:
        """Whether this run should come to its end soon: its worker stops, or it is to be cancelled.

        Always False where no worker runs the task.
        """
        return self._stop_requested is not None and self._stop_requested()

    @property
    def workflow(self) -> Addition:
        """The workflow that this run is a step of: what is added to it is written with the run's success.

        Raises ``RuntimeError`` where it is no step of any.
        """
        if self.additions is None:
            if self.headers.workflow is None:
                raise RuntimeError(
                    f"run {self.id} of {self.name} is no step of a workflow, so nothing can be added to it"
                )
            self.additions = import_string("django_taskq.adding.Addition")(self.headers.workflow)
        found: Addition = self.additions
        return found

    def lock(self, name: str, *, wait: float = 0.0) -> Lock:
        """A block, sync or async, in which no other run holds the lock of this name.

        Where it is not free within ``wait`` seconds the task is left by :exc:`Refused`, which it must let through: the
        run waits for the lock outside of the worker, and starts again from its beginning once it has it. No attempt
        is counted. Raises :exc:`InvalidLock` inside a transaction, and for a lock that the run holds already.
        """
        if not self.delivery.claim:
            raise InvalidLock(f"{self.name} is not run by a worker, so nothing could hold the lock {name!r} for it")
        found: Lock = import_string("django_taskq.locks.Lock")(self, name, options.parse_delay(wait))
        return found

    def replace(self, canvas: Any) -> NoReturn:
        """Leave the task, and have a signature or a whole canvas take the place of this run.

        Its result will be this run's, and what waits for this run waits for it. Raises :exc:`Replace`, which the task
        must let through. Where the canvas cannot be started the run is FAILED with the reason.
        """
        raise Replace(canvas)

    def give_back(self) -> NoReturn:
        """Leave the task; the run starts again from its beginning, at once in another worker, charged nothing.

        Raises :exc:`Release`, which the task must let through, or ``RuntimeError`` where no worker runs the task.
        """
        if self._stop_requested is None:
            raise RuntimeError(f"{self.name} is not run by a worker, so it cannot be given back to a queue")
        raise Release(f"{self.name} gave its run back")


def _parse_delay(call: str, value: Any) -> float:
    try:
        return options.parse_delay(value)
    except ValueError as error:
        raise ValueError(f"{call.format(value)} is not usable: it takes {error}") from None


_current: ContextVar[TaskContext | None] = ContextVar("django_taskq_current", default=None)


def current_context() -> TaskContext | None:
    """The context of the task that runs here, or None."""
    return _current.get()


activate = _current.set
deactivate = _current.reset


class _CurrentTask:
    """Stands for whatever task runs here. False outside of one, where any attribute is an error that says so."""

    def __bool__(self) -> bool:
        return _current.get() is not None

    def stop_requested(self) -> bool:
        """:meth:`TaskContext.stop_requested`; False outside of a task, so that its code also runs there."""
        context = _current.get()
        return context is not None and context.stop_requested()

    def __getattr__(self, name: str) -> Any:
        context = _current.get()
        if context is None:
            raise RuntimeError(f"current_task.{name} was asked for where no task is running")
        return getattr(context, name)

    def __repr__(self) -> str:
        context = _current.get()
        return "<current_task: none>" if context is None else f"<current_task: {context.name} {context.id}>"


current_task = _CurrentTask()
