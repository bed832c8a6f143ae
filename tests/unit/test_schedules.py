"""Schedules as values: what they take, say, and answer. Clock changes have a module of their own."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
from astral import Observer
from astral.sun import elevation
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_taskq import schedules
from django_taskq.exceptions import InvalidSchedule, TaskqError
from django_taskq.schedules import CatchUp, Overlap, Schedule, crontab, every, once, parse, solar

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)  # a Monday
DAY = timedelta(days=1)
EVENTS: dict[str, float] = import_module("django_taskq.schedules.solar").EVENTS
RIGA = (56.95, 24.1)
TROMSO = (69.65, 18.96)


def first(schedule: Schedule, number: int = 3, after: datetime = NOON) -> list[str]:
    """The first runs, as the schedule's own clocks show them."""
    found = []
    for _ in range(number):
        due = schedule.next_run(after)
        if due is None:
            break
        found.append(f"{due.astimezone(schedule.zone):%Y-%m-%d %H:%M:%S}".removesuffix(":00"))
        after = due
    return found


class TestCrontab:
    @pytest.mark.parametrize(
        ("fields", "expression"),
        [
            ({}, "* * * * *"),
            ({"minute": 30, "hour": 1}, "30 1 * * *"),
            ({"minute": "*/5"}, "*/5 * * * *"),
            ({"minute": 5}, "5 * * * *"),
            ({"hour": 3}, "0 3 * * *"),
            ({"hour": "*/3"}, "0 */3 * * *"),
            ({"hour": [8, 20]}, "0 8,20 * * *"),
            ({"day_of_week": "mon"}, "0 0 * * mon"),
            ({"day_of_week": 0}, "0 0 * * 0"),
            ({"day_of_month": "1,15"}, "0 0 1,15 * *"),
            ({"day_of_month": "L"}, "0 0 L * *"),
            ({"month_of_year": 6}, "0 0 1 6 *"),
            ({"month_of_year": 6, "day_of_week": "mon"}, "0 0 * 6 mon"),
            ({"minute": "*/5", "day_of_week": "mon"}, "*/5 * * * mon"),
            ({"hour": 9, "day_of_week": "mon-fri"}, "0 9 * * mon-fri"),
            ({"minute": 0, "hour": 0, "day_of_month": 13, "day_of_week": 5}, "0 0 13 * 5"),
        ],
    )
    def test_fields_as_in_celery_but_finer_ones_begin_at_their_start(
        self, fields: dict[str, Any], expression: str
    ) -> None:
        assert str(crontab(**fields)) == expression
        assert crontab(**fields) == crontab(expression)

    def test_an_hour_is_once_and_not_each_of_its_minutes(self) -> None:
        assert first(crontab(hour=3, timezone="UTC")) == ["2026-06-16 03:00", "2026-06-17 03:00", "2026-06-18 03:00"]

    @pytest.mark.parametrize(
        ("given", "canonical"),
        [
            ("@daily", "0 0 * * *"),
            ("@midnight", "0 0 * * *"),
            ("@HOURLY", "0 * * * *"),
            ("@weekly", "0 0 * * 0"),
            ("@monthly", "0 0 1 * *"),
            ("@yearly", "0 0 1 1 *"),
            ("@annually", "0 0 1 1 *"),
            ("  30   1 * * MON-fri ", "30 1 * * mon-fri"),
            ("0 0 l * *", "0 0 L * *"),
            ("0 0 * * 5L", "0 0 * * L5"),
            ("0 0 * * Lfri", "0 0 * * L5"),
            ("0 0 * * MON#2", "0 0 * * mon#2"),
        ],
    )
    def test_the_text_is_canonical(self, given: str, canonical: str) -> None:
        assert str(crontab(given)) == canonical

    @pytest.mark.parametrize(
        ("expression", "message"),
        [
            ("60 * * * *", "minute is 60; it takes 0-59, ranges (10-20), steps (*/5), lists of these (0,30), or *."),
            ("* 24 * * *", "hour is 24; it takes 0-23, "),
            ("0 0 0 * *", "day_of_month is 0; it takes 1-31, L for the last day, "),
            ("0 0 32 * *", "day_of_month is 32; "),
            ("0 0 * 13 *", "month_of_year is 13; it takes 1-12, jan-dec, "),
            ("0 0 * tues *", "month_of_year is tues; "),
            ("0 0 * * 8", "day_of_week is 8; it takes 0-7 (0 and 7 are Sunday), "),
            ("0 0 * * mondya", 'day_of_week is mondya; .*Did you mean "mon"[?]'),
            ("0 0 * juno *", 'month_of_year is juno; .*Did you mean "jun"[?]'),
            ("*/0 * * * *", "minute is */0; .*(a step is from 1 to 60)."),
            ("*/90 * * * *", "minute is */90; .*(a step is from 1 to 60)."),
            ("1,,2 * * * *", "minute is empty; "),
            ("-5 * * * *", "minute is -5; "),
            ("5- * * * *", "minute is 5-; "),
            ("1.5 * * * *", "minute is 1.5; "),
            ("٣ * * * *", "minute is ٣; "),
            ("0 0 * * mon#6", "day_of_week is mon#6; .*(no month has more than five of a day)."),
            ("0 0 * * mon-fri#1", "day_of_week is mon-fri#1; "),
            ("0 0 * * L", "day_of_week is l; "),
            ("0 0 L-3 * *", "day_of_month is l-3; "),
            ("0 0 15W * *", "day_of_month is 15w; "),
            ("0 0 ? * *", "day_of_month is ?; "),
            ("H * * * *", "minute is h; "),
            ("R(0-10) * * * *", "minute is r(0-10); "),
            ("@reboot", "@reboot is none of @yearly, "),
            ("@dayly", '@dayly is none of .*Did you mean "@daily"[?]'),
            ("0 0 * *", "A crontab has five fields (minute hour day_of_month month_of_year day_of_week); .* has 4."),
            ("0 0 * * * *", "A crontab has five fields .* has 6. For seconds use every(seconds=...)."),
            ("0 0 0 * * * 2026", "A crontab has five fields .* has 7."),
            ("", "A crontab has five fields .* has 0."),
            ("*," * 100 + "* * * * *", "A crontab has at most 200 characters; this one has 209."),
            (5, "A crontab is a text such as '30 1 * * *', not 5."),
        ],
    )
    def test_what_it_refuses(self, expression: Any, message: str) -> None:
        with pytest.raises(InvalidSchedule) as caught:
            crontab(expression)
        shown = str(caught.value)
        for part in message.split(".*"):
            assert part.replace("[?]", "?") in shown

    def test_expression_and_fields_are_too_much(self) -> None:
        with pytest.raises(InvalidSchedule, match="either an expression or fields"):
            crontab("* * * * *", minute=5)
        with pytest.raises(InvalidSchedule, match="minute is 1 2;"):
            crontab(minute="1 2")

    def test_what_never_runs_is_found_out_quickly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        never = crontab("0 0 30 2 *")
        asked = count_steps(monkeypatch)
        assert never.next_run(NOON) is None
        assert not never.is_ever_due()
        assert never.latest_runs(NOON - 3650 * DAY, NOON, 10) == []
        assert asked() <= 4
        assert crontab("0 0 29 2 *").is_ever_due()
        assert not crontab("0 0 29 2 *", start=NOON, end=NOON + 365 * DAY).is_ever_due()

    @pytest.mark.parametrize(
        "expression", ["* * * * *", "0-59 0-23 * * *", "30 3 * * *", "*/7 3 * * *", "0 0 29 2 */7"]
    )
    def test_a_search_takes_few_steps(self, expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
        schedule = crontab(expression, timezone="Europe/Riga")
        gap, fold = datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)
        for moment in (gap - timedelta(minutes=1), gap, fold - timedelta(hours=1), fold, fold + timedelta(minutes=1)):
            asked = count_steps(monkeypatch)
            schedule.next_run(moment)
            # One for each clock change that it leads over, and these are rare enough.
            assert asked() <= (3 if expression != "0 0 29 2 */7" else 1)

    def test_the_last_microsecond_of_a_minute(self) -> None:
        # In the year 5000 croniter's floats are too coarse for microseconds.
        for year in (2026, 5000):
            moment = datetime(year, 1, 1, 11, 59, 59, 999_999, tzinfo=UTC)
            assert crontab("* * * * *").next_run(moment) == moment + timedelta(microseconds=1)

    def test_the_last_years_of_the_calendar(self) -> None:
        last = datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC)
        for schedule in (crontab("* * * * *"), crontab("0 3 * * *"), every(days=1)):
            assert schedule.next_run(last) is None


