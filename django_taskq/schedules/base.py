"""What all schedules share: bounds, jitter, what happens to runs that were missed, and the questions they answer.

A schedule names instants ("due times") and knows nothing of tasks, rows or the present. It is a value: frozen,
hashable, equal to another that says the same.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from django_taskq.conf import MOST_SECONDS, suggest
from django_taskq.exceptions import InvalidSchedule
from django_taskq.schedules.zones import TICK, check_year, instant_of, parse_zone, zone_of

MOST_CATCH_UPS = 10_000
# No schedule is asked about a time before this one.
BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)


class CatchUp(StrEnum):
    """Which of the runs that were missed are made up for: none, the last one, or all (up to ``catch_up_limit``)."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


class Overlap(StrEnum):
    """What happens to a due run while the one before it has not ended."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE_ONE = "queue_one"
    CANCEL_PREVIOUS = "cancel_previous"


Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(ABC):
    """When something runs. Durations are seconds or timedeltas.

    Without ``timezone`` the schedule follows ``settings.TIME_ZONE``, as it is at the time of use. No run is due
    before ``start`` or after ``end``; naive ones are wall time in the schedule's zone. ``jitter`` delays the start of
    each run by up to that much, ``max_lateness`` is how late a run may still start.
    """

    timezone: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    jitter: float = 0
    catch_up: CatchUp = CatchUp.LAST
    catch_up_limit: int = 100
    overlap: Overlap = Overlap.ALLOW
    max_lateness: float | None = None

    def __post_init__(self) -> None:
        self._set("timezone", parse_zone(self.timezone))
        for name in ("start", "end"):
            self._set(name, parse_bound(name, getattr(self, name)))
        self._set("jitter", _seconds("jitter", self.jitter, least=0))
        self._set("catch_up", _choice("catch_up", CatchUp, self.catch_up))
        self._set("catch_up_limit", _limit(self.catch_up_limit))
        self._set("overlap", _choice("overlap", Overlap, self.overlap))
        if self.max_lateness is not None:
            self._set("max_lateness", _seconds("max_lateness", self.max_lateness, least=TICK.total_seconds()))
        if self.start is not None and self.end is not None and self._ends_before(self.start, self.end):
            raise InvalidSchedule(f"end ({self.end}) is before start ({self.start}), so nothing would ever run.")
        self._check()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _ends_before(self, start: datetime, end: datetime) -> bool:
        # The settings are not asked unless the answer depends on them.
        if (start.tzinfo is None) == (end.tzinfo is None):
            return end < start
        return self.instant(end) < self.instant(start)

    def _check(self) -> None:
        """Parse and check a subclass's own fields."""

    @abstractmethod
    def _next(self, after: datetime) -> datetime | None:
        """The first due time after this one in UTC, whatever ``start`` and ``end`` say."""

    @abstractmethod
    def describe(self) -> str:
        """The timing in words."""

    @abstractmethod
    def __str__(self) -> str:
        """The timing as :func:`~django_taskq.schedules.parse` reads it, without the fields that all schedules share."""

    @property
    def zone(self) -> ZoneInfo:
        """The zone whose wall time it follows."""
        return zone_of(self.timezone)

    def instant(self, moment: datetime) -> datetime:
        """``moment`` in UTC; a naive one is wall time in the schedule's zone."""
        return instant_of(self.zone, moment) if moment.tzinfo is None else moment.astimezone(UTC)

    def next_run(self, after: datetime) -> datetime | None:
        """The first due time later than ``after``, in UTC; None when there is none, or none any more."""
        after = aware(after)
        if self.start is not None:
            after = max(after, self.instant(self.start) - TICK)
        try:
            due = self._next(after)
        except OverflowError:
            return None  # it would be after the year 9999
        return None if due is None or (self.end is not None and due > self.instant(self.end)) else due

    def is_ever_due(self) -> bool:
        """Whether it has any run at all: ``0 0 30 2 *`` has none."""
        return self.next_run(BEGINNING) is not None

    def runs_between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The due times with ``after < t <= until``, found one by one."""
        due = self.next_run(after)
        while due is not None and due <= until:
            yield due
            due = self.next_run(due)

    def latest_runs(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """The last ``limit`` of :meth:`runs_between`, ascending, without a walk through all of them."""
        first = self.next_run(after)
        if limit < 1 or first is None or first > until:
            return []
        until = aware(until) if self.end is None else min(aware(until), self.instant(self.end))
        # Windows that lead back from ``until``, each twice as long as the one after it.
        found: deque[datetime] = deque()
        span = timedelta(minutes=min(limit, MOST_CATCH_UPS))
        while True:
            start = first - TICK if until - first < span else until - span
            newest = deque(self.runs_between(start, until), maxlen=limit - len(found))
            found.extendleft(reversed(newest))
            if len(found) == limit or start < first:
                return list(found)
            until, span = start, span * 2

    def count_between(self, after: datetime, until: datetime, at_most: int) -> int:
        """How many due times ``after < t <= until`` holds, or ``at_most`` when there are more."""
        return sum(1 for _ in islice(self.runs_between(after, until), max(at_most, 0)))

    def starts_at(self, due: datetime, key: str) -> datetime:
        """``due`` with its jitter, which hangs on ``key`` and ``due`` alone: every scheduler computes the same."""
        if not self.jitter:
            return due
        text = f"{key}\0{due.astimezone(UTC).isoformat()}"
        number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        return due + timedelta(seconds=self.jitter * number / 2**64)


def aware(moment: datetime) -> datetime:
    """``moment`` in UTC; ``ValueError`` for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone: use django.utils.timezone.now(), or datetime(..., tzinfo=...)")
    return moment.astimezone(UTC)


def parse_bound(name: str, value: Any) -> datetime | None:
    """An aware datetime in UTC, a naive one as it is, or None. Raises :exc:`InvalidSchedule`."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidSchedule(f"{name} is {value!r}; it takes a datetime. A naive one is wall time in the zone.")
    check_year(name, value)
    return value if value.tzinfo is None else value.astimezone(UTC)


def _seconds(name: str, value: Any, least: float) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= MOST_SECONDS:
        lower = "of at least 0" if least == 0 else "above 0"
        raise InvalidSchedule(
            f"{name} is {value!r}; it takes a number of seconds {lower}, or a timedelta, of at most ten years."
        )
    return float(value)


def _limit(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_CATCH_UPS:
        raise InvalidSchedule(f"catch_up_limit is {value!r}; it takes a whole number from 1 to {MOST_CATCH_UPS}.")
    return value


def _choice(name: str, choices: type[Choice], value: Any) -> Choice:
    try:
        return choices(value)
    except ValueError:
        known = [choice.value for choice in choices]
        hint = suggest(value, known) if isinstance(value, str) else ""
        raise InvalidSchedule(f"{name} is {value!r}; it takes {', '.join(known)}.{hint}") from None
