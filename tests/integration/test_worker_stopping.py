"""TERM and INT: what runs may finish, what does not run is given back, and nobody is charged for it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from django_taskq.models import TaskRecord
from django_taskq.result import TaskResult
from django_taskq.status import Status
from tests.faults.history import History, assert_no_orphans, assert_registry_is_clean, wait_until_finished
from tests.faults.processes import waited_for_processor
from tests.testapp.tasks import note
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def run_one(process: WorkerProcess, history: History, seconds: float, how: str = "sleep") -> TaskResult[None]:
    """Have it at work on a run with prefetched ones behind."""
    note.enqueue_many([((history.path, f"warm{number}"), {}) for number in range(50)])
    wait_until_finished()
    result = note.enqueue(history.path, "long", seconds, how)
    note.enqueue_many([((history.path, f"behind{number}"), {}) for number in range(50)])
    history.wait_for("start", "long")
    return result


def behind() -> set[tuple[str, int, int, object, object]]:
    rows = TaskRecord.objects.filter(payload__contains="behind")
    return set(rows.values_list("status", "attempt", "crashes", "worker_id", "started_at"))


UNTOUCHED = (Status.READY, 1, 0, None, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_may_finish(worker: Start, history: History, number: signal.Signals) -> None:
    process = worker("--processes", "1")
    result = run_one(process, history, 2)
    process._process.send_signal(number)

    # What has not started is ready for others long before the end.
    wait_for(lambda: behind() == {UNTOUCHED}, 1.5, lambda: str(behind()))
    assert not history.count("end", "long")
    assert process.wait() == 0
    assert result.get(1) is None
    assert behind() == {UNTOUCHED}
    assert_no_orphans(process)
    assert_registry_is_clean()


@pytest.mark.parametrize("how", ["sleep", "gil"])
def test_what_takes_longer_is_given_back_uncharged(worker: Start, history: History, how: str) -> None:
    process = worker("--processes", "1", "--grace", "0.5")
    result = run_one(process, history, 30, how)
    process.terminate()
    before = time.monotonic()
    waited = waited_for_processor(process)
    assert process.wait() == 0
    print(f"\nended after {time.monotonic() - before:.2f} s")
    assert time.monotonic() - before < 0.5 + 2 + 2 * waited
    row = TaskRecord.objects.get(pk=result.id)
    assert (row.status, row.attempt, row.crashes, row.worker_id) == UNTOUCHED[:4]
    assert not row.attempt_set.exists()
    assert behind() == {UNTOUCHED}
    assert_no_orphans(process)
    assert_registry_is_clean()


def test_a_second_signal_cuts_at_once(worker: Start, history: History) -> None:
    process = worker("--processes", "1")
    result = run_one(process, history, 30)
    process.terminate()
    wait_for(lambda: behind() == {UNTOUCHED}, 5, lambda: str(behind()))
    # Two that are sent before the first was heard are one: signals do not queue.
    wait_for(lambda: "stopping: " in process.log(), 10)
    process.terminate()
    before = time.monotonic()
    assert process.wait() == 4
    assert time.monotonic() - before < 3
    row = TaskRecord.objects.get(pk=result.id)
    assert (row.status, row.attempt, row.crashes, row.worker_id) == UNTOUCHED[:4]
    assert_no_orphans(process)
    assert_registry_is_clean()


@pytest.mark.one_database
def test_a_second_signal_with_nothing_to_cut(worker: Start) -> None:
    process = worker("--processes", "1")
    process.terminate()
    process.terminate()
    assert process.wait() == 0
    assert_registry_is_clean()


@pytest.mark.one_database
def test_a_signal_while_it_starts(worker: Start) -> None:
    process = worker("--processes", "2", ready=False)
    wait_for(lambda: len(process.tree()) > 1, 10, interval=0.001)
    process.terminate()
    assert process.wait() in (0, -signal.SIGTERM)
    assert_no_orphans(process)


@pytest.mark.one_database
def test_many_signals_at_once(worker: Start, history: History) -> None:
    process = worker("--processes", "2", "--grace", "1")
    run_one(process, history, 30)
    for _ in range(50):
        if process.returncode is None:
            process.terminate()
    assert process.wait() in (0, 4)
    assert_no_orphans(process)
    assert_registry_is_clean()
    assert not TaskRecord.objects.exclude(crashes=0).exists()


def test_what_was_given_back_runs_elsewhere_at_once(worker: Start, history: History) -> None:
    process = worker("--processes", "1", "--grace", "0")
    other = worker("--processes", "1")
    note.enqueue(history.path, "a", 2)
    note.enqueue(history.path, "b", 2)
    starts = {key: history.wait_for("start", key) for key in "ab"}
    mine = [key for key, line in starts.items() if line.pid in process.children()]
    process.terminate()
    before = time.monotonic()
    assert process.wait() == 0
    for key in mine:
        again = history.wait_for("start", key, count=2)
        assert again.pid in other.children()
        assert again.at - before < 2 + 2 + waited_for_processor(other)
    wait_until_finished()
    assert not TaskRecord.objects.exclude(crashes=0).exists()
