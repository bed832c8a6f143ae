"""The slots of one kind in a worker process, and what waits for them: threads have a lane, and coroutines have one.

The calls of batch tasks gather here, and go to a slot together.

For the courier's thread alone, but for :attr:`Lane.is_low`, which slots ask.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from django_taskq import registry
from django_taskq.message import Delivery, Outcome
from django_taskq.worker.fetcher import HORIZON, MOST_HELD, Prefetch
from django_taskq.worker.gathering import Gathering, Unit

# A kind that is never seen may come all the same.
LEAST_SHARE = 0.001
FIRST_PAUSE, MOST_PAUSE = 0.05, 1.0  # seconds


class Lane:
    """``inbox`` is where its slots take deliveries from; a None among them ends a slot."""

    def __init__(self, count: int) -> None:
        """``count`` is the number of its slots, which are to be put into ``slots``."""
        self.inbox: SimpleQueue[Unit | None] = SimpleQueue()
        self.slots: list[Any] = []
        self.held = 0
        self.gathering = Gathering()
        # The claims that are held and need no slot of their own: all of a batch but the last.
        self._spared: set[int] = set()
        self.share = 0.5
        self.count = count
        self._prefetch = Prefetch(count)
        self._few = 0

    @property
    def is_low(self) -> bool:
        """Whether so little waits that it is time to fetch."""
        return self.inbox.qsize() <= self._few

    @property
    def is_slow(self) -> bool:
        """Whether all its slots are busy with what lasts, so that nothing should wait for them."""
        now = time.monotonic()
        return all(slot.delivery is not None and now - slot.started > HORIZON for slot in self.slots)

    @property
    def load(self) -> int:
        """How much of what is held waits for a slot or runs: a batch counts once, and while it gathers not at all."""
        return self.held - len(self._spared)

    def load_of(self, outcomes: Iterable[Outcome]) -> int:
        """What of the load is over with these."""
        return sum(outcome.delivery.claim not in self._spared for outcome in outcomes)

    @property
    def capacity(self) -> int:
        """How many more it could hold."""
        return 0 if self.is_slow else max(0, self._prefetch.target() - self.load) + self.gathering.missing

    def room(self, finishing: int = 0) -> int:
        """How many more to hold; nothing until a good part of the load is done (``finishing``), or a slot is free."""
        if self.is_slow:
            return 0
        target = self._prefetch.target()
        # Half of what is held beyond one for each slot.
        low_water = self.count - 1 + (target - self.count + 1) // 2
        self._few = low_water - (self.count - 1)
        load = self.load - finishing
        if load > low_water or (load > 0 and len(self._spared) >= MOST_HELD):
            return 0
        return target - load + self.gathering.missing

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Hand these to the slots, those of batch tasks once their batch is whole."""
        self.held += len(deliveries)
        units = list(self.gathering.add(deliveries, time.monotonic()))
        if len(units) < len(deliveries):
            self._spared.update(delivery.claim for delivery in deliveries)
            self._spared.difference_update(unit.claim for unit in units if isinstance(unit, Delivery))
        self._hand_over(units)
        self._prefetch.held(self.load)

    def hand_on(self) -> None:
        """Hand batches that have waited for long enough to the slots as they are."""
        if len(self.gathering):
            self._hand_over(self.gathering.due(time.monotonic()))

    def _hand_over(self, units: Iterable[Unit]) -> None:
        for unit in units:
            if not isinstance(unit, Delivery):
                self._spared.discard(unit[-1].claim)
            self.inbox.put(unit)

    def close(self) -> None:
        """Have the slots end when they have run what waits."""
        self._end(self.count)

    def _end(self, markers: int) -> None:
        for _ in range(markers):
            self.inbox.put(None)

    def account_for(self, outcomes: Sequence[Outcome]) -> int:
        """These are recorded; returns how many of them have run."""
        self.held -= len(outcomes)
        if self._spared:
            self._spared.difference_update(outcome.delivery.claim for outcome in outcomes)
        ran = [o.finished_at - o.started_at for o in outcomes if o.finished_at and o.started_at]
        self._prefetch.observe(sum(ran), len(ran))
        return len(ran)

    @property
    def excess(self) -> int:
        """How much should not wait here, where runs last longer than those did that were seen when it was fetched."""
        target = self._prefetch.target()
        return self.load - target if self.load > 2 * target else 0

    def take_back(self, at_most: int | None = None) -> list[Delivery]:
        """Out of the inbox what has not started, the last ones ``at_most``; it is no longer held."""
        taken = self.gathering.take_back() if at_most is None else []
        units: list[Unit] = []
        markers = 0
        with suppress(Empty):
            while True:
                unit = self.inbox.get_nowait()
                if unit is None:
                    markers += 1
                else:
                    units.append(unit)
        kept = 0 if at_most is None else max(0, len(units) - at_most)
        self._hand_over(units[:kept])
        for unit in units[kept:]:
            taken += [unit] if isinstance(unit, Delivery) else unit
        self._end(markers)
        self.held -= len(taken)
        self._spared.difference_update(delivery.claim for delivery in taken)
        return taken


