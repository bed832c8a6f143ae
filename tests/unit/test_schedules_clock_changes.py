"""Crontabs on the days the clocks change: the table of cases, and random ones against the oracle.

``TASKQ_SCHEDULE_CASES=10000`` runs the full number of random cases.
"""

from __future__ import annotations

import os
import random
from datetime import UTC, date, datetime, timedelta
from itertools import islice

import pytest

from django_taskq.schedules import clock_changes, crontab
from tests.unit import minute_by_minute
from tests.unit.clock_changes import CASES, Case

NUMBER_OF_CASES = int(os.environ.get("TASKQ_SCHEDULE_CASES", "300"))
BATCHES = 10
MOST_RUNS = 25
# A zone and a day on or next to which its clocks change, if they do.
PLACES = [
    ("Europe/Riga", "2026-03-29"), ("Europe/Riga", "2026-10-25"),
    ("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"), ("Australia/Lord_Howe", "2026-10-04"),
    ("America/Sao_Paulo", "2018-11-04"), ("America/Sao_Paulo", "2019-02-17"),
    ("Africa/Casablanca", "2026-02-15"), ("Africa/Casablanca", "2026-03-22"),
    ("Asia/Kolkata", "2028-02-29"), ("UTC", "2026-12-31"),
    # A whole day that never was, a gap at midnight on a Friday, two hours at once, winter time that is the odd one,
    # half an hour for politics, a midnight that comes twice.
    ("Pacific/Apia", "2011-12-30"), ("Africa/Cairo", "2023-04-28"), ("Antarctica/Troll", "2026-03-29"),
    ("Europe/Dublin", "2026-10-25"), ("Asia/Pyongyang", "2015-08-15"), ("America/Havana", "2026-11-01"),
]  # fmt: skip
DAYS_AROUND = 6
# Sparse expressions need more than weeks. The full form looks at all of these, from the first day to the last.
YEARS = [("Europe/Riga", 2026), ("Africa/Casablanca", 2025), ("Australia/Lord_Howe", 2027), ("America/New_York", 2028)]


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(CASES) >= 150
    assert {case.zone for case in CASES} >= {zone for zone, _ in PLACES[:12]}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_table(case: Case) -> None:
    schedule = crontab(case.expression, timezone=case.zone)
    following = case.after
    for expected in case.runs:
        due = schedule.next_run(following)
        assert due is not None
        assert due.astimezone(schedule.zone).isoformat() == expected.isoformat()
        assert due.utcoffset() == timedelta(0)
        following = due
    if not case.runs:
        assert schedule.next_run(case.after) is None


def test_the_oracle_agrees_with_the_table() -> None:
    for case in CASES:
        near = [run for run in case.runs if run <= case.after + timedelta(days=3)]
        # The rows that end sooner do not say what comes then.
        until = near[-1] if near and near == case.runs else case.after + timedelta(days=3)
        found = minute_by_minute.runs(case.expression, case.zone, case.after.date(), 5, case.after, until)
        assert found == near, str(case)


def values(chance: random.Random, low: int, high: int) -> str:
    """One item of a field: a number, a range that may lead over the end, or steps."""
    first, last = chance.randint(low, high), chance.randint(low, high)
    step = chance.choice([1, 2, 3, 5, 7, 10, 15, 20])
    step = min(step, high - low + 1)
    return chance.choice([f"{first}", f"{first}", f"{first}-{last}", f"{first}-{last}/{step}", f"{first}/{step}"])


def field(chance: random.Random, low: int, high: int, star: float) -> str:
    if chance.random() < star:
        return chance.choice(["*", "*", f"*/{chance.randint(1, high - low + 1)}", f"*/2,{low}"])
    return ",".join(values(chance, low, high) for _ in range(chance.choice([1, 1, 1, 2, 3])))


def weekday(chance: random.Random) -> str:
    first, last = chance.choice(minute_by_minute.DAYS), chance.choice(minute_by_minute.DAYS)
    nth = chance.randint(1, 5)
    odd = [
        first,
        f"{first}-{last}",
        f"{first}#{nth}",
        f"L{chance.randint(0, 7)}",
        f"{chance.randint(0, 7)}L",
        "7",
        "5-7",
    ]
    return ",".join(chance.sample(odd, chance.choice([1, 1, 2])))


def expression(chance: random.Random) -> str:
    minute = field(chance, 0, 59, 0.35)
    # Clocks change at night.
    hour = field(chance, 0, 4, 0) if chance.random() < 0.4 else field(chance, 0, 23, 0.5)
    day = "L" if chance.random() < 0.07 else field(chance, 1, 31, 0.6)
    month = "*" if chance.random() < 0.8 else chance.choice(["mar-nov", "oct-apr", "*/2", "2", "dec,jan,feb"])
    of_week = weekday(chance) if chance.random() < 0.3 else field(chance, 0, 6, 0.7)
    return f"{minute} {hour} {day} {month} {of_week}"


