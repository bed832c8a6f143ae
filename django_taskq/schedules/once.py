"""Once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django_taskq.exceptions import InvalidSchedule
from django_taskq.schedules.base import Schedule
from django_taskq.schedules.zones import check_year, wall_at


@dataclass(frozen=True, slots=True)
class Once(Schedule):
    """One due time; make one with :func:`once`."""

    at: datetime

    def _check(self) -> None:
        self._set("at", _parse_at(self.at))

    def _next(self, after: datetime) -> datetime | None:
        due = self.instant(self.at)
        return due if due > after else None

    def is_ever_due(self) -> bool:
        """Whether ``start`` and ``end`` leave room for it."""
        due = self.instant(self.at)
        return (self.start is None or self.instant(self.start) <= due) and (
            self.end is None or due <= self.instant(self.end)
        )

    def __str__(self) -> str:
        return f"once {self.at.isoformat()}"

    def describe(self) -> str:
        """Such as "once, 2026-12-01 10:00", by the clocks of the schedule's zone."""
        wall = wall_at(self.zone, self.instant(self.at))
        return f"once, {wall:%Y-%m-%d %H:%M:%S}" if wall.second else f"once, {wall:%Y-%m-%d %H:%M}"


def once(at: datetime | str, **common: Any) -> Once:
    """A schedule with a single run. A naive ``at`` is wall time in the schedule's zone; text is ISO 8601."""
    return Once(at, **common)  # type: ignore[arg-type]


def parse_once(text: str, **common: Any) -> Once:
    """A schedule from "once 2026-12-01T10:00:00+02:00"."""
    return Once(text.strip().partition(" ")[2].strip(), **common)  # type: ignore[arg-type]


def _parse_at(value: Any) -> datetime:
    if isinstance(value, datetime):
        return check_year("once", value)
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InvalidSchedule(
            f"once takes a datetime, or a text such as 2026-12-01T10:00:00+02:00; {value!r} is neither."
        ) from None
    return check_year("once", moment)
