"""Work that a database ended because of others is tried again, and not for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import OperationalError, transaction

from django_taskq import conflicts

pytestmark = pytest.mark.django_db(transaction=True)


class Refusal(Exception):
    """As a driver raises it."""

    def __init__(self, name: str, state: str) -> None:
        setattr(self, name, state)


def failing(times: int, state: str = "40001", name: str = "sqlstate") -> Callable[[], int]:
    """Fails so often, and returns then at which call it succeeded."""
    calls = []

    def work() -> int:
        calls.append(None)
        if len(calls) <= times:
            raise OperationalError("no") from Refusal(name, state)
        return len(calls)

    return work


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds it would have waited."""
    found: list[float] = []
    monkeypatch.setattr(conflicts.time, "sleep", found.append)
    return found


@pytest.mark.parametrize(("state", "name"), [("40001", "sqlstate"), ("40P01", "sqlstate"), ("40001", "pgcode")])
def test_a_conflict_is_tried_again(state: str, name: str, pauses: list[float]) -> None:
    assert conflicts.persist("default", failing(3, state, name)) == 4
    assert len(pauses) == 3


def test_ten_times_at_most(pauses: list[float]) -> None:
    assert conflicts.persist("default", failing(9)) == 10
    pauses.clear()
    with pytest.raises(OperationalError):
        conflicts.persist("default", failing(10))
    assert len(pauses) == 9
    assert sum(pauses) < 1.5


def test_other_errors_are_not(pauses: list[float]) -> None:
    with pytest.raises(OperationalError):
        conflicts.persist("default", failing(1, "57P01"))
    assert not pauses


def test_nothing_is_inside_a_transaction(pauses: list[float]) -> None:
    """It has ended as a whole."""
    with pytest.raises(OperationalError), transaction.atomic():
        conflicts.persist("default", failing(1))
    assert not pauses
