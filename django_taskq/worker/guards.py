"""What the executor asks of the slot that has it run something."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from django_taskq.message import Delivery, Outcome
from django_taskq.worker.interrupting import Drive


class Guard(Protocol):
    """What the slot does around a call."""

    @property
    def stop_requested(self) -> Callable[[], bool] | None:
        """Whether the run is asked to stop; None where it cannot be given back, as nobody else would take it."""

    def begin(self, delivery: Delivery, hard: float | None, memory: int = 0, *, commit_first: bool) -> bool:
        """Publish the start, with its hard limit in seconds and that of memory in bytes.

        False: the delivery was taken back, do not run it. It may begin again for what comes before and after the call.
        """

    def arm(self, soft: float | None, drive: Drive | None = None) -> None:
        """Have ``SoftTimeLimitExceeded`` raised in the call after so many seconds, until :meth:`end`.

        ``drive`` is there for coroutines, and is then what is to be interrupted; otherwise this thread is.
        """

    def end(self) -> None:
        """The call is over: nothing may interrupt it any more. May be called again."""

    def commit(self, outcome: Outcome) -> bool:
        """Record a success on this thread's connection, inside its transaction. False: the claim was lost."""

    def is_cancel(self, error: BaseException) -> bool:
        """Whether this is the error that was raised in the run to cancel it, and no other of that class."""


class BatchGuard(Guard, Protocol):
    """What the slot does around the call of a batch."""

    def begin_batch(self, deliveries: Sequence[Delivery], hard: float | None, memory: int = 0) -> Collection[int]:
        """Commit the start of all, and publish it with the limits of the call. Returns the claims that may run."""


class LoopGuard(Protocol):
    """What a slot of the loop does around a coroutine: as :class:`Guard`, but it waits for nothing in a thread."""

    @property
    def stop_requested(self) -> Callable[[], bool] | None: ...

    async def begin(self, delivery: Delivery, hard: float | None, memory: int = 0, *, commit_first: bool) -> bool: ...

    def arm(self, soft: float | None, drive: Drive | None = None) -> None: ...

    def end(self) -> None: ...

    def is_cancel(self, error: BaseException) -> bool: ...
