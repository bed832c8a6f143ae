"""The control plane of one ``taskworker``: keeps its processes alive and within their limits, and never runs a task.

The main loop looks and signals; whatever may block (heartbeats, the doorbell, settling deaths) is a service of its
own.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection as mp_connection
from pathlib import Path
from types import FrameType
from typing import Any

from django.db import connections

from django_taskq import signals
from django_taskq.models import Worker
from django_taskq.worker import courier, presence, process, starting, table
from django_taskq.worker.child import Child
from django_taskq.worker.doorbell import make_doorbells
from django_taskq.worker.fetcher import QueueOrder
from django_taskq.worker.keeper import Keeper
from django_taskq.worker.scheduling import Scheduling
from django_taskq.worker.service import Service

logger = logging.getLogger("django_taskq")

TICK = 0.1  # seconds between looks at the slot tables
STALLED_AFTER = 0.25  # seconds
MOST_BOOT_FAILURES = 5
YOUNG = 5.0  # seconds
CLEAN_EXIT, FAILED_EXIT, CUT_EXIT = 0, 1, 4


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What ``taskworker`` was asked for. ``grace`` is in seconds, ``max_tasks`` bounds the runs of the whole worker."""

    order: QueueOrder
    processes: int
    threads: int
    grace: float
    burst: bool = False
    max_tasks: int | None = None
    shows_runs: bool = False
    has_scheduler: bool = True


