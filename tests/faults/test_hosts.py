"""Workers on other hosts: dead ones, and ones that were only frozen. Another host is a Worker row with its boot id."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from django_taskq.models import TaskRecord, Worker, WorkerProcess
from django_taskq.result import TaskResult
from django_taskq.status import Status
from tests import workers
from tests.faults.history import History, assert_no_orphans, crashes, wait_until_finished
from tests.testapp.tasks import die, let_go, note, note_at_most_once, see_own_start
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., workers.WorkerProcess]
SHORT_LEASE = {"HEARTBEAT_INTERVAL": 0.2, "LEASE_DURATION": 2}


def register_dead_host(lease_left: float = 0) -> int:
    """A worker elsewhere whose heartbeats have stopped; returns the id of its one process."""
    host = Worker.objects.create(
        hostname="elsewhere",
        boot_id="another boot",
        pid_namespace="pid:[1]",
        pid=os.getpid(),
        pid_started=1,
        table_path="/nowhere",
        processes=1,
        threads=1,
        version="0",
        lease_expires_at=timezone.now() + timedelta(seconds=lease_left),
    )
    return WorkerProcess.objects.create(worker=host, pid=os.getpid(), pid_started=1).pk


def hold(process_id: int, *results: TaskResult, is_started: bool) -> None:
    """Have these claimed by a process, as a real one would."""
    for claim, result in enumerate(results, start=TaskRecord.objects.filter(worker_id=process_id).count() + 1):
        TaskRecord.objects.filter(pk=result.id).update(
            status=Status.RUNNING, worker_id=process_id, claim=claim, started_at=timezone.now() if is_started else None
        )


def test_a_dead_host_is_rescued_when_its_lease_ends(worker: Start, history: History) -> None:
    # Given a host that died with runs: started, at most once and started, claimed only
    host = register_dead_host(lease_left=5)
    lease_ends = time.monotonic() + 5
    started = note.enqueue(history.path, "started")
    hold(host, started, is_started=True)
    once = note_at_most_once.enqueue(history.path, "once")
    hold(host, once, is_started=True)
    claimed = [see_own_start.enqueue() for _ in range(5)]
    hold(host, *claimed, is_started=False)

    # When another worker serves
    process = worker("--processes", "2", taskq={"HEARTBEAT_INTERVAL": 0.5, "LEASE_DURATION": 5})
    others = [see_own_start.enqueue() for _ in range(2)]
    assert [result.get(10) for result in others] == [False, False]

    # Then it leaves them alone while the lease holds, and takes them over right after
    line = history.wait_for("start", "started", timeout=15)
    print(f"\nstarted again {line.at - lease_ends:.2f} s after the end of the lease")
    assert -0.2 < line.at - lease_ends < 5
    wait_until_finished()
    rows = {str(row.pk): row for row in TaskRecord.objects.all()}
    assert (rows[started.id].status, rows[started.id].crashes) == (Status.SUCCESSFUL, 1)
    assert rows[once.id].status == Status.FAILED
    assert rows[once.id].reason.startswith("WorkerLost: ")
    assert not history.count("start", "once")
    # What may or may not have started is charged nothing, and is run with its start committed first.
    assert {rows[result.id].crashes for result in claimed} == {0}
    assert [result.get(1) for result in claimed] == [True] * 5
    assert sorted(kind for _, kind in crashes()) == ["WorkerLost", "WorkerLost"]
    assert not WorkerProcess.objects.filter(pk=host, stopped_at=None).exists()
    process.terminate()
    assert process.wait() == 0


def test_a_suspect_that_is_poison_is_found_out(worker: Start, history: History) -> None:
    """It starts with its start committed, so not even the loss of host after host would hide it."""
    host = register_dead_host()
    poison = die.enqueue(history.path, "poison", "kill")
    innocent = [note.enqueue(history.path, str(number)) for number in range(20)]
    hold(host, poison, *innocent, is_started=False)
    worker("--processes", "1", taskq=SHORT_LEASE)
    wait_until_finished()
    assert history.count("start", "poison") == 3
    row = TaskRecord.objects.get(pk=poison.id)
    assert (row.status, row.crashes) == (Status.FAILED, 3)
    assert TaskRecord.objects.filter(status=Status.SUCCESSFUL, crashes=0).count() == len(innocent)


def send_all(process: workers.WorkerProcess, number: int, *, supervisor_only: bool = False) -> None:
    for pid in [process.pid] if supervisor_only else process.tree():
        os.kill(pid, number)


def make_remote(process: workers.WorkerProcess) -> Worker:
    Worker.objects.filter(pid=process.pid).update(boot_id="another boot")
    return Worker.objects.get(pid=process.pid, stopped_at=None)


def test_a_frozen_host_starts_over(worker: Start, history: History) -> None:
    # Given a run under way on a host that then freezes for longer than its lease
    frozen = worker("--processes", "1", taskq=SHORT_LEASE)
    run = note.enqueue(history.path, "long", 1.5)
    first = history.wait_for("start", "long")
    wait_for(lambda: TaskRecord.objects.get(pk=run.id).started_at)
    row = make_remote(frozen)
    send_all(frozen, signal.SIGSTOP)
    try:
        # When another worker takes the run over and does it
        other = worker("--processes", "1", taskq=SHORT_LEASE)
        second = history.wait_for("start", "long", count=2)
        wait_until_finished()
        before = TaskRecord.objects.values().get(pk=run.id)
    finally:
        send_all(frozen, signal.SIGCONT)

    # Then the frozen one, awake again, ends its own attempt for nothing, and begins anew under another name
    assert first.pid != second.pid
    wait_for(lambda: Worker.objects.filter(pid=frozen.pid, stopped_at=None).exclude(pk=row.pk).exists(), 10, frozen.log)
    wait_for(lambda: frozen.children() and first.pid not in frozen.children(), 10, frozen.log)
    assert "starting over" in frozen.log()
    assert TaskRecord.objects.values().get(pk=run.id) == before
    assert [kind for _, kind in crashes()] == ["WorkerLost"]
    other.terminate()
    assert other.wait() == 0
    assert note.enqueue(history.path, "next").get(10) is None
    assert history.wait_for("end", "next").pid in frozen.children()
    frozen.terminate()
    assert frozen.wait() == 0
    assert_no_orphans(frozen)


def test_a_late_result_is_refused(worker: Start, history: History) -> None:
    """The supervisor alone is frozen; its process ends a run that was taken over from it."""
    pair = [worker("--processes", "1", taskq=SHORT_LEASE) for _ in range(2)]
    run = note.enqueue(history.path, "long", 60, "until-told")
    first = history.wait_for("start", "long")
    frozen, other = sorted(pair, key=lambda process: first.pid not in process.children())
    wait_for(lambda: TaskRecord.objects.get(pk=run.id).started_at)
    make_remote(frozen)
    send_all(frozen, signal.SIGSTOP, supervisor_only=True)
    second = history.wait_for("start", "long", count=2)
    let_go(history.path, first.pid)
    wait_for(lambda: "its outcome is refused" in frozen.log(), 10, frozen.log)
    assert TaskRecord.objects.get(pk=run.id).status == Status.RUNNING
    let_go(history.path, second.pid)
    wait_until_finished()
    assert [line.pid for line in history.lines("end")] == [first.pid, second.pid]
    row = TaskRecord.objects.get(pk=run.id)
    assert (row.status, row.crashes, row.worker.pid) == (Status.SUCCESSFUL, 1, second.pid)
    send_all(frozen, signal.SIGCONT, supervisor_only=True)
    wait_for(lambda: "starting over" in frozen.log(), 10, frozen.log)
    other.terminate()
    assert other.wait() == 0


def test_what_a_worker_claims_after_it_was_given_up_is_not_lost(worker: Start, history: History) -> None:
    # Given a host whose supervisor froze and whose runs were rescued
    frozen = worker("--processes", "1", taskq=SHORT_LEASE)
    row = make_remote(frozen)
    send_all(frozen, signal.SIGSTOP, supervisor_only=True)
    other = worker("--processes", "1", taskq=SHORT_LEASE)
    wait_for(lambda: Worker.objects.filter(pk=row.pk, stopped_at__isnull=False).exists(), 10, other.log)
    other.terminate()
    assert other.wait() == 0

    # When its process may still claim, and then the host is lost for good
    run = note.enqueue(history.path, "late", 30)
    deadline = time.monotonic() + 3
    wait_for(lambda: history.count("start", "late") or time.monotonic() > deadline)
    frozen.kill_tree()

    # Then whatever it had claimed runs elsewhere
    starts = history.count("start", "late")
    again = worker("--processes", "1", taskq=SHORT_LEASE)
    history.wait_for("start", "late", count=starts + 1, timeout=10)
    run.refresh()
    assert run.status in (Status.READY, Status.RUNNING)
    again.kill_tree()
