"""By the sun at a place, as Celery's ``solar``. The astronomy is astral's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from importlib import import_module
from typing import Any

from django_taskq.conf import suggest
from django_taskq.exceptions import InvalidSchedule
from django_taskq.schedules.base import Schedule

# Degrees below the horizon. At sunrise and sunset it is the sun's upper edge that is at the horizon.
EVENTS: dict[str, float] = {
    "dawn_astronomical": 18,
    "dawn_nautical": 12,
    "dawn_civil": 6,
    "sunrise": 32 / 120,
    "solar_noon": 0,
    "sunset": 32 / 120,
    "dusk_civil": 6,
    "dusk_nautical": 12,
    "dusk_astronomical": 18,
}
_RISING = ("dawn_astronomical", "dawn_nautical", "dawn_civil", "sunrise")
# Longer than any polar day or night: what has not happened by then does not happen there.
MOST_DAYS = 400
HALF_DAY = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Solar(Schedule):
    """An event of the sun; make one with :func:`solar`."""

    event: str
    latitude: float
    longitude: float

    def _check(self) -> None:
        if self.event not in EVENTS:
            raise InvalidSchedule(
                f"event is {self.event!r}; it takes {', '.join(EVENTS)}.{suggest(str(self.event), EVENTS)}"
            )
        self._set("latitude", _degrees("latitude", self.latitude, 90))
        self._set("longitude", _degrees("longitude", self.longitude, 180))
        _astral()

    def _next(self, after: datetime) -> datetime | None:
        # The date there by the sun; its events are within a day of it.
        day = (after + timedelta(hours=self.longitude / 15)).date() - timedelta(days=1)
        for _ in range(MOST_DAYS):
            due = self._on(day)
            if due is not None and due > after:
                return due
            day += timedelta(days=1)
        return None

    def _on(self, day: date) -> datetime | None:
        """When it happens in the solar day around noon of ``day``, to the second; None on polar days and nights."""
        found = self._found(day)
        if found is None:
            # Once a year, where it happens at midnight UTC, astral's answers skip a day between two others.
            before, after = self._found(day - timedelta(days=1)), self._found(day + timedelta(days=1))
            if before is not None and after is not None:
                found = before + (after - before) / 2
        return None if found is None else found.replace(microsecond=0)

    def _found(self, day: date) -> datetime | None:
        astral, sun = _astral()
        observer = astral.Observer(self.latitude, self.longitude)
        noon: datetime = sun.noon(observer, day)
        if self.event == "solar_noon":
            return noon
        is_rising = self.event in _RISING
        direction = astral.SunDirection.RISING if is_rising else astral.SunDirection.SETTING
        start = noon - HALF_DAY if is_rising else noon
        # astral answers for a date in UTC, and by turns for the solar day before or after the one that is meant.
        for number in (0, -1, 1):
            asked = day + timedelta(days=number)
            try:
                found: datetime = sun.time_of_transit(observer, asked, 90 + EVENTS[self.event], direction)
            except ValueError:
                continue
            if start <= found < start + HALF_DAY:
                return found
        return None

    def __str__(self) -> str:
        return f"solar {self.event} {_shown(self.latitude)} {_shown(self.longitude)}"

    def describe(self) -> str:
        """Such as "at sunset, 56.95 24.1"."""
        first, _, rest = self.event.partition("_")
        name = f"{rest} {first}" if first in ("dawn", "dusk") else self.event.replace("_", " ")
        return f"at {name}, {_shown(self.latitude)} {_shown(self.longitude)}"


def solar(event: str, latitude: float, longitude: float, **common: Any) -> Solar:
    """A schedule by the sun, north and east positive. Days on which the event does not happen are passed over."""
    return Solar(event, latitude, longitude, **common)


def parse_solar(text: str, **common: Any) -> Solar:
    """A schedule from "solar sunset 56.95 24.1"."""
    words = text.split()
    if len(words) != 4:
        raise InvalidSchedule(
            f"{text!r} is not of the form 'solar event latitude longitude', as solar sunset 56.95 24.1."
        )
    try:
        latitude, longitude = float(words[2]), float(words[3])
    except ValueError:
        raise InvalidSchedule(f"{text!r}: latitude and longitude are degrees, as in solar sunset 56.95 24.1.") from None
    return Solar(words[1].lower(), latitude, longitude, **common)


def _degrees(name: str, value: Any, most: int) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -most <= value <= most:
        raise InvalidSchedule(f"{name} is {value!r}; it takes degrees from -{most} to {most}.")
    return float(value)


def _shown(degrees: float) -> str:
    return repr(degrees).removesuffix(".0")


def _astral() -> tuple[Any, Any]:
    try:
        return import_module("astral"), import_module("astral.sun")
    except ImportError:
        raise InvalidSchedule(
            "Solar schedules need the package astral: python -m pip install 'django-kombu-taskq[schedules]'"
        ) from None
