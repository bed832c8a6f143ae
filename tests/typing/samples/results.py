"""``TaskResult[R]``: what may be read from it, and as what."""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_type

from django_taskq import TaskResult, task


@task
def count(text: str) -> int:
    return len(text)


@task
def note(text: str) -> None: ...


result = count.enqueue("a")

assert_type(result.get(), int)
assert_type(result.get(timeout=3), int)
assert_type(result.return_value, int)
assert_type(result.id, str)
assert_type(result.is_finished, bool)
assert_type(result.attempts, int)
assert_type(result.started_at, datetime | None)
assert_type(result.cancel(), bool)
assert_type([error.exception_class for error in result.errors], list[type[BaseException]])
assert_type(note.enqueue("a").return_value, None)

wrong_value: str = result.get()  # E: assignment
wrong_property: str = result.return_value  # E: assignment
result.get("3")  # E: arg-type
result.value  # noqa: B018  # E: attr-defined
result.return_value = 3  # E: misc
note.enqueue("a").get() + 1  # E: operator
if result.status == "SUCCESSFUL":
    result.refresh()


async def use() -> None:
    assert_type(await result.aget(), int)
    assert_type(await result.acancel(), bool)
    await result.arefresh()
    wrong: str = await result.aget()  # E: assignment
    assert wrong


# It only gives values, so a result of something narrower will do.
def report(results: Sequence[TaskResult[object]], one: TaskResult[float]) -> None: ...


report([result, note.enqueue("a")], result)
report([], note.enqueue("a"))  # E: arg-type
