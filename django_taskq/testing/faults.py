"""What may go wrong, for a project's own tests: a worker that dies in a task, a broker that is not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

from django.db import OperationalError

from django_taskq import maintenance
from django_taskq.brokers import get_broker
from django_taskq.charging import Death
from django_taskq.message import Delivery, Message
from django_taskq.testing.capturing import AnyTask, name_of
from django_taskq.worker import eager

_deadly: dict[str, list[int | None]] = {}


class BrokerDown(OperationalError):
    """What enqueueing raises inside :func:`broker_down`; the database raises an error of the same kind."""


@contextmanager
def worker_dies_in(task: AnyTask, *, times: int | None = None) -> Iterator[None]:
    """Inside the block, attempts that ``drain()`` or ``advance()`` makes of this task end as if its worker was killed.

    The crash is recorded and the run starts again, or is FAILED when that was the third time or it must not be
    repeated. ``times`` bounds how often that happens.
    """
    name = name_of(task)
    left = [times]
    if name in _deadly:
        raise RuntimeError(f"worker_dies_in({name}) is open already: blocks for one task do not nest")
    _deadly[name] = left
    try:
        yield
    finally:
        del _deadly[name]


def kills(delivery: Delivery) -> bool:
    """Have the worker die in this run, if a test says so; False when it lives."""
    left = _deadly.get(delivery.name)
    if left is None or left[0] == 0:
        return False
    if left[0] is not None:
        left[0] -= 1
    maintenance.settle_death(Death(eager.EAGER_PROCESS, "killed by worker_dies_in()", [delivery.claim]))
    return True


@contextmanager
def broker_down() -> Iterator[None]:
    """Inside the block, enqueueing raises :exc:`BrokerDown` and nothing is stored."""

    def refuse(messages: Sequence[Message]) -> None:
        raise BrokerDown("the broker is down: this is django_taskq.testing.broker_down()")

    with mock.patch.object(get_broker(), "enqueue", refuse):
        yield
