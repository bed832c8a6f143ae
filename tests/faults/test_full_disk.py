"""F26: the disk under the database, or under Redis, is full for some seconds.

A call then raises, and what was accepted before is done once there is room: the database's own ``OperationalError``
where the row could not be written, inside a transaction and outside, and an ``EnqueueError`` where Redis refused.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, connections, transaction

from django_taskq.exceptions import BrokerUnavailable, EnqueueError, EnqueueUncertain
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.conftest import find
from tests.depots.tasks import note_untracked
from tests.depots.workers_bed import Start, at, on_url
from tests.faults.conftest import ROUNDS
from tests.faults.disks import Disk, SmallPostgres, mounted
from tests.faults.history import History, assert_no_orphans, crashes, unfinished
from tests.faults.loads import resumed_after
from tests.servers import RedisServer, Server
from tests.testapp.tasks import note
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

OUTAGE = 30.0 if ROUNDS > 2 else 3.0  # seconds
BACKLOG = 300
RECOVERY = 10.0  # seconds after there is room again

Enqueue = Callable[[str], Any]


@dataclass(slots=True)
class Calls:
    """Those of a test, by what came of them."""

    enqueue: Enqueue
    allowed: tuple[type[Exception], ...]
    accepted: set[str] = field(default_factory=set)
    errors: dict[str, Exception] = field(default_factory=dict)

    def make(self) -> bool:
        """One more; whether it was accepted."""
        key = str(len(self.accepted) + len(self.errors))
        try:
            self.enqueue(key)
        except self.allowed as error:
            self.errors[key] = error
            connections.close_all()
            return False
        self.accepted.add(key)
        return True

    def names(self) -> dict[str, int]:
        return dict(Counter(type(error).__name__ for error in self.errors.values()))


def go_through(calls: Calls, disk: Disk, process: WorkerProcess, history: History, server: Server | None) -> None:
    """Fill the disk under a worker that has work, free it, and see everything done that was accepted."""
    children = process.children()
    for _ in range(BACKLOG):
        assert calls.make()
    history.wait_for("end", count=20)

    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # room in its log is room, too
    disk.fill()
    wait_for(lambda: not calls.make(), 20, interval=0.001)
    refused_at = time.monotonic()
    while time.monotonic() - refused_at < OUTAGE:  # the length of the fault
        calls.make()
        time.sleep(0.02)
    assert process.returncode is None
    assert calls.errors

    disk.free()
    if server is not None:
        server.start()  # some end when they cannot write, and wait for somebody who makes room
    freed_at = time.monotonic()
    wait_for(calls.make, RECOVERY, lambda: repr(list(calls.errors.values())[-1]), interval=0.1)
    took = resumed_after(history, freed_at, RECOVERY, process.log)
    wait_for(lambda: not unfinished() and calls.accepted <= set(history.counts("end")), 60, process.log, interval=0.1)
    print(
        f"\n{len(calls.accepted)} accepted and done, {calls.names()} raised; "
        f"work resumed {took:.2f} s after there was room"
    )
    assert process.children() == children
    assert not crashes()
    assert set(history.counts("start").values()) == {1}
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)


@contextmanager
def default_database(**changes: str) -> Iterator[dict[str, str]]:
    """Another one in place of this process's default; the environment of workers on it."""
    settings: dict[str, Any] = connection.settings_dict
    before = {key: settings[key] for key in changes}
    connections.close_all()
    settings.update(changes)
    try:
        yield {f"TASKQ_TEST_DB_{key}": value for key, value in changes.items()}
    finally:
        connections.close_all()
        settings.update(before)


@contextmanager
def database_on(disk: Disk) -> Iterator[tuple[dict[str, str], Server | None]]:
    """The tables of the tests, on the small disk."""
    if connection.vendor == "sqlite":
        copy = disk.path / "db.sqlite3"
        with closing(sqlite3.connect(connection.settings_dict["NAME"])) as own, closing(sqlite3.connect(copy)) as new:
            own.backup(new)
        with default_database(NAME=str(copy)) as environment:
            yield environment, None
        return
    with SmallPostgres(disk) as server:
        names = {key: value for key, value in server.params.items() if key != "ENGINE"}
        with default_database(**names) as environment:
            call_command("migrate", verbosity=0)
            yield environment, server


def in_transaction(history: History) -> Enqueue:
    def enqueue(key: str) -> None:
        with transaction.atomic():
            note.enqueue(history.path, key, 0.005)

    return enqueue


def alone(history: History) -> Enqueue:
    return lambda key: note.enqueue(history.path, key, 0.005)


@pytest.mark.parametrize("way", [alone, in_transaction], ids=["alone", "in a transaction"])
def test_the_disk_of_the_database(
    worker: Callable[..., WorkerProcess],
    pytestconfig: pytest.Config,
    history: History,
    way: Callable[[History], Enqueue],
) -> None:
    size = 32 if connection.vendor == "sqlite" else 96
    with mounted(size, pytestconfig) as disk, database_on(disk) as (environment, server):
        process = worker("--processes", "1", env=environment)
        calls = Calls(way(history), (OperationalError,))
        try:
            go_through(calls, disk, process, history, server)
            assert TaskRecord.objects.filter(status=Status.SUCCESSFUL).count() >= len(calls.accepted)
            assert TaskRecord.objects.count() <= len(calls.accepted) + len(calls.errors)
        finally:
            process.kill_tree()


@pytest.mark.one_database
@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_the_disk_of_redis(worker: Start, pytestconfig: pytest.Config, history: History, fsync: str) -> None:
    """Which goes on and refuses, or ends."""
    find(RedisServer, pytestconfig)

    def enqueue(key: str) -> None:
        (note if int(key) % 2 else note_untracked).enqueue(history.path, key, 0.005)

    with mounted(32, pytestconfig) as disk:
        data = disk.path / "data"
        data.mkdir(mode=0o777)
        data.chmod(0o777)
        config = {"appendonly": "yes", "appendfsync": fsync, "dir": str(data)}
        with RedisServer(config) as server, at(worker, on_url(server.url)) as place:
            process = place.start("--processes", "1")
            calls = Calls(enqueue, (EnqueueError,))
            go_through(calls, disk, process, history, server)
            for key, error in calls.errors.items():
                assert isinstance(error, (BrokerUnavailable, EnqueueUncertain)), (key, error)
                # What was said not to run has not.
                assert isinstance(error, EnqueueUncertain) or not history.count("start", key)
