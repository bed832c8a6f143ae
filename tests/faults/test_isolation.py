"""F23: a project that has set another isolation level. Work goes on as ever: nothing is lost or started twice."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection, connections, transaction
from django.db.backends.postgresql.psycopg_any import IsolationLevel
from django.db.utils import OperationalError

from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.faults.conftest import ROUNDS
from tests.faults.history import (
    History,
    assert_no_orphans,
    assert_registry_is_clean,
    crashes,
    unfinished,
    wait_until_finished,
)
from tests.servers import PostgresServer
from tests.testapp.models import Effect
from tests.testapp.tasks import add, note, note_exactly_once_at_last, note_until_attempt
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]
SERVER = "the server's default"
LEVELS = {"REPEATABLE READ": IsolationLevel.REPEATABLE_READ, "SERIALIZABLE": IsolationLevel.SERIALIZABLE, SERVER: None}
RUNS = 200 * ROUNDS
WRITERS = 3


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[dict[str, str]]:
    """This process at the level, and the environment of workers at it."""
    options: dict[str, Any] = connection.settings_dict["OPTIONS"]
    number, database = LEVELS[request.param], connection.settings_dict["NAME"]
    with psycopg.connect(postgres_server.url, autocommit=True) as admin:
        if number is None:
            admin.execute(f'ALTER DATABASE "{database}" SET default_transaction_isolation = serializable')
        else:
            options["isolation_level"] = number
        connections.close_all()
        try:
            yield {
                "DJANGO_SETTINGS_MODULE": "tests.faults.isolated_settings",
                "TASKQ_TEST_ISOLATION": str(int(number)) if number else "",
            }
        finally:
            options.pop("isolation_level", None)
            admin.execute(f'ALTER DATABASE "{database}" RESET default_transaction_isolation')
            connections.close_all()


def own_level() -> str:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        return str(cursor.fetchone()[0])


@dataclass(slots=True)
class Project:
    """Threads that enqueue as a project does: singly, many at once, and in transactions that read and write."""

    history: History
    keys: set[str] = field(default_factory=set)
    conflicts: int = 0
    errors: list[Exception] = field(default_factory=list)

    def write(self, number: int) -> None:
        try:
            for round_number in range(RUNS // (10 * WRITERS)):
                keys = [f"{number}-{round_number}-{each}" for each in range(10)]
                note.enqueue_many([((self.history.path, key, 0.002), {}) for key in keys[:8]])
                note.enqueue(self.history.path, keys[8], 0.002)
                self.keys.update(keys[:9])
                self.in_transaction(keys[9])
        except Exception as error:
            self.errors.append(error)
        finally:
            connections.close_all()

    def in_transaction(self, key: str) -> None:
        """Tried again where PostgreSQL says so, as whoever asks for such a level has to."""
        while True:
            try:
                with transaction.atomic():
                    Effect.objects.create(name=f"{key} of {Effect.objects.count()}")
                    TaskRecord.objects.filter(status=Status.READY).count()
                    note.enqueue(self.history.path, key, 0.002)
            except OperationalError as error:
                if getattr(error.__cause__, "sqlstate", "") != "40001":
                    raise
                self.conflicts += 1
            else:
                self.keys.add(key)
                return

    @contextmanager
    def at_work(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.write, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for thread in threads:
                thread.join()
        assert not self.errors, self.errors


def test_work_goes_on_at_any_level(worker: Start, level: dict[str, str], history: History, tmp_path: Path) -> None:
    assert own_level() in ("serializable", "repeatable read")

    # Given two workers at work for a project, one of which dies
    short = {"HEARTBEAT_INTERVAL": 0.5}
    first, second = (worker("--processes", "2", env=level, taskq=short) for _ in range(2))
    others = History(tmp_path / "others")
    project, killed = Project(history), set[int]()
    with project.at_work():
        retried = [note_until_attempt.enqueue(others.path, f"retried {number}", 3) for number in range(5)]
        single = [note_exactly_once_at_last.enqueue(others.path, f"once {number}") for number in range(10)]
        later = [add.using(countdown=0.5).enqueue(number, 1) for number in range(10)]
        never = [add.using(countdown=60).enqueue(number, 1) for number in range(10)]
        assert all(result.cancel() for result in never)
        wait_for(lambda: history.count("end") > len(project.keys) / 3, 30, second.log, interval=0.005)
        killed.update(first.children())
        first.kill_tree()
        killed.update({line.pid for line in history.lines()} - set(second.children()))
    running = note.enqueue(history.path, "cancelled", 60)
    history.wait_for("start", "cancelled")
    wait_for(lambda: unfinished() == 1, 60, second.log)
    running.cancel()
    wait_until_finished()

    # Then every run has ended as it should
    assert [result.get(1) for result in retried] == [3] * 5
    assert [result.get(1) for result in single] == [None] * 10
    assert [result.get(1) for result in later] == list(range(1, 11))
    for result in [*never, running]:
        result.refresh()
        assert result.status == Status.CANCELLED
    assert TaskRecord.objects.exclude(pk__in=[r.id for r in [*never, running]], status=Status.CANCELLED).count() == (
        TaskRecord.objects.filter(status=Status.SUCCESSFUL).count()
    )
    # and was started once, but for what the dead worker was at.
    starts = history.counts("start")
    assert project.keys == set(history.counts("end"))
    again = [line for line in history.lines("start") if starts[line.key] > 1 and line.pid not in killed]
    assert len({line.key for line in again}) == len(again)
    assert not list(history.overlaps())
    assert Effect.objects.filter(name__startswith="once").count() == 10
    log = second.log()
    troubles = re.findall(r"(bookkeeping failed|lost the database).*", log)
    print(
        f"\n{len(project.keys)} runs, {len(crashes())} of them in a worker that was killed; "
        f"{project.conflicts} conflicts in the project's own transactions, {len(troubles)} in the worker's"
    )
    assert not troubles, log
    second.terminate()
    assert second.wait() == 0
    assert_no_orphans(second)
    assert_registry_is_clean()
