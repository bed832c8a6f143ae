"""The tasks that are measured."""

from __future__ import annotations

import time

from django_taskq import Call, task
from django_taskq.bench import tally


@task(name="django_taskq.bench.noop")
def noop(number: int) -> int:
    """Return its argument, so that there is a result to store."""
    return number


@task(name="django_taskq.bench.limited_to_3", concurrency=3)
def limited_to_3(number: int) -> int:
    """The same, at most three at once."""
    return number


@task(name="django_taskq.bench.limited_to_100", concurrency=100)
def limited_to_100(number: int) -> int:
    """The same, at most a hundred at once."""
    return number


@task(name="django_taskq.bench.keyed", concurrency=3, concurrency_key=lambda number: str(number % 1000))
def keyed(number: int) -> int:
    """The same, at most three at once of each of a thousand keys."""
    return number


@task(name="django_taskq.bench.batched", batch_size=100)
def batched(calls: list[Call[[int]]]) -> list[int]:
    """The same, for a hundred calls at once."""
    return [call.args[0] for call in calls]


@task(name="django_taskq.bench.clock")
def clock() -> float:
    """The time at which the body ran; the same clock as the caller's, on the same host."""
    return time.time()


@task(name="django_taskq.bench.noop_without_row", track_pending=False, ignore_result=True)
def noop_without_row(number: int) -> int:
    """The same for a depot alone: nothing but the tally says that it ran."""
    tally.note()
    return number
