"""The retry policy: pure arithmetic."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_taskq.retry import RetryPolicy


@pytest.mark.parametrize(
    ("limit", "override", "attempt", "left"),
    [(3, None, 3, True), (3, None, 4, False), (0, None, 1, False), (None, None, 10**6, True), (3, 5, 5, True),
     (3, 5, 6, False), (3, 0, 1, False), (None, 2, 3, False)],
)  # fmt: skip
def test_how_many(limit: int | None, override: int | None, attempt: int, left: bool) -> None:
    assert RetryPolicy(max_retries=limit).has_retries_left(attempt, override) is left


def test_for_which_errors() -> None:
    policy = RetryPolicy(autoretry_for=(OSError, KeyboardInterrupt), dont_autoretry_for=(TimeoutError,))
    assert policy.retries_on(OSError())
    assert policy.retries_on(ConnectionResetError())
    assert policy.retries_on(KeyboardInterrupt())
    assert not policy.retries_on(TimeoutError())
    assert not policy.retries_on(ValueError())
    assert not RetryPolicy().retries_on(Exception())


def test_without_back_off_the_delay_is_fixed() -> None:
    policy = RetryPolicy(default_retry_delay=7)
    assert {policy.delay(attempt) for attempt in (1, 2, 50)} == {7}


def test_back_off_doubles_up_to_its_ceiling() -> None:
    policy = RetryPolicy(retry_backoff=3, retry_backoff_max=20, retry_jitter=False)
    assert [policy.delay(attempt) for attempt in (1, 2, 3, 4, 5)] == [3, 6, 12, 20, 20]


def test_true_means_one_second() -> None:
    assert RetryPolicy(retry_backoff=True, retry_jitter=False).delay(4) == 8


def test_nought_means_at_once() -> None:
    assert RetryPolicy(retry_backoff=0.0).delay(9) == 0


def test_jitter_spreads_over_the_whole_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []
    monkeypatch.setattr(random, "uniform", lambda low, high: asked.append((low, high)) or 1.0)
    assert RetryPolicy(retry_backoff=2).delay(3) == 1.0
    assert asked == [(0, 8)]


@given(st.integers(1, 10**9), st.floats(0.001, 1e6), st.floats(0, 1e6), st.booleans())
def test_a_delay_is_never_negative_nor_above_its_ceiling(
    attempt: int, backoff: float, ceiling: float, jitter: bool
) -> None:
    policy = RetryPolicy(retry_backoff=backoff, retry_backoff_max=ceiling, retry_jitter=jitter)
    assert 0 <= policy.delay(attempt) <= ceiling
