"""What happens to a PostgreSQL server happens to a worker's bookkeeping, and costs it nothing."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from django.db import connections

from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.faults.conftest import ROUNDS
from tests.faults.history import (
    History,
    assert_no_orphans,
    assert_nothing_lost,
    crashes,
    unfinished,
    wait_until_finished,
)
from tests.servers import PostgresServer
from tests.testapp.tasks import note
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]


def enqueue(history: History, runs: int, seconds: float) -> list[str]:
    keys = [str(number) for number in range(runs)]
    note.enqueue_many([((history.path, key, seconds), {}) for key in keys])
    return keys


def read_rows_again() -> None:
    """Ours were cut too."""
    connections.close_all()


def test_an_immediate_restart_under_load(postgres_server: PostgresServer, worker: Start, history: History) -> None:
    # Given work for some seconds
    process = worker("--processes", "2")
    wait_for(lambda: len(process.children()) == 2)
    children = process.children()
    keys = enqueue(history, 3000, 0.002)
    resumed_after = []
    for round_number in range(max(1, ROUNDS // 2)):
        wait_for(lambda goal=(round_number + 1) * 200: history.count("end") > goal, 30, interval=0.005)

        # When the server loses its memory
        read_rows_again()
        postgres_server.restart("immediate")
        accepts_at = time.monotonic()

        # Then work goes on
        def has_resumed(since: float = accepts_at) -> float:
            later = [line.at for line in history.lines("start") if line.at > since + 0.3]
            return later[0] - since if later else 0

        resumed_after.append(round(wait_for(has_resumed, 10, process.log), 2))
    wait_until_finished()
    print(f"\nresumed after {resumed_after} s")
    assert process.children() == children
    assert not crashes()
    assert_nothing_lost(history, keys)
    assert history.count("start") == len(keys)
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)


def test_a_server_that_is_away_for_some_seconds(
    postgres_server: PostgresServer, worker: Start, history: History
) -> None:
    """What ends meanwhile is kept and recorded afterwards."""
    process = worker("--processes", "2")
    wait_for(lambda: len(process.children()) == 2)
    children = process.children()
    keys = [f"long{number}" for number in range(2)]
    for key in keys:
        note.enqueue(history.path, key, 1)
    for key in keys:
        history.wait_for("start", key)
    read_rows_again()
    postgres_server.stop("immediate")
    for key in keys:
        history.wait_for("end", key)
    postgres_server.start()
    wait_until_finished(10)
    assert_nothing_lost(history, keys)
    assert history.count("start") == 2
    assert process.children() == children


@contextmanager
def again_and_again(action: Callable[[], None], pause: float) -> Iterator[None]:
    """Do it in the background until the block ends."""
    over = threading.Event()
    errors: list[Exception] = []

    def run() -> None:
        while not over.wait(pause):
            try:
                action()
            except psycopg.Error as error:
                errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not errors


def test_random_sessions_are_terminated(postgres_server: PostgresServer, worker: Start, history: History) -> None:
    # Given a worker whose connections die one after the other, at a steady pace
    process = worker("--processes", "2")
    wait_for(lambda: len(process.children()) == 2)
    children = process.children()
    keys = enqueue(history, 1500, 0.005)
    mine = connections["default"].connection.info.backend_pid
    victims = 0

    def terminate_one() -> None:
        nonlocal victims
        with psycopg.connect(postgres_server.url, autocommit=True) as admin:
            query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid NOT IN (%s, %s)"
            pids = [pid for (pid,) in admin.execute(query, [mine, admin.info.backend_pid])]
            if pids:
                admin.execute("SELECT pg_terminate_backend(%s)", [random.choice(pids)])
                victims += 1

    with again_and_again(terminate_one, 0.2):
        wait_for(lambda: not unfinished(), 60, process.log, interval=0.1)

    # Then each thread found itself a new one
    print(f"\n{victims} sessions terminated")
    assert victims > 10
    assert process.children() == children
    assert_nothing_lost(history, keys)
    assert history.count("start") == len(keys)
    assert not crashes()
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)


def test_a_server_that_is_read_only_for_some_seconds(
    postgres_server: PostgresServer, worker: Start, history: History
) -> None:
    """As after a failover, or under an administrator's hand."""
    process = worker("--processes", "2")
    wait_for(lambda: len(process.children()) == 2)
    children = process.children()
    keys = enqueue(history, 1500, 0.005)
    history.wait_for("end", count=100)
    with psycopg.connect(postgres_server.url, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        admin.execute("SELECT pg_reload_conf()")
        try:
            wait_for(lambda: "read-only" in process.log(), 10, process.log)
            time.sleep(3)  # the length of the fault, not a wait
            assert process.children() == children
        finally:
            admin.execute("SET default_transaction_read_only = off")
            admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
            admin.execute("SELECT pg_reload_conf()")
    ended = time.monotonic()
    wait_for(lambda: any(line.at > ended for line in history.lines("start")), 10, process.log)
    wait_until_finished()
    assert_nothing_lost(history, keys)
    assert process.children() == children
    assert TaskRecord.objects.filter(status=Status.SUCCESSFUL).count() == len(keys)
    assert not crashes()
