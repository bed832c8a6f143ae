"""Locks that a running task takes by itself: ``with current_task.lock("report:7"): ...``.

A lock is held by a run, under its claim: it is free as soon as the block is left, the run is over, or its worker is
found dead. Who does not get it leaves the task and waits for it as a row, so nothing polls and no slot is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.utils import Error
from django.utils.module_loading import import_string

from django_taskq import conf
from django_taskq.brokers import get_broker
from django_taskq.exceptions import InvalidLock, Refused
from django_taskq.flow import lock
from django_taskq.gates import Gate, Kind

if TYPE_CHECKING:
    from django_taskq.context import TaskContext

SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.25  # seconds between tries while a slot waits


class Lock:
    """A block, sync or async, that one run at a time is in. Made by :meth:`.TaskContext.lock`."""

    def __init__(self, run: TaskContext, name: str, wait: float) -> None:
        self._run = run
        self._name = name
        self._wait = wait
        self._gate = lock(name)

    def __enter__(self) -> None:
        self._begin()
        for pause in self._pauses():
            if self._take():
                return
            time.sleep(pause)
        raise Refused(self._gate)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run.locks.discard(self._name)
        lets_pass = _rows("free_lock")(conf.get_settings().database, self._run.id, self._gate)
        if lets_pass:
            # A supervisor would hand them to their server, too, but within a second.
            with suppress(Error):
                get_broker().relay()

    async def __aenter__(self) -> None:
        self._begin()
        for pause in self._pauses():
            if await sync_to_async(self._take)():
                return
            await asyncio.sleep(pause)
        raise Refused(self._gate)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await sync_to_async(self.__exit__)(kind, error, traceback)

    def _begin(self) -> None:
        held = self._name in self._run.locks or self._gate.key in _declared(self._run)
        if held:
            raise InvalidLock(f"run {self._run.id} of {self._run.name} holds the lock {self._name!r} already")

    def _take(self) -> bool:
        using = conf.get_settings().database
        if any(not getattr(block, "_from_testcase", False) for block in connections[using].atomic_blocks):
            raise InvalidLock(
                f"{self._run.name} takes the lock {self._name!r} inside a transaction, whose end others would have to "
                f"wait for. Take it outside of transaction.atomic(), or declare it: @task(lock=...)."
            )
        is_ours: bool = _rows("take_lock")(using, self._run.id, self._run.delivery.claim, self._gate)
        if is_ours:
            self._run.locks.add(self._name)
        return is_ours

    def _pauses(self) -> Iterator[float]:
        """The pauses after tries: one at least, and until the time to wait is over."""
        end, pause = time.monotonic() + self._wait, SHORTEST_PAUSE
        while (left := end - time.monotonic()) > 0:
            yield min(pause, left)
            pause = min(2 * pause, LONGEST_PAUSE)
        yield 0.0


def _declared(run: TaskContext) -> set[str]:
    """The keys of the locks that its task holds anyhow."""
    gates: list[Gate] = [] if run.task.flow is None else run.task.flow.gates(run.args, run.kwargs)
    return {gate.key for gate in gates if gate.kind == Kind.LOCK}


def _rows(name: str) -> Any:
    return import_string(f"django_taskq.brokers.database.locks.{name}")
