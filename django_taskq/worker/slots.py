"""Where tasks run: the process's main thread when it has one slot, threads when it has more.

A slot takes deliveries, has the executor run them between two visits of the connection hygiene Django gives web
requests, and hands the outcomes to the courier.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Collection, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from django.db import connections
from django.db.backends.signals import connection_created

from django_taskq.exceptions import SoftTimeLimitExceeded, TaskCancelled
from django_taskq.message import Delivery, Outcome
from django_taskq.worker import executor, hygiene, shielding
from django_taskq.worker.batching import execute_batch
from django_taskq.worker.interrupting import INTERRUPTS, Drive, as_interrupt, forget_in_thread, raise_in_thread, watch
from django_taskq.worker.lane import Lane
from django_taskq.worker.shielding import Shield
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

    def __init__(self, number: int, table: SlotTable, courier: Courier, lane: Lane) -> None:
        self.number = number
        self.delivery: Delivery | None = None
        self.started = 0.0
        self.is_marked = False
        self._table = table
        self._courier = courier
        self._lane = lane
        self._thread = 0
        self._is_main = False
        self._is_running = False
        # Held while somebody interrupts the run, and for the moment from which on nobody may.
        self._lock = threading.Lock()
        self._is_open = False
        self._is_struck = False
        self._shield = Shield()
        self._drive: Drive | None = None
        self._cancel: BaseException | None = None
        # For the signal's handler: what to raise, or until when it is too early for the soft limit.
        self._error: BaseException | None = None
        self._soft: float | None = None
        self._soft_at = math.inf

    def run(self) -> None:
        """Take and run deliveries until the courier says there are no more."""
        self._thread = threading.get_ident()
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            signal.signal(signal.SIGALRM, self._on_alarm)
        shielding.cover(self._shield)
        lane, get, done = self._lane, self._lane.inbox.get, self._courier.done
        while (unit := get()) is not None:
            outcomes = [executor.execute(unit, self)] if isinstance(unit, Delivery) else execute_batch(unit, self)
            tidy_if_connected(outcomes[0], is_interrupted=self._is_struck)
            self.delivery = None
            for outcome in outcomes:
                done(outcome, lane)
        shielding.cover(None)
        connections.close_all()

    def begin(self, delivery: Delivery, hard: float | None, memory: int = 0, *, commit_first: bool) -> bool:
        if commit_first and not self._courier.starts.commit([delivery]):
            return False
        if not self._table.start(self.number, delivery.claim, hard, memory):
            return False
        self._take_on(delivery, is_marked=commit_first)
        return True

    def _take_on(self, delivery: Delivery, *, is_marked: bool) -> None:
        if delivery is not self.delivery:
            # The same one begins again after its resources were opened, and for its hooks.
            self.is_marked = False
            self._is_struck = False
            self._cancel = None
        self.is_marked = self.is_marked or is_marked
        self.started = time.monotonic()
        self.delivery = delivery
        self._is_running = True

    def begin_batch(self, deliveries: Sequence[Delivery], hard: float | None, memory: int = 0) -> Collection[int]:
        """In the table it is the last of them, which has the highest claim: what comes after it has not started."""
        # One of them may be here from before, when resources were opened: nobody is to mark that one alone.
        self.is_marked = True
        held = self._courier.starts.commit(deliveries)
        claims = [delivery.claim for delivery in held]
        if not held or not self._table.start(self.number, claims[-1], hard, memory, lowest=claims[0]):
            return ()
        self._take_on(held[-1], is_marked=True)
        return frozenset(claims)

    def arm(self, soft: float | None, drive: Drive | None = None) -> None:
        self._drive = drive
        if soft is not None:
            self._soft = soft
            if drive is None and self._is_main:
                self._soft_at = time.monotonic() + soft
                signal.setitimer(signal.ITIMER_REAL, soft)
            else:
                watch.set(self, soft, partial(self.interrupt, soft_limit_passed(soft), claim=self._claim()))
        # Whoever cancels from here on sees that it is open; what came before is seen by this look.
        self._is_open = True
        if self._cancel is not None:
            raise self._cancel

    def interrupt(self, error: BaseException, *, claim: int | None = None) -> bool:
        """Raise this in the run that goes on, from any thread; with ``claim`` in no other run than that.

        By signal in the main thread, which interrupts blocking calls; by asynchronous exception in others, which see
        it when their call into C returns; in coroutines where they wait. Returns whether it could try.
        """
        with self._lock:
            if not self._is_running or claim not in (None, self._claim()):
                return False
            if self._drive is None:
                error = as_interrupt(error)
            if isinstance(error, TaskCancelled):
                if self._cancel is not None:
                    return True
                self._cancel = error
            if self._is_open:
                self._strike(error)
            return True

    def end(self) -> None:
        while self._is_running:
            try:
                self._close()
            except INTERRUPTS:
                # It was sent before the call was over and comes after: too late to be the run's.
                continue

    def commit(self, outcome: Outcome) -> bool:
        return self._courier.record_here(outcome)

    def stop_requested(self) -> bool:
        return self._cancel is not None or self._courier.is_stopping

    def is_cancel(self, error: BaseException) -> bool:
        return error is self._cancel

    def _claim(self) -> int | None:
        return self.delivery.claim if self.delivery is not None else None

    def _strike(self, error: BaseException) -> None:
        if self._drive is not None:
            self._drive.interrupt(error)
            return
        self._is_struck = True
        if self._is_main:
            self._error = error
            signal.pthread_kill(self._thread, signal.SIGALRM)
        else:
            raise_in_thread(self._thread, error, self._shield)

    def _close(self) -> None:
        with self._lock:
            self._is_open = False
        # First of all, because what comes below takes a lock, which an error in between would leave taken.
        if self._is_struck:
            self._error = None
            if not self._is_main:
                forget_in_thread(self._thread)
        if self._soft is not None:
            if self._is_main:
                signal.setitimer(signal.ITIMER_REAL, 0)
            watch.clear(self)
            self._soft = None
            self._soft_at = math.inf
        self._table.finish(self.number)
        self._is_running = False

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        """The soft limit, or an interruption; in the main thread, between any two steps of it."""
        error, self._error = self._error, None
        if error is None and time.monotonic() >= self._soft_at and self._soft is not None:
            self._soft_at = math.inf
            self._is_struck = True
            error = as_interrupt(soft_limit_passed(self._soft))
        try:
            if error is not None and self._is_open and not self._shield.hold(error, frame):
                raise error
        finally:
            del error  # which holds this frame, which would hold it


def soft_limit_passed(seconds: float) -> SoftTimeLimitExceeded:
    """The error for that."""
    return SoftTimeLimitExceeded(f"the soft time limit of {seconds:g} s passed")


def tidy_if_connected(outcome: Outcome, *, is_interrupted: bool = False) -> None:
    """:func:`tidy_connections` where this thread has any."""
    if getattr(_thread, "has_connected", False):
        tidy_connections(outcome, is_interrupted=is_interrupted)


def tidy_connections(outcome: Outcome, *, is_interrupted: bool = False) -> None:
    """What Django does between requests, for this thread; and an atomic block left open is rolled back and reported.

    After an interruption the connections are closed: it may have struck in the middle of a query, or between two steps
    of Django's own bookkeeping. What is left open then is not the task's fault.
    """
    if is_interrupted:
        hygiene.drop_connections()
        return
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
