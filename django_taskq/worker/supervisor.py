"""The control plane of one ``taskworker``: keeps its processes alive and within their limits, and never runs a task.

The main loop looks and signals; whatever may block (heartbeats, the doorbell, settling deaths) is a service of its
own.
"""

from __future__ import annotations

import logging
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import connection as mp_connection
from pathlib import Path
from typing import Any

from django.db import connections

from django_taskq import hooks, signals
from django_taskq.conf_workers import GEVENT
from django_taskq.models import Worker
from django_taskq.worker import orders, presence, starting
from django_taskq.worker.child import Child
from django_taskq.worker.commands import Commands, newest_command
from django_taskq.worker.crew import Crew
from django_taskq.worker.doorbell import make_doorbells
from django_taskq.worker.health.station import Condition, open_station
from django_taskq.worker.keeper import Keeper
from django_taskq.worker.load import LOAD, LoadWatch
from django_taskq.worker.obeying import CANCELLED
from django_taskq.worker.options import WorkerOptions
from django_taskq.worker.requests import Requests
from django_taskq.worker.scaling import Scaling
from django_taskq.worker.scheduling import Scheduling
from django_taskq.worker.service import Service
from django_taskq.worker.shutter import Shutter

logger = logging.getLogger("django_taskq")

TICK = 0.1  # seconds between looks at the slot tables
CLEAN_EXIT, FAILED_EXIT, CUT_EXIT = 0, 1, 4


