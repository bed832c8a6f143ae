"""Crontabs: Vixie's five fields, and what they mean on the days the clocks change.

croniter is asked about wall time alone, which has no gaps. How wall time becomes instants is decided here, by the
rules of Debian's cron:

- Neither minute nor hour starts with ``*``: a time of day. Each wall time runs once. One that the clocks pass over runs
  at the first instant after the gap, one that they show twice runs the first time.
- Otherwise it follows elapsed time: every instant runs whose wall time matches.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import import_module
from typing import Any
from zoneinfo import ZoneInfo

from django_taskq.conf import suggest
from django_taskq.exceptions import InvalidSchedule
from django_taskq.schedules.base import Schedule
from django_taskq.schedules.fields import FIELDS, Values
from django_taskq.schedules.zones import TICK, instant_of, next_change, offset_at, wall_at

MOST_CHARACTERS = 200
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# Where the search for a first match begins. The rarest date, a 29 February on one day of the week, comes back within
# 40 years; croniter looks 50 ahead.
_ORIGIN = datetime(2000, 1, 1)  # noqa: DTZ001 - wall time
# Ambiguous wall time is at most a day away from the change that made it so.
_LONGEST_FOLD = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Crontab(Schedule):
    """A crontab expression; make one with :func:`crontab`."""

    expression: str

    def _check(self) -> None:
        self._set("expression", _canonical(self.expression))

    def _next(self, after: datetime) -> datetime | None:
        times = _times(self.expression)
        return _next_fixed(times, self.zone, after) if times.is_fixed else _next_elapsed(times, self.zone, after)

    def __str__(self) -> str:
        return self.expression

    def describe(self) -> str:
        """In words where cron-descriptor is installed and gets it right; else the expression."""
        _minute, _hour, day, _month, weekday = _parse(self.expression)
        # It says "or" of days that both have to match, "and" where either may, and gives Mondays and a second Friday
        # one ordinal.
        is_both = _are_both_needed(day, weekday) and not (day.is_full or weekday.is_full)
        is_either = bool(day.special or weekday.special) and not (day.is_full or weekday.is_full)
        is_mixed = any(values.special and len(values.special) + len(values.numbers) > 1 for values in (day, weekday))
        return self.expression if is_both or is_either or is_mixed else _words(self.expression)


def crontab(
    expression: str | None = None,
    *,
    minute: Any = None,
    hour: Any = None,
    day_of_month: Any = None,
    month_of_year: Any = None,
    day_of_week: Any = None,
    **common: Any,
) -> Crontab:
    """A schedule from a crontab expression, or from fields: ``crontab("30 1 * * *")``, ``crontab(hour=1, minute=30)``.

    Fields that are not given are ``*``, as in Celery, but for those finer than the finest one given: they are at
    their start. ``crontab(hour=3)`` is 03:00 once and not each minute from 03:00 to 03:59,
    ``crontab(day_of_week="mon")`` is Monday 00:00, ``crontab(month_of_year=6)`` is 1 June 00:00. ``crontab()`` is
    every minute.
    """
    fields = (minute, hour, day_of_month, month_of_year, day_of_week)
    if expression is None:
        expression = _from_fields(*fields)
    elif any(value is not None for value in fields):
        raise InvalidSchedule("A crontab is either an expression or fields; this one has both.")
    return Crontab(expression, **common)


def _from_fields(minute: Any, hour: Any, day: Any, month: Any, weekday: Any) -> str:
    is_day_given = day is not None or weekday is not None
    is_given = [minute is not None, hour is not None, is_day_given, month is not None]
    finest = is_given.index(True) if True in is_given else 0
    values = [
        _text_of(minute, "0" if finest > 0 else "*"),
        _text_of(hour, "0" if finest > 1 else "*"),
        _text_of(day, "1" if finest > 2 else "*"),
        _text_of(month, "*"),
        _text_of(weekday, "*"),
    ]
    for field, value in zip(FIELDS, values, strict=True):
        # Before they are joined: a blank in one would shift all that follow.
        field.parse(value)
    return " ".join(values)


def _text_of(value: Any, default: str) -> str:
    if value is None:
        return default
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(str(item) for item in value)
    return str(value)


def _canonical(expression: Any) -> str:
    if not isinstance(expression, str):
        raise InvalidSchedule(f"A crontab is a text such as '30 1 * * *', not {expression!r}.")
    if len(expression) > MOST_CHARACTERS:
        raise InvalidSchedule(f"A crontab has at most {MOST_CHARACTERS} characters; this one has {len(expression)}.")
    return " ".join(values.text for values in _parse(expression))


def _parse(expression: str) -> list[Values]:
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in MACROS:
            known = ", ".join(MACROS)
            raise InvalidSchedule(f"{text} is none of {known}.{suggest(text.lower(), MACROS)}")
        text = MACROS[text.lower()]
    words = text.split()
    if len(words) != len(FIELDS):
        names = " ".join(field.name for field in FIELDS)
        hint = " For seconds use every(seconds=...)." if len(words) > len(FIELDS) else ""
        raise InvalidSchedule(f"A crontab has five fields ({names}); {text!r} has {len(words)}.{hint}")
    return [field.parse(word) for field, word in zip(FIELDS, words, strict=True)]


def _are_both_needed(day: Values, weekday: Values) -> bool:
    """Vixie's rule: day of month or day of week may match, unless one of them starts with ``*``."""
    return day.has_star or weekday.has_star


