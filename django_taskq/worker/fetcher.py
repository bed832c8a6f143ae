"""Which queue next, and how much: queue order and adaptive prefetch. No threads, no clock of its own."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from django_taskq import conf, registry
from django_taskq.brokers.base import Broker
from django_taskq.gates import is_gated
from django_taskq.message import NO_ROOM, Delivery, Room

# A process holds what it will finish in about this many seconds, and gives the rest back after as long.
HORIZON = 0.25
MOST_HELD = 1000
# By run and not by record: one short run between others tells little. And few: a task that lasts is noticed at once.
REMEMBERED = 20


@dataclass(frozen=True, slots=True)
class QueueOrder:
    """How to choose among queues.

    ``rotate``: each fetch begins with the next queue, so all progress. Otherwise ``weights`` of 1 mean strict order
    (a queue is served when those before it are empty), and other weights the share of fetches that begin with it.
    """

    names: tuple[str, ...]
    weights: tuple[int, ...] | None = None
    rotate: bool = False

    @classmethod
    def parse(cls, text: str | None, known: Sequence[str]) -> QueueOrder:
        """``None``: all known queues in rotation. ``a,b``: strict order. ``a=3,b=1``: weighted.

        Raises ``ValueError`` for an unknown queue or a mixture of the two forms.
        """
        if text is None:
            return cls(tuple(known), rotate=True)
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts:
            raise ValueError("--queues names no queue: give names such as mail,default or mail=3,default=1")
        names, weights = [], []
        for part in parts:
            name, equals, weight = part.partition("=")
            if name not in known:
                hint = conf.suggest(name, known)
                raise ValueError(f"no queue is named {name!r}.{hint} Known queues: {', '.join(sorted(known))}.")
            if equals and not re.fullmatch(r"[1-9][0-9]{0,3}", weight):
                raise ValueError(f"the weight of queue {name!r} is {weight!r}; it takes a whole number of at least 1")
            names.append(name)
            weights.append(int(weight) if equals else 0)
        if len(set(names)) < len(names):
            raise ValueError("--queues names a queue twice")
        if any(weights) and not all(weights):
            raise ValueError("--queues mixes the strict form (a,b) and the weighted one (a=3,b=1)")
        return cls(tuple(names), tuple(weights) if any(weights) else None)

    def without(self, names: Collection[str]) -> QueueOrder:
        """The same with these left out."""
        kept = [number for number, name in enumerate(self.names) if name not in names]
        weights = None if self.weights is None else tuple(self.weights[number] for number in kept)
        return QueueOrder(tuple(self.names[number] for number in kept), weights, self.rotate)

    def __str__(self) -> str:
        if self.weights is None:
            return ",".join(self.names)
        return ",".join(f"{name}={weight}" for name, weight in zip(self.names, self.weights, strict=True))


class Fetcher:
    """Takes deliveries for one process from its queues in their order, numbering claims as it goes."""

    def __init__(
        self,
        broker: Broker,
        process_id: int,
        order: QueueOrder,
        *,
        runs_singly: bool = False,
        choose: Callable[[], float] = random.random,
    ) -> None:
        """``runs_singly``: the process runs one at a time, in the order in which it is given them."""
        self._broker = broker
        self._process_id = process_id
        self._order = order
        self._runs_singly = runs_singly
        self._choose = choose
        self._turn = 0
        self.next_claim = 1
        # What the supervisor has closed for now (worker/shutter.py).
        self.closed: frozenset[str] = frozenset()
        self.is_quiet = False
        # What the courier leaves alone for a moment (worker/lane.py).
        self.avoided: frozenset[str] = frozenset()

    def fetch(self, limit: int, *, look_first: bool) -> list[Delivery]:
        """Up to ``limit`` deliveries in the order they should start.

        ``look_first`` asks which queues have work before claiming, so that an idle look takes no lock.
        """
        names = [] if self.is_quiet else [name for name in self._names() if self._serves(name)]
        if not names:
            return []
        if len(names) > 1 or (look_first and not self._broker.capabilities.claims_lightly):
            names = self._broker.queues_with_work(names)
        taken: list[Delivery] = []
        for name in names:
            room = limit - len(taken)
            if room <= 0:
                break
            deliveries = self._broker.claim(name, room, self._process_id, self.next_claim)
            if self._runs_singly and 0 < len(deliveries) < room:
                deliveries += self._follow(deliveries, room - len(deliveries))
            # Numbers are never reused, even for rows that were asked for and not there: see Courier.
            self.next_claim += room
            taken += deliveries
        return taken

    def _follow(self, deliveries: list[Delivery], limit: int) -> list[Delivery]:
        """What waits for the places of these. Not those of batches, whose members run at the same time."""
        leaders = [run for run in deliveries if is_gated(run.headers) and not registry.is_batch(run.name)]
        if not leaders:
            return []
        return self._broker.follow(self._process_id, leaders, limit, self.next_claim + len(deliveries))

    def room(self, limit: int) -> Room:
        """For what may be claimed without looking at other queues first."""
        if limit <= 0 or self.is_quiet or self._order.weights is not None:
            return NO_ROOM
        names = self._order.names if self._order.rotate else self._order.names[:1]
        return Room(self.next_claim, limit, tuple(name for name in names if self._serves(name)))

    def most_claims(self, limit: int) -> int:
        """The highest number the next :meth:`fetch` of ``limit`` may give."""
        return self.next_claim + limit * len(self._order.names) - 1

    def _serves(self, name: str) -> bool:
        return name not in self.closed and name not in self.avoided

    def _names(self) -> list[str]:
        names = list(self._order.names)
        if self._order.rotate:
            self._turn = (self._turn + 1) % len(names)
            return names[self._turn :] + names[: self._turn]
        if self._order.weights is None:
            return names
        # Efraimidis and Spirakis: sorting by random ** (1 / weight) draws without replacement by weight.
        keys = {name: self._choose() ** (1 / weight) for name, weight in zip(names, self._order.weights, strict=True)}
        return sorted(names, key=lambda name: -keys[name])


class Prefetch:
    """How many deliveries a process should hold, from the run times it has seen."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        # Of the runs it remembers: how long they took together, and how many they are.
        self._seconds = self._runs = 0.0
        self._last = slots

    def observe(self, seconds: float, runs: int) -> None:
        """``runs`` runs took ``seconds`` together."""
        if runs:
            faded = min(1.0, REMEMBERED / self._runs) if self._runs else 0.0
            self._seconds = faded * self._seconds + max(seconds, 0.0)
            self._runs = faded * self._runs + runs

    def target(self) -> int:
        """How many to hold, running ones included: one a slot until something is known, then by the horizon."""
        if not self._runs:
            return self._slots
        average = self._seconds / self._runs
        wanted = MOST_HELD if average * MOST_HELD < HORIZON else int(HORIZON / average)
        # Growing by steps of four keeps a first lucky run from grabbing a thousand.
        return min(max(wanted, 1) * self._slots, max(MOST_HELD, 2 * self._slots), 4 * self._last)

    def held(self, count: int) -> None:
        """So many are held after a fetch; an empty look teaches nothing."""
        if count:
            self._last = max(count, self._slots)
