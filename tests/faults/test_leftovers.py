"""What tasks start ends with their process, unless they have made a daemon of it."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from django_taskq.exceptions import TimeLimitExceeded
from django_taskq.models import TaskRecord
from django_taskq.worker.process import SHORTEST_TEAR_DOWN
from tests.faults.history import History, assert_no_orphans
from tests.faults.processes import waited_for_processor
from tests.testapp.tasks import add, leave_processes
from tests.waiting import wait_for
from tests.workers import WorkerProcess, is_alive

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

Start = Callable[..., WorkerProcess]
OURS = ["subprocess", "multiprocessing", "double fork"]
if importlib.util.find_spec("joblib"):
    OURS.append("joblib")
# By default each way is tried where a process is killed, and one of them at the other ends.
FEWER = [pytest.param(how, marks=() if how == "double fork" else pytest.mark.whole) for how in OURS]


@pytest.fixture
def history(history: History) -> Iterator[History]:
    yield history
    for line in history.lines("left"):
        if is_alive(line.pid):
            os.kill(line.pid, signal.SIGKILL)


@pytest.mark.parametrize("how", [*OURS, "own session"])
def test_a_killed_process_leaves_nothing(worker: Start, history: History, how: str) -> None:
    worker("--processes", "1")
    result = leave_processes.using(time_limit=4).enqueue(history.path, how, 60)
    left = history.wait_for("left", how).pid
    assert is_alive(left)
    with pytest.raises(TimeLimitExceeded):
        result.get(20)
    wait_for(lambda: not is_alive(left), 5, f"the end of {left}")
    assert add.enqueue(1, 2).get(20) == 3


@pytest.mark.parametrize("how", FEWER)
def test_a_process_that_dies_leaves_nothing(worker: Start, history: History, how: str) -> None:
    worker("--processes", "1")
    leave_processes.using(max_retries=0).enqueue(history.path, how, 60)
    left = history.wait_for("left", how).pid
    os.kill(TaskRecord.objects.get().worker.pid, signal.SIGSEGV)
    wait_for(lambda: not is_alive(left), 5, f"the end of {left}")


@pytest.mark.parametrize("how", FEWER)
def test_a_worker_that_stops_leaves_nothing(worker: Start, history: History, how: str) -> None:
    process = worker("--processes", "1")
    leave_processes.enqueue(history.path, how).get(20)
    left = history.wait_for("left", how).pid
    before, waited = time.monotonic(), waited_for_processor(process)
    process.terminate()
    assert process.wait() == 0
    # Python would wait for the children of multiprocessing until it is cut short.
    assert time.monotonic() - before < SHORTEST_TEAR_DOWN + waited
    assert not is_alive(left)
    assert_no_orphans(process)


def test_a_thread_that_goes_on_does_not_hold_up_the_end(worker: Start, history: History) -> None:
    process = worker("--processes", "1")
    leave_processes.enqueue(history.path, "thread").get(20)
    process.terminate()
    assert process.wait(15) == 0


@pytest.mark.parametrize("how", FEWER)
def test_a_supervisor_that_is_killed_leaves_nothing(worker: Start, history: History, how: str) -> None:
    process = worker("--processes", "1")
    leave_processes.enqueue(history.path, how).get(20)
    left = history.wait_for("left", how).pid
    process.kill()
    wait_for(lambda: not is_alive(left), 10, f"the end of {left}")


@pytest.mark.parametrize("how", ["daemon", "own session"])
def test_what_was_made_to_outlive_it_outlives_a_warm_end(worker: Start, history: History, how: str) -> None:
    process = worker("--processes", "1")
    leave_processes.enqueue(history.path, how).get(20)
    left = history.wait_for("left", how).pid
    process.terminate()
    assert process.wait(10) == 0
    assert is_alive(left)


def test_each_process_leads_a_session(worker: Start) -> None:
    """The terminal's Ctrl-C reaches the supervisor alone."""
    process = worker("--processes", "2")
    children = wait_for(process.children)
    assert {os.getsid(pid) for pid in children} == set(children)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(10) == 0
