"""How many connections a worker has, against the formula of docs/tuning.md."""

from __future__ import annotations

import time
from urllib.request import urlopen

import pytest
from django.db import connection

from django_taskq.checks import SUPERVISOR_CONNECTIONS
from tests.depots.workers_bed import Start
from tests.faults.history import History, wait_until_finished
from tests.servers import free_port
from tests.testapp.tasks import note_exactly_once

pytestmark = pytest.mark.django_db(transaction=True)

PROCESSES, THREADS = 2, 2


def test_connections_of_a_busy_worker(worker: Start, history: History) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("about a server that counts them")
    port = free_port()
    process = worker(
        *("--threads", str(THREADS), "--health-port", str(port), "--autoscale", f"{PROCESSES},{PROCESSES}"),
    )
    # Given a connection in each slot
    for key in "abcd":
        note_exactly_once.enqueue(history.path, key, 3)
    history.wait_for("start", count=PROCESSES * THREADS)
    counts = []
    deadline = time.monotonic() + 2  # a look-out, in which every part of the supervisor comes round
    while time.monotonic() < deadline:
        urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).close()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            counts.append(cursor.fetchone()[0])
        time.sleep(0.05)
    most = SUPERVISOR_CONNECTIONS + 2 + PROCESSES * (1 + THREADS)
    print(f"\n{max(counts)} connections; the formula allows {most}")
    assert max(counts) <= most
    # And it is no idle talk.
    assert max(counts) >= most - 1
    wait_until_finished()
    process.terminate()
    assert process.wait() == 0
