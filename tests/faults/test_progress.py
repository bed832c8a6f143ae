"""A process that is alive and does nothing is replaced, and one that is only busy is not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction

from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.faults.history import History, crashes, wait_until_finished
from tests.testapp.tasks import add, note
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

Start = Callable[..., WorkerProcess]
# Of impatient_settings.py, which is for workers: importing it here would make this process impatient.
PATIENCE = 3.0


@pytest.fixture
def impatient(worker: Start) -> Start:
    """Workers that wait seconds for progress."""

    def start(*arguments: str) -> WorkerProcess:
        return worker(*arguments, env={"DJANGO_SETTINGS_MODULE": "tests.faults.impatient_settings"})

    return start


def test_a_frozen_process_is_replaced(impatient: Start) -> None:
    process = impatient("--processes", "1")
    assert add.enqueue(1, 2).get(20) == 3
    (child,) = process.children()
    os.kill(child, signal.SIGSTOP)
    result = add.enqueue(3, 4)
    before = time.monotonic()
    assert result.get(PATIENCE + 15) == 7
    print(f"\nserves again after {time.monotonic() - before:.2f} s")
    assert child not in process.children()
    assert "makes no progress and is killed: nothing in it has run" in process.log()
    assert not crashes()


def test_a_run_that_holds_the_interpreter_is_left_alone(impatient: Start, history: History) -> None:
    process = impatient("--processes", "1")
    (child,) = wait_for(process.children)
    result = note.enqueue(history.path, "long", 2 * PATIENCE, "gil")
    result.get(2 * PATIENCE + 20)
    assert process.children() == [child]
    assert history.count("start") == 1
    assert "replaced" not in process.log()


@contextmanager
def locked_rows() -> Iterator[None]:
    """Nobody gets at the rows meanwhile."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE taskq_task IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.mark.skipif(connection.vendor != "postgresql", reason="needs a lock on a table")
def test_bookkeeping_that_is_stuck_in_a_query(impatient: Start, history: History) -> None:
    """Without a run the process is killed; with one another is started, and the run may finish."""
    process = impatient("--processes", "2")
    children = set(wait_for(lambda: len(process.children()) == 2 and process.children()))
    result = note.enqueue(history.path, "long", PATIENCE + 6)
    busy = history.wait_for("start", "long").pid
    (idle,) = children - {busy}
    with locked_rows():
        # The successors of both, who are stuck in their turn.
        wait_for(lambda: len(set(process.children()) - {idle, busy}) >= 2, PATIENCE + 10, process.log)
        assert busy in process.children()
        assert idle not in process.children()
    assert f"worker process {busy} is replaced: its bookkeeping has stood still" in process.log()
    assert result.get(20) is None
    assert history.count("start", "long") == 1
    assert add.enqueue(1, 2).get(20) == 3
    wait_until_finished()
    assert not crashes()
    assert not TaskRecord.objects.filter(status=Status.RUNNING).exists()
