"""Fault cases F05, F06, F07, F11 and F12: whatever a run does to its process, the worker goes on serving."""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from django_taskq.exceptions import MemoryLimitExceeded, TaskCancelled, TaskFailed, TimeLimitExceeded
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from django_taskq.worker import memory
from tests.faults.history import History, assert_no_orphans, assert_registry_is_clean, crashes, wait_until_finished
from tests.faults.processes import waited_for_processor
from tests.testapp.tasks import (
    add,
    allocate,
    die,
    heedless,
    heedless_on_loop,
    hoard,
    leave,
    leave_processes,
    nap_on_loop,
    note,
    recurse,
)
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

Start = Callable[..., WorkerProcess]


def assert_ends_well(process: WorkerProcess) -> None:
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()


@pytest.mark.parametrize("how", ["sleep", "gil"])
def test_a_hard_limit_in_threads(worker: Start, history: History, how: str) -> None:
    """F12: the run is over for everybody at once; its neighbour finishes, and the process is replaced."""
    process = worker("--processes", "1", "--threads", "2")
    (child,) = wait_for(process.children)
    neighbour = note.enqueue(history.path, "neighbour", 3)
    history.wait_for("start", "neighbour")
    waited = waited_for_processor(process)
    # The interpreter is held for a while only: the neighbour shall be able to finish.
    slow = note.using(time_limit=1).enqueue(history.path, "slow", 60 if how == "sleep" else 2, how)
    began = history.wait_for("start", "slow").at
    with pytest.raises(TimeLimitExceeded, match="limit of 1 s passed"):
        slow.get(20)
    took = time.monotonic() - began
    print(f"\nFAILED after {took:.2f} s")
    assert took < 1 + 1 + max(0, waited_for_processor(process) - waited)

    # Somebody serves at once, though one slot is lost and the other busy.
    assert add.enqueue(1, 2).get(10) == 3
    assert neighbour.get(10) is None
    wait_for(lambda: child not in process.children(), 10, process.log)
    row = TaskRecord.objects.get(pk=slow.id)
    assert (row.status, row.reason.partition(":")[0]) == (Status.FAILED, "TimeLimitExceeded")
    row = TaskRecord.objects.get(pk=neighbour.id)
    assert (row.status, row.crashes, row.attempt) == (Status.SUCCESSFUL, 0, 1)
    assert history.count("start", "neighbour") == 1
    log = process.log()
    assert "has lost 1 of its 2 slots" in log
    assert re.search(rf"run {slow.id} of tests.testapp.tasks.note has ended: TimeLimitExceeded: .* 1 s passed", log)
    assert_ends_well(process)


@pytest.mark.parametrize("how", ["hangs in C", "swallows it", "swallows it on the loop"])
def test_cancelling_what_heeds_nothing_beside_others(worker: Start, history: History, how: str) -> None:
    """As with a hard limit: over for everybody, its neighbour finishes, and the process is replaced."""
    on_loop = how.endswith("loop")
    process = worker("--processes", "1", *(("--coroutines", "2") if on_loop else ("--threads", "2")))
    (child,) = wait_for(process.children)
    neighbour = nap_on_loop.enqueue(4) if on_loop else note.enqueue(history.path, "neighbour", 4)
    task = {"hangs in C": note, "swallows it": heedless}.get(how, heedless_on_loop)
    stubborn = task.enqueue(history.path, "stubborn", 60)  # type: ignore[attr-defined]
    history.wait_for("start", "stubborn")
    waited = waited_for_processor(process)
    before = time.monotonic()
    assert stubborn.cancel() is False
    with pytest.raises(TaskCancelled):
        stubborn.get(20)
    took = time.monotonic() - before
    print(f"\nCANCELLED after {took:.2f} s")
    # Told within a second, patient for another.
    assert took < 1 + 1 + 1 + max(0, waited_for_processor(process) - waited)
    assert add.enqueue(1, 2).get(10) == 3
    assert neighbour.get(20) is None
    wait_for(lambda: child not in process.children(), 10, process.log)
    row = TaskRecord.objects.get(pk=stubborn.id)
    assert (row.status, row.reason, row.crashes) == (Status.CANCELLED, "TaskCancelled", 0)
    row = TaskRecord.objects.get(pk=neighbour.id)
    assert (row.status, row.crashes, row.attempt) == (Status.SUCCESSFUL, 0, 1)
    assert history.count("start", "stubborn") == 1
    assert not history.count("end", "stubborn")
    log = process.log()
    assert re.search(r"has lost 1 of its \d slots", log)
    assert f"run {stubborn.id} of {task.name} has ended: TaskCancelled: it was cancelled while it ran" in log
    assert_ends_well(process)


