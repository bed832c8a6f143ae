"""Runs outside of ordinary processes: in the supervisor's own (solo), and in greenlets (gevent)."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from django_taskq.models import TaskRecord, Worker
from django_taskq.status import Status
from tests.faults.history import History, assert_no_orphans, assert_registry_is_clean, unfinished, wait_until_finished
from tests.testapp.models import Effect
from tests.testapp.tasks import (
    add,
    debug,
    fail,
    leave_effect,
    leave_effect_on_loop,
    nap,
    nap_on_loop,
    note,
    note_until_attempt,
    note_with_soft_limit,
    sleep_in_database,
)
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

Start = Callable[..., WorkerProcess]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


class TestSolo:
    def test_runs_of_every_kind_in_one_process(self, worker: Start, history: History) -> None:
        process = worker("--pool", "solo")
        assert "Hard time limits and memory limits are not enforced" in process.log()
        good, bad = add.enqueue(2, 3), fail.enqueue("on purpose")
        again = note_until_attempt.enqueue(history.path, "again", 2)
        leave_effect.enqueue_many([((str(number),), {}) for number in range(50)])
        assert good.get(20) == 5
        with pytest.raises(ValueError, match="on purpose"):
            bad.get(20)
        assert again.get(20) == 2
        wait_until_finished()
        assert Effect.objects.count() == 50
        assert {line.pid for line in history.lines("start")} == {process.pid}
        assert not process.children()
        process.terminate()
        assert process.wait() == 0
        assert_no_orphans(process)
        assert_registry_is_clean()

    def test_it_ends_with_the_work(self, worker: Start) -> None:
        add.enqueue(1, 1)
        assert worker("--pool", "solo", "--burst", ready=False).wait() == 0
        assert not unfinished()

    def test_a_soft_limit_interrupts(self, worker: Start, history: History) -> None:
        worker("--pool", "solo")
        slow = note_with_soft_limit.enqueue(history.path, "slow", 30)
        assert history.wait_for("tidied", "slow")
        wait_until_finished()
        slow.refresh()
        assert slow.status == Status.FAILED

    def test_a_hard_limit_does_not(self, worker: Start, history: History) -> None:
        process = worker("--pool", "solo", taskq={"TIME_LIMIT": 0.2})
        assert nap.enqueue(1).get(20) is None
        assert process.returncode is None

    def test_what_runs_may_finish(self, worker: Start, history: History) -> None:
        process = worker("--pool", "solo")
        result = note.enqueue(history.path, "long", 60, "until-told")
        history.wait_for("start", "long")
        process.terminate()
        wait_for(lambda: "stopping" in process.log(), 10, process.log)
        Path(f"{history.path}.{process.pid}").touch()
        assert process.wait() == 0
        assert result.get(1) is None
        assert_registry_is_clean()

    @pytest.mark.parametrize(("grace", "signals", "code"), [("0.2", 1, 0), ("60", 2, 4)], ids=["grace", "forced"])
    def test_what_takes_longer_is_given_back(
        self, worker: Start, history: History, grace: str, signals: int, code: int
    ) -> None:
        process = worker("--pool", "solo", "--grace", grace)
        result = note.enqueue(history.path, "long", 60)
        history.wait_for("start", "long")
        process.terminate()
        if signals == 2:
            wait_for(lambda: "stopping" in process.log(), 10, process.log)
            process.terminate()
        assert process.wait() == code
        row = TaskRecord.objects.get(pk=result.id)
        assert (row.status, row.attempt, row.crashes, row.worker_id) == (Status.READY, 1, 0, None)
        assert_registry_is_clean()

    def test_a_lost_lease_starts_over(self, worker: Start, history: History) -> None:
        """The run of before goes on in the main thread, its outcome is refused, and then the new life begins."""
        process = worker("--pool", "solo", taskq={"HEARTBEAT_INTERVAL": 0.2, "LEASE_DURATION": 1})
        note.enqueue(history.path, "long", 60, "until-told")
        history.wait_for("start", "long")
        Worker.objects.update(stopped_at="2026-01-01T00:00:00Z")
        wait_for(lambda: Worker.objects.filter(stopped_at=None).exists(), 20, process.log)
        Path(f"{history.path}.{process.pid}").touch()
        assert add.enqueue(2, 3).get(30) == 5

    def test_a_debugger(self, worker_env: dict[str, str]) -> None:
        """``breakpoint()`` in a task, in a terminal."""
        result = debug.enqueue(4)
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "django", "taskworker", "--pool", "solo", "--burst", "--no-color"]
        with subprocess.Popen(command, env=worker_env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            try:
                _read_until(ours, rb"\(Pdb\) ")
                os.write(ours, b"number * 10\n")
                assert _read_until(ours, rb"\b40\b")
                os.write(ours, b"number = 7\ncontinue\n")
                _read_until(ours, rb"debug \S+ ok")
                assert process.wait(30) == 0
            finally:
                process.kill()
        os.close(ours)
        assert result.get(1) == 7


class TestGevent:
    def test_many_at_a_time_in_one_thread(self, worker: Start, history: History) -> None:
        """They wait side by side, with ORM queries on connections of their own."""
        process = worker("--pool", "gevent", "--threads", "30", "--processes", "1")
        nap.enqueue_many([((1.0,), {}) for _ in range(30)])
        leave_effect.enqueue_many([((str(number), 0.05), {}) for number in range(60)])
        wait_until_finished()
        assert Effect.objects.count() == 60
        rows = TaskRecord.objects.filter(name__endswith="nap").order_by("started_at")
        assert rows.count() == 30
        first, last = rows[0], rows[29]
        assert last.started_at < first.finished_at  # all were going on at once
        (child,) = process.children()
        # One thread, and those that gevent has for what blocks: far fewer than slots.
        assert len(os.listdir(f"/proc/{child}/task")) < 20
        good, bad = add.enqueue(2, 3), fail.enqueue("on purpose")
        assert good.get(20) == 5
        with pytest.raises(ValueError, match="on purpose"):
            bad.get(20)
        process.terminate()
        assert process.wait() == 0
        assert_no_orphans(process)
        assert_registry_is_clean()

    def test_coroutines_wait_side_by_side_and_hinder_nobody(self, worker: Start) -> None:
        """Each has a loop of its own, in its greenlet: neither other loops nor sync queries find it running."""
        worker("--pool", "gevent", "--threads", "30", "--processes", "1")
        nap_on_loop.enqueue_many([((1.0,), {}) for _ in range(10)])
        leave_effect_on_loop.enqueue_many([((f"loop {number}",), {}) for number in range(10)])
        leave_effect.enqueue_many([((str(number), 0.05), {}) for number in range(30)])
        wait_until_finished()
        assert Effect.objects.count() == 40
        assert not TaskRecord.objects.exclude(status=Status.SUCCESSFUL).exists()
        rows = TaskRecord.objects.filter(name__endswith="nap_on_loop").order_by("started_at")
        assert rows[9].started_at < rows[0].finished_at

    def test_a_query_lets_others_go_on(self, worker: Start, history: History) -> None:
        """psycopg waits by gevent's leave. SQLite does not wait, but blocks."""
        if os.environ.get("TASKQ_TEST_DB") != "postgresql":
            pytest.skip("SQLite has no server to wait for")
        worker("--pool", "gevent", "--threads", "10", "--processes", "1")
        add.enqueue(1, 1).get(30)
        sleep_in_database.enqueue_many([((1.0,), {}) for _ in range(10)])
        wait_until_finished()
        rows = TaskRecord.objects.filter(name__endswith="sleep_in_database").order_by("started_at")
        assert rows[9].started_at < rows[0].finished_at

    def test_what_runs_may_finish_and_the_rest_is_given_back(self, worker: Start, history: History) -> None:
        process = worker("--pool", "gevent", "--threads", "2", "--processes", "1", "--grace", "1")
        note.enqueue(history.path, "long", 60)
        note.enqueue(history.path, "short", 0.5)
        history.wait_for("start", "long")
        history.wait_for("start", "short")
        process.terminate()
        assert process.wait() == 0
        assert sorted(TaskRecord.objects.values_list("status", flat=True)) == [Status.READY, Status.SUCCESSFUL]
        assert_no_orphans(process)

    def test_a_soft_limit_strikes_where_it_waits(self, worker: Start, history: History) -> None:
        worker("--pool", "gevent", "--threads", "3", "--processes", "1")
        slow = note_with_soft_limit.enqueue(history.path, "slow", 30)
        quick = note_with_soft_limit.enqueue(history.path, "quick", 0)
        took = history.wait_for("tidied", "slow").at - history.wait_for("start", "slow").at
        assert took < 10
        wait_until_finished()
        for result, status in ((slow, Status.FAILED), (quick, Status.SUCCESSFUL)):
            result.refresh()
            assert result.status == status
        # Nobody's limit is left over for the next runs.
        nap.enqueue_many([((0.6,), {}) for _ in range(6)])
        wait_until_finished()
        assert TaskRecord.objects.filter(name__endswith="nap", status=Status.SUCCESSFUL).count() == 6

    def test_a_process_goes_with_its_supervisor(self, worker: Start) -> None:
        process = worker("--pool", "gevent", "--threads", "2", "--processes", "1")
        process.kill()
        wait_for(lambda: not process.tree(), 20, lambda: f"the end of {process.tree()}")

    def test_a_killed_process_is_replaced(self, worker: Start) -> None:
        process = worker("--pool", "gevent", "--threads", "2", "--processes", "1")
        (child,) = process.children()
        os.kill(child, signal.SIGKILL)
        assert add.enqueue(2, 3).get(30) == 5
        assert process.children() != [child]


def _read_until(terminal: int, pattern: bytes) -> bytes:
    deadline, seen = time.monotonic() + 60, b""
    while not re.search(pattern, seen):
        assert time.monotonic() < deadline, seen.decode()
        seen += os.read(terminal, 4096)
    return seen