class Supervisor:
    """One worker. :meth:`run` returns its exit code."""

    crew_class = Crew

    def __init__(self, options: WorkerOptions, *, on_ready: Callable[[Worker], None] = lambda worker: None) -> None:
        self.options = options
        self.shutter = Shutter(lambda order: self.crew.tell(order))
        self.crew: Crew
        self._on_ready = on_ready
        self._requests = Requests()
        # Here, so that the fork server loads Django on another core while the caller looks at the database.
        self._start: Any = self._choose_start()
        self._is_stopping = False
        self._is_lost = False
        self._is_forced = False
        self._kill_at = 0.0
        self._outdated: list[Child] = []
        self._exit_code = CLEAN_EXIT
        self._looked_at = time.monotonic()
        self._leases_lost = 0

    def run(self) -> int:
        """Serve until stopped, dry (``burst``) or done (``max_tasks``)."""
        self._station = open_station(self.options.health, self)
        with self._requests.listening():
            self._serve()
        return self._exit_code

    def _choose_start(self) -> starting.StartMethod:
        return starting.choose(self.options.start_method, patches=self.options.pool == GEVENT)

    def _serve(self) -> None:
        hooks.start(hooks.Moment.WORKER_START)
        self._directory = Path(tempfile.mkdtemp(prefix="taskq-"))
        self._sign_on()
        self._loop()
        self._sign_off()
        hooks.stop(hooks.Moment.WORKER_STOP)
        signals.send(signals.worker_stopped, None, worker=self._worker, exit_code=self._exit_code)

    # For its services, from any thread; the main loop does it within a tick.

    def call(self, function: Callable[[], object]) -> None:
        """Have the main loop call this. It must not wait for anything: signals and limits wait for it."""
        self._requests.call(function)

    def stop(self, *, graceful: bool = True) -> None:
        """Stop, and let what runs finish within the grace period; otherwise cut it short and give it back."""
        self.call(self._stop if graceful else self._stop_at_once)

    def quiet(self, is_quiet: bool = True) -> None:
        """Fetch nothing more, finish what runs, and stay; or go on."""
        self.call(partial(self._set_quiet, is_quiet))

    def restart(self, why: str) -> None:
        """Replace every process, one after the other, without a gap in service; what they run is finished."""
        self.call(partial(self._set_outdated, why))

    def reshape(self, **changes: Any) -> None:
        """Go on with other options: fields of :class:`WorkerOptions`. Nobody's run is interrupted for it."""
        self.call(partial(self._reshape, changes))

    def exchange(self, **changes: Any) -> None:
        """The same for its queues or slots, with each process replaced by one that has them, one after the other."""
        self.call(partial(self._exchange, changes))

    def note_queues(self) -> None:
        """Have the worker's row say what it serves now; from any thread."""
        self._presence.note(self.options, self._left_out)

    @property
    def _left_out(self) -> frozenset[str]:
        """The queues that it was told to serve no more."""
        return self.shutter.reasons.get(CANCELLED, frozenset())

    @property
    def condition(self) -> Condition:
        """How it is; from any thread."""
        beats, steady = self._presence.is_beating, self._presence.is_steady
        return Condition(str(self._worker), self._is_stopping, beats, steady, self._looked_at, self._leases_lost)

    # Starting and ending.

    def _sign_on(self) -> None:
        options = self.options
        last_command = newest_command()
        self._worker = presence.register(self._directory, options)
        self._presence = presence.Presence(self._worker, self._on_lost)
        self._keeper = Keeper(self._worker.pk, lambda: self._presence.is_steady)
        self.crew = self.crew_class(
            options,
            self._start,
            self._worker.pk,
            self._directory,
            self._keeper,
            brief=self._brief,
            totals=self._station.totals if self._station else None,
        )
        if self._station is not None:
            self._station.start()
        self._commands = Commands(self, self._worker.pk, last_command)
        self._doorbells = make_doorbells(self._ring, self._note, options.order.names, self._wanted)
        self._scheduling = Scheduling() if options.has_scheduler else None
        self._load_watch = LoadWatch(self.shutter, lambda: self.options.load_limits)
        self._scaling = Scaling(
            lambda: self.options,
            lambda: list(self.crew.children),
            self.shutter,
            lambda number: self.reshape(processes=number),
        )
        # Before the first child, so that what a predecessor held runs again at once; and with --burst what is due now,
        # or the first look would find nothing.
        self._keeper.look()
        self._commands.look_at_state()
        if self._scheduling is not None and options.burst:
            self._scheduling.work()
        self._start_services()
        signals.send(signals.worker_started, None, worker=self._worker)
        self.crew.fill(options.posts())
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

    def _start_services(self) -> None:
        """Those the options ask for; again when they have changed."""
        idle = {self._load_watch: not self.options.load_limits, self._scaling: self.options.autoscale is None}
        for service in self._services():
            if not idle.get(service):
                service.start()

    def _services(self) -> list[Service]:
        services = [self._presence, self._keeper, self._commands, *self._doorbells, self._load_watch, self._scaling]
        if self._station is not None:
            services.insert(0, self._station)  # the first to start, and the last to stop
        return services if self._scheduling is None else [*services, self._scheduling]

    # The main loop.

    def _loop(self) -> None:
        announced = False
        while not self.crew.is_gone:
            ended = self._wait()
            now = self._looked_at = time.monotonic()
            self._hear_signals()
            self._requests.obey_calls()
            self.crew.look(ended, now)
            self._replace_outdated()
            if self.crew.is_hopeless and not self._is_stopping:
                self._exit_code = FAILED_EXIT
                self._stop()
            if self._is_lost:
                self._start_over()
            if not announced and self.crew.is_up:
                announced = True
                self._on_ready(self._worker)
            # Whoever has only just started may find nothing before the next line is reached: first it is announced.
            if self.options.burst and announced and not self._is_stopping and self._is_dry():
                self._stop()
            if self._is_stopping and now >= self._kill_at:
                self._cut()

    def _is_dry(self) -> bool:
        """Whether nothing is left that could run now; what the load of this host keeps from it still could."""
        return self.crew.is_dry and LOAD not in self.shutter.reasons

    def _wait(self) -> set[Any]:
        """Until something happens or it is time to look; returns the sentinels of processes that have ended."""
        bell = self._requests.bell
        ready = mp_connection.wait([*self.crew.sentinels, bell], TICK)
        if bell in ready:
            bell.recv(4096)
        return set(ready)

    def _ring(self) -> None:
        self.crew.tell(orders.Order(orders.RING))
        self._note()

    def _note(self) -> None:
        self._keeper.wake()
        self._commands.wake()

    def _wanted(self) -> set[str]:
        """Of which queues somebody idle would fetch now."""
        return set() if self.shutter.is_quiet else self.crew.idle_queues - self.shutter.closed

    def _brief(self, child: Child) -> None:
        self.shutter.brief(child.order)
        self._commands.brief(child.order)

    # Signals and stopping.

    def _hear_signals(self) -> None:
        for number in self._requests.heard():
            match signal.Signals(number).name:
                case "SIGTERM" | "SIGINT":
                    (self._stop_at_once if self._is_stopping else self._stop)()
                case "SIGQUIT":
                    self._stop_at_once()
                case "SIGHUP":
                    if self._requests.has_hung_up:
                        self._stop()
                    else:
                        self._set_outdated("a restart was asked for")
                case "SIGUSR1":
                    self._set_quiet(True)
                case "SIGCONT":
                    self._set_quiet(False)

    def _stop(self) -> None:
        if not self._is_stopping:
            logger.info("stopping: what runs has %g s to finish; a second signal cuts it short", self.options.grace)
            self._begin_to_stop(self.options.grace)

    def _stop_at_once(self) -> None:
        if not self._is_forced:
            logger.info("stopping at once: what runs is cut short and given back")
            self._is_forced = True
            self._begin_to_stop(0.0)

    def _begin_to_stop(self, grace: float) -> None:
        self._is_stopping = True
        self._kill_at = time.monotonic() + grace
        self.crew.close()

    def _set_quiet(self, is_quiet: bool) -> None:
        if is_quiet != self.shutter.is_quiet:
            logger.info("quiet: nothing more is fetched" if is_quiet else "no longer quiet: fetching again")
            self.shutter.set_quiet(is_quiet)

    def _set_outdated(self, why: str) -> None:
        if not self._is_stopping:
            logger.info("every process is replaced: %s", why)
            self._outdated = list(self.crew.children)

    def _replace_outdated(self) -> None:
        """One at a time, so that a worker of many processes does not need the memory of twice as many."""
        while self._outdated and not any(child.successor and not child.is_leaving for child in self.crew.children):
            child = self._outdated[0]
            if child in self.crew.children and not self._is_stopping:
                self.crew.replace(child, "a restart was asked for")
                if child.successor is None and not child.is_stopping:
                    return  # it could not be started yet
            self._outdated.pop(0)

    def _reshape(self, changes: dict[str, Any]) -> None:
        self.options = replace(self.options, **changes)
        if not self._is_stopping:
            self.crew.reshape(self.options.posts())
            self.note_queues()
            self._start_services()

    def _exchange(self, changes: dict[str, Any]) -> None:
        if self._is_stopping:
            return
        self.options = options = replace(self.options, **changes)
        self.crew.repost(lambda post: replace(post, order=options.order, threads=options.threads))
        self.note_queues()
        self._set_outdated("its queues or slots change")
        for bell in self._doorbells:
            bell.stop(time.monotonic())
        self._doorbells = make_doorbells(self._ring, self._note, options.order.names, self._wanted)
        self._start_services()

    def _cut(self) -> None:
        was_running = self.crew.kill()
        if self._is_forced and was_running:
            self._exit_code = CUT_EXIT

    def _on_lost(self) -> None:
        self._is_lost = True

    def _start_over(self) -> None:
        """Another worker took this one for dead and gave back what it held: nothing of it may go on."""
        logger.error("the lease was lost; starting over with new processes")
        self._is_lost = False
        self._leases_lost += 1
        self.crew.kill()
        old: Any = self._presence
        self._worker = presence.register(self._directory, self.options, self._left_out)
        self._keeper.worker_id = self.crew.worker_id = self._commands.worker_id = self._worker.pk
        self._presence = presence.Presence(self._worker, self._on_lost)
        self._presence.start()
        old.stop(time.monotonic())
