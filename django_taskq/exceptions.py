"""Every error django_taskq raises or records.

An error's class is also its reason: runs that expire, lose their worker or turn out to be poison end as FAILED or
CANCELLED, and the class named in their record says why.
"""

from __future__ import annotations


class TaskqError(Exception):
    """Base of all errors of this package."""


class InvalidTask(TaskqError):
    """A task was defined or configured in a way that cannot work; raised when its module is imported."""


class InvalidResource(TaskqError):
    """A resource was defined in a way that cannot work; raised when its module is imported."""


class InvalidHook(TaskqError):
    """A hook of a worker or of a task class was defined in a way that cannot work; raised at import, too."""


class InvalidSchedule(TaskqError, ValueError):
    """A schedule that cannot be understood, or that contradicts itself."""


class InvalidCommand(TaskqError, ValueError):
    """A command to workers that does not exist, has arguments it cannot have, or names a worker that is not online."""


class EnqueueError(TaskqError):
    """A run could not be enqueued; nothing was stored."""


class InvalidArguments(EnqueueError, TypeError):
    """The arguments do not bind to the task's signature."""


class SerializationError(EnqueueError, TypeError):
    """A value cannot travel as JSON, or stored text cannot be read back."""


class InvalidWorkflow(EnqueueError, ValueError):
    """A workflow that cannot be started as it is; the message says what is wrong with which part."""


class CyclicWorkflow(InvalidWorkflow):
    """Steps that wait for each other; the message has the way around."""


class WorkflowTooLarge(InvalidWorkflow):
    """The workflow has more steps than ``TASKQ["MAX_WORKFLOW_SIZE"]``."""


class PayloadTooLarge(EnqueueError):
    """The serialised arguments exceed ``TASKQ["MAX_PAYLOAD"]`` bytes."""


class UnknownQueue(EnqueueError):
    """The queue is not declared anywhere, so no worker would serve it."""


class QueueFull(EnqueueError):
    """The queue has reached its ``max_length``; as the reason of a run, it made room for others."""


class BrokerUnavailable(EnqueueError):
    """The broker took nothing within ``TASKQ["ENQUEUE_TIMEOUT"]``; no run will come of this call."""


class EnqueueUncertain(EnqueueError):
    """The broker may have taken it or not. ``ids`` are the runs' ids: their rows stay, so they will run."""

    def __init__(self, message: str, ids: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.ids = ids


class DepotError(TaskqError):
    """A server that keeps messages could not be reached, or refused.

    ``is_certain``: nothing of what was asked has happened. Otherwise it may have, in part or as a whole.
    """

    def __init__(self, message: str, *, is_certain: bool = False) -> None:
        super().__init__(message)
        self.is_certain = is_certain


class MessageRefused(DepotError):
    """A server will never take this message, however often it is tried: it goes nowhere, or is too large."""

    def __init__(self, message: str, *, is_certain: bool = True) -> None:
        super().__init__(message, is_certain=is_certain)


class UnknownTask(TaskqError):
    """No task of this name is registered in the process that was asked to run it."""


class ResourceUnavailable(TaskqError):
    """A resource cannot be opened here, or fails its check. ``delay`` is in seconds: try again no sooner."""

    def __init__(self, message: str, delay: float = 0.0) -> None:
        super().__init__(message)
        self.delay = delay


class HookFailed(TaskqError):
    """A start hook raised, so its worker or worker process does not start; the message names the hook."""


class ResultNotFound(TaskqError):
    """No record has this id: it never existed, its transaction was rolled back, or it was pruned."""


class ResultUnavailable(TaskqError):
    """Waiting for this result here could never end (inside a task, or before the enqueuing transaction committed)."""


class TaskFailed(TaskqError):
    """The run failed with an error whose class is not available in this process; the text is the stored one."""


class TaskCancelled(TaskqError):
    """The run was cancelled before it ended."""


class TaskExpired(TaskCancelled):
    """The run was not started before its ``expires_at``."""


class MaxRetriesExceeded(TaskqError):
    """``retry()`` was called without an error of its own once no retries were left."""


class PoisonTask(TaskqError):
    """The run killed its worker process so often that it is not tried again by itself."""


class WorkerLost(TaskqError):
    """The worker process that was running this attempt died."""


class LeaseLost(TaskqError):
    """The claim on the run went to somebody else while it ran; this attempt's result is refused."""


class TimeLimitExceeded(TaskqError):
    """The hard time limit passed: the worker process was killed, or its thread given up."""


class MemoryLimitExceeded(TaskqError):
    """The worker process took more memory than the run's ``memory_limit``, and was killed."""


class SoftTimeLimitExceeded(TaskqError):
    """Raised inside a task whose soft time limit has passed, so that it can tidy up."""


class Retry(BaseException):
    """Raised by ``retry()`` to leave the task; the executor turns it into a further attempt.

    Not an ``Exception``: a task's own ``except Exception`` must not swallow its retry.
    ``delay`` is in seconds, ``run_after`` an absolute time; at most one of them is set.
    """

    def __init__(self, delay: float | None, run_after: object, cause: BaseException | None) -> None:
        super().__init__("the task asked for another attempt")
        self.delay = delay
        self.run_after = run_after
        self.cause = cause


class Snooze(BaseException):
    """Raised by ``snooze()`` to leave the task; the run starts again after ``delay`` seconds, charged no attempt.

    Not an ``Exception``, for the same reason as :exc:`Retry`.
    """

    def __init__(self, delay: float) -> None:
        super().__init__(f"the task asked to run again in {delay:g} s")
        self.delay = delay


class Release(BaseException):
    """Raised by ``give_back()`` to leave the task; the run goes back to its queue, charged nothing.

    Not an ``Exception``, for the same reason as :exc:`Retry`.
    """


class InvalidLock(TaskqError):
    """A lock was taken where it cannot be: twice by one run, in a transaction, or by a run without a row."""


class Refused(BaseException):
    """Raised where a lock is not free, to leave the task; the run waits for the lock, charged nothing.

    Not an ``Exception``, for the same reason as :exc:`Retry`. ``gate`` is that of the lock.
    """

    def __init__(self, gate: object) -> None:
        super().__init__("the lock is held by another run")
        self.gate = gate


class Replace(BaseException):
    """Raised by ``replace()`` to leave the task; ``canvas`` takes the place of its run.

    Not an ``Exception``, for the same reason as :exc:`Retry`.
    """

    def __init__(self, canvas: object) -> None:
        super().__init__("the task puts others in its place")
        self.canvas = canvas