@dataclass(frozen=True, slots=True)
class _Times:
    """The wall times of an expression: one croniter for each of the alternatives that croniter cannot mix."""

    alternatives: tuple[Any, ...]
    is_fixed: bool

    def next(self, wall: datetime) -> datetime | None:
        """The first wall time after this one."""
        # Whole minutes: croniter counts in floats, which round the last microsecond of a minute up into the next.
        wall = wall.replace(second=0, microsecond=0)
        found = [time for each in self.alternatives if (time := _next_of(each, wall)) is not None]
        return min(found, default=None)


def _next_of(template: Any, wall: datetime) -> datetime | None:
    # A copy, as it keeps its place; parsing anew would take as long as searching.
    try:
        found: datetime = copy.copy(template).get_next(datetime, start_time=wall)
    except (ValueError, OverflowError):
        return None  # there is none (a CroniterBadDateError), or it is after the year 9999
    return found


@lru_cache(maxsize=1024)
def _times(expression: str) -> _Times:
    # Loaded late: it brings dateutil, and most processes ask no crontab anything.
    croniter = import_module("croniter").croniter
    minute, hour, day, month, weekday = _parse(expression)
    before = f"{_listed(minute)} {_listed(hour)}"
    days = "*" if day.is_full else ",".join([*_sorted(day.numbers), *day.special])
    # croniter takes numbers or days that hang on the month, not both in one field.
    kinds = (_sorted(weekday.numbers), sorted(weekday.special))
    weekdays = ["*"] if weekday.is_full else [",".join(kind) for kind in kinds if kind]
    if _are_both_needed(day, weekday):
        pairs = [(days, each) for each in weekdays]
    else:
        pairs = [(days, "*"), *(("*", each) for each in weekdays)]
    all_of_them = [
        croniter(f"{before} {of_month} {_listed(month)} {of_week}", _ORIGIN, ret_type=datetime, day_or=False)
        for of_month, of_week in pairs
    ]
    # What never matches costs a search through 50 years each time it is asked.
    alternatives = tuple(each for each in all_of_them if _next_of(each, _ORIGIN) is not None)
    return _Times(alternatives, not (minute.has_star or hour.has_star))


def _listed(values: Values) -> str:
    return "*" if values.is_full else ",".join(_sorted(values.numbers))


def _sorted(numbers: Iterable[int]) -> list[str]:
    return [str(number) for number in sorted(numbers)]


def _next_fixed(times: _Times, zone: ZoneInfo, after: datetime) -> datetime | None:
    wall: datetime | None = wall_at(zone, after)
    if after.astimezone(zone).fold:
        # Shown for the second time: whatever matches before the end of the repetition has run the first time.
        wall = _end_of_fold(zone, after) - TICK
    # Wall times up to here ran up to ``after``. Those that the clocks pass over map to one instant, perhaps this one.
    while wall is not None:
        wall = times.next(wall)
        if wall is not None and (due := instant_of(zone, wall)) > after:
            return due
    return None


def _end_of_fold(zone: ZoneInfo, instant: datetime) -> datetime:
    change = start = instant - _LONGEST_FOLD
    while (found := next_change(zone, change, instant)) is not None:
        change = found
    return wall_at(zone, change - TICK) + TICK if change > start else wall_at(zone, instant)


def _next_elapsed(times: _Times, zone: ZoneInfo, after: datetime) -> datetime | None:
    offset = offset_at(zone, after)
    wall = times.next(wall_at(zone, after))
    while wall is not None:
        # As if the clocks went on as they are; when they change before that, from the change on as they are then.
        due = wall.replace(tzinfo=UTC) - offset
        change = next_change(zone, after, due)
        if change is None:
            return due
        after, offset = change, offset_at(zone, change)
        wall = times.next(wall_at(zone, change) - TICK)
    return None


def _words(expression: str) -> str:
    try:
        module = import_module("cron_descriptor")
    except ImportError:
        return expression
    try:
        # Without a locale of its own it asks the process for one, and some processes have none.
        options = module.Options(locale_code="en_US")
    except TypeError:  # before 2.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = module.Options()
        options.locale_code, options.use_24hour_time_format = "en_US", False
    try:
        return str(module.get_description(expression, options))
    except Exception:  # it is decoration: nothing that it cannot say may break a page
        return expression
