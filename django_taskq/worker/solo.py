"""The ``solo`` pool: no processes besides the supervisor's own, whose main thread runs the tasks. For debuggers.

The supervisor itself runs in a thread meanwhile. What it can do to a process it cannot do to its own: no hard limit
and no memory limit is enforced, nothing is replaced, and what is cut short ends with the whole worker.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing import connection as mp_connection
from queue import SimpleQueue
from typing import Any

from django_taskq.charging import Death
from django_taskq.worker import printing, process
from django_taskq.worker.child import Child
from django_taskq.worker.crew import Crew
from django_taskq.worker.options import Post
from django_taskq.worker.orders import STOP, Order
from django_taskq.worker.reaping import Member
from django_taskq.worker.starting import StartMethod
from django_taskq.worker.supervisor import FAILED_EXIT, Supervisor

logger = logging.getLogger("django_taskq")


class Stint:
    """What the main thread does in place of a worker process; looks like one to :class:`Child`."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.pid = os.getpid()
        self.exitcode: int | None = None
        self.sentinel, self._end = os.pipe()
        self._work = work
        self._lock = threading.Lock()
        self._kept: list[object] = []

    def run(self) -> None:
        """In the main thread, to the end."""
        try:
            self._work()
        except SystemExit as error:
            self._over(int(error.code or 0))
        except Exception:
            logger.critical("the solo worker failed", exc_info=True)
            self._over(1)
        else:
            self._over(0)

    def kill(self) -> None:
        """Give it up. It cannot be ended, so whoever does this has to end the process sooner or later."""
        self._over(1)

    def join(self) -> None:
        """It is over once the sentinel says so."""

    def keep(self, anything: object) -> None:
        """Have it stay alive as long as this."""
        self._kept.append(anything)

    def close(self) -> None:
        """Nobody asks for it any more."""
        os.close(self.sentinel)

    def _over(self, code: int) -> None:
        with self._lock:
            if self.exitcode is None:
                self.exitcode = code
                os.close(self._end)


@dataclass(frozen=True, slots=True)
class MainThread(StartMethod):
    """Starts "children" in the main thread, one after the other."""

    context: Any = multiprocessing
    stints: SimpleQueue[Stint | None] = field(default_factory=SimpleQueue)
    is_busy: threading.Event = field(default_factory=threading.Event)

    def spawn(self, target: Callable[..., None], args: tuple[Any, ...]) -> Stint:
        """Have the main thread serve by this plan. The caller closes its ends of the pipes, so these are our own."""
        plan, *pipes = args
        own = [pipe and mp_connection.Connection(os.dup(pipe.fileno()), pipe.readable, pipe.writable) for pipe in pipes]
        stint = Stint(lambda: process.serve(plan, *own, is_child=False))
        self.stints.put(stint)
        return stint

    def run_stints(self) -> None:
        """The main thread's part."""
        while (stint := self.stints.get()) is not None:
            self.is_busy.set()
            stint.run()
            self.is_busy.clear()


class SoloChild(Child):
    """Our own process in the place of a child."""

    def kill(self, why: str, *, is_blameless: bool = False, among: Iterable[Member] | None = None) -> None:
        """Give up what runs; the rest is ended in order."""
        self.killed_for = self.killed_for or why
        self.order(Order(STOP))
        self.process.kill()

    def bury(self, was_out_of_memory: Callable[[], bool]) -> Death:
        """Nobody is charged: a crash would have taken the supervisor with it."""
        running = [entry.claim for entry in self.table.running()]
        if self.killed_for:
            # Its bookkeeping still listens, and would take a closed pipe for the end of the supervisor.
            self.process.keep(self._orders)
        else:
            self._orders.close()
        self.table.close()
        self.process.close()
        cause = self.killed_for or f"it ended with {self.process.exitcode}"
        return Death(self.process_id, cause, running, self.errors, is_charged=False)


class SoloCrew(Crew):
    """One that never has more than one member, and leaves it alone."""

    child_class = SoloChild

    def replace(self, child: Child, why: str, *, level: int = logging.INFO) -> None:
        """There is nobody to replace."""

    def reshape(self, posts: Iterable[Post]) -> None:
        """Its shape is fixed."""

    def kill(self) -> bool:
        """Give up what runs; whether something did."""
        was_running = any(child.table.running() for child in self.children)
        for child in self.children:
            child.kill("the worker was told to end it", is_blameless=True)
        return was_running

    def end_cancelled(self, process_id: int, claim: int) -> bool:
        """It cannot be done."""
        return False

    def _look_at(self, child: Child, now: float) -> None:
        """No limits, no progress to ask for: somebody may be sitting at a prompt."""


class SoloSupervisor(Supervisor):
    """Leaves the main thread to the tasks."""

    crew_class = SoloCrew

    def _choose_start(self) -> MainThread:
        return MainThread()

    def _serve(self) -> None:
        printing.show_prints(is_shared=False)
        self._error: BaseException | None = None
        thread = threading.Thread(target=self._serve_beside, name="taskq-supervisor", daemon=True)
        thread.start()
        self._start.run_stints()
        thread.join()
        if self._error is not None:
            raise self._error

    def _serve_beside(self) -> None:
        try:
            super()._serve()
        except BaseException as error:
            self._error = error
        if self._start.is_busy.is_set():
            # A run that was cut short goes on in the main thread. It is given back by now.
            if self._error is not None:
                logger.critical("the worker failed", exc_info=self._error)
                self._exit_code = FAILED_EXIT
            logging.shutdown()
            sys.stdout.flush()
            os._exit(self._exit_code)
        self._start.stints.put(None)

    def _set_outdated(self, why: str) -> None:
        logger.warning("a solo worker has no processes to replace: stop it and start it again")
