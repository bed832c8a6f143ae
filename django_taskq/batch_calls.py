"""What a task with ``batch_size`` is called with: its calls, each to be settled on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec

from django_taskq.context import TaskContext
from django_taskq.exceptions import MaxRetriesExceeded, Retry, Snooze
from django_taskq.message import NO_HEADERS

P = ParamSpec("P")


class Call(Generic[P]):
    """One call of a batch: a run of its own, with its own result and retries.

    What is not settled when the function returns ends with what that returns, or with the error that it raises.
    ``Call[[int, str]]`` tells type checkers what callers have to give.
    """

    __slots__ = ("_run", "error", "is_settled", "value")

    def __init__(self, run: TaskContext) -> None:
        self._run = run
        self.is_settled = False
        self.value: Any = None
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Call {self.id} of {self._run.name}>"

    @property
    def id(self) -> str:
        """The run's id."""
        return self._run.id

    @property
    def args(self) -> list[Any]:
        """The positional arguments that the caller gave."""
        return self._run.args

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments that the caller gave."""
        return self._run.kwargs

    @property
    def attempt(self) -> int:
        """The number of this attempt of the run; the first is 1."""
        return self._run.attempt

    @property
    def enqueued_at(self) -> datetime:
        """When the run was enqueued (an aware datetime, in UTC)."""
        return self._run.enqueued_at

    def done(self, value: Any = None) -> None:
        """It has succeeded with this result, whatever becomes of the others."""
        self._settle(value, None)

    def fail(self, error: BaseException) -> None:
        """It has failed with this error, as if a task of its own had raised it: ``autoretry_for`` holds."""
        if not isinstance(error, BaseException):
            raise TypeError(f"call.fail() takes an error, such as ValueError('...'), and got {error!r}")
        self._settle(None, error)

    def retry(
        self,
        error: BaseException | None = None,
        *,
        countdown: float | None = None,
        run_after: datetime | None = None,
    ) -> None:
        """It is to be tried again, as by :meth:`TaskContext.retry`; with no retries left it has failed."""
        try:
            self._run.retry(error, countdown=countdown, run_after=run_after)
        except (Retry, MaxRetriesExceeded) as decided:
            self._settle(None, decided)
        except BaseException as raised:
            if raised is not error:
                raise
            self._settle(None, raised)

    def snooze(self, delay: float | timedelta) -> None:
        """It is to run again after ``delay`` (seconds, or a timedelta), without counting an attempt."""
        try:
            self._run.snooze(delay)
        except Snooze as decided:
            self._settle(None, decided)

    def _settle(self, value: Any, error: BaseException | None) -> None:
        if self.is_settled:
            raise RuntimeError(f"{self!r} is settled already: done(), fail(), retry() and snooze() are for once")
        self.value, self.error, self.is_settled = value, error, True


class BatchContext(TaskContext):
    """``current_task`` in a batch: the task and its queue, but no run, since there are many."""

    __slots__ = ()

    def __init__(self, runs: Sequence[TaskContext], stop_requested: Callable[[], bool] | None = None) -> None:
        """Of these runs of one task; there is at least one."""
        task, delivery = runs[0].task, runs[0].delivery
        nobody = delivery._replace(id="", claim=0, payload="", headers=None, attempt=0)
        super().__init__(task, nobody, NO_HEADERS, [], {}, stop_requested)

    if not TYPE_CHECKING:

        def _of_one_run(self) -> NoReturn:
            raise RuntimeError(f"{self.name} runs many calls at once, so ask each call: call.id, call.retry(), ...")

        id = attempt = retries = max_retries = enqueued_at = workflow = property(_of_one_run)

        def retry(self, *args: Any, **kwargs: Any) -> NoReturn:
            self._of_one_run()

        snooze = replace = lock = retry


def share(calls: Sequence[Call[Any]], returned: Any) -> str:
    """Settle with what the function returned; '' where that fits, or else what is wrong with it."""
    if returned is not None and not isinstance(returned, (list, tuple)):
        kind = type(returned).__name__
        return f"a batch returns None or a list with one result for each call, and this one returned a {kind}"
    if returned is not None and len(returned) != len(calls):
        return f"a batch returns one result for each call: there were {len(calls)} calls, and {len(returned)} results"
    for call, value in zip(calls, returned if returned is not None else [None] * len(calls), strict=True):
        if not call.is_settled:
            call.done(value)
    return ""


def call_here(run: TaskContext, resources: Mapping[str, Any]) -> Any:
    """Call the function with a batch of this one call, and give its result or raise its error."""
    found: Call[Any] = Call(run)
    problem = share([found], run.task.function([found], **resources))
    if problem:
        raise ValueError(problem)
    if found.error is not None:
        raise found.error
    return found.value