def check(chance: random.Random, zone: str, first: date, days: int, around: datetime | None) -> None:
    text = expression(chance)
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    until = start + timedelta(days=days)
    if around is not None and chance.random() < 0.6:
        after = around + timedelta(minutes=chance.randint(-2000, 2000))
    else:
        after = start + timedelta(minutes=chance.randint(0, days * 1440 - 1))
    after += chance.choice([timedelta(0), timedelta(microseconds=chance.randint(0, 59_999_999))])
    expected = minute_by_minute.runs(text, zone, first, days, after, until)
    schedule = crontab(text, timezone=zone)
    shown = f"{text!r} {zone} {after}"
    due = schedule.next_run(after)
    if expected:
        assert due == expected[0], shown
    else:
        assert due is None or due > until, shown
    if len(expected) > MOST_RUNS:
        expected = expected[:MOST_RUNS]
        until = expected[-1]
    assert list(schedule.runs_between(after, until)) == expected, shown
    latest = chance.randint(1, 8)
    assert schedule.latest_runs(after, until, latest) == expected[-latest:], shown
    assert schedule.count_between(after, until, 10) == min(len(expected), 10), shown


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_expressions_against_every_minute(batch: int) -> None:
    chance = random.Random(f"schedules {batch}")
    for number in range(NUMBER_OF_CASES // BATCHES):
        zone, day = PLACES[(number * BATCHES + batch) % len(PLACES)]
        middle = date.fromisoformat(day)
        around = datetime(middle.year, middle.month, middle.day, 2, tzinfo=UTC)
        check(chance, zone, middle - timedelta(days=DAYS_AROUND), 2 * DAYS_AROUND, around)


@pytest.mark.parametrize(("zone", "year"), YEARS[: None if NUMBER_OF_CASES >= 1000 else 1])
def test_random_expressions_over_whole_years(zone: str, year: int) -> None:
    chance = random.Random(f"years {year}")
    for _ in range(NUMBER_OF_CASES // 20):
        check(chance, zone, date(year, 1, 1), 364 if NUMBER_OF_CASES >= 1000 else 120, None)
    minute_by_minute.walk.cache_clear()


@pytest.mark.parametrize(("zone", "day"), PLACES)
def test_clock_changes_are_those_that_the_minutes_show(zone: str, day: str) -> None:
    middle = date.fromisoformat(day)
    first, days = middle - timedelta(days=DAYS_AROUND), 2 * DAYS_AROUND
    shown = [each for shown in minute_by_minute.walk(zone, first, days).values() for each in shown]
    gaps = {instant for instant, _, _, is_real, _ in shown if not is_real}
    repeated = {instant for instant, _, _, _, is_first in shown if not is_first}
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    found = clock_changes(zone, start, start + timedelta(days=days))
    assert {_minutes(instant) for instant, change in found if change > timedelta(0)} == gaps
    folds = {instant for instant in repeated if instant - 1 not in repeated}
    assert {_minutes(instant) for instant, change in found if change < timedelta(0)} == folds


def _minutes(instant: datetime) -> int:
    return int(instant.timestamp()) // 60


def test_clock_changes_take_after_and_until_as_runs_do() -> None:
    gap, fold = datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)
    hour = timedelta(hours=1)
    assert clock_changes("Europe/Riga", gap - hour, fold) == [(gap, hour), (fold, -hour)]
    assert clock_changes("Europe/Riga", gap, fold - hour) == []


def test_never_at_or_before_the_time_that_was_asked_about() -> None:
    """Minute by minute through each change, also where the first answer would be the gap's end again."""
    for zone, day in PLACES:
        middle = date.fromisoformat(day)
        moment = datetime(middle.year, middle.month, middle.day, tzinfo=UTC) - timedelta(hours=14)
        for text in ("30 2 * * *", "0-59 0-3 * * *", "*/7 * * * *"):
            schedule = crontab(text, timezone=zone)
            for number in range(0, 30 * 60, 29):
                asked = moment + timedelta(minutes=number, seconds=number % 3)
                due = schedule.next_run(asked)
                assert due is not None
                assert due > asked


def test_runs_between_is_the_same_as_asking_again_and_again() -> None:
    schedule = crontab("*/10 1-3 * * *", timezone="Europe/Riga")
    after, until = datetime(2026, 10, 24, tzinfo=UTC), datetime(2026, 10, 26, tzinfo=UTC)
    asked = []
    due = schedule.next_run(after)
    while due is not None and due <= until:
        asked.append(due)
        due = schedule.next_run(due)
    assert asked == list(schedule.runs_between(after, until))
    assert list(islice(schedule.runs_between(after, until), 3)) == asked[:3]
