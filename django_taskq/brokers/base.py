"""What every broker does, on one screen; ``tests/conformance`` says exactly what each verb promises.

A broker keeps work that can run now and hands it out under claims. (process id, claim number) names a claim; every
verb that takes claims is a compare-and-set: a claim that was lost in the meantime is passed over, never overwritten.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from django_taskq.message import Delivery, Message, Outcome, Room
from django_taskq.steps import Link


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a broker can do beyond the contract; callers ask, they do not try.

    ``priority_levels`` is how many priorities it tells apart. ``transactional_enqueue``: an enqueue is part of the
    caller's database transaction. ``transactional_finish``: a success can be recorded inside the task's own
    transaction. ``is_shared``: other processes see its work. ``claims_lightly``: claiming from an empty queue takes no
    lock and writes nothing, so nobody needs to look first.
    """

    priority_levels: int
    transactional_enqueue: bool
    transactional_finish: bool
    is_shared: bool
    claims_lightly: bool


class Broker(ABC):
    """Keeps work. All methods may be called from any thread."""

    capabilities: Capabilities

    @abstractmethod
    def enqueue(self, messages: Sequence[Message]) -> None:
        """Keep these messages; those with a ``run_after`` still to come are not handed out before it."""

    @abstractmethod
    def link(self, links: Sequence[Link]) -> None:
        """Have steps of workflows, enqueued as waiting, wait for others; in the transaction that enqueues them."""

    def admit(self) -> int:
        """Make READY what has newly arrived at limits and may start; returns how many. Cheap where nothing has."""
        return 0

    @abstractmethod
    def queues_with_work(self, queue_names: Sequence[str]) -> list[str]:
        """Those of ``queue_names``, in their order, that have something to hand out now. Cheap, takes no lock."""

    @abstractmethod
    def claim(self, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Delivery]:
        """Up to ``limit`` deliveries for this process: higher priority first, then older ids first.

        They are numbered from ``first_claim`` in that order; ``first_claim`` and what follows must be numbers this
        process has not used before. No delivery is ever handed to two claimants.
        """

    def follow(self, process_id: int, leaders: Sequence[Delivery], limit: int, first_claim: int) -> list[Delivery]:
        """Claim up to ``limit`` runs that wait for what these hold of limits, for a process that runs one at a time.

        ``leaders`` are what it has just claimed; it may start the others behind them, in their order. Numbered as by
        :meth:`claim`.
        """
        return []

    @abstractmethod
    def settle(self, process_id: int, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Record what became of claimed deliveries; returns the outcomes whose claim was lost."""

    def settle_and_take(
        self, process_id: int, outcomes: Sequence[Outcome], room: Room
    ) -> tuple[list[Outcome], list[Delivery]]:
        """:meth:`settle`, and claim of what followed these outcomes as much as there is room for, where that is cheap.

        Never what comes behind anything that waits in its queue.
        """
        return self.settle(process_id, outcomes), []

    @abstractmethod
    def mark_started(self, process_id: int, delivery: Delivery, started_at: float) -> bool:
        """Show a claimed run as begun (POSIX seconds); False when the claim was lost."""

    def mark_all_started(self, process_id: int, deliveries: Sequence[Delivery], started_at: float) -> list[Delivery]:
        """:meth:`mark_started` for several, in one moment, before they start; returns those that may.

        Not those that are to be cancelled, where that is known.
        """
        with self.transaction():
            return [delivery for delivery in deliveries if self.mark_started(process_id, delivery, started_at)]

    @abstractmethod
    def release(self, process_id: int, claims: Sequence[int]) -> int:
        """Give claimed deliveries back untouched; returns how many were still held."""

    @abstractmethod
    def reject(self, process_id: int, claim: int, reason: str) -> bool:
        """Refuse a delivery for good, with a visible reason; False when the claim was lost."""

    @abstractmethod
    def rescue(self, process_id: int) -> int:
        """Give back everything a dead process held, marked as suspect; returns how many."""

    # What supervisors do for work that is kept outside the rows; where there is none, nothing.

    def adopt(self, process_id: int, claims: Collection[int]) -> None:
        """Make rows of what a dead process had started without one, under its claims, so that it can be charged."""

    def rescue_messages(self, process_id: int, *, is_suspect: bool, after: int = 0, up_to: int | None = None) -> int:
        """Give back the messages that a process holds, of claims above ``after`` up to ``up_to``; returns how many."""
        return 0

    def relay(self) -> int:
        """Hand over what is READY and not yet where it is handed out; returns how many."""
        return 0

    def sweep(self, lease: float) -> int:
        """Give back what processes hold that are gone and took nothing for ``lease`` seconds; returns how many."""
        return 0

    def find_lost(self, queue_names: Iterable[str]) -> int:
        """Find what is READY but nowhere handed out, for :meth:`relay`; returns how many. Called twice it is sure."""
        return 0

    @abstractmethod
    def purge(self, queue_name: str) -> int:
        """Throw away what waits in a queue; returns how many. What is claimed stays."""

    @abstractmethod
    def size(self, queue_name: str) -> int:
        """How many could be handed out now."""

    @abstractmethod
    def oldest_age(self, queue_name: str) -> float | None:
        """Seconds since the oldest waiting message could first have run; None for an empty queue."""

    @abstractmethod
    def peek(self, queue_name: str, limit: int) -> list[Message]:
        """The next messages, in order, without claiming them."""

    def filenos(self) -> list[int]:
        """File descriptors that become readable when there may be something to claim, where work is sent that way."""
        return []

    @property
    def is_behind(self) -> bool:
        """Whether there may be more although this thread's last claim found nothing.

        It gave up looking, or has just handed something over that nobody may have taken yet.
        """
        return False

    def doubt(self) -> float:
        """For how many seconds claims must have found nothing before that means that there is nothing."""
        return 0.0

    def pause(self) -> None:
        """Nothing will be claimed for a while: what was sent ahead goes to others. The next claim ends it."""

    def prepare(self) -> None:
        """Make the calling thread ready: it will settle and claim, and nothing else, until it ends."""

    def close(self) -> None:
        """Close what this process keeps open besides Django's connections; the next verb opens it again."""

    def transaction(self) -> AbstractContextManager[object]:
        """Make the verbs inside one unit of work, where the broker can."""
        return nullcontext()

    def bundle(self) -> AbstractContextManager[object]:
        """For settling and claiming in one go: one unit of work where that is what costs. Either may be repeated."""
        return self.transaction()
