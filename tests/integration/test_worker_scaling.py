"""Slots of their own, autoscaling and load limits, with real processes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from django_taskq.models import TaskRecord, Worker
from django_taskq.status import Status
from tests.faults.history import History, wait_until_finished
from tests.testapp.tasks import let_go, note
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

Start = Callable[..., WorkerProcess]
TWO_QUEUES = {"QUEUES": ["mail"]}


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


@pytest.fixture(autouse=True)
def _known_queues(settings: Any) -> None:
    settings.TASKQ = TWO_QUEUES


def hold(history: History, keys: Collection[str], queue_name: str = "default") -> None:
    """Enqueue runs that last until they are told to end."""
    note.using(queue_name=queue_name).enqueue_many([((history.path, key, 60, "until-told"), {}) for key in keys])


def release(history: History) -> None:
    """End everything that has been held, and whatever starts meanwhile."""

    def is_over() -> bool:
        for line in history.lines("start"):
            let_go(history.path, line.pid)
        return not TaskRecord.objects.exclude(status=Status.SUCCESSFUL).exists()

    wait_for(is_over, 30)


class TestSlotsOfTheirOwn:
    def test_a_full_queue_leaves_the_slots_of_others_alone(self, worker: Start, history: History) -> None:
        process = worker("--slots", "default=1,mail=2", taskq=TWO_QUEUES)
        hold(history, ["d1", "d2", "d3"])
        hold(history, ["m1", "m2", "m3"], "mail")
        history.wait_for("start", count=3)
        row = Worker.objects.get()
        assert (row.queues, row.processes, row.threads) == ("default=1,mail=2", 3, 1)
        assert "queues=default=1,mail=2 processes=3" in process.log()
        release(history)
        first = {line.key[0] for line in history.lines("start")[:3]}
        assert first == {"d", "m"}
        by_queue = {letter: {line.pid for line in history.lines("start") if line.key[0] == letter} for letter in "dm"}
        assert (len(by_queue["d"]), len(by_queue["m"])) == (1, 2)
        assert not by_queue["d"] & by_queue["m"]

    def test_they_are_threads_of_as_few_processes_as_possible(self, worker: Start, history: History) -> None:
        process = worker("--slots", "default+mail=3", "--threads", "2", taskq=TWO_QUEUES)
        assert len(wait_for(lambda: len(found := process.children()) == 2 and found)) == 2
        hold(history, ["d1", "d2"])
        hold(history, ["m1", "m2"], "mail")
        history.wait_for("start", count=3)
        assert TaskRecord.objects.exclude(status=Status.SUCCESSFUL).count() == 4
        release(history)
        # Which of the processes has one slot is open; that they have three together is not.
        assert len({line.pid for line in history.lines("start")}) == 2

    def test_from_the_settings(self, worker: Start) -> None:
        worker("--threads", "4", taskq=TWO_QUEUES | {"SLOTS": {"mail": 2, "default": 6}})
        assert (Worker.objects.get().queues, Worker.objects.get().processes) == ("mail=2,default=6", 3)

    def test_the_command_line_comes_first(self, worker: Start) -> None:
        worker("--processes", "1", taskq=TWO_QUEUES | {"SLOTS": {"mail": 2, "default": 6}})
        assert (Worker.objects.get().queues, Worker.objects.get().processes) == ("default,mail", 1)


class TestAutoscale:
    def test_it_grows_with_what_waits_and_shrinks_without_interrupting(self, worker: Start, history: History) -> None:
        # Given a worker of one to three processes
        process = worker(
            "--autoscale", "1,3",
            taskq=TWO_QUEUES | {
                "AUTOSCALE_METRIC": "tests.testapp.scaling.whatever_the_load", "AUTOSCALE_DOWN_AFTER": 1,
            },
        )  # fmt: skip
        assert "autoscale=1,3" in process.log()
        assert len(wait_for(process.children)) == 1

        # When more waits than it can take
        hold(history, [f"r{number}" for number in range(5)])

        # Then it has its most, and no more
        history.wait_for("start", count=3, timeout=40)
        wait_for(lambda: Worker.objects.get().processes == 3, 10)
        assert len(process.children()) == 3

        # And when all but one of the runs are over it has its least, and that one goes on
        lines = history.lines("start")
        last = lines[0].pid
        for line in lines[1:]:
            let_go(history.path, line.pid)
        wait_for(lambda: process.children() == [last], 40, process.log)
        wait_for(lambda: Worker.objects.get().processes == 1, 10)
        assert history.count("end") < 5
        let_go(history.path, last)
        wait_until_finished()
        assert set(history.counts("start").values()) == {1}
        assert process.children() == [last]

    def test_a_metric_of_the_project_decides_within_the_bounds(self, worker: Start, tmp_path: Path) -> None:
        wanted = tmp_path / "wanted"
        wanted.write_text("-5")
        process = worker(
            "--autoscale", "1,3",
            taskq={"AUTOSCALE_METRIC": "tests.testapp.scaling.from_file", "AUTOSCALE_DOWN_AFTER": 0.5},
            env={"TASKQ_TEST_WANTED": str(wanted)},
        )  # fmt: skip
        for text, count in (("99", 3), ("2", 2), ("-5", 1)):
            wanted.write_text(text)
            wait_for(lambda count=count: len(process.children()) == count, 30, process.log)
            wait_for(lambda count=count: Worker.objects.get().processes == count, 10)
        assert process.log().count("processes instead of") == 3


class TestLoadLimits:
    def test_a_busy_host_leaves_a_queue_to_others(self, worker: Start, history: History) -> None:
        # Given a worker that leaves mail to others while its host computes
        process = worker("--processes", "2", taskq={"QUEUES": {"mail": {"max_cpu": 20}}})
        note.enqueue(history.path, "burning", 60, "burn")
        burning = history.wait_for("start", "burning").pid
        wait_for(lambda: "mail: left to others (CPU" in process.log(), 20, process.log)

        # When there is some
        other = worker("--processes", "1", taskq=TWO_QUEUES)
        note.using(queue_name="mail").enqueue_many([((history.path, f"m{number}"), {}) for number in range(20)])
        history.wait_for("end", "m19")

        # Then the other does it all, and what has no limit goes on here
        assert {line.pid for line in history.lines("start") if line.key[0] == "m"} == set(other.children())
        other.terminate()
        assert other.wait() == 0
        note.enqueue(history.path, "free")
        assert history.wait_for("end", "free").pid in process.children()
        let_go(history.path, burning)

    def test_from_the_command_line_and_a_burst_waits_for_it(self, worker: Start, history: History) -> None:
        # Every host has used one percent of its memory.
        process = worker("--burst", "--processes", "1", "--max-load", "mail=memory:1", taskq=TWO_QUEUES)
        wait_for(lambda: "mail: left to others" in process.log(), 20, process.log)
        note.using(queue_name="mail").enqueue(history.path, "m")
        note.enqueue(history.path, "d")
        assert history.wait_for("end", "d").pid in process.children()
        assert process.returncode is None
        assert history.count("start", "m") == 0
