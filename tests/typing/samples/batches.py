"""``@task(batch_size=...)``: callers give the arguments of one call, and get the result of one."""

from typing import Any, assert_type

from django_taskq import Call, TaskResult, injected, task


@task(batch_size=100, batch_wait=2)
def index(calls: list[Call[[int, str]]]) -> list[bool]:
    return [bool(call.args) for call in calls]


@task(batch_size=10)
def without_results(calls: list[Call[[int]]]) -> None:
    for call in calls:
        call.done(call.kwargs)
        call.fail(ValueError("no"))
        call.retry(countdown=3)
        call.retry(OSError("disk"))
        call.snooze(60)
        call.fail("no")  # E: arg-type


@task(batch_size=10)
def of_anything(calls: list[Call[...]]) -> list[str]:
    return [call.id for call in calls]


@task(batch_size=10)
def with_resource(calls: list[Call[[int]]], *, pool: Any = injected) -> list[int]:
    return [pool.get(call.args[0]) for call in calls]


assert_type(index.enqueue(1, "a"), TaskResult[bool])
assert_type(index.using(countdown=3).delay(1, "a"), TaskResult[bool])
assert_type(index(1, "a"), bool)
assert_type(without_results.enqueue(1), TaskResult[Any])
assert_type(of_anything.enqueue(1, 2, more=3), TaskResult[str])
assert_type(with_resource.enqueue(1), TaskResult[int])
index.enqueue(1)  # E: call-arg
index.enqueue("a", 1)  # E: arg-type # E: arg-type
index.enqueue([1, "a"])  # E: call-arg # E: arg-type
without_results.enqueue()  # E: call-arg


@task(batch_size=10)  # E: arg-type
def not_a_list(number: int) -> list[int]:
    return [number]


@task(batch_size=10)  # E: arg-type
def not_a_result_each(calls: list[Call[[int]]]) -> int:
    return len(calls)
