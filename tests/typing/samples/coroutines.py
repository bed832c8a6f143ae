"""``@task`` on coroutine functions: calls are awaited, results are of what the coroutine returns."""

from collections.abc import Coroutine
from typing import Any, assert_type

from django_taskq import Task, TaskResult, task


@task
async def bare(number: int) -> str:
    return str(number)


@task(priority=3)
async def with_options(number: int) -> list[int]:
    return [number]


@task(bind=True)
async def bound(self: Any, number: int) -> bytes:
    return bytes(number)


async def plain(number: int) -> float:
    return number / 2


async def use() -> None:
    _ = assert_type(bare(1), Coroutine[Any, Any, str])
    assert_type(await bare(1), str)
    assert_type(await with_options(1), list[int])
    assert_type(await bound(1), bytes)
    assert_type(await task(plain)(1), float)
    bare(1)  # E: unused-coroutine
    await bare("1")  # E: arg-type

    assert_type(bare.enqueue(1), TaskResult[str])
    assert_type(await bare.aenqueue(1), TaskResult[str])
    assert_type(await with_options.aenqueue(number=1), TaskResult[list[int]])
    assert_type(await bound.using(countdown=1).aenqueue(1), TaskResult[bytes])
    assert_type(await bare.aenqueue_many([((1,), {})]), list[TaskResult[str]])
    assert_type(await (await bare.aenqueue(1)).aget(), str)
    await bare.aenqueue("1")  # E: arg-type
    await bare.aenqueue()  # E: call-arg
    await bare.aenqueue(1, text="a")  # E: Unexpected keyword argument "text"
    await bound.aenqueue(None, 1)  # E: Too many arguments # E: arg-type
    bare.aenqueue(1)  # E: unused-coroutine
    with_options.using(priority=1).enqueue("1")  # E: arg-type


def run_it(some: Task[[int], object]) -> object:
    return some.enqueue(1).get()


run_it(bare)
run_it(with_options)
