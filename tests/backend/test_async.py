"""The async twins."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections
from django.test import override_settings

from django_taskq.backend import framework
from tests.backend import tasks
from tests.unit.working import work

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_run_from_end_to_end() -> None:
    async def enqueue() -> Any:
        return await tasks.aplus.aenqueue(1, y=2)

    async def read(result: Any) -> Any:
        await result.arefresh()
        return await tasks.aplus.aget_result(result.id)

    result = async_to_sync(enqueue)()
    assert result.status == "READY"
    work()
    found = async_to_sync(read)(result)
    assert result.return_value == found.return_value == 3
    assert result.taskq_status == "SUCCESSFUL"


def test_signals_are_sent_on_the_loop() -> None:
    where: list[Any] = []

    async def listen(sender: Any, task_result: Any, **kwargs: Any) -> None:
        where.append((asyncio.get_running_loop(), threading.get_ident(), task_result.id))

    async def broken(**kwargs: Any) -> None:
        raise RuntimeError("receiver")

    async def enqueue() -> None:
        framework.task_enqueued.connect(listen)
        framework.task_enqueued.connect(broken)
        try:
            result = await tasks.plus.aenqueue(1)
        finally:
            framework.task_enqueued.disconnect(listen)
            framework.task_enqueued.disconnect(broken)
            await sync_to_async(connections.close_all)()  # those of the loop's own thread
        assert where == [(asyncio.get_running_loop(), threading.get_ident(), result.id)]

    asyncio.run(enqueue())


def test_each_call_is_announced_once(heard: list[Any]) -> None:
    async def enqueue() -> None:
        await asyncio.gather(*(tasks.plus.aenqueue(number) for number in range(5)))
        await sync_to_async(connections.close_all)()

    asyncio.run(enqueue())
    assert sorted(task_result.args for _, _, task_result, _ in heard) == [[n] for n in range(5)]


def test_eager(heard: list[Any]) -> None:
    with override_settings(TASKQ={"EAGER": True}):
        result = async_to_sync(tasks.plus.aenqueue)(1)
    assert result.return_value == 1
    assert [name for name, *_ in heard] == ["task_enqueued", "task_started", "task_finished"]


@pytest.mark.parametrize("id", ["nonsense", "01a1fc41-e431-7c61-8c7d-c26a358f5991"])
def test_ids_that_nobody_has(id: str) -> None:
    with pytest.raises(framework.TaskResultDoesNotExist):
        async_to_sync(tasks.plus.aget_result)(id)


def test_what_is_refused() -> None:
    with pytest.raises(TypeError):
        async_to_sync(tasks.plus.aenqueue)(object())
