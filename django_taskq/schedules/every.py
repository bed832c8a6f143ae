"""Every so often, in elapsed time: clock changes do not matter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django_taskq.conf import MOST_SECONDS, suggest
from django_taskq.exceptions import InvalidSchedule
from django_taskq.schedules.base import Schedule, aware, parse_bound
from django_taskq.schedules.zones import TICK

# A Monday: "every week" without an anchor is Monday 00:00 UTC.
EPOCH = datetime(1970, 1, 5, tzinfo=UTC)
UNITS = {
    "week": timedelta(weeks=1),
    "day": timedelta(days=1),
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
    "second": timedelta(seconds=1),
}
_SHORT = {
    "s": "second",
    "sec": "second",
    "m": "minute",
    "min": "minute",
    "h": "hour",
    "hr": "hour",
    "d": "day",
    "w": "week",
}
_TEXT = re.compile(
    r"every\s+(?:(?P<number>[0-9]{1,12}(?:\.[0-9]{1,6})?)\s*)?(?P<unit>[a-z]+)(?:\s+from\s+(?P<anchor>\S+))?", re.I
)


@dataclass(frozen=True, slots=True)
class Every(Schedule):
    """A fixed interval; make one with :func:`every`."""

    interval: timedelta
    anchor: datetime | None = None

    def _check(self) -> None:
        self._set("interval", _interval(self.interval))
        self._set("anchor", parse_bound("anchor", self.anchor))

    @property
    def _origin(self) -> datetime:
        """One of its due times; the others are whole intervals away, so that no restart shifts them."""
        given = self.anchor or self.start
        return EPOCH if given is None else self.instant(given)

    def _next(self, after: datetime) -> datetime | None:
        origin = self._origin
        return origin + ((after - origin) // self.interval + 1) * self.interval

    def _numbers(self, after: datetime, until: datetime) -> range:
        """Which multiples of the interval, counted from the origin, fall into ``after < t <= until``."""
        after, until, origin = aware(after), aware(until), self._origin
        if self.start is not None:
            after = max(after, self.instant(self.start) - TICK)
        if self.end is not None:
            until = min(until, self.instant(self.end))
        return range((after - origin) // self.interval + 1, (until - origin) // self.interval + 1)

    def latest_runs(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """The last ``limit`` due times with ``after < t <= until``, ascending."""
        numbers = self._numbers(after, until)
        origin = self._origin
        return [origin + number * self.interval for number in numbers[-limit:]] if limit > 0 else []

    def count_between(self, after: datetime, until: datetime, at_most: int) -> int:
        """How many due times ``after < t <= until`` holds, or ``at_most`` when there are more."""
        return max(0, min(len(self._numbers(after, until)), at_most))

    def __str__(self) -> str:
        number, unit = _largest_unit(self.interval)
        anchor = f" from {self.anchor.isoformat()}" if self.anchor else ""
        return f"every {number} {unit}{'' if number == '1' else 's'}{anchor}"

    def describe(self) -> str:
        """Such as "every 5 minutes" and "every hour"."""
        number, unit = _largest_unit(self.interval)
        return f"every {unit}" if number == "1" else f"every {number} {unit}s"


def every(
    interval: timedelta | float | None = None,
    /,
    *,
    seconds: float = 0,
    minutes: float = 0,
    hours: float = 0,
    days: float = 0,
    weeks: float = 0,
    anchor: datetime | None = None,
    **common: Any,
) -> Every:
    """A schedule that runs each time this much time has passed: ``every(minutes=5)``, ``every(timedelta(hours=1))``.

    It is counted from ``anchor``, else from ``start``, else from Monday 1970-01-05 00:00 UTC; never from when a
    process was started.
    """
    parts = {"seconds": seconds, "minutes": minutes, "hours": hours, "days": days, "weeks": weeks}
    if interval is None:
        for name, value in parts.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidSchedule(f"{name} is {value!r}; it takes a number.")
        try:
            interval = timedelta(**parts)
        except (ValueError, OverflowError):
            interval = timedelta.max
    elif any(parts.values()):
        raise InvalidSchedule("An interval is given either as a whole or in parts; this one has both.")
    return Every(interval, anchor=anchor, **common)  # type: ignore[arg-type]


def parse_every(text: str, **common: Any) -> Every:
    """A schedule from "every 5 minutes", "every hour", "every 2h" or "every 90 seconds from 2026-01-01T00:00:30Z"."""
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise InvalidSchedule(f"{text!r} is no interval; say it like 'every 5 minutes', 'every hour' or 'every 2h'.")
    word = found["unit"].lower()
    unit = _SHORT.get(word) or _SHORT.get(word.removesuffix("s")) or word.removesuffix("s")
    if unit not in UNITS:
        known = [f"{unit}s" for unit in UNITS]
        raise InvalidSchedule(f"{word!r} is no unit of time; every takes {', '.join(known)}.{suggest(word, known)}")
    try:
        anchor = datetime.fromisoformat(found["anchor"]) if found["anchor"] else None
    except ValueError:
        raise InvalidSchedule(f"{found['anchor']!r} is no time; say it like 2026-12-01T10:00:00+02:00.") from None
    number = float(found["number"] or 1)
    seconds = number * UNITS[unit].total_seconds()
    return Every(seconds, anchor=anchor, **common)  # type: ignore[arg-type]


def _interval(value: Any) -> timedelta:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 1 <= seconds <= MOST_SECONDS:
        shown = f"{value.total_seconds():g} seconds" if isinstance(value, timedelta) else repr(value)
        raise InvalidSchedule(f"The interval is {shown}; it takes from one second to ten years.")
    return value if isinstance(value, timedelta) else timedelta(seconds=seconds)


def _largest_unit(interval: timedelta) -> tuple[str, str]:
    """The largest unit that divides it: 90 minutes are "90 minutes", 120 are "2 hours"."""
    for unit, length in UNITS.items():
        if interval % length == timedelta(0):
            return str(interval // length), unit
    return repr(interval.total_seconds()), "second"
