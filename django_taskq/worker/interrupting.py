"""Raising an error in a task that runs: in its thread, or in its coroutine; and at a deadline.

Who raises it has to make sure that the task still runs (see :class:`~django_taskq.worker.slots.Slot`): an error that
comes late would strike somebody else.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from asgiref.sync import AsyncToSync, async_to_sync

from django_taskq.exceptions import SoftTimeLimitExceeded, TaskCancelled
from django_taskq.worker import greenlets

if TYPE_CHECKING:
    from django_taskq.worker.shielding import Shield

# What interrupts a task, whoever sends it.
INTERRUPTS = (SoftTimeLimitExceeded, TaskCancelled)

CALL_INTERVAL = 0.01  # seconds between looks whether a sync call of a coroutine is over

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exc.argtypes = (ctypes.c_ulong, ctypes.py_object)
_clear_async_exc = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)


def raise_in_thread(ident: int, error: BaseException, shield: Shield | None = None) -> None:
    """Have this very error raised in a thread, at the next step that it takes in Python outside of ``shield``.

    A call into C, such as a sleep, returns first; a greenlet is struck where it waits.
    """
    if greenlets.are_threads():
        greenlets.throw(ident, error, shield)
        return
    # The interpreter takes a class and calls it there; inside an ``except`` twice, with what it got the first time.
    # This one's call answers with the error that there is.
    carrier = type("Carrier", (BaseException,), {"__new__": lambda cls, *args: error})
    # No call between the look and what follows from it, so that the thread can take no step in between.
    if shield is not None and shield.depth:
        shield.held += (error,)
        shield.hurry()
    else:
        _set_async_exc(ident, carrier)


def forget_in_thread(ident: int) -> None:
    """Take back what :func:`raise_in_thread` has sent and the thread has not seen yet."""
    if greenlets.are_threads():
        greenlets.forget(ident)
    else:
        _clear_async_exc(ident, None)


class Watch:
    """Calls back at deadlines, one for each owner, in a thread of its own that starts with the first of them."""

    def __init__(self) -> None:
        self._deadlines: dict[object, tuple[float, Callable[[], object]]] = {}
        self._changed = threading.Condition()
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    def set(self, owner: object, seconds: float, strike: Callable[[], object]) -> None:
        """Call ``strike`` after so many seconds, unless :meth:`clear` comes first."""
        due = time.monotonic() + seconds
        with self._changed:
            self._deadlines[owner] = due, strike
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="taskq-time-limits", daemon=True)
                self._thread.start()
            elif due < self._wakes_at:
                self._changed.notify()

    def clear(self, owner: object) -> None:
        """Forget an owner's deadline. Its ``strike`` may be going on all the same."""
        with self._changed:
            self._deadlines.pop(owner, None)

    def _run(self) -> None:
        while True:
            for strike in self._wait():
                strike()

    def _wait(self) -> list[Callable[[], object]]:
        with self._changed:
            now = time.monotonic()
            due = [owner for owner, (at, _) in self._deadlines.items() if at <= now]
            if due:
                return [self._deadlines.pop(owner)[1] for owner in due]
            self._wakes_at = min((at for at, _ in self._deadlines.values()), default=math.inf)
            self._changed.wait(None if self._wakes_at == math.inf else self._wakes_at - now)
            return []


watch = Watch()
"""The one of this process."""


class Submits(Protocol):
    """An executor as far as a loop needs it."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]: ...


class Calls:
    """Stands before the executor of a coroutine's sync calls, and knows which of them are going on."""

    def __init__(self, executor: Submits) -> None:
        self._executor = executor
        self.going_on: set[Future[Any]] = set()

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As that of the executor."""
        future = self._executor.submit(call, *args, **kwargs)
        self.going_on.add(future)
        future.add_done_callback(self.going_on.discard)
        return future


class Drive:
    """Runs a coroutine to its end, and lets it be interrupted where it waits.

    The task is cancelled, but what its coroutine sees in place of the ``CancelledError`` is the error meant. That is a
    ``CancelledError`` besides, so that what cleans up after a cancellation does (locks, task groups, time-outs).
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.calls: Calls | None = None
        self._coroutine = coroutine
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._error: BaseException | None = None
        self._struck: BaseException | None = None
        self._cancels = 0
        self._is_over = False

    def interrupt(self, error: BaseException) -> None:
        """Raise it in the coroutine where that waits, now or next; from any thread."""
        if not isinstance(self._error, TaskCancelled):  # which nothing else replaces
            self._error = error
        # Without a loop it has not begun, and finds the error when it does.
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: it is over
                self._loop.call_soon_threadsafe(self._wake)

    async def run(self) -> Any:
        """To the coroutine's end, in the task that awaits this. Raises what it raises."""
        self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        try:
            return await self
        except (asyncio.CancelledError, BaseExceptionGroup) as error:
            if self._struck is None or not _is_cancellation(error):
                raise
            # Also where its own code, or what it waited for, made a plain cancellation of it.
            raise self._struck.with_traceback(error.__traceback__) from None
        finally:
            self._is_over = True

    def run_here(self) -> Any:
        """To the coroutine's end, in a loop of its own, while this thread makes its sync calls."""
        return async_to_sync(self._run_for_thread)()

    async def _run_for_thread(self) -> Any:
        self.calls = Calls(AsyncToSync.executors.current)
        AsyncToSync.executors.current = self.calls
        return await self.run()

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        thrown: BaseException | None = None
        while True:
            if self._error is not None:
                thrown = self._take()
            try:
                waits_for = coroutine.send(None) if thrown is None else coroutine.throw(thrown)
            except StopIteration as end:
                return end.value
            thrown = None
            try:
                yield waits_for
            except BaseException as error:
                thrown = error

    def _take(self) -> BaseException:
        self._struck, self._error = self._error, None
        assert self._struck is not None
        while self._cancels and self._task is not None:
            self._cancels -= 1
            self._task.uncancel()
        return _as_both(self._struck, asyncio.CancelledError)

    def _wake(self) -> None:
        if self._is_over or self._error is None or self._task is None or self._loop is None:
            return
        if self.calls is not None and self.calls.going_on:
            # A query is not left alone in its thread; and sync_to_async would make a plain cancellation of the error.
            self._loop.call_later(CALL_INTERVAL, self._wake)
        else:
            self._cancels += 1
            self._task.cancel()


def _is_cancellation(error: BaseException) -> bool:
    """Also one that a task group of Python 3.11 has wrapped, as it does with those that are more than that."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_cancellation(each) for each in error.exceptions)
    return isinstance(error, asyncio.CancelledError)


def as_interrupt(error: BaseException) -> BaseException:
    """The same error as a ``KeyboardInterrupt``, for plain functions.

    It may come at any point, like one, and this is what libraries are prepared for: psycopg cancels the query that it
    waits for, where any other error would leave the connection unusable for the task's own tidying up.
    """
    return _as_both(error, KeyboardInterrupt)


def _as_both(error: BaseException, other: Any) -> BaseException:
    cls: Any = type(error)
    made: BaseException = _class_of_both(cls, other)(*error.args)
    return made


@cache
def _class_of_both(cls: Any, other: Any) -> Any:
    """It shows as the one that is meant."""
    return type(cls.__name__, (cls, other), {"__module__": cls.__module__, "__qualname__": cls.__qualname__})
