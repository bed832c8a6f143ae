"""What the system's signals do to a worker, besides stopping it in peace (``test_worker_stopping``)."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from django_taskq.models import TaskAttempt, TaskRecord, Worker
from django_taskq.status import Status
from tests.faults.history import History, assert_no_orphans, assert_registry_is_clean, wait_until_finished
from tests.faults.processes import fork_server, waited_for_processor
from tests.testapp.tasks import let_go, note
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

Start = Callable[..., WorkerProcess]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def send(process: WorkerProcess, *numbers: signal.Signals) -> None:
    for number in numbers:
        if process.returncode is None:
            os.kill(process.pid, number)


def hear(process: WorkerProcess, number: signal.Signals, answer: str) -> None:
    """Send it, and return once the worker has said so."""
    before = process.log().count(answer)
    send(process, number)
    wait_for(lambda: process.log().count(answer) > before, 10, process.log)


TERM, INT, QUIT = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT


@pytest.mark.parametrize(
    ("numbers", "grace", "code"),
    [
        pytest.param([QUIT], "30", 4, id="quit"),
        pytest.param([TERM, TERM], "30", 4, id="term-term"),
        pytest.param([INT, INT], "30", 4, id="int-int", marks=pytest.mark.whole),
        pytest.param([TERM, QUIT], "30", 4, id="term-quit", marks=pytest.mark.whole),
        pytest.param([TERM] * 50, "30", 4, id="fifty", marks=pytest.mark.whole),
        pytest.param([TERM], "0", 0, id="term-without-grace"),
    ],
)
def test_what_is_cut_short_runs_elsewhere_at_once_and_uncharged(
    worker: Start, history: History, numbers: list[signal.Signals], grace: str, code: int
) -> None:
    # Given a worker with two runs and a second one that is idle
    process = worker("--processes", "2", "--grace", grace)
    for key in "ab":
        note.enqueue(history.path, key, 60, "until-told")
    for key in "ab":
        history.wait_for("start", key)
    other = worker("--processes", "2")

    # When the first is told to stop at once. A signal that comes before the last one was heard is one with it.
    send(process, numbers[0])
    if numbers[1:]:
        wait_for(lambda: "stopping: what runs has 30 s" in process.log(), 10, process.log)
        send(process, *numbers[1:])
    before = time.monotonic()
    assert process.wait() == code
    assert time.monotonic() - before < 2 + 2 * waited_for_processor(other)

    # Then the other has them within two seconds
    for key in "ab":
        again = history.wait_for("start", key, count=2)
        assert again.pid in other.children()
        print(f"\n{key} started again after {again.at - before:.2f} s")
        assert again.at - before < 2 + 2 * waited_for_processor(other)
        let_go(history.path, again.pid)
    wait_until_finished()
    assert set(TaskRecord.objects.values_list("status", "attempt", "crashes")) == {(Status.SUCCESSFUL, 1, 0)}
    assert not TaskAttempt.objects.exists()
    assert_no_orphans(process)


@pytest.mark.parametrize("number", [TERM, QUIT], ids=["term", "quit"])
def test_told_while_it_boots(worker: Start, number: signal.Signals) -> None:
    # Given one whose supervisor listens, and whose processes have not begun
    process = worker("--processes", "2", ready=False)
    wait_for(Worker.objects.exists, 20, process.log, interval=0.005)
    before = time.monotonic()
    send(process, number)
    assert process.wait() == 0
    assert time.monotonic() - before < 5 + 2 * waited_for_processor(process)
    assert_no_orphans(process)
    assert_registry_is_clean()


def test_quiet_finishes_what_runs_fetches_nothing_and_stays(worker: Start, history: History) -> None:
    # Given a worker with a run
    process = worker("--processes", "1")
    (child,) = wait_for(process.children)
    note.enqueue(history.path, "running", 60, "until-told")
    history.wait_for("start", "running")

    # When it is told to be quiet
    hear(process, signal.SIGUSR1, "quiet: nothing more is fetched")
    other = worker("--processes", "1")
    note.enqueue_many([((history.path, f"new{number}"), {}) for number in range(20)])
    (others_child,) = wait_for(other.children)

    # Then what is new is for others, also once it has finished what it had
    history.wait_for("end", "new19")
    let_go(history.path, child)
    history.wait_for("end", "running")
    note.enqueue_many([((history.path, f"later{number}"), {}) for number in range(20)])
    wait_until_finished()
    assert {line.pid for line in history.lines("start") if line.key != "running"} == {others_child}
    assert process.returncode is None

    # And a process that comes new is quiet, too
    os.kill(child, signal.SIGKILL)
    wait_for(lambda: process.children() not in ([child], []), 20, process.log)
    note.enqueue_many([((history.path, f"last{number}"), {}) for number in range(20)])
    wait_until_finished()
    assert {line.pid for line in history.lines("start") if line.key != "running"} == {others_child}

    # Until it may go on
    other.terminate()
    assert other.wait() == 0
    hear(process, signal.SIGCONT, "no longer quiet")
    note.enqueue(history.path, "again")
    assert history.wait_for("end", "again").pid in process.children()


def test_a_restart_replaces_every_process_and_interrupts_nothing(worker: Start, history: History) -> None:
    # Given three processes, one of which is at a run
    process = worker("--processes", "3")
    before = wait_for(lambda: len(children := process.children()) == 3 and children)
    note.enqueue(history.path, "running", 60, "until-told")
    at = history.wait_for("start", "running").pid

    # When a reload is asked for
    send(process, signal.SIGHUP)

    # Then there are three others, and that one finishes its run before it goes
    wait_for(lambda: len(set(process.children()) - set(before)) == 3, 30, process.log)
    wait_for(lambda: set(process.children()) & set(before) == {at}, 10, process.log)
    note.enqueue_many([((history.path, f"new{number}"), {}) for number in range(20)])
    history.wait_for("end", "new19")
    let_go(history.path, at)
    wait_until_finished()
    wait_for(lambda: len(process.children()) == 3, 10, process.log)
    assert history.count("start", "running") == 1
    assert not {line.pid for line in history.lines("start") if line.key != "running"} & set(before)
    assert not TaskRecord.objects.exclude(crashes=0).exists()
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()


def test_what_a_service_manager_sends_to_all_is_for_the_supervisor(worker: Start, history: History) -> None:
    process = worker("--processes", "2")
    before = wait_for(lambda: len(children := process.children()) == 2 and children)
    for pid in (fork_server(process), *before, process.pid):
        os.kill(pid, signal.SIGUSR1)
    wait_for(lambda: "quiet: nothing more is fetched" in process.log(), 10, process.log)
    for pid in (fork_server(process), *before, process.pid):
        os.kill(pid, signal.SIGCONT)
    note.enqueue(history.path, "again")
    assert history.wait_for("end", "again").pid in before
    assert process.children() == before


def test_a_terminal_that_is_closed_ends_it_in_order(
    worker_env: dict[str, str], tmp_path: Path, history: History
) -> None:
    # Given a worker in a terminal, with a run
    master, slave = os.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    log = (tmp_path / "log").open("wb+")
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "taskworker", "--processes", "1", "--grace", "20"],
        env=worker_env | {"TASKQ_TEST_SETTINGS": "{}", "TMPDIR": str(tmp_path)},
        stdin=slave, stdout=log, stderr=log, start_new_session=True, preexec_fn=take_terminal,
    )  # fmt: skip
    try:
        note.enqueue(history.path, "running", 60, "until-told")
        child = history.wait_for("start", "running").pid
        os.close(slave)

        # When the window is closed
        os.close(master)

        # Then it finishes the run and ends
        wait_for(lambda: b"stopping" in (tmp_path / "log").read_bytes(), 10)
        let_go(history.path, child)
        assert process.wait(20) == 0
        assert history.count("end", "running") == 1
    finally:
        process.kill()
        process.wait()
        log.close()
