"""Tasks for the tests of workflows: they show what they are called with. Import them where they are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_taskq import current_task, task
from django_taskq.canvas import chord, group


@task(name="canvas.add")
def add(x: int, y: int) -> int:
    return x + y


@task(name="canvas.show")
def show(*args: Any, **kwargs: Any) -> list[Any]:
    return [*args, kwargs] if kwargs else list(args)


@task(name="canvas.total")
def total(numbers: Sequence[int]) -> int:
    return sum(numbers)


@task(name="canvas.echo")
def echo(value: Any) -> Any:
    return value


@task(name="canvas.nothing")
def nothing() -> None:
    pass


@task(name="canvas.fail")
def fail(text: str) -> None:
    raise ValueError(text)


@task(name="canvas.fail_after")
def fail_after(value: Any, text: str) -> None:
    raise ValueError(text)


@task(name="canvas.silent", ignore_result=True)
def silent(x: int, y: int) -> int:
    return x + y


@task(name="canvas.say")
def say(*args: Any) -> list[Any]:
    """A callback: the arguments of its runs are in their results."""
    return list(args)


@task(name="canvas.alert")
def alert(run: Any, error: Any) -> list[Any]:
    """An error callback: what it is told is in the results of its runs."""
    return [run, error]


@task(name="canvas.alert_one")
def alert_one(run: Any) -> None:
    """What Celery calls with the id of the run that failed."""


@task(name="canvas.again", max_retries=2)
def again(value: Any) -> Any:
    """Successful in the second attempt."""
    if current_task.attempt == 1:
        current_task.retry(countdown=0)
    return value


@task(name="canvas.waits")
def waits() -> int:
    return add.enqueue(1, 1).get(timeout=3)


@task(name="canvas.becomes")
def becomes(*args: Any) -> Any:
    """Put another canvas in this run's place; the last argument says which."""
    new: dict[str, Any] = {
        "task": lambda: add.s(10, 20),
        "with the value": lambda: add.s(args[0], 20),
        "chain": lambda: add.s(10, 20) | add.s(30),
        "group": lambda: group(add.s(1, 1), add.s(2, 2)),
        "chord": lambda: chord([add.s(1, 1), add.s(2, 2)], total.s()),
        "nothing": lambda: group(),
        "failure": lambda: fail.s("replaced"),
    }
    return current_task.replace(new[args[-1]]())


@task(name="canvas.stamped")
def stamped(*before: Any) -> int:
    """A step that is looked at for when it runs."""
    return len(before)


@task(name="canvas.count")
def count(values: Sequence[Any]) -> int:
    return len(values)


@task(name="canvas.add_steps")
def add_steps(count: int, each: int) -> None:
    """Add so many steps to the workflow, which add so many each."""
    for _ in range(count):
        current_task.workflow.add(add_steps.s(each, 0) if each else nothing.s())
