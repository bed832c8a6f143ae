"""Tasks of the framework, found by autodiscovery as those of any project are, and one of ours beside them."""

from __future__ import annotations

import time
from typing import Any

from django_taskq import task as own_task
from django_taskq.backend.framework import IS_DJANGO_S_OWN
from tests.testapp.models import Effect

if IS_DJANGO_S_OWN:
    from django.tasks import task
else:
    from django_tasks import task


@task
def plus(x: int, y: int = 0) -> int:
    return x + y


@task
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


@task
async def aplus(x: int, y: int) -> int:
    return x + y


@task
def give_set() -> Any:
    return {1, 2}


class Boom(ValueError):
    pass


@task
def fail(text: str = "no") -> None:
    raise Boom(text)


@task
def miss() -> None:
    """Fail with an error whose class is defined in another class."""
    Effect.objects.get(name="nobody has this name")


@task(takes_context=True)
def tell(context: Any, x: int) -> list[Any]:
    result = context.task_result
    before = [context.attempt, result.status, result.id, result.args, len(result.worker_ids)]
    result.refresh()
    return [*before, result.status, context.attempt, x]


@task(backend="patient", takes_context=True)
def until(context: Any, good: int) -> int:
    """Fail until this attempt."""
    if context.attempt < good:
        raise OSError(f"attempt {context.attempt}, errors before: {len(context.task_result.errors)}")
    return int(context.attempt)


@task(priority=7)
def leave_effect(name: str, seconds: float = 0) -> None:
    time.sleep(seconds)
    Effect.objects.create(name=name)


@task(backend="other")
def of_another_backend(x: int) -> int:
    return 2 * x


@own_task
def own_add(x: int, y: int) -> int:
    return x + y


def twice(x: int) -> int:
    return 2 * x


# Two of the framework's tasks of one function, on two aliases.
twice_here = task(twice)
twice_there = task(backend="patient")(twice)

if not IS_DJANGO_S_OWN or hasattr(type(plus), "_reconstruct"):

    @task(max_retries=5, time_limit=50, autoretry_for=(KeyError,), retry_backoff=0.01)
    def optioned(good: int = 0) -> None:
        raise KeyError(good)
