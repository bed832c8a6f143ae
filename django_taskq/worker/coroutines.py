"""The slots that are coroutines: one event loop in a thread of its own, one task of it for each run.

Each run has a context of its own, also for asgiref: its sync calls, such as those of the ORM, are made one after the
other by one thread. There are only so many such threads, each with its connection; runs share them when they have to.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, ContextVar
from queue import Empty
from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.db import connections

from django_taskq import conf
from django_taskq.exceptions import TaskCancelled
from django_taskq.message import Delivery, Outcome
from django_taskq.worker import executor
from django_taskq.worker.fetcher import HORIZON
from django_taskq.worker.gathering import Unit
from django_taskq.worker.interrupting import Calls, Drive
from django_taskq.worker.lane import Lane
from django_taskq.worker.slots import Slot, soft_limit_passed, tidy_if_connected
from django_taskq.worker.table import SlotTable

if TYPE_CHECKING:
    from django_taskq.worker.courier import Courier

logger = logging.getLogger("django_taskq")

LEFTOVER_PATIENCE = 1.0  # seconds that a run's forgotten tasks get to end after they were cancelled

# The asyncio tasks that a run has started.
_started: ContextVar[set[asyncio.Task[Any]] | None] = ContextVar("django_taskq_started", default=None)


class LoopLane(Lane):
    """The lane of the coroutines. :meth:`run` is its thread's whole life."""

    def __init__(self, count: int, connections: int) -> None:
        """``connections`` bounds the threads that make sync calls, and so the connections to each database."""
        super().__init__(count)
        self.loop = asyncio.new_event_loop()
        self.threads = Threads(connections)
        self._free: list[LoopSlot] = []
        self._is_ending = False
        self._called_at: float | None = None

    def add_slots(self, first: int, table: SlotTable, courier: Courier) -> None:
        """Make the slots; ``first`` is the number of the first one in the table."""
        self.slots = [LoopSlot(first + number, table, courier, self) for number in range(self.count)]
        self._free = self.slots[::-1]

    def run(self) -> None:
        """Serve until the courier says that there is no more."""
        self.loop.set_task_factory(_make_task)
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.threads.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    # For the courier.

    @property
    def is_slow(self) -> bool:
        """Also when a coroutine that does not wait keeps the loop from starting anything."""
        called_at = self._called_at
        return super().is_slow or (called_at is not None and time.monotonic() - called_at > HORIZON)

    def _hand_over(self, units: Iterable[Unit]) -> None:
        super()._hand_over(units)
        if self.inbox.qsize():
            self._call()

    def close(self) -> None:
        self._end(1)

    def _end(self, markers: int) -> None:
        super()._end(markers)
        if markers:
            self._call()

    def _call(self) -> None:
        if self._called_at is None:
            self._called_at = time.monotonic()
        self.loop.call_soon_threadsafe(self._admit)

    # In the loop.

    def freed(self, slot: LoopSlot) -> None:
        """A slot has no run any more."""
        self._free.append(slot)
        self._admit()

    def _admit(self) -> None:
        self._called_at = None
        while self._free:
            try:
                delivery = self.inbox.get_nowait()
            except Empty:
                break
            if delivery is None:
                self._is_ending = True
                continue
            assert isinstance(delivery, Delivery)  # a batch is no coroutine
            slot = self._free.pop()
            # Not a copy of this context, which may be that of the run before.
            slot.task = self.loop.create_task(slot.run(delivery), context=Context())
        if self._is_ending and len(self._free) == self.count:
            self.loop.stop()


def make_lanes(table: SlotTable, coroutines: int, courier: Courier) -> tuple[Lane, LoopLane | None]:
    """The lanes of a process, with their slots: threads come first in the table, the last ``coroutines`` are these."""
    threads = Lane(table.slots - coroutines)
    threads.slots += [Slot(number, table, courier, threads) for number in range(threads.count)]
    if not coroutines:
        return threads, None
    lane = LoopLane(coroutines, conf.get_settings().coroutine_connections)
    lane.add_slots(threads.count, table, courier)
    return threads, lane


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **how: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **how)
    started = _started.get()
    if started is not None:
        started.add(task)
        task.add_done_callback(started.discard)
    return task