class Supervisor:
    """One worker. :meth:`run` returns its exit code."""

    def __init__(self, options: WorkerOptions, *, on_ready: Callable[[Worker], None] = lambda worker: None) -> None:
        self._options = options
        self._on_ready = on_ready
        # Here, so that the fork server loads Django on another core while the caller looks at the database.
        self._start = starting.choose()
        self._children: list[Child] = []
        self._respawns: list[tuple[float, int | None]] = []
        self._boot_failures = 0
        self._signals = 0
        self._is_stopping = False
        self._is_lost = False
        self._is_forced = False
        self._kill_at = 0.0
        self._exit_code = CLEAN_EXIT

    def run(self) -> int:
        """Serve until stopped, dry (``burst``) or done (``max_tasks``)."""
        waker, self._wakeup = socket.socketpair()
        with waker, self._wakeup:
            self._listen_for_signals(waker)
            self._directory = Path(tempfile.mkdtemp(prefix="taskq-"))
            self._sign_on()
            self._loop()
            self._sign_off()
        signals.send(signals.worker_stopped, None, worker=self._worker, exit_code=self._exit_code)
        return self._exit_code

    # Starting and ending.

    def _sign_on(self) -> None:
        options = self._options
        self._worker = presence.register(self._directory, str(options.order), options.processes, options.threads)
        self._presence = presence.Presence(self._worker, self._on_lost)
        self._keeper = Keeper(self._worker.pk, lambda: self._presence.is_steady)
        self._doorbells = make_doorbells(self._ring, self._keeper.wake, options.order.names, self._is_anyone_idle)
        self._scheduling = Scheduling() if options.has_scheduler else None
        # Before the first child, so that what a predecessor held runs again at once; and with --burst what is due now,
        # or the first look would find nothing.
        self._keeper.look()
        if self._scheduling is not None and options.burst:
            self._scheduling.work()
        for service in self._services():
            service.start()
        signals.send(signals.worker_started, None, worker=self._worker)
        for quota in _quotas(options):
            self._spawn(quota)
        connections.close_all()

    def _sign_off(self) -> None:
        deadline = time.monotonic() + 5
        for service in reversed(self._services()):
            service.stop(deadline)
        if self._scheduling is not None:
            self._scheduling.sign_off()
        self._keeper.settle_now()
        self._presence.sign_off()
        connections.close_all()
        for leftover in self._directory.glob("*.slots"):
            leftover.unlink()
        self._directory.rmdir()

    def _services(self) -> list[Service]:
        services = [self._presence, self._keeper, *self._doorbells]
        return services if self._scheduling is None else [*services, self._scheduling]

    def _spawn(self, quota: int | None) -> None:
        process_id = presence.register_process(self._worker.pk)
        path = self._directory / f"{process_id}.slots"
        table.SlotTable.create(path, self._options.threads).close()
        plan = process.ProcessPlan(
            self._worker.pk,
            process_id,
            path,
            self._options.order,
            quota,
            self._options.shows_runs,
            tuple(entry or os.getcwd() for entry in sys.path),
            os.environ["DJANGO_SETTINGS_MODULE"],
        )
        child = Child(process_id, plan, self._start)
        presence.note_pid(process_id, child.pid)
        self._children.append(child)

    # The main loop.

    def _loop(self) -> None:
        announced = False
        while self._children or self._respawns:
            ended = self._wait()
            now = time.monotonic()
            self._hear_signals(now)
            for child in list(self._children):
                if child.process.sentinel in ended:
                    self._on_death(child, now)
                else:
                    self._look_at(child, now)
            if self._is_lost:
                self._start_over()
            self._respawn(now)
            if not announced and any(child.is_up for child in self._children):
                announced = True
                self._on_ready(self._worker)
            if self._options.burst and not self._is_stopping and self._is_dry():
                self._stop(now)
            if self._is_stopping and now >= self._kill_at:
                self._cut()

    def _wait(self) -> set[Any]:
        """Until something happens or it is time to look; returns the sentinels of processes that have ended."""
        ready = mp_connection.wait([*(child.process.sentinel for child in self._children), self._wakeup], TICK)
        if self._wakeup in ready:
            self._wakeup.recv(4096)
        return set(ready)

    def _look_at(self, child: Child, now: float) -> None:
        running = child.table.running()
        overdue = [entry.claim for entry in running if entry.deadline is not None and now >= entry.deadline]
        if overdue and not child.overdue:
            child.overdue = overdue
            child.kill()
            return
        words, times = child.table.words, child.table.times
        # By the highest number it may hold, not by what it says it holds: that is written a moment after it is true,
        # and a task that seizes the GIL leaves no such moment. At worst one query in vain for each stall.
        has_unstarted = words[table.LAST_CLAIM] > max(words[table.REVOKED], child.table.last_started())
        if not has_unstarted or now - times[table.TICK] < STALLED_AFTER or len(running) < child.table.slots:
            return
        if all(now - entry.started > STALLED_AFTER for entry in running):
            # Not even its bookkeeping thread gets to run: a task holds the GIL. What waits behind it goes elsewhere.
            self._keeper.give_back(child.process_id, *child.table.revoke_unstarted())

    def _on_death(self, child: Child, now: float) -> None:
        was_up, has_worked, quota = child.is_up, bool(child.table.words[table.DONE]), child.quota_left()
        death = child.bury()
        self._children.remove(child)
        self._keeper.settle(death, self._directory / f"{child.process_id}.slots")
        if self._is_stopping or quota == 0:
            return
        logger.error("worker process %d is gone: %s", child.pid, death.cause)
        if was_up and (has_worked or death.running or now - child.born_at > YOUNG):
            self._boot_failures = 0
        else:
            # It never got to a task: a broken environment, not a broken task. No storm of processes.
            self._boot_failures += 1
            if self._boot_failures >= MOST_BOOT_FAILURES:
                logger.critical("worker processes cannot start; giving up after %d tries", self._boot_failures)
                self._exit_code = FAILED_EXIT
                self._stop(now)
                return
        delay = min(5.0, 0.2 * 2.0**self._boot_failures) if self._boot_failures else 0.0
        self._respawns.append((now + delay, quota))

    def _respawn(self, now: float) -> None:
        due = [quota for at, quota in self._respawns if at <= now]
        self._respawns = [] if self._is_stopping else [entry for entry in self._respawns if entry[0] > now]
        for quota in due if not self._is_stopping else []:
            try:
                self._spawn(quota)
            except Exception:
                # The registry cannot be reached: the services say so, and this tries again as long as they do.
                logger.warning("a worker process could not be started yet", exc_info=True)
                connections.close_all()
                self._respawns.append((now + 0.5, quota))

    def _is_dry(self) -> bool:
        return not self._respawns and self._keeper.is_settled and all(child.is_dry for child in self._children)

    def _is_anyone_idle(self) -> bool:
        return any(child.is_idle for child in list(self._children))

    def _ring(self) -> None:
        for child in list(self._children):
            child.order(courier.RING)
        self._keeper.wake()

    # Signals and stopping.

    def _listen_for_signals(self, waker: socket.socket) -> None:
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _hear_signals(self, now: float) -> None:
        heard, self._signals = self._signals, 0
        if heard and not self._is_stopping:
            logger.info("stopping: what runs has %g s to finish; a second signal cuts it short", self._options.grace)
            self._stop(now)
            heard -= 1
        if heard:
            self._is_forced = True
            self._kill_at = now

    def _stop(self, now: float) -> None:
        self._is_stopping = True
        self._kill_at = now + self._options.grace
        for child in self._children:
            child.order(courier.STOP)

    def _cut(self) -> None:
        for child in self._children:
            if self._is_forced and child.table.running():
                self._exit_code = CUT_EXIT
            child.kill(is_blameless=True)

    def _on_lost(self) -> None:
        self._is_lost = True

    def _start_over(self) -> None:
        """Another worker took this one for dead and gave back what it held: nothing of it may go on."""
        logger.error("the lease was lost; starting over with new processes")
        self._is_lost = False
        for child in self._children:
            child.kill(is_blameless=True)
        old: Any = self._presence
        options = self._options
        self._worker = presence.register(self._directory, str(options.order), options.processes, options.threads)
        self._keeper.worker_id = self._worker.pk
        self._presence = presence.Presence(self._worker, self._on_lost)
        self._presence.start()
        old.stop(time.monotonic())


def _quotas(options: WorkerOptions) -> list[int | None]:
    """``max_tasks`` shared out among the processes; no process without a share."""
    if options.max_tasks is None:
        return [None] * options.processes
    each, rest = divmod(options.max_tasks, options.processes)
    return [share for number in range(options.processes) if (share := each + (number < rest))]
