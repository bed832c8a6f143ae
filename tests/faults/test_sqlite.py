"""SQLite with the options our check recommends: others hold the write lock, and the power fails in a commit."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection

from tests.faults.conftest import ROUNDS
from tests.faults.history import History, assert_no_orphans, assert_nothing_lost, unfinished, wait_until_finished
from tests.testapp.models import Effect
from tests.testapp.tasks import leave_effect, note
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]


@pytest.fixture(autouse=True)
def _on_sqlite() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("about SQLite")


# A web process whose every request writes, thinks for a second, and enqueues before it commits.
WRITER = """
import sys, time
import django
django.setup()
from django.db import transaction
from tests.testapp.models import Effect
from tests.testapp.tasks import leave_effect
for number in range(int(sys.argv[1])):
    with transaction.atomic():
        Effect.objects.create(name="request")
        leave_effect.enqueue("from the web")
        time.sleep(1)
    time.sleep(0.1)
print("done")
"""


def test_a_web_process_that_holds_long_transactions(
    worker: Start, worker_env: dict[str, str], history: History
) -> None:
    # Given a writer with a transaction of a second, again and again, and tasks that write as well
    process = worker("--processes", "4")
    requests = 6
    command = [sys.executable, "-c", WRITER, str(requests)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    web = subprocess.Popen(command, env=worker_env, **pipes)
    waits = []
    try:
        # When others enqueue all the time
        number = 0
        while web.poll() is None:
            before = time.monotonic()
            leave_effect.enqueue(f"effect{number}")
            waits.append(time.monotonic() - before)
            number += 1
            time.sleep(0.02)
    finally:
        output, _ = web.communicate(timeout=30)
    wait_until_finished()

    # Then nobody was told that the database is locked
    assert output == "done\n"
    assert "database is locked" not in process.log()
    assert Effect.objects.filter(name__startswith="effect").count() == number
    assert Effect.objects.filter(name="from the web").count() == requests
    print(f"\n{number} enqueued, the slowest in {max(waits):.2f} s")
    assert max(waits) < 15
    process.terminate()
    assert process.wait() == 0


def test_kill_in_commit(worker: Start, history: History) -> None:
    """All processes die while they write; the file is sound and nothing is lost."""
    rounds = max(3, 2 * ROUNDS)
    keys = [str(number) for number in range(300 * rounds)]
    killed: set[int] = set()
    process = None
    for round_number in range(rounds):
        batch = keys[300 * round_number : 300 * (round_number + 1)]
        process = worker("--processes", "2", ready=False)
        note.enqueue_many([((history.path, key), {}) for key in batch])
        wait_for(lambda goal=batch[0]: history.count("start", goal), 20, process.log, interval=0.001)
        time.sleep(random.uniform(0, 0.02))  # the point at which to strike
        killed.update(process.children())
        process.kill_tree()
        killed.update(line.pid for line in history.lines())
        path = Path(connection.settings_dict["NAME"])
        with sqlite3.connect(path) as own:
            assert own.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        own.close()
    process = worker("--processes", "2")
    wait_until_finished()
    assert_nothing_lost(history, keys, killed=killed)
    assert unfinished() == 0
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
