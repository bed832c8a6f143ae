"""Time zones: from wall time to instants, and when a zone's clocks change.

Wall time is a naive datetime, an instant an aware one in UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from django.conf import settings

from django_taskq.conf import suggest
from django_taskq.exceptions import InvalidSchedule

TICK = timedelta(microseconds=1)
FIRST_YEAR, LAST_YEAR = 1900, 2500
Change = tuple[datetime, timedelta]


def zone_of(name: str | None) -> ZoneInfo:
    """The zone, which is ``settings.TIME_ZONE`` as it is now when none is named."""
    return ZoneInfo(name or settings.TIME_ZONE)


def parse_zone(value: Any) -> str | None:
    """The name of a zone that exists here, or None. Raises :exc:`InvalidSchedule`."""
    if value is None:
        return None
    try:
        if isinstance(value, str) and value:
            return ZoneInfo(value).key
    # A directory of the database ("Europe") and a path out of it ("../etc") are OSErrors and ValueErrors.
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    hint = suggest(value, available_timezones()) if isinstance(value, str) else ""
    raise InvalidSchedule(f"timezone is {value!r}; it takes the name of a zone, such as Europe/Oslo.{hint}")


def check_year(name: str, moment: datetime) -> datetime:
    """``moment`` itself. Raises :exc:`InvalidSchedule` where no arithmetic with zones could be done any more."""
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise InvalidSchedule(f"{name} is {moment}; it takes a year from {FIRST_YEAR} to {LAST_YEAR}.")
    return moment


def offset_at(zone: ZoneInfo, instant: datetime) -> timedelta:
    """How far the zone's wall time is ahead of UTC at this instant."""
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def wall_at(zone: ZoneInfo, instant: datetime) -> datetime:
    """What the zone's clocks show at this instant."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def instant_of(zone: ZoneInfo, wall: datetime) -> datetime:
    """When the clocks first show ``wall``; where they pass over it, the first instant after that."""
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if wall_at(zone, instant) == wall.replace(fold=0):
        return instant
    # In a gap fold=0 counts with the offset from before it and ends up behind the change, fold=1 the other way round.
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return next_change(zone, before, instant) or instant


def next_change(zone: ZoneInfo, after: datetime, until: datetime) -> datetime | None:
    """The first instant in ``after < t <= until`` at which the clocks change."""
    return next((instant for instant, _ in _changes(zone.key, after, until)), None)


def clock_changes(zone: str, after: datetime, until: datetime) -> list[Change]:
    """The instants in ``after < t <= until`` at which the zone's clocks change, and by how much: +1 h is a gap."""
    return list(_changes(zone, after, until))


def _changes(zone: str, after: datetime, until: datetime) -> Iterator[Change]:
    after, until = after.astimezone(UTC), until.astimezone(UTC)
    for year in range(after.year, until.year + 1):
        for change in _changes_of(zone, year):
            if after < change[0] <= until:
                yield change


@lru_cache(maxsize=4096)
def _changes_of(key: str, year: int) -> tuple[Change, ...]:
    """Those from the year's first instant (exclusive) to its end (inclusive)."""
    zone = ZoneInfo(key)
    first = datetime(year, 1, 1, tzinfo=UTC)
    found: list[Change] = []
    # Day by day: Ramadan and the end of a war have moved clocks forth and back within weeks, never within a day.
    before = offset_at(zone, first)
    for day in range(366):
        start, end = (first + timedelta(days=number) for number in (day, day + 1))
        after = offset_at(zone, end)
        if before != after and start.year == year:
            found.append((_bisect(zone, start, end, before), after - before))
        before = after
    return tuple(found)


def _bisect(zone: ZoneInfo, start: datetime, end: datetime, offset: timedelta) -> datetime:
    """The first second in ``start < t <= end`` that no longer has ``offset``, which ``start`` has."""
    low, high = 0, int((end - start).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if offset_at(zone, start + timedelta(seconds=middle)) == offset:
            low = middle
        else:
            high = middle
    return start + timedelta(seconds=high)
