"""Time limits that were set while workers run. They hold in this process instead of those of a task's options."""

from __future__ import annotations

import json
from typing import NamedTuple

from django_taskq.worker.orders import LIMITS, Order


class Limits(NamedTuple):
    """In seconds; None leaves it to the task's options."""

    soft: float | None
    hard: float | None


NONE = Limits(None, None)
# By task name, for the executor.
limits: dict[str, Limits] = {}


def order(task_name: str, found: Limits | None) -> Order:
    """How a worker process is told. One order for each task: it is short enough for a pipe to take it whole."""
    return Order(LIMITS, json.dumps([task_name, *(found or NONE)]))


def obey(order: Order) -> None:
    """Take over what :func:`order` says."""
    name, soft, hard = json.loads(order.more)
    if soft is None and hard is None:
        limits.pop(name, None)
    else:
        limits[name] = Limits(soft, hard)