class LoopSlot:
    """Room for one run on the loop. Also the executor's guard."""

    def __init__(self, number: int, table: SlotTable, courier: Courier, lane: LoopLane) -> None:
        self.number = number
        self.delivery: Delivery | None = None
        self.started = 0.0
        self.is_marked = False
        self.task: asyncio.Task[None] | None = None
        self._table = table
        self._courier = courier
        self._lane = lane
        self._is_running = False
        self._drive: Drive | None = None
        self._calls: Calls | None = None
        self._cancel: BaseException | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, delivery: Delivery) -> None:
        """One delivery, from its start to the courier."""
        thread = BorrowedThread(self._lane.threads)
        self._calls = Calls(thread)
        _be_thread_sensitive(self._calls)
        started: set[asyncio.Task[Any]] = set()
        _started.set(started)
        outcome = await executor.execute_on_loop(delivery, self)
        if started:
            await _end_leftovers(started, delivery)
        thread.give_back(outcome)
        self.delivery = self._drive = self._calls = self.task = None
        self._courier.done(outcome, self._lane)
        self._lane.freed(self)

    async def begin(self, delivery: Delivery, hard: float | None, memory: int = 0, *, commit_first: bool) -> bool:
        if commit_first and not await self._commit_start(delivery):
            return False
        if not self._table.start(self.number, delivery.claim, hard, memory):
            return False
        if delivery is not self.delivery:
            self.is_marked = False
            self._cancel = None
        self.is_marked = self.is_marked or commit_first
        self.started = time.monotonic()
        self.delivery = delivery
        self._is_running = True
        return True

    def arm(self, soft: float | None, drive: Drive | None = None) -> None:
        assert drive is not None
        self._drive, drive.calls = drive, self._calls
        if soft is not None:
            self._timer = self._lane.loop.call_later(soft, drive.interrupt, soft_limit_passed(soft))
        if self._cancel is not None:
            raise self._cancel

    def interrupt(self, error: BaseException, *, claim: int | None = None) -> bool:
        """Raise this in the run that goes on, where it waits; from any thread. See :meth:`Slot.interrupt`."""
        delivery = self.delivery
        if not self._is_running or delivery is None or claim not in (None, delivery.claim):
            return False
        self._lane.loop.call_soon_threadsafe(self._interrupt, error, delivery.claim)
        return True

    def _interrupt(self, error: BaseException, claim: int) -> None:
        if not self._is_running or self.delivery is None or self.delivery.claim != claim:
            return
        if isinstance(error, TaskCancelled):
            if self._cancel is not None:
                return
            self._cancel = error
        if self._drive is not None:
            self._drive.interrupt(error)

    def end(self) -> None:
        if not self._is_running:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._table.finish(self.number)
        self._is_running = False

    def stop_requested(self) -> bool:
        return self._cancel is not None or self._courier.is_stopping

    def is_cancel(self, error: BaseException) -> bool:
        return error is self._cancel

    async def _commit_start(self, delivery: Delivery) -> bool:
        loop = self._lane.loop
        answer: asyncio.Future[bool] = loop.create_future()
        self._courier.starts.ask([delivery], lambda held: loop.call_soon_threadsafe(answer.set_result, bool(held)))
        return await answer


def _be_thread_sensitive(calls: Calls) -> None:
    """Have the sync calls of this context made there. In asgiref's own terms, because its way is a new thread each."""
    marker = ThreadSensitiveContext()
    SyncToAsync.thread_sensitive_context.set(marker)
    SyncToAsync.context_to_thread_executor[marker] = calls  # type: ignore[assignment]


async def _end_leftovers(started: set[asyncio.Task[Any]], delivery: Delivery) -> None:
    """What the run has started and not waited for ends with it, as with :func:`asyncio.run`."""
    left = [task for task in started if not task.done()]
    if not left:
        return
    logger.warning("run %s of %s left %d asyncio task(s) unfinished", delivery.id, delivery.name, len(left))
    for task in left:
        task.cancel()
    await asyncio.wait(left, timeout=LEFTOVER_PATIENCE)


class Threads:
    """Executors of one thread each, for sync calls: made when they are needed, and never more than ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loads: dict[ThreadPoolExecutor, int] = {}
        self._lock = threading.Lock()

    def borrow(self) -> ThreadPoolExecutor:
        """One that nobody uses, or else the one that the fewest runs use."""
        with self._lock:
            found = min(self._loads, key=self._loads.__getitem__, default=None)
            if found is None or (self._loads[found] and len(self._loads) < self._most):
                found = ThreadPoolExecutor(1, f"taskq-sync-{len(self._loads)}")
                self._loads[found] = 0
            self._loads[found] += 1
            return found

    def give_back(self, executor: ThreadPoolExecutor) -> None:
        """One run uses it no longer."""
        with self._lock:
            self._loads[executor] -= 1

    def close(self) -> None:
        """End them, and their connections."""
        for thread in self._loads:
            thread.submit(connections.close_all)
        for thread in self._loads:
            thread.shutdown()


class BorrowedThread:
    """The executor of one run, borrowed at its first sync call."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._executor is None:
            self._executor = self._threads.borrow()
        return self._executor.submit(call, *args, **kwargs)

    def give_back(self, outcome: Outcome) -> None:
        """The run is over: its connections are tidied before the next call of another run."""
        if self._executor is not None:
            self._executor.submit(tidy_if_connected, outcome)
            self._threads.give_back(self._executor)
            self._executor = None
