"""Where tasks run: the process's main thread when it has one slot, threads when it has more.

A slot takes deliveries, has the executor run them between two visits of the connection hygiene Django gives web
requests, and hands the outcomes to the courier.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING

from django.db import connections
from django.db.backends.signals import connection_created

from django_taskq.exceptions import SoftTimeLimitExceeded
from django_taskq.message import Delivery, Outcome
from django_taskq.worker import executor
from django_taskq.worker.table import SlotTable

if TYPE_CHECKING:
    from django_taskq.worker.courier import Courier

logger = logging.getLogger("django_taskq")

# Asking Django for a thread's connections costs as much as a small task: threads that never connected are not asked.
_thread = threading.local()


def _note_connection(**kwargs: object) -> None:
    _thread.has_connected = True


connection_created.connect(_note_connection, dispatch_uid="django_taskq.slots")


class Slot:
    """One unit of concurrency; :meth:`run` is its thread's whole life. Also the executor's guard."""

    def __init__(self, number: int, table: SlotTable, courier: Courier, inbox: SimpleQueue[Delivery | None]) -> None:
        self.number = number
        self.delivery: Delivery | None = None
        self.started = 0.0
        self.is_marked = False
        self._table = table
        self._courier = courier
        self._inbox = inbox
        self._is_main = False
        self._is_running = False
        self._is_armed = False
        self._soft_limit = 0.0

    def run(self) -> None:
        """Take and run deliveries until the courier says there are no more."""
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            signal.signal(signal.SIGALRM, self._on_soft_limit)
        get, done = self._inbox.get, self._courier.done
        while (delivery := get()) is not None:
            outcome = executor.execute(delivery, self)
            if getattr(_thread, "has_connected", False):
                tidy_connections(outcome)
            self.delivery = None
            done(outcome)
        connections.close_all()

    def begin(self, delivery: Delivery, hard: float | None, *, commit_first: bool) -> bool:
        if commit_first and not self._courier.commit_start(delivery):
            return False
        # Threads cannot be killed, so only the limits of a process with one slot are for the supervisor to enforce.
        if not self._table.start(self.number, delivery.claim, hard if self._is_main else None):
            return False
        self.is_marked = commit_first
        self.started = time.monotonic()
        self.delivery = delivery
        self._is_running = True
        return True

    def arm(self, soft: float | None) -> None:
        if soft is not None and self._is_main:
            self._soft_limit = soft
            self._is_armed = True
            signal.setitimer(signal.ITIMER_REAL, soft)

    def end(self) -> None:
        if self._is_armed:
            self._is_armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self._is_running:
            self._is_running = False
            self._table.finish(self.number)

    def commit(self, outcome: Outcome) -> bool:
        return self._courier.record_here(outcome)

    def _on_soft_limit(self, number: int, frame: FrameType | None) -> None:
        if self._is_armed:
            self._is_armed = False
            raise SoftTimeLimitExceeded(f"the soft time limit of {self._soft_limit:g} s passed")


def tidy_connections(outcome: Outcome) -> None:
    """What Django does between requests, for this thread; and an atomic block left open is rolled back and reported."""
    for connection in connections.all(initialized_only=True):
        if connection.connection is None:
            continue
        if connection.in_atomic_block or not connection.autocommit:
            run, alias = outcome.delivery, connection.alias
            logger.error("run %s of %s left a transaction open on %r; it is rolled back", run.id, run.name, alias)
            # Inside a block close() would only mark the connection; outside, the next use connects afresh.
            connection.in_atomic_block = False
            connection.close()
        connection.queries_log.clear()
        connection.close_if_unusable_or_obsolete()
