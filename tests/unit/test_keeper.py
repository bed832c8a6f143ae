"""The keeper's duties: each is done, whatever becomes of the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db.utils import OperationalError

from django_taskq import maintenance
from django_taskq.brokers.memory import MemoryBroker
from django_taskq.charging import Death
from django_taskq.worker import keeper
from django_taskq.worker.keeper import Keeper

DUTIES = [
    "settle_death",
    "seconds_until_due",
    "admit_arrivals",
    "tend_limits",
    "look_after_workflows",
    "rescue_dead_workers",
    "prune",
    "relay",
    "sweep",
    "find_lost",
]


class Duties:
    """What the keeper has seen to, in its order, and what fails."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failing: dict[str, Exception] = {}

    def called(self, name: str, returns: object = 0) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if name in self.failing:
                raise self.failing[name]
            self.done.append(name)
            return returns

        return call


@pytest.fixture
def duties(monkeypatch: pytest.MonkeyPatch) -> Duties:
    made, broker = Duties(), MemoryBroker()
    monkeypatch.setattr(keeper, "get_broker", lambda: broker)
    for name in ("relay", "sweep", "find_lost"):
        monkeypatch.setattr(broker, name, made.called(name))
    for name in ("settle_death", "admit_arrivals", "look_after_workflows", "rescue_dead_workers", "prune"):
        monkeypatch.setattr(maintenance, name, made.called(name))
    monkeypatch.setattr(maintenance, "seconds_until_due", made.called("seconds_until_due", None))
    monkeypatch.setattr(maintenance, "tend_limits", made.called("tend_limits", None))
    monkeypatch.setattr(maintenance, "rescue_strays", lambda: 0)
    for interval in ("RESCUE_INTERVAL", "LOST_INTERVAL", "PRUNE_INTERVAL"):
        monkeypatch.setattr(keeper, interval, 0.0)
    return made


@pytest.fixture
def looking(tmp_path: Path, duties: Duties) -> Keeper:
    """A keeper that has been told of a death."""
    made = Keeper(1, lambda: True)
    made.settle(Death(2, "of old age", []), tmp_path / "2.slots")
    return made


def test_what_may_be_slow_comes_last(looking: Keeper, duties: Duties) -> None:
    assert looking.look() == keeper.LOOK_INTERVAL
    assert duties.done == DUTIES


@pytest.mark.parametrize("failing", DUTIES)
def test_a_duty_that_fails_keeps_no_other_from_being_done(
    looking: Keeper, duties: Duties, caplog: pytest.LogCaptureFixture, failing: str
) -> None:
    duties.failing[failing] = KeyError("on purpose")
    looking.look()
    assert duties.done == [name for name in DUTIES if name != failing]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is duties.failing.pop(failing)
    looking.look()
    assert failing in duties.done


def test_without_the_database_the_look_ends(looking: Keeper, duties: Duties) -> None:
    duties.failing["rescue_dead_workers"] = OperationalError("the server is gone")
    with pytest.raises(OperationalError):
        looking.look()
    assert duties.done == DUTIES[:5]


def test_each_look_lets_pass_and_hands_over_what_is_new(looking: Keeper, duties: Duties) -> None:
    """Where all queues are on servers nobody else hears of new arrivals."""
    looking.look()
    looking._limits.due_at = math.inf
    duties.done.clear()
    looking.look()
    assert [name for name in duties.done if name in ("admit_arrivals", "tend_limits", "relay")] == [
        "admit_arrivals",
        "relay",
    ]


def test_the_first_ring_after_a_pause_is_heard_at_once_and_the_next_ones_bounded(
    looking: Keeper, duties: Duties, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    now = [100.0]
    monkeypatch.setattr(keeper.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(keeper.time, "sleep", pauses.append)
    looking.settle_now()
    for passed in (0.0, 0.02, 0.3):
        now[0] += passed
        looking.work()
    assert pauses == [pytest.approx(0.03)]
