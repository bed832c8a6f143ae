"""kill -9 of a worker process, of the supervisor and of everything, at any point, with default settings."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from django_taskq.models import TaskRecord
from django_taskq.status import Status
from django_taskq.worker.crew import MOST_BOOT_FAILURES
from tests.conftest import ROOT
from tests.faults.conftest import ROUNDS
from tests.faults.history import (
    History,
    assert_no_orphans,
    assert_nothing_lost,
    assert_registry_is_clean,
    crashes,
    unfinished,
    wait_until_finished,
)
from tests.faults.processes import fork_server, waited_for_processor
from tests.testapp.tasks import die, note
from tests.waiting import wait_for
from tests.workers import WorkerProcess, is_alive

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]
RUNS = 2000
SECONDS = 0.001


def enqueue_runs(history: History, runs: int = RUNS, seconds: float = SECONDS) -> list[str]:
    keys = [str(number) for number in range(runs)]
    note.enqueue_many([((history.path, key, seconds), {}) for key in keys])
    return keys


def wait_until_some_ran(history: History, share: float) -> None:
    """Return at a random point of the work: when this share of it has started, and a moment later."""
    wait_for(lambda: history.count("start") >= share * RUNS, 60, "work under way", interval=0.005)
    time.sleep(random.uniform(0, 0.05))  # not a wait for anything: the point at which to strike


def test_a_worker_process_is_killed(worker: Start, history: History) -> None:
    """Killed once in each round, at any point; a replacement runs within 2 s."""
    process = worker("--processes", "2")
    wait_for(lambda: len(process.children()) == 2)
    keys: list[str] = []
    killed: list[int] = []
    replaced_after: list[float] = []
    numbers = count()
    for round_number in range(ROUNDS):
        batch = [str(next(numbers)) for _ in range(RUNS)]
        keys += batch
        note.enqueue_many([((history.path, key, SECONDS), {}) for key in batch])
        wait_until_some_ran(history, round_number + random.random())

        victim = random.choice(process.children())
        waited = waited_for_processor(process)
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)
        struck_at = time.monotonic()

        wait_for(lambda: len(set(process.children()) - set(killed)) == 2, 10, process.log)
        took = time.monotonic() - struck_at - max(0, waited_for_processor(process) - waited)
        replaced_after.append(round(took, 2))
        wait_until_finished()
    repeated = assert_nothing_lost(history, keys, killed=killed)
    print(f"\n{ROUNDS} kills, {len(keys)} runs: {repeated} started again; replaced after {replaced_after} s")
    assert max(replaced_after) < 2
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()
    assert len(crashes()) <= len(killed)  # only what was running is charged


@pytest.mark.parametrize("what", ["supervisor", "everything"])
def test_a_worker_is_killed_and_started_again(worker: Start, history: History, what: str) -> None:
    process = worker("--processes", "2")
    keys = enqueue_runs(history)
    killed: set[int] = set()
    resumed_after: list[float] = []
    for round_number in range(ROUNDS):
        # Given a worker at any point of its work, or of its start
        share = (round_number + random.random()) / (ROUNDS + 1)
        wait_until_some_ran(history, share)

        # When it is killed
        children = process.children()
        killed.update(children)
        if what == "supervisor":
            process.kill()
        else:
            process.kill_tree()
        died_at = time.monotonic()
        killed.update(line.pid for line in history.lines())
        in_flight = set(TaskRecord.objects.filter(status=Status.RUNNING).values_list("pk", flat=True))

        # Then its successor takes over what it held, within 2 s of its start
        process = worker("--processes", "2", ready=False)
        if in_flight:

            def taken_over(ids: set[object] = in_flight, children: list[int] = children) -> bool:
                held = TaskRecord.objects.filter(pk__in=ids)
                return not held.filter(status=Status.RUNNING, worker__pid__in=children).exists()

            wait_for(taken_over, 10, process.log, interval=0.01)
            starts = [line.at for line in history.lines("start") if line.at > died_at and line.pid not in children]
            took = (min(starts) if starts else time.monotonic()) - died_at
            resumed_after.append(round(took - waited_for_processor(process), 2))
    wait_until_finished()
    repeated = assert_nothing_lost(history, keys, killed=killed)
    print(f"\n{ROUNDS} kills of {what}: {repeated} started again, work went on after {resumed_after} s")
    assert all(seconds < 2 for seconds in resumed_after)
    process.wait_ready()
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()


def test_what_was_running_starts_again_within_two_seconds(worker: Start, history: History) -> None:
    # Given two runs under way and one claimed behind them
    process = worker("--processes", "2")
    for key in ("a", "b"):
        note.enqueue(history.path, key, 30)
    for key in ("a", "b"):
        history.wait_for("start", key)

    # When the power fails and comes back
    process.kill_tree()
    started = time.monotonic()
    process = worker("--processes", "2", ready=False)

    # Then both begin again
    again = max(history.wait_for("start", key, count=2).at - started for key in ("a", "b"))
    waited = waited_for_processor(process)
    print(f"\nwithin {again:.2f} s, of which {waited:.2f} s waiting for a processor")
    assert again - waited < 2
    assert sorted(kind for _, kind in crashes()) == ["WorkerLost", "WorkerLost"]


def test_the_supervisor_alone_is_killed_while_a_task_holds_the_interpreter(worker: Start, history: History) -> None:
    """The orphan cannot notice anything; the successor kills it before it lets the run start again."""
    process = worker("--processes", "1")
    run = note.enqueue(history.path, "held", 3, "gil")
    first = history.wait_for("start", "held")
    process.kill()
    successor = worker("--processes", "1", ready=False)
    second = history.wait_for("start", "held", count=2)
    assert not is_alive(first.pid)
    wait_until_finished()
    assert [line.pid for line in history.lines("end")] == [second.pid]
    run.refresh()
    assert run.status == Status.SUCCESSFUL
    assert_no_orphans(process)
    successor.terminate()
    assert successor.wait() == 0


@pytest.mark.parametrize(
    "how",
    [
        "kill",
        pytest.param("exit", marks=pytest.mark.whole),
        pytest.param("segfault", marks=pytest.mark.one_database),
    ],
)
def test_poison(worker: Start, history: History, how: str) -> None:
    # Given one run that takes its process down among a thousand that do not
    process = worker("--processes", "2")
    good = [((history.path, str(number), SECONDS), {}) for number in range(500)]
    note.enqueue_many(good)
    poison = die.enqueue(history.path, "poison", how)
    note.enqueue_many([((history.path, str(number), SECONDS), {}) for number in range(500, 1000)])

    wait_until_finished()

    # Then it has had its three chances, and nobody else was charged
    assert history.count("start", "poison") == 3
    row = TaskRecord.objects.get(pk=poison.id)
    assert (row.status, row.crashes) == (Status.FAILED, 3)
    assert row.reason.startswith("PoisonTask: ")
    assert [kind for _, kind in crashes()] == ["WorkerLost", "WorkerLost", "PoisonTask"]
    assert {run for run, _ in crashes()} == {poison.id}
    neighbours = TaskRecord.objects.exclude(pk=poison.id)
    assert neighbours.filter(status=Status.SUCCESSFUL, crashes=0, attempt=1).count() == 1000
    # What had ended and was not yet recorded is repeated, once for each crash at most.
    starts = history.counts("start") - Counter(poison=3)
    assert len(starts) == 1000
    assert max(starts.values()) <= 4
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)


@pytest.mark.one_database
def test_the_fork_server_is_killed(worker: Start, history: History) -> None:
    # Given work under way
    process = worker("--processes", "2")
    note.enqueue(history.path, "long", 1.5)
    history.wait_for("start", "long")
    children = set(process.children())

    # When its fork server dies, which also cuts the supervisor's view of its children
    os.kill(fork_server(process), signal.SIGKILL)
    note.enqueue_many([((history.path, str(number), SECONDS), {}) for number in range(200)])

    # Then everything is done, nothing by two processes at a time, and nobody is left over
    wait_until_finished()
    assert_nothing_lost(history, [*map(str, range(200)), "long"], killed=children)
    assert not [run for run, _ in crashes()], "the fork server's end is not the runs' fault"
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()


@pytest.mark.one_database
def test_every_process_of_the_group_is_told_to_stop(worker: Start, history: History) -> None:
    """As systemd does by default and a shell at the end of a session."""
    process = worker("--processes", "2")
    keys = enqueue_runs(history, 200, 0.02)
    history.wait_for("start", count=20)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()
    assert not crashes()
    assert history.count("start") == history.count("end")
    assert TaskRecord.objects.filter(status=Status.SUCCESSFUL).count() == history.count("end")
    assert 0 < unfinished() < 200

    worker("--processes", "2", "--burst").wait()
    assert_nothing_lost(history, keys)
    assert sum(history.counts("start").values()) == 200


BREAK_CHILDREN = """
import os, sys

