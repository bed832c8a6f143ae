"""Waiting for a database, without a database and without waiting."""

from __future__ import annotations

import pytest
from django.core.management.base import CommandError
from django.db.utils import OperationalError

from django_taskq.management import storage


class FakeTime:
    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What the next tries give; an error again and again when it is used up."""
    answers: list[BaseException | None] = []

    def attempt(alias: str, seconds: float) -> BaseException | None:
        return answers.pop(0) if answers else OperationalError("connection refused")

    monkeypatch.setattr(storage, "_try_to_connect", attempt)
    return answers


def test_it_goes_on_as_soon_as_the_database_answers(tries: list[BaseException | None]) -> None:
    time, said = FakeTime(), list[str]()
    tries += [OperationalError("the database system is starting up"), OperationalError("still"), None]
    storage.wait_until_reachable("default", said.append, now=lambda: time.now, sleep=time.sleep)
    assert time.pauses == [0.25, 0.5]
    assert said == ["the database 'default' does not answer; trying for 10 s: the database system is starting up"]


def test_it_gives_up_after_ten_seconds(tries: list[BaseException | None]) -> None:
    time = FakeTime()
    with pytest.raises(CommandError, match=r"'default' .* cannot be reached: connection refused") as caught:
        storage.wait_until_reachable("default", lambda text: None, now=lambda: time.now, sleep=time.sleep)
    assert caught.value.returncode == 3
    assert time.now == 10


def test_it_says_nothing_when_all_is_well(tries: list[BaseException | None]) -> None:
    said = list[str]()
    tries.append(None)
    storage.wait_until_reachable("default", said.append)
    assert not said
