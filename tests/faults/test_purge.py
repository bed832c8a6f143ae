"""F53: a large history is pruned while work goes on: in small transactions, in little memory, noticed by nobody.

``TASKQ_FAULT_HISTORY`` is how many finished runs there are: 20,000 by default, 5,000,000 for a release.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, connections

from django_taskq.models import TaskAttempt, TaskRecord
from tests.faults.history import History, assert_no_orphans, wait_until_finished
from tests.faults.processes import waited_for_processor
from tests.testapp.tasks import note
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

ROWS = int(os.environ.get("TASKQ_FAULT_HISTORY", "20000"))
FAILED_EVERY = 20
RATE = 200  # runs a second
BASE_SECONDS = 5.0
MOST_GROWTH = 100_000_000  # bytes
NOISE = 0.05  # seconds: of a wait of a few milliseconds twice as much says nothing

# As of long ago, in the order of their ends. The numbers of the vendors' own statements: first and last.
INSERT = """
    INSERT INTO taskq_task (id, name, queue_name, status, payload, enqueued_at, started_at, finished_at, result, reason)
    SELECT {id}, 'history.of', 'default', CASE WHEN n % {every} = 0 THEN 'FAILED' ELSE 'SUCCESSFUL' END,
        '[["some","arguments"],{{}}]', {at}, {at}, {at}, '"a result"', ''
    FROM {numbers}
"""
ATTEMPTS = """
    INSERT INTO taskq_attempt (task_id, attempt, kind, worker, finished_at, class_path, message, traceback)
    SELECT id, 1, 'FAILED', 'host:1', finished_at, 'builtins.ValueError', 'no', 'Traceback' FROM taskq_task
    WHERE name = 'history.of' AND status = 'FAILED'
"""
VENDORS = {
    "sqlite": {
        "id": "printf('%032x', n)",
        "at": "strftime('%Y-%m-%d %H:%M:%S', 'now', '-90 days', printf('+%f seconds', n / 10.0))",
        "numbers": "(WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last}) "
        "SELECT n FROM s)",
    },
    "postgresql": {
        "id": "lpad(to_hex(n), 32, '0')::uuid",
        "at": "now() - interval '90 days' + n * interval '0.1 seconds'",
        "numbers": "generate_series({first}, {last}) AS n",
    },
}

# What the command takes beyond what Django does, in bytes.
PRUNE = """
import re
import django
django.setup()
from django.core.management import call_command
from django_taskq.models import TaskRecord
def memory(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) << 10
TaskRecord.objects.order_by("pk").first()
input("ready")
before = memory("VmRSS")
call_command("taskq", "prune")
print("growth", memory("VmHWM") - before)
"""


def fill() -> None:
    words = VENDORS[connection.vendor]
    with connection.cursor() as cursor:
        for first in range(1, ROWS + 1, 250_000):
            numbers = words["numbers"].format(first=first, last=min(ROWS, first + 249_999))
            cursor.execute(INSERT.format(**words | {"numbers": numbers}, every=FAILED_EVERY))
        cursor.execute(ATTEMPTS)
        cursor.execute("ANALYZE")


class Load:
    """Runs at a steady rate, from a thread of its own; how long each waited to be started."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._sent: dict[str, float] = {}
        self._mark = 0

    @contextmanager
    def flowing(self) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=self._send, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _send(self, over: threading.Event) -> None:
        due = time.monotonic()
        while not over.wait(max(0.0, due - time.monotonic())):
            key = str(len(self._sent))
            self._sent[key] = time.monotonic()
            note.enqueue(self._history.path, key)
            due = max(due + 1 / RATE, time.monotonic() - 1)
        connections.close_all()

    def waits(self) -> list[float]:
        """Of those sent since this was last asked, in seconds, the shortest first."""
        keys = list(self._sent)[self._mark :]
        self._mark = len(self._sent)
        started: dict[str, float] = {}

        def are_started() -> bool:
            started.update({line.key: line.at for line in self._history.lines("start")})
            return started.keys() >= set(keys)

        wait_for(are_started, 30)
        return sorted(started[key] - self._sent[key] for key in keys)


def p99(waits: list[float]) -> float:
    return waits[int(len(waits) * 0.99)]


def test_a_large_history_is_pruned_under_load(
    worker: Callable[..., WorkerProcess], worker_env: dict[str, str], history: History
) -> None:
    # Given a worker that has work all the time, and a history
    fill()
    assert TaskAttempt.objects.count() == ROWS // FAILED_EVERY
    process = worker("--processes", "1")
    load = Load(history)
    with load.flowing():
        history.wait_for("end", count=RATE)
        load.waits()
        time.sleep(BASE_SECONDS)  # what it is compared with
        base = load.waits()

        # When all of it is pruned at once
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        pruner = subprocess.Popen([sys.executable, "-c", PRUNE], env=worker_env, **pipes)
        assert pruner.stdout.read(5) == "ready"
        load.waits()
        began, waited = time.monotonic(), waited_for_processor(process)
        output, _ = pruner.communicate("\n")
        took = time.monotonic() - began
        meanwhile, waited = load.waits(), waited_for_processor(process) - waited
    assert pruner.returncode == 0, output

    # Then it is gone, and nobody has waited for that.
    growth = int(re.findall(r"growth (\d+)", output)[0])
    print(
        f"\n{ROWS:,} runs pruned in {took:.1f} s, with {growth / 1e6:.0f} MB more; {len(meanwhile)} runs meanwhile: "
        f"99 % started within {p99(meanwhile) * 1000:.0f} ms, {p99(base) * 1000:.0f} ms before; "
        f"{waited:.1f} s without a processor"
    )
    assert not TaskRecord.objects.filter(name="history.of").exists()
    assert not TaskAttempt.objects.exists()
    assert growth < MOST_GROWTH
    assert p99(meanwhile) <= 2 * p99(base) + NOISE + waited / 10
    wait_until_finished()
    assert "bookkeeping failed" not in process.log()
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
