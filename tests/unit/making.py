"""Short ways to what these tests are about: messages, deliveries, tasks, and a slot that only takes notes."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from django_taskq import task
from django_taskq.message import Action, Delivery, Message, Outcome, new_ids
from django_taskq.serializers import dumps
from django_taskq.task import Task
from django_taskq.worker import executor
from django_taskq.worker.interrupting import Drive


def make_message(**changes: Any) -> Message:
    fields: dict[str, Any] = {
        "id": new_ids(1)[0],
        "name": "tests.testapp.tasks.add",
        "queue_name": "default",
        "priority": 0,
        "payload": "[[1,2],{}]",
        "headers": None,
        "enqueued_at": timezone.now(),
    }
    return Message(**(fields | changes))


def make_delivery(name: str = "tests.testapp.tasks.add", *args: Any, **changes: Any) -> Delivery:
    fields: dict[str, Any] = {
        "id": new_ids(1)[0],
        "claim": 1,
        "name": name,
        "queue_name": "default",
        "payload": dumps([list(args), {}]),
        "headers": None,
        "expires_at": None,
        "enqueued_at": time.time(),
        "run_after": None,
        "attempt": 1,
        "crashes": 0,
        "is_suspect": False,
    }
    return Delivery(**(fields | changes))


def make_outcome(action: Action, delivery: Delivery | None = None, **changes: Any) -> Outcome:
    return Outcome(delivery or make_delivery(), action, **({"started_at": 1000.0, "finished_at": 1001.0} | changes))


def make_task(function: Callable[..., Any], **options: Any) -> Task[Any, Any]:
    """A registered task; the test's registry is thrown away with the test."""
    return task(**({"name": function.__name__} | options))(function)


class FakeGuard:
    """A slot that notes what the executor asks of it; ``lets_begin`` and ``holds_claim`` are its answers."""

    def __init__(self, *, lets_begin: bool = True, holds_claim: bool = True) -> None:
        self.lets_begin = lets_begin
        self.holds_claim = holds_claim
        self.cancel: BaseException | None = None
        self.calls: list[Any] = []

    def begin(self, delivery: Delivery, hard: float | None, memory: int = 0, *, commit_first: bool) -> bool:
        self.calls.append(("begin", hard, commit_first))
        return self.lets_begin

    def arm(self, soft: float | None, drive: Drive | None = None) -> None:
        self.calls.append(("arm", soft))

    def end(self) -> None:
        self.calls.append("end")

    def commit(self, outcome: Outcome) -> bool:
        self.calls.append("commit")
        return self.holds_claim

    def stop_requested(self) -> bool:
        return self.cancel is not None

    def is_cancel(self, error: BaseException) -> bool:
        return error is self.cancel


def execute(made: Task[Any, Any], *args: Any, guard: FakeGuard | None = None, **changes: Any) -> Outcome:
    """Run one delivery of a task as a worker does."""
    return executor.execute(make_delivery(made.name, *args, **changes), guard or FakeGuard())


def ago(seconds: float) -> datetime:
    return timezone.now() - timedelta(seconds=seconds)


async def forever() -> None:
    """Wait, until somebody cancels it."""
    await asyncio.Event().wait()


async def a_moment(seconds: float = 0.001) -> None:
    """Let others on the loop go on."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.call_later(seconds, over.set_result, None)
    await over


def in_c(seconds: float) -> None:
    """Be in a call of C, where an asynchronous exception waits; Python's own locks would not survive one."""
    select.select([], [], [], seconds)
