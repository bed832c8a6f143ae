"""F09: eight long runs, and every way to tell their worker to stop.

Of 20 s, but for those that are to be finished: they last 3 s by default. ``TASKQ_SOAK_MINUTES`` says that there is time
for those, too, and for a longer grace.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from django_taskq.models import TaskAttempt, TaskRecord
from django_taskq.status import Status
from tests.faults.history import History, assert_no_orphans, assert_registry_is_clean, wait_until_finished
from tests.faults.processes import waited_for_processor
from tests.testapp.tasks import note
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

Start = Callable[..., WorkerProcess]
IS_FULL = bool(os.environ.get("TASKQ_SOAK_MINUTES"))
SECONDS = 20.0
FINISHED, GRACE = (20.0, 5.0) if IS_FULL else (3.0, 1.0)  # seconds: runs that are to be finished; the grace
RUNS = 8
SHAPE = ("--processes", "2", "--threads", "4", "--grace", str(GRACE))
MOST = 2.0  # seconds, for an exit beyond the grace, and for a start elsewhere


@dataclass(frozen=True, slots=True)
class Way:
    """``signals`` one after the other, ``pause`` seconds apart; what is given back at once has no grace."""

    signals: tuple[signal.Signals, ...]
    grace: float
    exit_code: int
    pause: float = 0.3


WAYS = {
    "TERM": Way((signal.SIGTERM,), GRACE, 0),
    "INT": Way((signal.SIGINT,), GRACE, 0),
    "TERM TERM": Way((signal.SIGTERM, signal.SIGTERM), 0, 4),
    "QUIT": Way((signal.SIGQUIT,), 0, 4),
    "50 in a second": Way((signal.SIGTERM,) * 50, 0, 4, 0.02),
}


@pytest.mark.parametrize("name", WAYS)
def test_long_runs_are_given_back(worker: Start, history: History, name: str) -> None:
    # Given a worker with all of its slots in use, and another that has as many
    way = WAYS[name]
    process = worker(*SHAPE)
    note.enqueue_many([((history.path, str(number), SECONDS), {}) for number in range(RUNS)])
    history.wait_for("start", count=RUNS)
    other = worker(*SHAPE)
    assert other.children()
    assert history.count("end") == 0
    waited = waited_for_processor(process) + waited_for_processor(other)

    # When it is told to stop
    told = time.monotonic()
    for number, each in enumerate(way.signals):
        time.sleep(way.pause if number else 0)  # the case's own
        if process.returncode is None:
            process._process.send_signal(each)
    code = process.wait()
    exited = time.monotonic()

    # Then it ends in time, and its runs are started again elsewhere at once, charged nothing.
    began_again = [history.wait_for("start", count=RUNS + number + 1).at for number in range(RUNS)]
    waited = max(0.0, waited_for_processor(other) - waited)
    took, latest = exited - told, max(began_again) - told - way.grace
    print(f"\nexit {code} after {took:.2f} s, all {RUNS} runs again {latest:.2f} s after the grace")
    assert code == way.exit_code
    assert took < way.grace + MOST + way.pause + 2 * waited
    assert latest < MOST + way.pause + 2 * waited
    assert {line.pid for line in history.lines("start")[RUNS:]} <= set(other.children())
    assert history.count("end") == 0
    assert set(TaskRecord.objects.values_list("status", "attempt", "crashes")) == {(Status.RUNNING, 1, 0)}
    assert not TaskAttempt.objects.exists()
    assert_no_orphans(process)


def test_a_restart_interrupts_nothing(worker: Start, history: History) -> None:
    """HUP."""
    process = worker(*SHAPE)
    before = set(process.children())
    note.enqueue_many([((history.path, str(number), FINISHED), {}) for number in range(RUNS)])
    history.wait_for("start", count=RUNS)
    process._process.send_signal(signal.SIGHUP)
    hung_up = time.monotonic()
    wait_until_finished(FINISHED + 30)
    took = time.monotonic() - hung_up
    assert history.counts("start") == history.counts("end") == {str(number): 1 for number in range(RUNS)}
    assert set(TaskRecord.objects.values_list("status", "attempt", "crashes")) == {(Status.SUCCESSFUL, 1, 0)}
    note.enqueue(history.path, "after")
    assert history.wait_for("end", "after").pid not in before
    print(f"\nHUP: {RUNS} of {RUNS} runs finished, the last {took:.2f} s later; new processes serve")
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()


def test_told_to_stop_a_second_after_its_start(worker: Start, history: History) -> None:
    """At whatever it is by then; what it has taken, and may have begun, is for the next worker."""
    note.enqueue_many([((history.path, str(number), SECONDS), {}) for number in range(RUNS)])
    process = worker(*SHAPE, ready=False)
    time.sleep(1)  # the time of the case, not a wait
    process.terminate()
    told = time.monotonic()
    code = process.wait()
    took = time.monotonic() - told
    began = history.count("start")
    print(f"\nTERM after 1 s: exit {code} after {took:.2f} s, {began} runs had begun")
    # Before its handlers are there it ends as any program does.
    assert code in (0, -signal.SIGTERM)
    assert took < GRACE + MOST
    assert_no_orphans(process)
    assert set(TaskRecord.objects.values_list("status", "attempt", "crashes")) == {(Status.READY, 1, 0)}
    other = worker(*SHAPE)
    for number in range(RUNS):
        history.wait_for("start", count=began + number + 1)
    assert {line.pid for line in history.lines("start")[began:]} <= set(other.children())
