"""How many processes: what the work asks for, and how fast a worker follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test import override_settings

from django_taskq.conf_workers import Autoscale
from django_taskq.worker import scaling
from django_taskq.worker.fetcher import QueueOrder
from django_taskq.worker.load import Reading
from django_taskq.worker.options import WorkerOptions
from django_taskq.worker.scaling import Census, Facts, Lull, Scaling, needed, settle
from django_taskq.worker.shutter import Shutter

IDLE = Facts(2, 2, 0, 0, 0.0, 10.0, 10.0, 1, 8)


class TestNeeded:
    @pytest.mark.parametrize(
        ("facts", "processes"),
        [
            pytest.param({}, 0, id="nothing-to-do"),
            pytest.param({"busy": 1}, 1, id="one-slot-busy"),
            pytest.param({"busy": 2}, 2, id="all-slots-busy-and-nothing-waits"),
            pytest.param({"busy": 2, "due": 1, "latency": 0.4}, 2, id="what-waits-is-fetched-soon"),
            pytest.param({"busy": 2, "due": 1, "latency": 0.6}, 3, id="one-waits"),
            pytest.param({"busy": 2, "due": 1000, "latency": 0.6}, 4, id="many-wait-but-no-more-than-double"),
            pytest.param({"busy": 0, "due": 1000, "latency": 9.0}, 4, id="short-runs-that-nobody-sees-running"),
            pytest.param({"busy": 0, "due": 1, "latency": 9.0}, 3, id="one-waits-for-long"),
            pytest.param({"slots": 8, "busy": 8, "due": 3, "latency": 1.0}, 3, id="four-threads-each"),
            pytest.param({"slots": 8, "busy": 5}, 2, id="four-threads-each-and-fewer-busy"),
            pytest.param({"slots": 8, "busy": 4}, 1, id="four-threads-each-and-one-would-do"),
            pytest.param({"busy": 2, "due": 9, "latency": 5.0, "cpu": 95.0}, 2, id="no-cpu-left"),
            pytest.param({"busy": 2, "due": 9, "latency": 5.0, "memory": 95.0}, 2, id="no-memory-left"),
            pytest.param({"busy": 2, "due": 9, "latency": 5.0, "cpu": None, "memory": None}, 4, id="load-unknown"),
        ],
    )
    def test_by_what_waits_and_what_runs(self, facts: dict[str, Any], processes: int) -> None:
        assert needed(replace(IDLE, **facts)) == processes


class TestSettling:
    def test_up_at_once(self) -> None:
        assert settle(4, IDLE, Lull(0.0, 1), 5.0, 30.0) == (4, None)

    @pytest.mark.parametrize(("wanted", "number"), [(-5, 1), (0, 1), (99, 8)])
    def test_never_out_of_bounds(self, wanted: int, number: int) -> None:
        assert settle(wanted, replace(IDLE, processes=number), None, 0.0, 30.0)[0] == number

    def test_down_when_fewer_would_have_done_for_long_enough(self) -> None:
        number, lull = settle(1, IDLE, None, 100.0, 30.0)
        assert (number, lull) == (2, Lull(100.0, 1))
        number, lull = settle(1, IDLE, lull, 129.9, 30.0)
        assert number == 2
        number, lull = settle(1, IDLE, lull, 130.0, 30.0)
        assert (number, lull) == (1, Lull(130.0, 1))

    def test_a_moment_in_which_all_are_needed_begins_anew(self) -> None:
        lull = settle(1, IDLE, None, 100.0, 30.0)[1]
        lull = settle(2, IDLE, lull, 110.0, 30.0)[1]
        assert lull is None
        lull = settle(1, IDLE, lull, 120.0, 30.0)[1]
        assert settle(1, IDLE, lull, 131.0, 30.0)[0] == 2

    def test_not_below_what_was_needed_meanwhile(self) -> None:
        facts = replace(IDLE, processes=8)
        lull = settle(1, facts, None, 100.0, 30.0)[1]
        lull = settle(7, facts, lull, 110.0, 30.0)[1]
        assert settle(1, facts, lull, 130.0, 30.0)[0] == 7

    def test_by_a_part_each_time(self) -> None:
        processes, lull, now, seen = 8, None, 0.0, []
        while processes > 1:
            number, lull = settle(0, replace(IDLE, processes=processes), lull, now, 30.0)
            if number != processes:
                seen.append((now, number))
            processes, now = number, now + 1
        assert seen == [(30.0, 5), (60.0, 3), (90.0, 2), (120.0, 1)]

    def test_bounds_that_were_lowered_hold_at_once(self) -> None:
        assert settle(8, replace(IDLE, processes=8, maximum=3), None, 0.0, 30.0) == (3, None)

    def test_a_load_that_comes_and_goes_does_not_make_it_flap(self) -> None:
        facts, lull, changes = IDLE, None, 0
        for second in range(600):
            wanted = 2 if second % 20 < 5 else 1
            number, lull = settle(wanted, facts, lull, float(second), 30.0)
            changes += number != facts.processes
            facts = replace(facts, processes=number)
        assert changes == 0


class FakeTable:
    def __init__(self, slots: int, busy: int) -> None:
        self.slots = slots
        self._busy = busy

    def running(self) -> list[int]:
        if self._busy < 0:
            raise ValueError("operation forbidden on released memoryview object")
        return list(range(self._busy))


class FakeChild:
    """What a census looks at. ``busy`` below 0: it has just been buried."""

    def __init__(self, busy: int = 1, *, is_up: bool = True, is_idle: bool = False, is_leaving: bool = False) -> None:
        self.table = FakeTable(1, busy)
        self.is_up, self.is_idle, self.is_leaving = is_up, is_idle, is_leaving
        self.successor = None


class Bench:
    """The service without a worker: what it asks for, and how often it asked the database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *children: FakeChild) -> None:
        self.children = list(children)
        self.asked: list[int] = []
        self.looks: list[list[str]] = []
        self.shutter = Shutter(lambda order: None)
        self.options = WorkerOptions(
            QueueOrder(("mail", "bulk")), processes=2, threads=1, grace=1.0, autoscale=Autoscale(1, 8)
        )
        monkeypatch.setattr(scaling, "backlog", self.backlog)
        self.service = Scaling(
            lambda: self.options,
            lambda: self.children,  # type: ignore[arg-type, return-value]
            self.shutter,
            self.asked.append,
            lambda: Reading(10.0, 10.0),
        )

    def backlog(self, names: list[str]) -> tuple[int, float]:
        self.looks.append(names)
        return 100, 5.0


