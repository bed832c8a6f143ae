"""The statements of limits, one written form per database: runs arrive at gates, pass them, and leave."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from django_taskq.message import Delivery


class Arrival(NamedTuple):
    """A run at a gate that nobody has looked at yet; ``gates`` are this one and those behind it, as JSON."""

    task_id: str
    key: str
    priority: int
    gates: str


class LimitState(NamedTuple):
    """A limit as its row has it: what was declared, what holds (set at run time or declared), and where it stands.

    Times are POSIX seconds; ``now`` is the database's.
    """

    key: str
    declared: tuple[int | None, float | None, int | None, float | None]
    declared_by: str | None
    most: int | None
    rate: float | None
    burst: int | None
    rest: float | None
    spent_until: float | None
    opens_at: float | None
    tripped_at: float | None
    now: float


class Passed(NamedTuple):
    """A run that has just passed a gate; ``gates`` are that one and those behind it, as JSON."""

    task_id: str
    key: str
    priority: int
    gates: str


class Place(NamedTuple):
    """A run that a process holds, of the task ``name``, and at whose gate ``key`` up to ``most`` may follow it."""

    task_id: str
    key: str
    name: str
    queue_name: str
    most: int


class Glance(NamedTuple):
    """Whether there is anything to see to: new arrivals, holders, and when the next limit opens (POSIX seconds)."""

    has_arrivals: bool
    has_holders: bool
    opens_at: float | None
    now: float


# The orders leave no other way than the index of the few: statistics may be of a time when they were many.
HAS_ARRIVALS = "SELECT id FROM taskq_permit WHERE state = 0 ORDER BY id * -1 LIMIT 1"
GLANCE = """
    SELECT (SELECT id FROM taskq_permit WHERE state = 0 ORDER BY id * -1 LIMIT 1) IS NOT NULL,
        (SELECT key FROM taskq_permit WHERE state = 2 ORDER BY key LIMIT 1) IS NOT NULL,
        (SELECT min(opens_at) FROM taskq_limit WHERE opens_at IS NOT NULL)
"""


class LimitDialect(ABC):
    """What a dialect does for limits. ``connection`` is Django's, of the calling thread, in an open transaction.

    Whoever changes who holds a permit has locked the limit before.
    """

    @abstractmethod
    def insert_permits(self, connection: BaseDatabaseWrapper, arrivals: Sequence[Arrival], *, is_new: bool) -> None:
        """Put runs at gates; ``is_new`` where somebody else is to look whether they may pass."""

    @abstractmethod
    def glance(self, connection: BaseDatabaseWrapper) -> Glance:
        """What there is to see to, in one look; takes no lock, and needs no transaction."""

    @abstractmethod
    def has_arrivals(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether anything new stands at any gate. Takes no lock, and needs no transaction."""

    @abstractmethod
    def take_arrivals(self, connection: BaseDatabaseWrapper, limit: int) -> list[Arrival]:
        """NEW -> WAITING for up to ``limit`` permits, but those that somebody else is just taking."""

    @abstractmethod
    def lock_limits(self, connection: BaseDatabaseWrapper, keys: Sequence[str]) -> list[LimitState]:
        """These limits, locked in the order of their keys; those that have no row are left out."""

    @abstractmethod
    def held(self, connection: BaseDatabaseWrapper, keys: Sequence[str]) -> dict[str, int]:
        """How many runs are past each of these gates."""

    @abstractmethod
    def unclaimed(self, connection: BaseDatabaseWrapper, keys: Sequence[str]) -> dict[str, int]:
        """How many runs are past each of these gates and in no worker yet."""

    @abstractmethod
    def pass_on(self, connection: BaseDatabaseWrapper, rooms: Sequence[tuple[str, int]]) -> list[Passed]:
        """Let up to so many runs past each of these gates: higher priority first, then in the order of arrival.

        But those that somebody is just taking, who will look at the gate himself.
        """

    @abstractmethod
    def let_go(self, connection: BaseDatabaseWrapper, places: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """WAITING at a gate -> READY for these (run id, place in line); returns ids and queues of those it held for."""

    @abstractmethod
    def leave(self, connection: BaseDatabaseWrapper, task_ids: Sequence[str]) -> list[tuple[str, str, int]]:
        """Delete the permits of these runs, which are done with their gates; returns their keys, gates and states."""

    @abstractmethod
    def claim_behind(
        self, connection: BaseDatabaseWrapper, process_id: int, places: Sequence[Place], first_claim: int
    ) -> list[Delivery]:
        """Claim for this process who waits behind these runs of it: of the same task, queue and gate, one key each.

        Higher priority first, then in the order of arrival, key by key; numbered from ``first_claim`` in that order.
        """

    @abstractmethod
    def step_up(self, connection: BaseDatabaseWrapper, process_id: int, keys: Sequence[str]) -> None:
        """Of those who follow in this process, give the first one of each key a place of its own: it holds a permit."""

    @abstractmethod
    def drop_stale(self, connection: BaseDatabaseWrapper, keys: Sequence[str]) -> list[str]:
        """Delete the permits of runs that wait at these gates by them, and not by their rows; returns their ids."""

    @abstractmethod
    def drop_orphans(self, connection: BaseDatabaseWrapper) -> list[tuple[str, str]]:
        """Delete permits that are held by runs which are not live (any more); returns their keys and gates.

        Not those of a run whose process has others that follow it: it will tell which of them has the place.
        """
