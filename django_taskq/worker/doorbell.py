"""Hearing that there may be work, without polling hard. Always a hint: workers look by themselves once a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_taskq import conf
from django_taskq.brokers import alias_of, get_depots
from django_taskq.brokers.database import postgresql, sqlite
from django_taskq.brokers.depot import Depot
from django_taskq.cancelling import SUPERVISORS
from django_taskq.exceptions import DepotError
from django_taskq.worker.filewatch import FileWatch
from django_taskq.worker.service import Service

# How often SQLite's data version is read, in seconds: where the kernel does not tell of writes (0.4 % of a core, and
# half of it is the mean delay), and where it does. After a write, the commit is awaited by so many looks.
SQLITE_INTERVAL = 0.025
SQLITE_FALLBACK = 0.25
COMMIT_PAUSE, COMMIT_LOOKS = 0.002, 10
LISTEN_SECONDS = 1.0
BUSY_PAUSE, DEPOT_PAUSE = 0.02, 1.0


class Doorbell(Service):
    """Calls ``ring`` whenever another connection may have committed work."""

    name = "doorbell"

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring


class SQLiteDoorbell(Doorbell):
    """Watches ``PRAGMA data_version``, which changes with every commit of another connection.

    The kernel tells when the file (or its WAL) is written, which is a moment before the commit shows; where it does
    not tell, the version is read again and again. The connection is private, in autocommit, and keeps no cursor open:
    any of these would freeze what it sees.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__(ring)
        self._seen: int | None = None
        self._watch: FileWatch | None = None

    def work(self) -> float:
        connection = connections[conf.get_settings().database]
        if self._watch is None:
            self._watch = _watch(sqlite.database_file(connection))
        while not self._is_stopping:
            self._look(connection)
            if self._watch is None:
                time.sleep(SQLITE_INTERVAL)
            elif self._watch.wait(SQLITE_FALLBACK):
                self._await_commit(connection)
        return 0.0

    def _look(self, connection: BaseDatabaseWrapper) -> bool:
        version = sqlite.data_version(connection)
        if version == self._seen:
            return False
        self._seen = version
        self._ring()
        return True

    def _await_commit(self, connection: BaseDatabaseWrapper) -> None:
        for _ in range(COMMIT_LOOKS):
            # The pause comes first: it also bounds how often a busy database rings.
            time.sleep(COMMIT_PAUSE)
            if self._look(connection):
                return


def _watch(file: Path | None) -> FileWatch | None:
    try:
        return None if file is None else FileWatch(file.parent)
    except OSError:
        return None


class PostgreSQLDoorbell(Doorbell):
    """Waits for NOTIFY on a connection of its own. Behind a pooler that swallows LISTEN it harmlessly hears nothing."""

    def __init__(self, ring: Callable[[], None], note: Callable[[], None]) -> None:
        """``note`` is called for what is for supervisors alone to look at."""
        super().__init__(ring)
        self._note = note
        self._listening: Any = None

    def work(self) -> float:
        connection = connections[conf.get_settings().database]
        connection.ensure_connection()
        raw: Any = connection.connection
        if raw is not self._listening:
            postgresql.listen(connection)
            self._listening = raw
            self._ring()  # something may have come while nobody listened
        with connection.wrap_database_errors:
            heard = list(raw.notifies(timeout=LISTEN_SECONDS, stop_after=1))
        if heard:
            (self._ring if any(each.payload != SUPERVISORS for each in heard) else self._note)()
        return 0.0


class DepotDoorbell(Doorbell):
    """Waits at a depot that tells one of its waiters of each message, while this worker has somebody to send."""

    def __init__(
        self, ring: Callable[[], None], depot: Depot, queue_names: Sequence[str], wanted: Callable[[], Collection[str]]
    ) -> None:
        """``wanted`` tells of which queues somebody idle would fetch now."""
        super().__init__(ring)
        self.name = f"doorbell of {depot.config.alias}"
        self._depot = depot
        self._queue_names = queue_names
        self._wanted = wanted

    def stop(self, deadline: float) -> bool:
        """End, without waiting for a wait at the depot to end: it holds nothing that is to be put in order."""
        return super().stop(time.monotonic())

    def work(self) -> float:
        # Who is busy looks by itself when it is done, and must not be told in the place of somebody idle.
        wanted = self._wanted()
        names = [name for name in self._queue_names if name in wanted]
        if not names:
            return BUSY_PAUSE
        try:
            if self._depot.wait(names, LISTEN_SECONDS):
                self._ring()
        except DepotError:
            return DEPOT_PAUSE  # the processes say that it is down, and look once a second meanwhile
        return 0.0


def make_doorbells(
    ring: Callable[[], None],
    note: Callable[[], None],
    queue_names: Sequence[str],
    wanted: Callable[[], Collection[str]],
) -> list[Doorbell]:
    """The database's doorbell, and those of the depots of these queues that tell of work by being waited at.

    Where no queue is kept in the database, what is committed there is for the supervisor alone to look at: ``note``.
    """
    aliases = {alias_of(name) for name in queue_names}
    bells = [make_doorbell(note if aliases <= set(get_depots()) else ring, note)]
    for alias, depot in get_depots().items():
        names = [name for name in queue_names if alias_of(name) == alias]
        if names and depot.is_waited_at:
            bells.append(DepotDoorbell(ring, depot, names, wanted))
    return bells


def make_doorbell(ring: Callable[[], None], note: Callable[[], None] | None = None) -> Doorbell:
    """The doorbell of the database that holds the rows."""
    vendor = connections[conf.get_settings().database].vendor
    return PostgreSQLDoorbell(ring, note or ring) if vendor == "postgresql" else SQLiteDoorbell(ring)
