"""Which due times run after a pause, in exact counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from django_taskq import every
from django_taskq.overdue import GRACE, MOST_COUNTED, find_overdue
from django_taskq.schedules import Schedule, crontab

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
HOURS = timedelta(hours=3)


def minutely(**policy: object) -> Schedule:
    return crontab("* * * * *", timezone="UTC", **policy)


def test_a_short_pause_is_no_downtime() -> None:
    for policy in ("none", "last", "all"):
        schedule = every(seconds=1, catch_up=policy, catch_up_limit=2)
        found = find_overdue(schedule, "key", NOON, NOON + GRACE)
        assert found.runs == [NOON + timedelta(seconds=number) for number in range(21)]
        assert not found.missed


@pytest.mark.parametrize(
    ("policy", "runs"), [({"catch_up": "none"}, 0), ({"catch_up": "last"}, 1), ({"catch_up": "all"}, 100)]
)
def test_three_hours_of_downtime(policy: dict[str, object], runs: int) -> None:
    """The first due time nobody decided was at noon, and it is 15:00:30: 181 of them."""
    found = find_overdue(minutely(**policy), "key", NOON, NOON + HOURS + timedelta(seconds=30))
    newest = NOON + HOURS
    assert found.runs == [newest - timedelta(minutes=number) for number in reversed(range(runs))]
    assert found.missed == 181 - runs
    assert found.missed_from == NOON
    assert found.missed_to == newest - timedelta(minutes=runs)
    assert found.last == newest


def test_what_is_hardly_late_runs_after_a_downtime_too() -> None:
    found = find_overdue(minutely(catch_up="none"), "key", NOON, NOON + HOURS + timedelta(seconds=5))
    assert found.runs == [NOON + HOURS]
    assert found.missed == 180


def test_everything_is_caught_up_below_the_bound() -> None:
    found = find_overdue(minutely(catch_up="all", catch_up_limit=500), "key", NOON, NOON + HOURS)
    assert len(found.runs) == 181
    assert not found.missed


def test_years_of_downtime_are_counted_up_to_a_bound() -> None:
    schedule = crontab("* * * * *", timezone="UTC")
    found = find_overdue(schedule, "key", NOON - timedelta(days=1000), NOON)
    assert found.runs == [NOON]
    assert found.missed == MOST_COUNTED
    assert found.missed_to == NOON - timedelta(minutes=1)


def test_one_due_time_is_run_however_late() -> None:
    """A lateness limit is the caller's; a daily one found in the evening still runs."""
    found = find_overdue(crontab(hour=3, timezone="UTC"), "key", NOON.replace(hour=3), NOON.replace(hour=23))
    assert found.runs == [NOON.replace(hour=3)]
    assert not found.missed


@pytest.mark.parametrize("policy", ["none", "last", "all"])
@pytest.mark.parametrize("pause", [timedelta(seconds=8), timedelta(minutes=5), HOURS])
def test_jitter_never_loses_or_doubles(policy: str, pause: timedelta) -> None:
    """Pass after pass, as the scheduler makes them: each due time is decided once, and none before its start."""
    schedule = every(seconds=5, jitter=20, catch_up=policy, catch_up_limit=3)
    now = first = NOON
    decided = 0
    now += pause
    while schedule.starts_at(first, "key") <= now:
        found = find_overdue(schedule, "key", first, now)
        assert all(schedule.starts_at(due, "key") <= now for due in found.runs)
        last = found.last
        assert last is not None
        assert schedule.count_between(first - timedelta(microseconds=1), last, 10_000) == len(found.runs) + found.missed
        decided += len(found.runs) + found.missed
        following = schedule.next_run(last)
        assert following is not None
        first = following
    assert decided == schedule.count_between(NOON - timedelta(microseconds=1), first, 10_000) - 1
