"""A depot on the test bench: short ways to put messages in and take them out."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django_taskq.brokers.depot import Depot
from django_taskq.message import Message, Parcel
from tests.unit.making import make_message
from tests.waiting import wait_for

QUEUE = "default"


@dataclass(slots=True)
class Bed:
    """One depot. ``make`` makes another on the same server, as another process has one; it is closed with the test.

    ``put_raw`` puts any text into a queue, as somebody else might; None where a test cannot.
    """

    make: Callable[[], Depot]
    put_raw: Callable[[str, bytes], object] | None = None
    depot: Depot = field(init=False)
    made: list[Depot] = field(default_factory=list)
    next_claim: int = 1

    def __post_init__(self) -> None:
        self.depot = self.other()

    def other(self) -> Depot:
        """What another process uses."""
        self.made.append(self.make())
        return self.made[-1]

    def close(self) -> None:
        for depot in self.made:
            depot.close()

    def put(self, count: int = 1, **changes: Any) -> list[Message]:
        """Publish so many, older ids first."""
        messages = [make_message(**changes) for _ in range(count)]
        self.depot.publish(messages)
        return messages

    def take(
        self, limit: int = 100, *, queue: str = QUEUE, process: int = 1, depot: Depot | None = None
    ) -> list[Parcel]:
        """Take once, under claims that were not used before."""
        first = self.next_claim
        self.next_claim += limit
        return (depot or self.depot).take(queue, limit, process, first)

    def collect(self, count: int, **how: Any) -> list[Parcel]:
        """Take until there are so many: what was published may need a moment to arrive."""
        found: list[Parcel] = []

        def is_enough() -> bool:
            found.extend(self.take(count - len(found), **how))
            return len(found) >= count

        wait_for(is_enough, message=lambda: f"{count} messages; there came {len(found)}")
        return found

    def is_empty(self, *, queue: str = QUEUE) -> bool:
        """Nothing comes, although it is waited for a moment where it may be under way."""
        return self.take(queue=queue) == [] and not (self.hears(0.1, queue=queue) and self.take(queue=queue))

    def hears(self, seconds: float, *, queue: str = QUEUE, depot: Depot | None = None) -> bool:
        """Whether the depot tells of work within this time, by whichever means it has."""
        depot = depot or self.depot
        filenos = depot.filenos()
        if not filenos:
            return depot.wait([queue], seconds)
        return bool(select.select(filenos, [], [], seconds)[0])


def ids(parcels: list[Parcel]) -> list[str]:
    return [parcel.delivery.id for parcel in parcels]


def elapsed(action: Callable[[], object]) -> float:
    """Seconds that it takes, whether it succeeds or fails."""
    start = time.monotonic()
    try:
        action()
    except Exception:  # the caller asserts on what it does, this on how long
        pass
    return time.monotonic() - start
