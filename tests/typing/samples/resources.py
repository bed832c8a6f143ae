"""``@resource``, what tasks get of it, hooks of classes, and hooks of workers."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from typing import Any, assert_type

from django_taskq import Task, TaskResult, current_task, injected, resource, task
from django_taskq.hooks import on_process_start, on_worker_stop


class Pool:
    def close(self) -> None: ...
    def run(self, query: str) -> int:
        return len(query)


@resource
def pool() -> Iterator[Pool]:
    yield Pool()


@resource(check=Pool.close, check_interval=5, at_start=True)
def other(pool: Pool) -> AbstractContextManager[Pool]:
    return closing(pool)


# Called, each is its context manager.
with pool() as opened:
    assert_type(opened, Pool)
with other(Pool()) as opened_other:
    assert_type(opened_other, Pool)
other()  # E: Missing positional argument "pool"
other(1)  # E: arg-type


# By its name it can be anything; by itself it has its type.
assert_type(current_task.resources["pool"], Any)


@task(takes_context=True)
def reaches(context: Any, number: int) -> int:
    return number


# Callers need not give what is injected, and inside it has the type of its annotation.
@task
def search(query: str, *, pool: Pool = injected) -> int:
    assert_type(pool, Pool)
    return pool.run(query)


assert_type(search.enqueue("a"), TaskResult[int])
assert_type(search("a"), int)
assert_type(search("a", pool=Pool()), int)
search("a", pool=1)  # E: arg-type
search.enqueue()  # E: Missing positional argument "query"
search.enqueue(1)  # E: arg-type


@task
async def asearch(query: str, *, pool: Pool = injected) -> int:
    return pool.run(query)


assert_type(asearch.enqueue("a"), TaskResult[int])


# What is decorated has to be something that opens and closes.
@resource  # E: arg-type
def number() -> int:
    return 1


@resource(check_intervall=5)  # E: did you mean "check_interval" # E: untyped-decorator
def misspelt() -> Iterator[int]:
    yield 1


class Counted(Task[..., Any]):
    def on_success(self, context: object, value: int) -> None: ...


@task(base=Counted)
def counted(number: int) -> int:
    return number


assert_type(counted.enqueue(1), TaskResult[int])


@on_process_start
def warm_up() -> None: ...


@on_worker_stop(order=3)
def clean_up() -> int:
    return 1


assert_type(clean_up(), int)


@on_process_start  # E: type-var
def with_arguments(worker: int) -> None: ...
