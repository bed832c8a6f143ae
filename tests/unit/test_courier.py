"""The courier between a broker in memory and a slot in a thread."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from django_taskq.brokers.memory import MemoryBroker
from django_taskq.worker import lane
from django_taskq.worker.orders import QUEUES, QUIET, RING, STOP, WORK, Order
from django_taskq.worker.table import DRY, IDLE
from tests.unit.benching import Bench
from tests.unit.making import make_task
from tests.waiting import wait_for


@pytest.mark.parametrize("slots", [1, 3])
def test_runs_as_many_as_it_was_told_and_records_them(bench: Any, slots: int) -> None:
    calls: list[int] = []
    make_task(lambda: calls.append(1), name="counts")
    worker = bench(slots=slots, quota=50)
    worker.put("counts", 60)
    worker.start()
    assert worker.has_ended()
    assert len(calls) == 50
    assert worker.broker.size("default") == 10
    assert worker.broker.rescue(1) == 0, "something was neither recorded nor given back"


def test_a_task_that_fails_stops_nothing(bench: Any) -> None:
    def fails() -> None:
        raise SystemExit(1)

    make_task(fails)
    worker = bench(quota=5)
    worker.put("fails", 5)
    worker.start()
    assert worker.has_ended()
    assert worker.broker.size("default") == 0


def test_told_to_stop_it_finishes_what_runs_and_gives_the_rest_back(bench: Any) -> None:
    running, may_end = threading.Event(), threading.Event()

    def waits() -> None:
        running.set()
        may_end.wait(10)

    make_task(waits)
    worker = bench()
    worker.put("waits", 20)
    worker.start()
    assert running.wait(10)
    os.write(worker.orders, STOP)
    may_end.set()
    assert worker.has_ended()
    assert worker.broker.rescue(1) == 0
    assert worker.broker.size("default") < 20


class CountingBroker(MemoryBroker):
    """Counts how often it was asked for work."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def queues_with_work(self, queue_names: Any) -> list[str]:
        self.asked += 1
        return super().queues_with_work(queue_names)

    def claim(self, *args: Any) -> list[Any]:
        self.asked += 1
        return super().claim(*args)


@pytest.mark.parametrize(
    ("shut", "open_again"),
    [
        pytest.param(Order(QUEUES, '["default"]'), Order(QUEUES, "[]"), id="closed"),
        pytest.param(Order(QUIET), Order(WORK), id="quiet"),
    ],
)
def test_told_to_it_fetches_nothing_and_rests(bench: Any, shut: Order, open_again: Order) -> None:
    # Given a worker that was told so before it began
    calls: list[int] = []
    make_task(lambda: calls.append(1), name="counts")
    worker = bench(broker=CountingBroker())
    worker.put("counts", 3)
    os.write(worker.orders, shut.dumps())
    worker.courier._obey(worker.courier._ears.listen(1, [])[0])
    rounds = count_rounds(worker)
    before = time.monotonic()
    worker.start()

    # Then it asks for nothing, is idle, and does not spin
    wait_for(lambda: worker.table.words[IDLE])
    assert worker.broker.asked == 0
    assert calls == []
    wait_for(lambda: len(rounds) >= 4)
    assert time.monotonic() - before > 0.7

    # And when it may again it does so at once
    os.write(worker.orders, open_again.dumps())
    wait_for(lambda: len(calls) == 3)


def count_rounds(worker: Bench) -> list[int]:
    rounds: list[int] = []
    turn = worker.courier._turn

    def counted() -> None:
        rounds.append(1)
        turn()

    worker.courier._turn = counted  # type: ignore[method-assign]
    return rounds


def test_what_was_fetched_of_a_closed_queue_is_given_back(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given one that is at a run, with others fetched behind it, which it would not give back for its length
    monkeypatch.setattr(lane, "HORIZON", 60.0)
    running, may_end = threading.Event(), threading.Event()

    def waits() -> None:
        running.set()
        may_end.wait(10)

    make_task(waits)
    worker = bench()
    worker.courier.threads._prefetch.observe(0.001, 10)
    worker.courier.threads._prefetch.held(10)
    worker.put("waits", 6)
    worker.start()
    assert running.wait(10)
    assert worker.broker.size("default") == 0

    # When its queue is closed
    os.write(worker.orders, Order(QUEUES, '["default"]').dumps())

    # Then others may have them, while it finishes what it has begun
    wait_for(lambda: worker.broker.size("default") == 5)
    may_end.set()
    wait_for(lambda: worker.table.words[IDLE])
    assert worker.broker.size("default") == 5


def test_what_would_wait_too_long_behind_runs_that_last_longer_than_those_before_is_given_back(bench: Any) -> None:
    # Given one that has seen short runs alone, and fetched as many of another task
    calls: list[int] = []
    never = threading.Event()

    def lasts() -> None:
        calls.append(1)
        never.wait(0.02)

    make_task(lasts)
    worker = bench()
    prefetch = worker.courier.threads._prefetch
    prefetch.observe(0.01, 100)
    prefetch.held(250)
    worker.put("lasts", 500)
    worker.start()

    # Then others may have what it would take seconds to come to, and it goes on with the first ones
    wait_for(lambda: worker.broker.size("default") > 400)
    assert worker.broker.size("default") + worker.courier.threads.load + len(calls) >= 500
    wait_for(lambda: len(calls) > 30)
    os.write(worker.orders, STOP)
    assert worker.has_ended()
    assert worker.broker.size("default") + len(calls) == 500


def test_who_takes_something_does_not_say_meanwhile_that_there_is_nothing(bench: Any) -> None:
    """In one moment its broker may have handed it over, and nobody else would find it there."""
    seen: list[int] = []

    class WatchedBroker(MemoryBroker):
        def claim(self, *args: Any) -> list[Any]:
            seen.append(worker.table.words[DRY])
            return super().claim(*args)

    worker = bench(broker=WatchedBroker())
    worker.start()
    wait_for(lambda: worker.table.words[DRY])
    make_task(lambda: None, name="counts")
    worker.put("counts")
    os.write(worker.orders, Order(RING).dumps())
    wait_for(lambda: worker.broker.size("default") == 0)
    assert len(seen) >= 1
    assert set(seen) == {0}


class AdmittingBroker(MemoryBroker):
    """Counts the looks at gates."""

    def __init__(self) -> None:
        super().__init__()
        self.admitted = 0

    def admit(self) -> int:
        self.admitted += 1
        return 0


def test_after_a_ring_it_looks_twice_whether_somebody_may_pass_a_limit(bench: Any) -> None:
    """Whoever rang soon after the first ring was not heard."""
    worker = bench(broker=AdmittingBroker())
    counts = []
    for _ in range(4):  # it has been rung before the first
        worker.courier._look_at = 0.0
        worker.courier._exchange([])
        counts.append(worker.broker.admitted)
    assert counts == [1, 2, 2, 2]
    worker.start()