class Lanes:
    """All lanes of a process: one, or one for threads and one for coroutines."""

    def __init__(self, threads: Lane, coroutines: Lane | None) -> None:
        self._threads = threads
        self._coroutines = coroutines
        self._all = [threads] if coroutines is None else [threads, coroutines]
        # Of queues that brought what no slot had room for: until when to leave them alone, and how long that is.
        self._avoided: dict[str, tuple[float, float]] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._all)

    @property
    def held(self) -> int:
        """How many deliveries the process holds."""
        return sum(lane.held for lane in self._all)

    @property
    def load(self) -> int:
        """How much of that waits for a slot or runs."""
        return sum(lane.load for lane in self._all)

    @property
    def are_slow(self) -> bool:
        """Whether nothing should wait here at all."""
        return all(lane.is_slow for lane in self._all)

    def room(self, outcomes: Sequence[Outcome] = ()) -> int:
        """How many more to hold, once these are recorded.

        With two lanes nobody knows for which the next ones are: as many as are likely to fit.
        """
        if self._coroutines is None:
            return self._threads.room(self._threads.load_of(outcomes))
        rooms = {lane: lane.room(lane.load_of(self._mine(outcomes, lane))) for lane in self._all}
        if not any(rooms.values()):
            return 0
        # Half a run may go beyond a full lane: what comes for the others must not wait for that one.
        likely = [int(max(room, 0.5) / lane.share) for lane, room in rooms.items()]
        return max(1, min(sum(rooms.values()), *likely))

    def hand_out(self, taken: Sequence[Delivery]) -> list[Delivery]:
        """Each to the slots of its kind; returns those for which there is no room, and leaves their queues alone."""
        if self._coroutines is None:
            self._threads.put(taken)
            return []
        if not taken:
            return []
        counts = self._count(taken)
        rest: list[Delivery] = []
        for lane in self._all:
            lane.share = max(LEAST_SHARE, 0.5 * lane.share + 0.5 * counts[lane] / len(taken))
            mine = [delivery for delivery in taken if self._of(delivery) is lane]
            capacity = lane.capacity
            lane.put(mine[:capacity])
            rest += mine[capacity:]
        for name in {delivery.queue_name for delivery in rest}:
            pause = min(MOST_PAUSE, 2 * self._avoided.get(name, (0.0, FIRST_PAUSE / 2))[1])
            self._avoided[name] = time.monotonic() + pause, pause
        return rest

    def avoided(self) -> frozenset[str]:
        """The queues not to fetch now: what they have at their head would find no room again."""
        if self._avoided and all(lane.capacity for lane in self._all):
            self._avoided.clear()
        now = time.monotonic()
        return frozenset(name for name, (until, _) in self._avoided.items() if now < until)

    def account_for(self, outcomes: Sequence[Outcome]) -> int:
        """These are recorded; returns how many of them have run."""
        if self._coroutines is None:
            return self._threads.account_for(outcomes)
        return sum(lane.account_for(self._mine(outcomes, lane)) for lane in self._all)

    def hand_on(self) -> None:
        """Hand batches that have waited for long enough to their slots."""
        for lane in self._all:
            lane.hand_on()

    def seconds_until_due(self) -> float:
        """Seconds until the next batch has waited for long enough; infinite where none gathers."""
        due = [lane.gathering.due_at for lane in self._all]
        return max(0.0, min((at for at in due if at is not None), default=math.inf) - time.monotonic())

    def _mine(self, outcomes: Sequence[Outcome], lane: Lane) -> list[Outcome]:
        return [outcome for outcome in outcomes if self._of(outcome.delivery) is lane]

    def _of(self, delivery: Delivery) -> Lane:
        task = registry.find(delivery.name)
        return self._threads if self._coroutines is None or task is None or not task.is_async else self._coroutines

    def _count(self, deliveries: Iterable[Delivery]) -> Counter[Lane]:
        return Counter(map(self._of, deliveries))
