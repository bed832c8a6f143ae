"""A worker process as its supervisor sees it: by its pid, its sentinel and its slot table."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from django_taskq import sizes
from django_taskq.charging import Death
from django_taskq.exceptions import TaskqError
from django_taskq.worker import identity, process, reaping, starting, table
from django_taskq.worker.health.totals import Totals
from django_taskq.worker.options import Post
from django_taskq.worker.orders import RING, STOP, Order
from django_taskq.worker.reaping import Member
from django_taskq.worker.watching import MemoryWatch, Progress


class Child:
    """One worker process; it is never asked for anything."""

    def __init__(
        self,
        process_id: int,
        plan: process.ProcessPlan,
        start: starting.StartMethod,
        patience: float,
        totals: Totals | None = None,
    ) -> None:
        """``patience``: seconds without progress after which it is given up; ``totals``: whom it tells its counts."""
        self.process_id = process_id
        self.post = plan.post
        self.table = table.SlotTable(plan.table, table.SlotTable.slots_in(plan.table))
        reader, self._orders = start.context.Pipe(duplex=False)
        os.set_blocking(self._orders.fileno(), False)
        self._lock = threading.Lock()
        self._unsent = b""
        reports = None if totals is None else totals.admit(start.context)
        self.process = start.spawn(process.main, (plan, reader, reports))
        reader.close()
        if reports is not None:
            reports.close()
        self.pid: int = self.process.pid
        self._pid_started = identity.start_time(self.pid)
        self.born_at = time.monotonic()
        self.progress = Progress(self.table, patience)
        self.memory = MemoryWatch(self.pid)
        # What claims end with that are not to be judged by how the process ends, and those of them that go on in
        # threads which cannot be ended.
        self.errors: dict[int, TaskqError] = {}
        self.lost: set[int] = set()
        # Why we have killed it; '' when we have not.
        self.killed_for = ""
        self.is_blameless = False
        # Who takes over its post, whether it was told to end, and whether for good.
        self.successor: Child | None = None
        self.is_stopping = False
        self.is_leaving = False

    def order(self, order: Order) -> None:
        """Send an order, from any thread; a child that is gone hears nothing, and the main loop will notice.

        What does not fit into the pipe is sent by :meth:`flush`, in order; only a ring is not worth waiting for.
        """
        with self._lock:
            if order.word != RING or not self._unsent:
                self._unsent += order.dumps()
        self.flush()

    def flush(self) -> None:
        """Send what it has not read yet, as far as it goes; again and again, as a task may keep the interpreter."""
        with self._lock:
            if self._unsent and not self._orders.closed:
                with suppress(BrokenPipeError, BlockingIOError):
                    self._unsent = self._unsent[os.write(self._orders.fileno(), self._unsent) :]

    def stop(self) -> None:
        """Have it finish what runs, and end."""
        self.is_stopping = True
        self.order(Order(STOP))

    def kill(self, why: str, *, is_blameless: bool = False, among: Iterable[Member] | None = None) -> None:
        """Kill it, and what it has started; ``is_blameless`` when its runs are not at fault.

        ``among`` are the living processes, where they are known already.
        """
        self.killed_for = self.killed_for or why
        self.is_blameless = self.is_blameless or is_blameless
        # Before it dies: then its own children are nobody's.
        left = reaping.family(self.pid, among)
        self.process.kill()
        reaping.end(left)

    @property
    def is_up(self) -> bool:
        """Whether it has finished starting."""
        return bool(self.table.words[table.READY])

    @property
    def is_serving(self) -> bool:
        """Whether it has also looked for work, so that nobody misses another."""
        return self.is_up and bool(self.table.words[table.SOUND])

    @property
    def is_idle(self) -> bool:
        """Whether its last look found nothing and it holds nothing."""
        return bool(self.table.words[table.IDLE])

    @property
    def is_dry(self) -> bool:
        """Whether that has been so for long enough to be sure that nothing is there."""
        return bool(self.table.words[table.DRY])

    def post_left(self) -> Post:
        """Its post as a replacement is to have it: with what is left of the quota."""
        quota = self.post.quota
        return replace(self.post, quota=None if quota is None else max(0, quota - self.table.words[table.DONE]))

    def bury(self, was_out_of_memory: Callable[[], bool]) -> Death:
        """What its end means, once it has ended; and what its tasks have left ends, too.

        ``was_out_of_memory`` is asked whether the kernel has just killed somebody for memory.
        """
        self.process.join()
        if self._pid_started is not None and identity.is_alive(self.pid, self._pid_started):
            # Only its fork server has died, which tells of every child's end; nobody watches this one any more.
            self.is_blameless = True
            os.kill(self.pid, signal.SIGKILL)
            identity.wait_until_gone(self.pid, self._pid_started, seconds=5)
        reaping.end_session(self.pid)
        cause = self._cause(self.process.exitcode or 0, was_out_of_memory)
        running = [entry.claim for entry in self.table.running()]
        with self._lock:
            self._orders.close()
        self.table.close()
        self.process.close()
        return Death(self.process_id, cause, running, self.errors, is_charged=not self.is_blameless)

    def _cause(self, code: int, was_out_of_memory: Callable[[], bool]) -> str:
        if self.killed_for:
            cause = f"the worker process was killed: {self.killed_for}"
        elif code == -signal.SIGKILL:
            told = was_out_of_memory()
            by = "the kernel, which was out of memory" if told else "somebody else, or the kernel if memory was short"
            cause = f"the worker process died of SIGKILL, sent by {by}"
        elif code < 0:
            cause = f"the worker process died of {signal.Signals(-code).name}"
        else:
            cause = f"it exited with {code}"
        return f"{cause} (peak memory {sizes.text(self.memory.peak)})" if self.memory.peak else cause
