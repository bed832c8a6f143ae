"""Which messages of depots this process holds, and which of them are to be dropped or given back.

Nothing is dropped before the rows that make it needless are committed. What a depot that is down cannot be told stays
on the list and is told later; meanwhile it holds the message for this process, which harms nobody.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django_taskq.brokers.depot import Depot
from django_taskq.brokers.outbox import Outbox
from django_taskq.exceptions import DepotError
from django_taskq.message import Parcel, Tracking

# Runs that get their row late, if at all.
NO_ROW = (Tracking.END, Tracking.FAILURE)


@dataclass(frozen=True, slots=True)
class Taken:
    """A parcel whose message this process holds. ``is_loose``: its run has no row yet."""

    alias: str
    parcel: Parcel
    is_loose: bool


class Holdings:
    """The list of one process; claims are told apart by (process id, claim)."""

    def __init__(self, depots: Mapping[str, Depot], outbox: Outbox) -> None:
        self._depots = depots
        self._outbox = outbox
        self._taken: dict[tuple[int, int], Taken] = {}
        self._over: dict[tuple[int, int], None] = {}  # of no use once the open unit of work has committed
        self._owed: dict[tuple[str, int, bool], list[Parcel]] = defaultdict(list)  # alias, process id, to be dropped?

    def add(self, alias: str, process_id: int, parcels: Iterable[Parcel]) -> None:
        """These were taken. The messages of those with a row are over as soon as the claim of the row commits."""
        for parcel in parcels:
            key = process_id, parcel.delivery.claim
            is_loose = parcel.tracking in NO_ROW
            self._taken[key] = Taken(alias, parcel, is_loose)
            if not is_loose:
                self._over[key] = None

    def loose(self, process_id: int, claim: int) -> Parcel | None:
        """The parcel under this claim, if its run has no row; None otherwise."""
        taken = self._taken.get((process_id, claim))
        return taken.parcel if taken is not None and taken.is_loose else None

    def are_empty(self) -> bool:
        """Whether no message is held."""
        return not self._taken

    def over(self, process_id: int, claim: int) -> None:
        """This one is dealt with, once the open unit of work has committed."""
        self._over[process_id, claim] = None

    def drop(self, process_id: int, claims: Iterable[int]) -> None:
        """These are good no more, whatever becomes of the open unit of work; their numbers may be used again."""
        for claim in claims:
            key = process_id, claim
            taken = self._taken.pop(key)
            self._owed[taken.alias, process_id, True].append(taken.parcel)
            self._over.pop(key, None)

    def give_back(self, process_id: int, claims: Iterable[int]) -> None:
        """Those still held go back, whatever becomes of their rows."""
        for claim in claims:
            taken = self._taken.pop((process_id, claim), None)
            if taken is not None:
                self._owed[taken.alias, process_id, False].append(taken.parcel)

    def forget_pending(self) -> None:
        """The open unit of work has failed; what it dealt with is held as before."""
        self._over.clear()

    def commit(self) -> None:
        """The open unit of work has committed: tell the depots."""
        for key in self._over:
            taken = self._taken.pop(key, None)
            if taken is not None:
                self._owed[taken.alias, key[0], True].append(taken.parcel)
        self._over.clear()
        self.pay()

    def pay(self, *, insist: bool = False) -> None:
        """Drop and give back what is due, as far as the depots are there; with ``insist``, whatever they did before."""
        for key in [key for key in self._owed if insist or not self._outbox.is_resting(key[0])]:
            alias, process_id, is_over = key
            depot = self._depots[alias]
            try:
                (depot.drop if is_over else depot.give_back)(process_id, self._owed[key])
                del self._owed[key]
            except DepotError as error:
                self._outbox.note_failure(alias, error)

    def owes(self, alias: str) -> bool:
        """Whether this depot is yet to be told of something."""
        return any(key[0] == alias for key in self._owed)


class InHand(threading.local):
    """What one thread has in hand. Who claims also settles, so threads have nothing to tell each other."""

    def __init__(self, depots: Mapping[str, Depot], outbox: Outbox) -> None:
        self.holdings = Holdings(depots, outbox)
        self.doubtful: dict[str, list[tuple[int, int]]] = defaultdict(list)  # first and last claim, by alias
        # Process and claim of runs without a row, of whose row the database did not say whether it was made.
        self.may_have_row: set[tuple[int, int]] = set()
        self.has_ready = False
        self.is_behind = False  # the last claim met nothing but tickets that are good no more
        self.published_until = 0.0
        self.depth = 0

    def is_owing(self, alias: str) -> bool:
        """Whether this depot keeps for us what we do not want, or do not know of."""
        return bool(self.doubtful[alias]) or self.holdings.owes(alias)
