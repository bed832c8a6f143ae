"""The courier between a broker in memory and a slot in a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_taskq.brokers.memory import MemoryBroker
from django_taskq.worker.courier import STOP, Courier
from django_taskq.worker.fetcher import Fetcher, QueueOrder
from django_taskq.worker.table import SlotTable
from tests.unit.making import make_message, make_task


class Bench:
    """A worker process without a process: one courier, its slots, and the supervisor's end of the pipe."""

    def __init__(self, path: Path, slots: int = 1, quota: int | None = None) -> None:
        self.broker = MemoryBroker()
        self.table = SlotTable.create(path, slots)
        reader, self.orders = os.pipe()
        fetcher = Fetcher(self.broker, 1, QueueOrder(("default",)))
        self.courier = Courier(self.broker, 1, fetcher, self.table, reader, quota=quota)
        targets = [self.courier.run, *(slot.run for slot in self.courier.slots)]
        self.threads = [threading.Thread(target=target, daemon=True) for target in targets]

    def put(self, name: str, count: int) -> None:
        self.broker.enqueue([make_message(name=name, payload="[[],{}]") for _ in range(count)])

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def has_ended(self) -> bool:
        for thread in self.threads:
            thread.join(10)
        return not any(thread.is_alive() for thread in self.threads)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Any]:
    made: list[Bench] = []

    def make(**how: Any) -> Bench:
        made.append(Bench(tmp_path / f"{len(made)}.slots", **how))
        return made[-1]

    yield make
    for each in made:
        os.write(each.orders, STOP)
        assert each.has_ended()


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
