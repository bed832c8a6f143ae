"""What every depot does: a server outside the database that keeps messages and hands them out (Redis, RabbitMQ, ...).

A depot carries only what may run now. It knows no rows, no retries and no outcomes: :class:`~.mixed.MixedBroker` puts
rows and depots together into one broker. ``tests/depots`` says exactly what each verb promises.

What a worker process has taken is its own until it drops it or gives it back. There is no time after which a depot
gives it to somebody else by itself: a process that died is seen by its worker's heartbeat, and :meth:`Depot.rescue`
returns what it held. (Where the server sees the connection end, as AMQP servers do, it may return it by itself.)
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

from django_taskq.conf_brokers import BrokerConfig
from django_taskq.message import Message, Parcel

logger = logging.getLogger("django_taskq")
# A reason repeats some of a stranger's message: as much as tells what it was.
_REASON = 300


@dataclass(frozen=True, slots=True)
class DepotCapabilities:
    """What a depot can do beyond the contract; callers ask, they do not try.

    ``priority_levels`` is how many priorities it tells apart. ``is_shared``: other processes see its work.
    ``knows_holders``: it can say who holds what, and take it from the dead; otherwise the end of a connection does.
    ``has_exchanges``: it copies messages to several queues. ``refuses_doubles``: publishing what it keeps already
    changes nothing. ``can_peek``: messages can be looked at without taking them.
    """

    priority_levels: int
    is_shared: bool
    knows_holders: bool
    has_exchanges: bool
    refuses_doubles: bool
    can_peek: bool


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message refused for good: it could not be read, or its broker gave up on it. ``text`` is bounded for lists."""

    id: str
    queue_name: str
    reason: str
    text: str
    refused_at: datetime | None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the server that whoever starts a worker should know; an ``error`` keeps the worker from it."""

    level: Literal["error", "warning", "info"]
    text: str
    hint: str = ""


class Depot(ABC):
    """One server, as one process uses it. Connections are made when first needed and never cross a fork.

    Every verb may raise :exc:`~django_taskq.exceptions.DepotError`, within a bounded time, and works again by itself
    once the server does. :meth:`publish` and the verbs for people may be called from any thread; those of a worker
    process (take to reject, :meth:`filenos`, :meth:`pause`) from one thread at a time.
    """

    capabilities: DepotCapabilities
    # Whether supervisors learn of work by :meth:`wait`; otherwise processes do, by :meth:`filenos` or by looking.
    is_waited_at: ClassVar[bool] = False
    # Whether the server sends work by itself, so that a :meth:`take` that finds nothing may only be early.
    sends_ahead: ClassVar[bool] = False

    def __init__(self, config: BrokerConfig, timeout: float) -> None:
        """``timeout``: seconds that :meth:`publish` may take altogether, connecting included."""
        self.config = config
        self.timeout = timeout

    # Asking for work.

    @abstractmethod
    def publish(self, messages: Sequence[Message]) -> None:
        """Have the server keep these and confirm it. Where it refuses doubles, those it keeps already stay as they are.

        The error's ``is_certain`` says whether none of them was taken.
        """

    # Doing work: for one worker process, which is named by its id.

    @abstractmethod
    def queues_with_work(self, queue_names: Sequence[str]) -> list[str]:
        """Those of ``queue_names``, in their order, that may have something to take now."""

    @abstractmethod
    def take(self, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Parcel]:
        """Up to ``limit`` messages for this process, higher priority first, then older ids first; never waits for any.

        They are numbered from ``first_claim`` in that order. No message is handed to two takers. What cannot be read
        is put with the dead letters, with its reason, and counts as nothing. ``is_suspect`` marks what was held before
        by somebody who died.
        """

    @abstractmethod
    def drop(self, process_id: int, parcels: Sequence[Parcel]) -> None:
        """They are dealt with: forget them. Those no longer held are passed over."""

    @abstractmethod
    def give_back(self, process_id: int, parcels: Sequence[Parcel]) -> int:
        """Put them back where they were, for anybody; returns how many were still held."""

    def pause(self) -> None:
        """Nothing will be taken for a while: what was sent ahead goes to others. The next :meth:`take` ends it."""

    def filenos(self) -> list[int]:
        """File descriptors that become readable when there may be something to take; none where :meth:`wait` tells."""
        return []

    # For supervisors, about processes of any worker.

    def wait(self, queue_names: Sequence[str], seconds: float) -> bool:
        """Wait until one of these queues may have work, so long at most; False when nothing was heard.

        Of several who wait, one is told of a message, not all. Only where :meth:`filenos` does not tell.
        """
        raise NotImplementedError(f"{type(self).__name__} tells by its file descriptors")

    def held(self, process_id: int) -> list[Parcel]:
        """What a process holds, where the depot knows."""
        return []

    def holders(self) -> dict[int, float]:
        """The processes that hold something, and how many seconds ago each took last, where the depot knows."""
        return {}

    def rescue(self, process_id: int, *, after: int = 0, up_to: int | None = None, is_suspect: bool = True) -> int:
        """Give back what a process holds (claims above ``after``, up to ``up_to``), whoever asks; returns how many."""
        return 0

    # For people.

    @abstractmethod
    def purge(self, queue_name: str) -> int:
        """Throw away what waits in a queue; returns how many. What is held stays."""

    @abstractmethod
    def size(self, queue_name: str) -> int:
        """How many could be taken now."""

    @abstractmethod
    def oldest_age(self, queue_name: str) -> float | None:
        """Seconds since the oldest waiting message could first have run; None for an empty queue or where unknown."""

    @abstractmethod
    def peek(self, queue_name: str, limit: int) -> list[Message]:
        """The next messages, in order, without taking them; empty where that cannot be done."""

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Messages refused for good, newest first."""
        return []

    def replay(self, ids: Sequence[str]) -> int:
        """Put dead letters back into their queues, where they are readable; returns how many."""
        return 0

    def discard(self, ids: Sequence[str]) -> int:
        """Throw dead letters away; returns how many."""
        return 0

    def report_dead(self, queue_name: str, reasons: Sequence[str]) -> None:
        """Log that messages of a queue have become dead letters, for these reasons: once for all that came together."""
        if reasons:
            # As %r, which leaves no character that could begin a line of its own or drive a terminal.
            logger.warning(
                "broker %r: %d message(s) of queue %r are dead letters now, the first because: %r. "
                "See manage.py taskq dead-letters",
                self.config.alias,
                len(reasons),
                queue_name,
                reasons[0][:_REASON],
            )

    @abstractmethod
    def check(self) -> list[Finding]:
        """What a worker that starts should know of this server: its settings, and what it may lose when it fails."""

    @abstractmethod
    def close(self) -> None:
        """Close every connection of this process; the next verb makes new ones."""