def test_what_a_lost_thread_returns_is_refused(worker: Start, history: History) -> None:
    process = worker("--processes", "1", "--threads", "2")
    note.enqueue(history.path, "neighbour", 4)
    slow = note.using(time_limit=0.5).enqueue(history.path, "slow", 2)
    history.wait_for("end", "slow")
    wait_until_finished()
    slow.refresh()
    assert slow.status == Status.FAILED
    assert [error.exception_class_path for error in slow.errors] == ["django_taskq.exceptions.TimeLimitExceeded"]
    assert_ends_well(process)


def test_all_slots_lost(worker: Start, history: History) -> None:
    """Throughput is never silently nothing."""
    process = worker("--processes", "1", "--threads", "2")
    for key in ("a", "b"):
        note.using(time_limit=1).enqueue(history.path, key, 60)
    for key in ("a", "b"):
        history.wait_for("start", key)
    before, waited = time.monotonic(), waited_for_processor(process)
    assert add.enqueue(1, 2).get(20) == 3
    took = time.monotonic() - before
    print(f"\nthe next run was done {took:.2f} s after the last of them began")
    assert took < 1 + 3 + waited_for_processor(process) - waited
    wait_until_finished()
    assert TaskRecord.objects.filter(status=Status.FAILED, reason__startswith="TimeLimitExceeded").count() == 2
    assert_ends_well(process)


def test_a_memory_limit(worker: Start) -> None:
    process = worker("--processes", "1")
    (child,) = wait_for(process.children)
    greedy = allocate.using(memory_limit="300MB").enqueue(400, 30)
    with pytest.raises(
        MemoryLimitExceeded, match=r"took [\d.]+ MB; the memory limit is 300 MB, the peak was [\d.]+ MB"
    ):
        greedy.get(20)
    assert add.enqueue(1, 2).get(20) == 3
    assert child not in process.children()
    assert allocate.using(memory_limit="2GB").enqueue(100).get(20) == 100
    assert TaskRecord.objects.get(pk=greedy.id).status == Status.FAILED
    assert_ends_well(process)


def test_a_memory_limit_beside_others(worker: Start, history: History) -> None:
    """They are ended with it, charged nothing, and start again."""
    process = worker("--processes", "1", "--threads", "2")
    neighbour = note.enqueue(history.path, "neighbour", 2)
    history.wait_for("start", "neighbour")
    greedy = allocate.using(memory_limit="300MB").enqueue(400, 30)
    with pytest.raises(MemoryLimitExceeded):
        greedy.get(20)
    assert neighbour.get(20) is None
    assert TaskRecord.objects.get(pk=neighbour.id).crashes == 0
    assert history.count("start", "neighbour") == 2
    assert_ends_well(process)


def test_a_memory_limit_counts_what_the_run_has_started(worker: Start, history: History) -> None:
    process = worker("--processes", "1")
    (child,) = wait_for(process.children)
    alone = memory.resident(child)
    assert alone
    greedy = leave_processes.using(memory_limit=alone + (50 << 20)).enqueue(history.path, "subprocess", 30)
    with pytest.raises(MemoryLimitExceeded):
        greedy.get(20)
    assert add.enqueue(1, 2).get(20) == 3
    assert_ends_well(process)