def break_it():
    os.write(2, b"broken on purpose\\n")
    os._exit(1)

if any("forkserver" in word for word in sys.orig_argv):
    os.register_at_fork(after_in_child=break_it)
"""


@pytest.mark.one_database
def test_processes_that_cannot_start_end_the_worker(worker: Start, tmp_path: Path) -> None:
    """A broken environment must not become a storm of processes: at most 10 in 30 s, then an exit code."""
    (tmp_path / "sitecustomize.py").write_text(BREAK_CHILDREN)
    process = worker("--processes", "2", env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}, ready=False)
    assert process.wait(30) == 1
    log = process.log()
    assert "cannot start" in log
    assert 2 <= log.count("broken on purpose\n") <= 10, log
    assert_no_orphans(process)
    assert_registry_is_clean()


@pytest.mark.one_database
def test_processes_that_die_young_but_have_worked_are_replaced(worker: Start, history: History) -> None:
    """Each dies between two runs within seconds of its birth, which is no sign of an environment that is broken."""
    process = worker("--processes", "1")
    for number in range(MOST_BOOT_FAILURES + 2):
        note.enqueue(history.path, str(number), 0)
        history.wait_for("end", str(number))
        wait_until_finished()
        (pid,) = process.children()
        os.kill(pid, signal.SIGKILL)
        wait_for(partial(is_replaced, process, pid), 20, "another process")
    assert process.returncode is None


def is_replaced(process: WorkerProcess, pid: int) -> bool:
    return process.children() not in ([], [pid])
