"""Celery's crontabs run at the same times here: every field's numbers, and both days where both are given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest

from django_taskq.contrib.celery_crontab import expression
from django_taskq.exceptions import InvalidSchedule
from django_taskq.schedules import crontab


def fields(minute: Any = "0", hour: Any = "0", day: Any = "*", month: Any = "*", weekday: Any = "*") -> list[Any]:
    return [minute, hour, day, month, weekday]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (fields("*/15", "9-17", "*", "*", "mon-fri"), "*/15 9-17 * * mon-fri"),
        (fields(weekday="monday"), "0 0 * * 1"),
        (fields(weekday="Monday-Wednesday,sat"), "0 0 * * 1-3,6"),
        (fields(month="january,july"), "0 0 * 1,7 *"),
        (fields(month="nov-feb"), "0 0 * nov-feb *"),
        (fields("0, 30", " 8"), "0,30 8 * * *"),
        (fields(weekday="fri-mon"), "0 0 * * fri-mon"),
        (fields([0, 30], {8, 9, 10}, "*", "*", 3), "0,30 8-10 * * 3"),
        (fields("*/90"), "0 0 * * *"),
        # Both days all year round are no restriction, whatever they look like.
        (fields(day="1-31", weekday="1"), "0 0 * * 1"),
        (fields(day="15", weekday="0-6"), "0 0 15 * *"),
        (fields(day="*/2", weekday="mon"), "0 0 */2 * mon"),
    ],
)
def test_texts(given: list[Any], text: str) -> None:
    assert expression(given) == (text, [])


@pytest.mark.parametrize(
    ("day", "weekday", "text"),
    [
        ("1-7", "mon", "0 0 * * mon#1"),
        ("8-14,22-28", "fri,tue", "0 0 * * tue#2,fri#2,tue#4,fri#4"),
        ("29-31", "0", "0 0 * * sun#5"),
        ("1", "1-5", "0 0 */31 * 1-5"),
        ("1-3,20", "thu", "0 0 */31,2,3,20 * 4"),
        ("13,14", "sun,sat", "0 0 13,14 * */7,6"),
        ("13", "sunday", "0 0 13 * */7"),
    ],
)
def test_both_days_have_to_match(day: str, weekday: str, text: str) -> None:
    found, notes = expression(fields(day=day, weekday=weekday))
    assert found == text
    assert "so that both have to" in notes[0]
    start = datetime(2026, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
    runs = list(islice(crontab(found, timezone="UTC").runs_between(start, start + timedelta(days=3000)), 40))
    days = {int(number) for part in day.split(",") for number in _span(part)}
    names = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
    weekdays = {names.index(part[:3]) for part in weekday.split(",")} if weekday[0].isalpha() else None
    weekdays = weekdays if weekdays is not None else {int(number) for number in _span(weekday)}
    every = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(3000)]
    assert runs == [at for at in every if at.day in days and at.isoweekday() % 7 in weekdays][: len(runs)]
    assert runs


def _span(text: str) -> range:
    low, _, high = text.partition("-")
    return range(int(low), int(high or low) + 1)


def test_both_days_where_there_is_no_such_text() -> None:
    with pytest.raises(InvalidSchedule, match=r"day of the month \(13\) and the day of the week \(5\) to match"):
        expression(fields(day="13", weekday="fri"))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (fields(weekday="7"), "day_of_week is '7', which Celery does not accept"),
        (fields("60"), "minute is '60'"),
        (fields("3/5"), "minute is '3/5'"),
        (fields("*/0"), "minute is '\\*/0'"),
        (fields("1,,2"), "minute is ''"),
        (fields(day="0"), "day_of_month is '0'"),
        (fields(weekday="mon#1"), "day_of_week is 'mon#1'"),
        (fields([]), r"minute is \[\]"),
        (fields([99]), r"minute is \[99\]"),
        (fields(weekday="noday"), "day_of_week is 'noday'"),
    ],
)
def test_what_celery_does_not_read_either(given: list[Any], error: str) -> None:
    with pytest.raises(ValueError, match=error) as caught:
        expression(given)
    assert not isinstance(caught.value, InvalidSchedule)
