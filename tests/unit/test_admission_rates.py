"""What a rate lets through, by the functions that decide it, in a time that is made up."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from django_taskq.brokers.database.admission import MOST_LATE, PASSED_AT_ONCE, _times, room
from django_taskq.brokers.database.limit_dialect import LimitState
from django_taskq.flow_options import SHORTEST_LOOK, parse_rate
from django_taskq.gates import Kind


def state(**changes: Any) -> LimitState:
    values: dict[str, Any] = dict.fromkeys(LimitState._fields)
    return LimitState(**(values | {"key": "k", "declared": (None,) * 4, "now": 1000.0} | changes))


@dataclass
class Gate:
    """One rate, its waiters, and those it has let pass and nobody has claimed yet."""

    rate: float
    burst: int
    now: float = 1000.0
    waiting: int = 0
    spent_until: float | None = None
    opens_at: float | None = None
    unclaimed: int = 0
    starts: list[float] = field(default_factory=list)

    def look(self) -> int:
        limit = state(
            rate=self.rate, burst=self.burst, spent_until=self.spent_until, opens_at=self.opens_at, now=self.now
        )
        passed = max(0, min(room(Kind.RATE, limit, self.unclaimed), self.waiting))
        self.waiting -= passed
        self.unclaimed += passed
        times = _times(Kind.RATE, limit, passed, is_waited_for=self.waiting > 0)
        self.spent_until, self.opens_at = times["spent_until"], times["opens_at"]
        return passed

    def claim(self) -> None:
        self.starts += [self.now] * self.unclaimed
        self.unclaimed = 0

    def take(self) -> None:
        """Let pass whoever may, when all of them are claimed at once."""
        while self.look():
            self.claim()


def most_in(starts: list[float], span: float) -> int:
    """The most starts in any window of this length."""
    window: deque[float] = deque()
    most = 0
    for at in starts:
        window.append(at)
        while window[0] < at - span:
            window.popleft()
        most = max(most, len(window))
    return most


def looks(rng: random.Random, gate: Gate, seconds: float, late: float) -> Iterator[None]:
    """Whenever it opens, up to so much too late; and at times in between, when others end."""
    end = gate.now + seconds
    while gate.now < end:
        opens = gate.opens_at if gate.opens_at is not None else gate.now + 0.5
        sooner = rng.random() < 0.3
        gate.now = min(end, rng.uniform(gate.now, opens) if sooner else opens + rng.random() * late)
        yield


RATES = [(100.0, 10), (100.0, 1), (1.0, 1), (1.0, 5), (0.1, 1), (7.3, 3), (1000.0, 100)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rate", "burst"), RATES)
@pytest.mark.parametrize("late", [0.0, 0.05, 0.2])
def test_no_window_has_more_than_the_burst_and_the_rate(rate: float, burst: int, late: float, seed: int) -> None:
    gate, rng = Gate(rate, burst, waiting=100_000), random.Random(seed)
    gate.take()
    for _ in looks(rng, gate, 600 / rate, late):
        gate.take()
    assert gate.starts
    for span in (0.0, 0.1, 1 / rate, 10 / rate, 100 / rate):
        # What came late may come on top, once.
        assert most_in(gate.starts, span) <= burst + rate * (span + min(late, MOST_LATE)) + 1e-3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rate", "burst"), [pair for pair in RATES if pair != (100.0, 1)])
@pytest.mark.parametrize("late", [0.0, 0.02, 0.09])
def test_looks_that_come_late_cost_nothing_on_the_whole(rate: float, burst: int, late: float, seed: int) -> None:
    gate, rng = Gate(rate, burst, waiting=100_000), random.Random(seed)
    gate.take()
    # (With less of a burst than what is due between two looks a rate is not reached: the burst is what was asked for.)
    seconds = 1000 / rate
    for _ in looks(rng, gate, seconds, late):
        gate.take()
    # What the last look was late for may be missing.
    assert 1000 - rate * late - 1 <= len(gate.starts) - burst <= 1000 + 1


def test_nothing_is_saved_up_beyond_the_burst() -> None:
    gate = Gate(10.0, 5)
    gate.look()
    gate.now += 3600
    gate.waiting = 100
    assert (gate.look(), gate.look()) == (5, 0)
    assert gate.opens_at == pytest.approx(gate.now + 0.1)


def test_after_a_long_gap_with_waiters_a_quarter_of_a_second_is_made_up_for() -> None:
    gate = Gate(100.0, 10, waiting=10_000)
    gate.look()
    gate.claim()
    gate.now += 60  # nobody looked: all supervisors were down
    passed = 0
    while some := gate.look():
        gate.claim()
        passed += some
    assert passed <= 10 + 100 * MOST_LATE
    assert passed >= 10


def test_what_no_worker_has_taken_counts_against_the_rate() -> None:
    gate = Gate(100.0, 10, waiting=1000)
    assert gate.look() == 10
    for _ in range(100):
        gate.now += 1
        assert gate.look() <= 10
    assert gate.unclaimed == 10 + 100 * MOST_LATE, "they may all start now: a burst, and what may be on its way"
    assert gate.opens_at == pytest.approx(gate.now + SHORTEST_LOOK), "and it is looked again soon"
    gate.unclaimed -= 4
    assert gate.look() == 4


def test_a_day_of_one_an_hour() -> None:
    rate = parse_rate("1/h")
    gate = Gate(rate.per_second, rate.burst, waiting=100)
    gate.look()
    gate.claim()
    for _ in range(24):
        assert gate.opens_at is not None
        gate.now = gate.opens_at
        gate.look()
        gate.claim()
    assert [round((later - at) / 60) for at, later in zip(gate.starts, gate.starts[1:], strict=False)] == [60] * 24


def test_a_rate_of_zero_lets_nothing_pass_and_wakes_nobody() -> None:
    gate = Gate(0.0, 5, waiting=10)
    assert (gate.look(), gate.opens_at) == (0, None)


def test_nobody_is_woken_for_a_rate_that_nobody_waits_for() -> None:
    gate = Gate(1.0, 5, waiting=3)
    assert (gate.look(), gate.opens_at) == (3, None)


class TestOtherKinds:
    @pytest.mark.parametrize(
        ("most", "held", "expected"),
        [(3, 0, 3), (3, 2, 1), (3, 3, 0), (3, 5, -2), (0, 0, 0), (None, 7, PASSED_AT_ONCE), (5000, 0, PASSED_AT_ONCE)],
    )
    def test_so_many_at_once(self, most: int | None, held: int, expected: int) -> None:
        assert room(Kind.TASK, state(most=most), held) == expected

    def test_a_closed_breaker_holds_nobody(self) -> None:
        assert room(Kind.BREAKER, state(most=5, rest=60.0), 0) == PASSED_AT_ONCE

    def test_an_open_one_tries_one_run_after_its_rest(self) -> None:
        tripped = {"most": 5, "rest": 60.0, "tripped_at": 990.0}
        assert room(Kind.BREAKER, state(**tripped, opens_at=1000.1), 0) == 0
        assert room(Kind.BREAKER, state(**tripped, opens_at=1000.0), 0) == 1
        assert room(Kind.BREAKER, state(**tripped, opens_at=None), 0) == 1
        # And another one after as long, should that never end.
        times = _times(Kind.BREAKER, state(**tripped, opens_at=1000.0), 1, is_waited_for=True)
        assert times["opens_at"] == 1060.0

    def test_nobody_is_woken_again_and_again_for_an_open_one_without_waiters(self) -> None:
        limit = state(most=5, rest=60.0, tripped_at=900.0, opens_at=960.0)
        assert _times(Kind.BREAKER, limit, 0, is_waited_for=False)["opens_at"] is None