class TestTheService:
    def test_it_asks_for_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bench = Bench(monkeypatch, FakeChild(), FakeChild())
        bench.service.work()
        assert bench.asked == [4]
        assert bench.looks == [["mail", "bulk"]]

    def test_the_database_is_left_in_peace_while_somebody_is_idle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bench = Bench(monkeypatch, FakeChild(), FakeChild(0, is_idle=True))
        bench.service.work()
        assert (bench.asked, bench.looks) == ([], [])

    @pytest.mark.parametrize("hindrance", ["starting", "quiet", "buried", "off"])
    def test_it_waits(self, monkeypatch: pytest.MonkeyPatch, hindrance: str) -> None:
        bench = Bench(monkeypatch, FakeChild(-1) if hindrance == "buried" else FakeChild())
        if hindrance == "starting":
            bench.children.append(FakeChild(0, is_up=False))
        elif hindrance == "quiet":
            bench.shutter.set_quiet(True)
        elif hindrance == "off":
            bench.options = replace(bench.options, autoscale=None)
        bench.children[0].table.slots = 0 if hindrance == "buried" else 1
        bench.service.work()
        assert (bench.asked, bench.looks) == ([], [])

    def test_closed_queues_are_no_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bench = Bench(monkeypatch, FakeChild(), FakeChild())
        bench.shutter.set("paused", ["mail"])
        bench.service.work()
        assert bench.looks == [["bulk"]]
        bench.shutter.set("paused", ["mail", "bulk"])
        bench.service.work()
        assert len(bench.looks) == 1

    def test_who_leaves_does_not_count(self) -> None:
        census = Census.take([FakeChild(), FakeChild(is_leaving=True)])  # type: ignore[list-item]
        assert (census.slots, census.busy) == (1, 1)


def six(facts: Facts) -> float:
    assert facts.maximum == 8
    return 5.2


def bad(facts: Facts) -> str:
    return "many"


def broken(facts: Facts) -> int:
    raise RuntimeError("no answer")


class TestTheMetric:
    def test_it_decides(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bench = Bench(monkeypatch, FakeChild(), FakeChild())
        with override_settings(TASKQ={"AUTOSCALE_METRIC": f"{__name__}.six"}):
            bench.service.work()
        assert bench.asked == [6]

    @pytest.mark.parametrize("name", ["bad", "broken", "missing"])
    def test_a_broken_one_changes_nothing_and_is_told_once(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
    ) -> None:
        bench = Bench(monkeypatch, FakeChild(), FakeChild())
        with override_settings(TASKQ={"AUTOSCALE_METRIC": f"{__name__}.{name}"}):
            bench.service.work()
            bench.service.work()
        assert bench.asked == []
        assert [record.message.split(" failed")[0] for record in caplog.records] == [
            f"AUTOSCALE_METRIC {__name__}.{name}"
        ]
