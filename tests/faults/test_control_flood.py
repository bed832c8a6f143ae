"""F60: orders by the thousand whose answers nobody reads, and runs that are cancelled while nobody is there to hear."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from django_taskq import control
from django_taskq.models import Command, CommandReply, TaskRecord
from django_taskq.status import Status
from tests.depots.workers_bed import SERVERS, Place, Start, at, on_url, shared_server
from tests.faults.conftest import ROUNDS
from tests.faults.history import History, assert_no_orphans, wait_until_finished
from tests.testapp.tasks import add, note
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

ORDERS = 10_000 if ROUNDS > 2 else 900
RUNS = 50
MOST_GROWTH = 10_000_000  # bytes
PATIENT = 20.0  # seconds, for workers on a loaded machine


@pytest.fixture(params=["database", *SERVERS])
def place(request: pytest.FixtureRequest, worker: Start) -> Iterator[Place]:
    taskq = {} if request.param == "database" else on_url(shared_server(request, request.param).url)
    with at(worker, taskq) as found:
        yield found


def resident(process: WorkerProcess) -> dict[int, int]:
    """Bytes in memory, by pid."""
    sizes = {}
    for pid in process.tree():
        sizes[pid] = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    return sizes


def issue(number: int) -> None:
    """One order of three kinds; nobody waits for what becomes of it."""
    if number % 3 == 0:
        control.ping(timeout=0)
    elif number % 3 == 1:
        control.inspect("active", "reserved", "stats", timeout=0)
    else:
        assert control.cancel(add.using(countdown=3600).enqueue(number, 1)) == Status.CANCELLED


def test_orders_whose_answers_nobody_reads(worker: Callable[..., WorkerProcess]) -> None:
    process = worker("--processes", "1")
    issue(0), issue(1)
    answered = ORDERS - ORDERS // 3
    wait_for(lambda: CommandReply.objects.count() == 2, PATIENT)
    assert add.enqueue(1, 2).get(PATIENT) == 3
    before = resident(process)
    for number in range(ORDERS - ORDERS % 3):
        issue(number)
    wait_for(lambda: CommandReply.objects.count() >= 2 + 2 * (ORDERS // 3), 300, process.log, interval=0.2)
    after = resident(process)
    grown = max(after[pid] - before[pid] for pid in before)
    print(f"\n{Command.objects.count()} orders, {answered} answers unread: a process has grown by {grown / 1e6:.1f} MB")
    assert set(after) == set(before)
    assert grown < MOST_GROWTH
    assert not CommandReply.objects.filter(is_ok=False).exists()
    assert add.enqueue(1, 2).get(PATIENT) == 3
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)


def test_what_was_cancelled_is_not_started_by_the_next_worker(place: Place, history: History) -> None:
    # Given a worker at a run with others behind it, and more that nobody has seen
    process = place.start()
    running = note.enqueue(history.path, "running", 60, "gil")
    waiting = note.enqueue_many([((history.path, f"waits {number}"), {}) for number in range(RUNS)])
    history.wait_for("start", "running")
    kept = note.enqueue_many([((history.path, f"kept {number}"), {}) for number in range(RUNS)])

    # When they are cancelled, and the worker dies before it can have heard of it
    running.cancel()
    for result in waiting:
        result.cancel()
    process.kill_tree()
    after = note.enqueue_many([((history.path, f"after {number}"), {}) for number in range(RUNS)])
    for result in after:
        assert result.cancel()

    # Then the next one starts none of them, and all of the others once.
    process = place.start()
    wait_until_finished()
    starts = history.counts("start")
    cancelled = TaskRecord.objects.filter(status=Status.CANCELLED).count()
    again = sum(not key.startswith("kept") for key in starts) - 1
    print(f"\n{cancelled} cancelled runs: {again} of them started afterwards")
    assert again == 0
    assert starts == {"running": 1, **{f"kept {number}": 1 for number in range(RUNS)}}
    assert cancelled == 1 + len(waiting) + len(after)
    assert TaskRecord.objects.filter(status=Status.SUCCESSFUL).count() == len(kept)
    process.terminate()
    assert process.wait() == 0