def test_no_memory_left_for_a_run(worker: Start) -> None:
    """F05, where the allocation is refused: the run fails and says how much there was; its process goes on."""
    process = worker("--processes", "1")
    (child,) = wait_for(process.children)
    add.enqueue(1, 2).get(20)
    (size,) = re.findall(r"VmSize:\s+(\d+) kB", Path(f"/proc/{child}/status").read_text())
    most = (int(size) << 10) + (200 << 20)
    resource.prlimit(child, resource.RLIMIT_AS, (most, most))
    big = allocate.enqueue(1000)
    with pytest.raises(MemoryError, match=r"peak memory of the worker process: \d+"):
        big.get(20)
    before = time.monotonic()
    assert add.enqueue(1, 2).get(20) == 3
    print(f"\nserves {time.monotonic() - before:.2f} s later")
    assert process.children() == [child]
    assert not crashes()
    assert_ends_well(process)


def test_killed_from_outside_it_says_how(worker: Start, history: History) -> None:
    """F05, where the kernel kills: nobody tells us that it was the kernel, so the signal and the peak have to do."""
    process = worker("--processes", "1")
    poison = die.enqueue(history.path, "poison", "kill")
    with pytest.raises(Exception, match="SIGKILL, sent by somebody else") as caught:
        poison.get(20)
    assert type(caught.value).__name__ == "PoisonTask"
    assert history.count("start", "poison") == 3
    slow = note.using(time_limit=1.5).enqueue(history.path, "slow", 30)
    with pytest.raises(TimeLimitExceeded):
        slow.get(20)
    note.enqueue(history.path, "shot", 2)
    pid = history.wait_for("start", "shot").pid
    time.sleep(0.3)  # the time of the case: it is looked at once
    os.kill(pid, signal.SIGKILL)
    wait_until_finished()
    (shot,) = [row for row in TaskRecord.objects.filter(crashes=1) if "shot" in row.payload]
    assert re.search(r"SIGKILL.*\(peak memory [\d.]+ MB\)", shot.attempt_set.get().message)
    assert_ends_well(process)


@pytest.mark.parametrize("how", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "recursion"])
def test_what_would_end_a_program_ends_a_run(worker: Start, how: str) -> None:
    """F07."""
    process = worker("--processes", "1")
    children = wait_for(process.children)
    result = recurse.enqueue() if how == "recursion" else leave.enqueue(how)
    with pytest.raises((RecursionError, TaskFailed, SystemExit, KeyboardInterrupt, GeneratorExit)):
        result.get(20)
    assert add.enqueue(1, 2).get(20) == 3
    assert process.children() == children
    assert not crashes()


def test_a_process_that_grows_is_replaced(worker: Start) -> None:
    process = worker("--processes", "1", "--max-memory-per-child", "300MB")
    (child,) = wait_for(process.children)
    for _ in range(2):
        assert hoard.enqueue(10).get(20) == child
    assert hoard.enqueue(300).get(20) == child
    wait_for(lambda: child not in process.children(), 10, process.log)
    assert hoard.enqueue(10).get(20) != child
    assert not crashes()
    assert_ends_well(process)


def test_replaced_after_so_many_runs_without_a_gap(worker: Start, history: History) -> None:
    """A run each 20 ms: none waits for a process to start."""
    process = worker("--processes", "1", "--max-tasks-per-child", "40")
    sent: dict[str, float] = {}
    waited = waited_for_processor(process)
    began = time.monotonic()
    for number in range(150):
        sent[str(number)] = time.monotonic()
        note.enqueue(history.path, str(number))
        time.sleep(max(0, began + number * 0.02 - time.monotonic()))
    wait_until_finished()
    lines = history.lines("start")
    late = max(line.at - sent[line.key] for line in lines)
    waited = max(0, waited_for_processor(process) - waited)
    pids = {line.pid for line in lines}
    print(f"\n{len(pids)} processes; the longest wait was {late:.3f} s, of all {waited:.2f} s for processors")
    assert len(pids) >= 3
    assert len(lines) == 150
    assert late < 0.2 + waited
    assert not crashes()
    assert_ends_well(process)