def count_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often a crontab asks for the next wall time from now on."""
    # The module: the attribute of that name is the function.
    kind = import_module("django_taskq.schedules.crontab")._Times
    real, asked = kind.next, []

    def counted(times: Any, wall: datetime) -> datetime | None:
        asked.append(wall)
        found: datetime | None = real(times, wall)
        return found

    monkeypatch.setattr(kind, "next", counted)
    return lambda: len(asked)


class TestEvery:
    @pytest.mark.parametrize(
        ("schedule", "canonical", "words"),
        [
            (every(seconds=90), "every 90 seconds", "every 90 seconds"),
            (every(minutes=5), "every 5 minutes", "every 5 minutes"),
            (every(60), "every 1 minute", "every minute"),
            (every(timedelta(hours=2)), "every 2 hours", "every 2 hours"),
            (every(hours=1, minutes=30), "every 90 minutes", "every 90 minutes"),
            (every(days=7), "every 1 week", "every week"),
            (every(weeks=0.5), "every 84 hours", "every 84 hours"),
            (every(1.25), "every 1.25 seconds", "every 1.25 seconds"),
            (every(minutes=5, anchor=NOON), "every 5 minutes from 2026-06-15T12:00:00+00:00", "every 5 minutes"),
        ],
    )
    def test_text(self, schedule: Schedule, canonical: str, words: str) -> None:
        assert str(schedule) == canonical
        assert schedule.describe() == words
        assert parse(canonical) == schedule

    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            ("every minute", "every 1 minute"),
            ("Every Hour", "every 1 hour"),
            ("every 2h", "every 2 hours"),
            ("every 30s", "every 30 seconds"),
            ("every 90 sec", "every 90 seconds"),
            ("every 10 mins", "every 10 minutes"),
            ("every 1.5 hours", "every 90 minutes"),
            ("every  3 d", "every 3 days"),
            ("every week", "every 1 week"),
        ],
    )
    def test_other_spellings(self, text: str, canonical: str) -> None:
        assert str(parse(text)) == canonical

    def test_it_hangs_on_the_epoch_and_not_on_when_it_was_asked(self) -> None:
        week = every(weeks=1, timezone="UTC")
        assert first(week, 2) == ["2026-06-22 00:00", "2026-06-29 00:00"]  # Mondays
        assert first(every(minutes=5, timezone="UTC"), 2) == ["2026-06-15 12:05", "2026-06-15 12:10"]

    @given(st.integers(1, 10**6), st.lists(st.integers(0, 10**7), min_size=1, max_size=20))
    def test_restarts_do_not_shift_it(self, seconds: int, restarts: list[int]) -> None:
        schedule = every(seconds=seconds)
        origin = datetime(1970, 1, 5, tzinfo=UTC)
        for restart in restarts:
            asked = NOON + timedelta(seconds=restart)
            due = schedule.next_run(asked)
            assert due is not None
            assert (due - origin) % timedelta(seconds=seconds) == timedelta(0)
            assert asked < due <= asked + timedelta(seconds=seconds)

    def test_start_and_anchor(self) -> None:
        start = NOON + timedelta(minutes=7)
        assert first(every(hours=1, start=start, timezone="UTC"), 2) == ["2026-06-15 12:07", "2026-06-15 13:07"]
        anchored = every(hours=1, start=start, anchor=NOON - 400 * DAY, timezone="UTC")
        assert first(anchored, 2) == ["2026-06-15 13:00", "2026-06-15 14:00"]
        local = every(days=1, anchor=datetime(2026, 1, 1, 9), timezone="Europe/Riga")  # noqa: DTZ001
        assert first(local, 1, datetime(2026, 1, 2, tzinfo=UTC)) == ["2026-01-02 09:00"]

    def test_elapsed_time_does_not_follow_the_clocks(self) -> None:
        day = every(days=1, timezone="Europe/Riga", anchor=datetime(2026, 10, 24, 9, tzinfo=UTC))
        assert first(day, 2, datetime(2026, 10, 24, tzinfo=UTC)) == ["2026-10-24 12:00", "2026-10-25 11:00"]

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: every(), "The interval is 0 seconds; it takes from one second to ten years."),
            (lambda: every(0.5), "The interval is 0.5; it takes from one second to ten years."),
            (lambda: every(timedelta(days=4000)), "The interval is 3.456e+08 seconds; it takes"),
            (lambda: every(days=1e300), "it takes from one second to ten years."),
            (lambda: every(float("nan")), "The interval is nan; it takes"),
            (lambda: every("5 minutes"), "The interval is '5 minutes'; it takes"),
            (lambda: every(minutes="5"), "minutes is '5'; it takes a number."),
            (lambda: every(5, minutes=5), "either as a whole or in parts"),
            (lambda: every(minutes=5, anchor="x"), "anchor is 'x'; it takes a datetime."),
            (lambda: parse("every 5 minuts"), "'minuts' is no unit of time; every takes weeks, days, hours, minutes, "),
            (lambda: parse("every 5 months"), "'months' is no unit of time; "),
            (
                lambda: parse("every five minutes"),
                "'every five minutes' is no interval; say it like 'every 5 minutes', ",
            ),
            (lambda: parse("every hour from noon"), "'noon' is no time; say it like 2026-12-01T10:00:00+02:00."),
        ],
    )
    def test_what_it_refuses(self, make: Callable[[], Any], message: str) -> None:
        with pytest.raises(InvalidSchedule) as caught:
            make()
        assert message in str(caught.value)


class TestOnce:
    def test_naive_aware_and_text(self) -> None:
        aware = once(datetime(2026, 12, 1, 8, tzinfo=UTC))
        assert aware == once("2026-12-01T10:00:00+02:00")
        assert hash(aware) == hash(once("2026-12-01T10:00:00+02:00"))
        naive = once("2026-12-01T10:00", timezone="Europe/Riga")
        assert naive.next_run(NOON) == aware.next_run(NOON) == datetime(2026, 12, 1, 8, tzinfo=UTC)
        assert naive.describe() == "once, 2026-12-01 10:00"
        assert str(naive) == "once 2026-12-01T10:00:00"

    def test_it_comes_once(self) -> None:
        at = NOON + DAY
        assert list(once(at).runs_between(NOON, at)) == [at]
        assert once(at).next_run(at) is None
        assert once(at).is_ever_due()
        assert not once(at, end=NOON).is_ever_due()
        assert once(at, start=at, end=at).is_ever_due()
        assert once(at).latest_runs(NOON - 400 * DAY, NOON + 400 * DAY, 5) == [at]

    def test_clock_changes(self) -> None:
        assert first(once("2026-10-25T03:30", timezone="Europe/Riga")) == ["2026-10-25 03:30"]
        gap = once("2027-03-28T03:30", timezone="Europe/Riga").next_run(NOON)
        assert gap == datetime(2027, 3, 28, 1, tzinfo=UTC)
        fold = once("2026-10-25T03:30", timezone="Europe/Riga").next_run(NOON)
        assert fold == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)

    @pytest.mark.parametrize("at", ["tomorrow", "", None, 5])
    def test_what_it_refuses(self, at: Any) -> None:
        with pytest.raises(InvalidSchedule, match=r"or a text such as 2026-12-01T10:00:00\+02:00; .* is neither"):
            once(at)


class TestSolar:
    @pytest.mark.parametrize(
        ("event", "about"),
        # Riga at midsummer and in December, from the almanac, in local time.
        [("sunrise", "2026-12-21 09:00"), ("sunset", "2026-12-21 15:43"), ("solar_noon", "2026-12-21 12:21")],
    )
    def test_the_sun_over_riga(self, event: str, about: str) -> None:
        schedule = solar(event, *RIGA, timezone="Europe/Riga")
        expected = datetime.fromisoformat(about).replace(tzinfo=schedule.zone)
        due = schedule.next_run(datetime(2026, 12, 20, 22, tzinfo=UTC))
        assert due is not None
        assert abs(due - expected) < timedelta(minutes=2)

    def test_they_come_in_their_order(self) -> None:
        midnight = datetime(2026, 3, 20, tzinfo=UTC) - timedelta(hours=2)
        due = [solar(event, *RIGA).next_run(midnight) for event in EVENTS]
        assert due == sorted(due, key=str)
        assert len(set(due)) == 9

    @pytest.mark.parametrize("longitude", [-180, -135, -90, -45, 0, 45, 89.9, 90, 90.4, 135, 180])
    @pytest.mark.parametrize("event", ["dawn_civil", "sunrise", "solar_noon", "sunset", "dusk_nautical"])
    def test_one_a_day_wherever_midnight_utc_falls(self, event: str, longitude: float) -> None:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        schedule = solar(event, 23.7, longitude)
        runs = list(schedule.runs_between(start, start + 365 * DAY))
        assert 364 <= len(runs) <= 366
        for one, other in pairwise(runs):
            assert abs(other - one - DAY) < timedelta(minutes=6)

    @pytest.mark.parametrize("longitude", [-150, -90, 0, 90, 150])
    def test_the_sun_is_where_it_should_be(self, longitude: float) -> None:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        place = Observer(60, longitude)
        for due in solar("dawn_civil", 60, longitude).runs_between(start, start + 365 * DAY):
            # astral itself is two minutes off on the day on which it happens at midnight UTC.
            assert abs(elevation(place, due, with_refraction=False) + 6) < (0.1 if due.hour else 0.3)

    def test_polar_days_and_nights_are_passed_over(self) -> None:
        sunset = solar("sunset", *TROMSO, timezone="Europe/Oslo")
        (last,) = sunset.latest_runs(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 6, 20, tzinfo=UTC), 1)
        following = sunset.next_run(last)
        assert following is not None
        assert 60 * DAY < following - last < 75 * DAY

    def test_the_search_reaches_whatever_happens_there(self) -> None:
        for event in EVENTS:
            for latitude in (-85, 0, 70, 88):
                due = solar(event, latitude, 0).next_run(NOON)
                assert due is not None
                assert due - NOON < 200 * DAY

    def test_the_search_ends_where_it_never_happens(self) -> None:
        # At a pole the sun rises once a year, between two of astral's looks at it.
        assert not solar("sunset", 90, 0).is_ever_due()
        assert solar("solar_noon", 90, 0).is_ever_due()

    def test_text(self) -> None:
        schedule = solar("dawn_civil", *RIGA)
        assert str(schedule) == "solar dawn_civil 56.95 24.1"
        assert schedule.describe() == "at civil dawn, 56.95 24.1"
        assert solar("sunset", 57, -3).describe() == "at sunset, 57 -3"
        assert solar("solar_noon", 57, -3).describe() == "at solar noon, 57 -3"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("solar sunst 1 2", "event is 'sunst'; it takes dawn_astronomical, .* Did you mean \"sunset\"[?]"),
            ("solar sunset 91 2", "latitude is 91.0; it takes degrees from -90 to 90."),
            ("solar sunset 1 181", "longitude is 181.0; it takes degrees from -180 to 180."),
            ("solar sunset nan 2", "latitude is nan; "),
            ("solar sunset x 2", "latitude and longitude are degrees, as in solar sunset 56.95 24.1."),
            ("solar sunset 1", "is not of the form 'solar event latitude longitude'"),
        ],
    )
    def test_what_it_refuses(self, text: str, message: str) -> None:
        with pytest.raises(InvalidSchedule, match=message):
            parse(text)


class TestAllOfThem:
    EACH = [
        crontab("*/5 * * * *"),
        crontab("30 3 1,15 * mon-fri", timezone="America/New_York"),
        crontab("0 0 L * *", timezone="Asia/Kolkata"),
        crontab("0 0 * * mon#2,L5"),
        every(minutes=7),
        every(weeks=1, anchor=NOON),
        every(1.5),
        once("2026-06-20T10:00:00+02:00"),
        once("2026-06-20T10:00:00.5"),
        solar("sunset", *RIGA),
    ]

    @pytest.mark.parametrize("schedule", EACH, ids=str)
    def test_text_round_trip(self, schedule: Schedule) -> None:
        common: dict[str, Any] = {"timezone": schedule.timezone}
        assert parse(str(schedule), **common) == schedule
        assert hash(parse(str(schedule), **common)) == hash(schedule)
        assert pickle.loads(pickle.dumps(schedule)) == schedule

    @pytest.mark.parametrize("schedule", EACH, ids=str)
    def test_the_questions_agree(self, schedule: Schedule) -> None:
        until = NOON + (DAY if isinstance(schedule, schedules.Every) and schedule.interval < DAY else 40 * DAY)
        runs = []
        due = schedule.next_run(NOON)
        while due is not None and due <= until and len(runs) < 100_000:
            assert due > (runs[-1] if runs else NOON)
            assert due.tzinfo is UTC
            runs.append(due)
            if len(runs) > 3000:
                until = due
            due = schedule.next_run(due)
        assert list(schedule.runs_between(NOON, until)) == runs
        for limit in (0, 1, 2, 50, 10_000):
            assert schedule.latest_runs(NOON, until, limit) == (runs[-limit:] if limit else [])
            assert schedule.count_between(NOON, until, limit) == min(limit, len(runs))
        assert schedule.latest_runs(until, NOON, 5) == []
        assert schedule.count_between(until, NOON, 5) == 0

    @pytest.mark.parametrize("make", [lambda **common: crontab("0 12 * * *", **common), lambda **c: every(days=1, **c)])
    def test_bounds_include_both_ends(self, make: Callable[..., Schedule]) -> None:
        schedule = make(timezone="UTC", start=NOON + DAY, end=NOON + 3 * DAY)
        runs = [NOON + DAY, NOON + 2 * DAY, NOON + 3 * DAY]
        assert list(schedule.runs_between(NOON - 50 * DAY, NOON + 50 * DAY)) == runs
        assert schedule.latest_runs(NOON - 50 * DAY, NOON + 50 * DAY, 2) == runs[1:]
        assert schedule.count_between(NOON - 50 * DAY, NOON + 50 * DAY, 9) == 3
        assert schedule.next_run(NOON + 3 * DAY) is None

    def test_naive_bounds_are_wall_time_in_the_zone(self) -> None:
        start = datetime(2026, 7, 1, 9)  # noqa: DTZ001
        schedule = crontab("0 * * * *", timezone="America/New_York", start=start)
        assert first(schedule, 1) == ["2026-07-01 09:00"]

    def test_without_a_zone_it_follows_the_settings_at_the_time_of_use(self) -> None:
        schedule = crontab("0 12 * * *")
        assert schedule.next_run(NOON) == datetime(2026, 6, 16, 9, tzinfo=UTC)  # Riga
        with override_settings(TIME_ZONE="Asia/Kolkata"):
            assert schedule.next_run(NOON) == datetime(2026, 6, 16, 6, 30, tzinfo=UTC)

    def test_years_of_seconds_are_not_walked_through(self) -> None:
        second = every(seconds=1)
        assert second.count_between(NOON - 3650 * DAY, NOON, 10**12) == 3650 * 86400
        assert second.latest_runs(NOON - 3650 * DAY, NOON, 3) == [NOON - timedelta(seconds=back) for back in (2, 1, 0)]

    def test_latest_runs_of_a_crontab_come_from_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for expression, bound in (("* * * * *", 60), ("0 3 * * *", 300), ("0 0 29 2 *", 80)):
            schedule = crontab(expression, timezone="UTC")
            asked = count_steps(monkeypatch)
            assert len(schedule.latest_runs(NOON - 20 * 365 * DAY, NOON, 50)) == (5 if "29" in expression else 50)
            assert asked() <= bound + 120

    def test_a_naive_question_is_refused(self) -> None:
        with pytest.raises(ValueError, match="has no time zone"):
            every(minutes=5).next_run(datetime(2026, 1, 1))  # noqa: DTZ001

    @pytest.mark.parametrize(
        ("common", "message"),
        [
            ({"timezone": "Europe/Osl"}, "timezone is 'Europe/Osl'; it takes the name of a zone, .*\"Europe/Oslo\"[?]"),
            ({"timezone": "Europe"}, "timezone is 'Europe'; it takes the name of a zone"),
            ({"timezone": "../UTC"}, "timezone is '../UTC'; it takes"),
            ({"timezone": ""}, "timezone is ''; it takes"),
            ({"timezone": 5}, "timezone is 5; it takes"),
            ({"start": "2026"}, "start is '2026'; it takes a datetime."),
            ({"start": NOON, "end": NOON - DAY}, "end .* is before start .*, so nothing would ever run."),
            ({"start": NOON, "end": datetime(2026, 6, 15, 14, 59)}, "end .* is before start"),  # noqa: DTZ001 - in Riga
            ({"jitter": -1}, "jitter is -1; it takes a number of seconds of at least 0"),
            ({"jitter": "5"}, "jitter is '5'; it takes a number of seconds"),
            ({"jitter": True}, "jitter is True; it takes"),
            ({"max_lateness": 0}, "max_lateness is 0; it takes a number of seconds above 0"),
            ({"max_lateness": float("nan")}, "max_lateness is nan; it takes"),
            ({"catch_up": "lats"}, "catch_up is 'lats'; it takes none, last, all. Did you mean \"last\"[?]"),
            ({"catch_up_limit": 0}, "catch_up_limit is 0; it takes a whole number from 1 to 10000."),
            ({"catch_up_limit": 10_001}, "catch_up_limit is 10001; it takes"),
            ({"overlap": None}, "overlap is None; it takes allow, skip, queue_one, cancel_previous."),
        ],
    )
    def test_common_fields_that_are_refused(self, common: dict[str, Any], message: str) -> None:
        for make in (lambda: crontab("* * * * *", **common), lambda: parse("every minute", **common)):
            with pytest.raises(InvalidSchedule, match=message):
                make()

    def test_common_fields_in_all_their_spellings(self) -> None:
        schedule = every(
            minutes=5, jitter=timedelta(minutes=1), max_lateness=timedelta(hours=1), catch_up="all", overlap="skip"
        )
        assert (schedule.jitter, schedule.max_lateness) == (60, 3600)
        assert (schedule.catch_up, schedule.overlap) == (CatchUp.ALL, Overlap.SKIP)
        assert schedule == every(minutes=5, jitter=60, max_lateness=3600, catch_up=CatchUp.ALL, overlap=Overlap.SKIP)
        assert schedule != every(minutes=5)
        assert len({schedule, every(minutes=5), every(300)}) == 2

    def test_jitter_is_the_same_for_every_scheduler(self) -> None:
        plain, shaken = every(minutes=5), every(minutes=5, jitter=60)
        assert plain.starts_at(NOON, "mail") == NOON
        starts = {shaken.starts_at(NOON + number * DAY, key) for number in range(50) for key in ("mail", "bills")}
        assert len(starts) == 100
        for number in range(50):
            due = NOON + number * DAY
            start = shaken.starts_at(due, "mail")
            assert due <= start <= due + timedelta(minutes=1)
            assert start == parse("every 5 minutes", jitter=60).starts_at(due.astimezone(shaken.zone), "mail")
        # Written down: schedulers of two releases have to agree.
        assert shaken.starts_at(NOON, "mail") == NOON + timedelta(seconds=27.478162)


class TestText:
    @pytest.mark.parametrize("text", ["", "   ", "hello", "tomorrow at noon", None, 5])
    def test_what_is_none_of_the_forms(self, text: Any) -> None:
        with pytest.raises(InvalidSchedule, match=r"the forms are: 30 1 \* \* \*; @daily; every 5 minutes; once"):
            parse(text)

    def test_a_slip_of_the_pen(self) -> None:
        with pytest.raises(InvalidSchedule, match='Did you mean "every"[?]'):
            parse("evry 5 minutes")

    def test_it_is_a_value_error_of_ours(self) -> None:
        with pytest.raises(ValueError) as caught:
            parse("x" * 300)
        assert isinstance(caught.value, TaskqError)
        assert str(caught.value) == "A schedule has at most 200 characters; this one has 300."

    @given(st.text(max_size=30))
    def test_any_text_parses_or_is_refused(self, text: str) -> None:
        try:
            assert parse(str(parse(text))) == parse(text)
        except InvalidSchedule:
            pass


class TestWords:
    @pytest.mark.parametrize(
        ("expression", "words"),
        [
            ("30 1 * * *", "At 01:30 AM"),
            ("*/5 * * * *", "Every 5 minutes"),
            ("0 9 * * mon-fri", "At 09:00 AM, Monday through Friday"),
            ("0 0 L * *", "At 12:00 AM, on the last day of the month"),
            ("0 0 * * 5L", "At 12:00 AM, on the last Friday of the month"),
            ("0 0 1 * mon", "At 12:00 AM, on day 1 of the month, or on Monday"),
            # Where cron-descriptor would say something else than what happens.
            ("0 0 */2 * mon", "0 0 */2 * mon"),
            ("0 0 1 * mon#2", "0 0 1 * mon#2"),
            ("0 0 * * mon,fri#2", "0 0 * * mon,fri#2"),
            ("0 0 15,L * *", "0 0 15,L * *"),
        ],
    )
    def test_crontabs(self, expression: str, words: str) -> None:
        assert crontab(expression).describe() == words

    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("astral", "cron_descriptor")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "cron_descriptor", None)
        monkeypatch.setitem(sys.modules, "astral", None)
        assert crontab("30 1 * * *").describe() == "30 1 * * *"
        with pytest.raises(InvalidSchedule, match=r"pip install 'django-kombu-taskq\[schedules\]'"):
            solar("sunset", *RIGA)


@pytest.mark.parametrize("text", ["once 9999-12-31T23:59:59-14:00", "once 0001-01-01T00:00:00+14:00"])
def test_the_ends_of_the_calendar_are_refused(text: str) -> None:
    with pytest.raises(InvalidSchedule, match="it takes a year from 1900 to 2500"):
        parse(text)
    with pytest.raises(InvalidSchedule, match="start is 0001"):
        crontab("@daily", start=datetime(1, 1, 1, tzinfo=UTC))
