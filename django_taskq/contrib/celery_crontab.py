"""Celery's crontabs in this package's words.

Two things differ: Celery knows full names of days and months, and where both a day of the month and a day of the week
are given it wants both to match, while cron is content with either.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from django_taskq.exceptions import InvalidSchedule
from django_taskq.schedules.fields import DAYS, FIELDS, MONTHS, Field

_PART = re.compile(r"(?:\*|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>\d+))?")
_NAMES = {**{name: number for number, name in enumerate(MONTHS, 1)}, **{name: at for at, name in enumerate(DAYS)}}
DAY, WEEKDAY = 2, 4


def expression(specs: Sequence[Any]) -> tuple[str, list[str]]:
    """The crontab for Celery's minute, hour, day_of_month, month_of_year and day_of_week, and what to say about it.

    Raises :exc:`InvalidSchedule` for what cannot be said here, and ``ValueError`` for what Celery does not read either.
    """
    numbers = [_numbers(field, spec) for field, spec in zip(FIELDS, specs, strict=True)]
    texts = [_text(field, spec, found) for field, spec, found in zip(FIELDS, specs, numbers, strict=True)]
    for index in (DAY, WEEKDAY):
        if len(numbers[index]) == FIELDS[index].size:
            texts[index] = "*"
    notes = []
    if not texts[DAY].startswith("*") and not texts[WEEKDAY].startswith("*"):
        given = f"{texts[DAY]} and {texts[WEEKDAY]}"
        texts[DAY], texts[WEEKDAY] = _both(numbers[DAY], numbers[WEEKDAY])
        notes.append(
            f"Celery wants the day of the month and the day of the week ({given}) to match, cron either of them; "
            f"it is written so that both have to ({texts[DAY]} and {texts[WEEKDAY]})"
        )
    return " ".join(texts), notes


def _numbers(field: Field, spec: Any) -> frozenset[int]:
    """What Celery makes of a field."""
    if isinstance(spec, int):
        found = {spec}
    elif isinstance(spec, str):
        found = {number for part in spec.replace(" ", "").split(",") for number in _part(field, part)}
    else:
        found = {int(number) for number in spec}
    if not found or not all(field.low <= number <= field.high for number in found):
        raise ValueError(f"{field.name} is {spec!r}, which Celery does not accept")
    return frozenset(found)


def _part(field: Field, part: str) -> Iterable[int]:
    found = _PART.fullmatch(part)
    if found is None or (found["step"] and (int(found["step"]) == 0 or (found["low"] and not found["high"]))):
        raise ValueError(f"{field.name} is {part!r}, which Celery does not accept")
    low, high = field.low, field.high
    if found["low"]:
        low = _number(field, found["low"])
        high = _number(field, found["high"]) if found["high"] else low
    whole = range(low, high + 1) if low <= high else [*range(low, field.high + 1), *range(field.low, high + 1)]
    return whole[:: int(found["step"] or 1)]


def _number(field: Field, text: str) -> int:
    number = int(text) if text.isdecimal() else _NAMES.get(text[:3].lower(), -1)
    if not field.low <= number <= field.high:
        raise ValueError(f"{field.name} is {text!r}, which Celery does not accept")
    return number


def _text(field: Field, spec: Any, numbers: frozenset[int]) -> str:
    """The text as it was written where it means the same here, else the numbers."""
    if isinstance(spec, str):
        try:
            values = field.parse(spec.replace(" ", ""))
        except InvalidSchedule:
            pass
        else:
            if values.numbers == numbers and not values.special:
                return values.text
    return "*" if len(numbers) == field.size else _listed(numbers)


def _both(days: frozenset[int], weekdays: frozenset[int]) -> tuple[str, str]:
    """The two fields such that both have to match. Raises :exc:`InvalidSchedule` where there is no such text."""
    weeks = {nth: set(range(7 * nth - 6, min(7 * nth, 31) + 1)) for nth in range(1, 6)}
    inside = [nth for nth, week in weeks.items() if week <= days]
    if days == set().union(*(weeks[nth] for nth in inside)):
        # The first to the seventh, and a Monday: the first Monday.
        return "*", ",".join(f"{DAYS[weekday]}#{nth}" for nth in inside for weekday in sorted(weekdays))
    # A field that starts with a star is one that has to match as well; */31 is the 1st, */7 Sunday.
    if 1 in days:
        return ",".join(filter(None, ["*/31", _listed(days - {1})])), _listed(weekdays)
    if 0 in weekdays:
        return _listed(days), ",".join(filter(None, ["*/7", _listed(weekdays - {0})]))
    raise InvalidSchedule(
        f"Celery wants both the day of the month ({_listed(days)}) and the day of the week ({_listed(weekdays)}) to "
        f"match, which has no form here. Schedule the days of the month, and have the task return on other weekdays."
    )


def _listed(numbers: Collection[int]) -> str:
    """The numbers with ranges for three and more in a row: 1-5,8,9."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(str(number) for number in run) for run in runs)
