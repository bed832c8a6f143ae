"""An oracle for crontabs: it looks at every minute there was. Slow, obvious, and without a line of what it judges."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
MACROS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}


def says(field: str, value: int, low: int, high: int) -> bool:
    """Whether one of a field's items, names replaced, covers the value: by going from its first to its last."""
    for item in field.split(","):
        if "#" in item or "l" in item:
            continue
        span, _, step = item.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            first, last = str(low), str(high)
        elif not last:
            last = str(high) if step else first
        here, end = int(first), int(last)
        for number in range(200):
            if number % int(step or 1) == 0 and here == value:
                return True
            if here == end:
                break
            here = low if here == high else here + 1
    return False


def says_weekday(field: str, day: date) -> bool:
    for number, name in enumerate(DAYS):
        field = field.replace(name, str(number))
    value = day.isoweekday() % 7
    for item in field.split(","):
        if "#" in item:
            weekday, _, nth = item.partition("#")
            if int(weekday) % 7 == value and (day.day + 6) // 7 == int(nth):
                return True
        elif "l" in item:
            if int(item.replace("l", "")) % 7 == value and (day + 7 * DAY).month != day.month:
                return True
        elif item[0] == "7":
            # Sunday at the start of a range.
            if says("0" + item[1:], value, 0, 6):
                return True
        elif "-7" in item:
            # Sunday at its end: as if the week had eight days.
            if says(item, value, 0, 7) or (value == 0 and says(item, 7, 0, 7)):
                return True
        elif says(item, value, 0, 6):
            return True
    return False


def says_month(field: str, day: date) -> bool:
    for number, name in enumerate(MONTHS, start=1):
        field = field.replace(name, str(number))
    return says(field, day.month, 1, 12)


def says_day(field: str, day: date) -> bool:
    return says(field, day.day, 1, 31) or ("l" in field.split(",") and (day + DAY).day == 1)


def day_matcher(day_field: str, month_field: str, weekday_field: str) -> Callable[[date], bool]:
    def matches(day: date) -> bool:
        of_month, of_week = says_day(day_field, day), says_weekday(weekday_field, day)
        if day_field.startswith("*") or weekday_field.startswith("*"):
            return says_month(month_field, day) and of_month and of_week
        return says_month(month_field, day) and (of_month or of_week)

    return matches


# What the clocks show at an instant (minutes since 1970): hour, minute, whether they really do, whether first.
Shown = tuple[int, int, int, bool, bool]


@lru_cache(maxsize=32)
def walk(zone: str, first: date, days: int) -> dict[date, list[Shown]]:
    """Every minute from a day before ``first``: what the clocks show then, and what they have just passed over."""
    found: dict[date, list[Shown]] = {}
    start = int((datetime(first.year, first.month, first.day, tzinfo=UTC) - 2 * DAY).timestamp()) // 60
    zone_info = ZoneInfo(zone)
    highest = datetime.fromtimestamp((start - 1) * 60, zone_info).replace(tzinfo=None)
    for instant in range(start, start + (days + 4) * 1440):
        wall = datetime.fromtimestamp(instant * 60, zone_info).replace(tzinfo=None)
        is_first = wall > highest
        if is_first:
            while (highest := highest + MINUTE) < wall:
                found.setdefault(highest.date(), []).append((instant, highest.hour, highest.minute, False, True))
        found.setdefault(wall.date(), []).append((instant, wall.hour, wall.minute, True, is_first))
    return found


def runs(expression: str, zone: str, first: date, days: int, after: datetime, until: datetime) -> list[datetime]:
    """The runs with ``after < t <= until``, which must lie in the days that are walked."""
    minute, hour, day, month, weekday = MACROS.get(expression, expression).lower().split()
    minutes = {value for value in range(60) if says(minute, value, 0, 59)}
    hours = {value for value in range(24) if says(hour, value, 0, 23)}
    matches = day_matcher(day, month, weekday)
    is_elapsed = minute.startswith("*") or hour.startswith("*")
    found = set()
    for date_, shown in walk(zone, first, days).items():
        if matches(date_):
            for instant, at_hour, at_minute, is_real, is_first in shown:
                if at_hour in hours and at_minute in minutes and (is_real if is_elapsed else is_first):
                    found.add(instant)
    instants = (datetime.fromtimestamp(instant * 60, UTC) for instant in sorted(found))
    return [instant for instant in instants if after < instant <= until]
