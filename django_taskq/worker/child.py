"""A worker process as its supervisor sees it: by its pid, its sentinel and its slot table."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

from django_taskq.maintenance import Death
from django_taskq.worker import identity, process, starting, table


class Child:
    """One worker process; it is never asked for anything."""

    def __init__(self, process_id: int, plan: process.ProcessPlan, start: starting.StartMethod) -> None:
        self.process_id = process_id
        self.quota = plan.quota
        self.table = table.SlotTable(plan.table, table.SlotTable.slots_in(plan.table))
        reader, self._orders = start.context.Pipe(duplex=False)
        os.set_blocking(self._orders.fileno(), False)
        self._lock = threading.Lock()
        self.process = start.spawn(process.main, (plan, reader))
        reader.close()
        self.pid: int = self.process.pid
        self._pid_started = identity.start_time(self.pid)
        self.born_at = time.monotonic()
        self.overdue: list[int] = []
        self.is_blameless = False

    def order(self, word: bytes) -> None:
        """Send an order, from any thread; a child that is gone hears nothing, and the main loop will notice."""
        with self._lock:
            if not self._orders.closed:
                with suppress(BrokenPipeError, BlockingIOError):
                    os.write(self._orders.fileno(), word)

    def kill(self, *, is_blameless: bool = False) -> None:
        """Kill it; ``is_blameless`` when its runs are not at fault."""
        self.is_blameless = self.is_blameless or is_blameless
        self.process.kill()

    @property
    def is_up(self) -> bool:
        """Whether it has finished starting."""
        return bool(self.table.words[table.READY])

    @property
    def is_idle(self) -> bool:
        """Whether its last look found nothing and it holds nothing."""
        return bool(self.table.words[table.IDLE])

    @property
    def is_dry(self) -> bool:
        """Whether that has been so for long enough to be sure that nothing is there."""
        return bool(self.table.words[table.DRY])

    def quota_left(self) -> int | None:
        """How many runs a replacement may take."""
        return None if self.quota is None else max(0, self.quota - self.table.words[table.DONE])

    def bury(self) -> Death:
        """What its end means, once it has ended."""
        self.process.join()
        if self._pid_started is not None and identity.is_alive(self.pid, self._pid_started):
            # Only its fork server has died, which tells of every child's end; nobody watches this one any more.
            self.is_blameless = True
            os.kill(self.pid, signal.SIGKILL)
            identity.wait_until_gone(self.pid, self._pid_started, seconds=5)
        code = self.process.exitcode or 0
        cause = f"the worker process died of {signal.Signals(-code).name}" if code < 0 else f"it exited with {code}"
        running = [entry.claim for entry in self.table.running()]
        with self._lock:
            self._orders.close()
        self.table.close()
        self.process.close()
        return Death(self.process_id, cause, running, tuple(self.overdue), is_charged=not self.is_blameless)
