"""Running what is due, in the process of the test, and moving its time on.

Runs go through the same claims, serialisation, executor and recorder as in a worker. In the transaction of a
``TestCase`` the writes of an attempt that failed are undone by a savepoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from django_taskq import client, maintenance, open_resources, scheduler
from django_taskq import clock as package_clock
from django_taskq.brokers import get_rows
from django_taskq.message import Delivery
from django_taskq.models.clock import aware
from django_taskq.open_resources import Resources
from django_taskq.result import TaskResult
from django_taskq.status import Status
from django_taskq.testing import faults
from django_taskq.worker import eager

MOST_RUNS = 10_000


def drain(*, limit: int = MOST_RUNS) -> list[TaskResult[Any]]:
    """Run what is due, and what that enqueues, until nothing is; returns results in the order of the attempts.

    Delayed runs, retries with a back-off and schedules run when their time has come: see :func:`advance`. Batches are
    made of what is there, and wait for nothing. An error of a task is recorded, as in a worker: ask the result. More
    than ``limit`` attempts raise ``RuntimeError``.
    """
    with open_resources.scope():
        return _drain(limit)


def _drain(limit: int) -> list[TaskResult[Any]]:
    results: list[TaskResult[Any]] = []
    while (delivery := _next()) is not None:
        if len(results) >= limit:
            raise RuntimeError(f"drain() made {limit} attempts and there is more: does {delivery.name} enqueue itself?")
        mates = list[Delivery]()
        if not faults.kills(delivery):
            mates = eager.mates_of(delivery)
            eager.run_claimed(delivery, *mates)
        results += [TaskResult(each.id, each.name) for each in (delivery, *mates)]
    for result in results:
        result.refresh()
    return results


def _next() -> Delivery | None:
    """Claim what a worker would run next, queues in the order of their names."""
    scheduler.run_due()
    while maintenance.promote_due():
        pass
    maintenance.tend_limits()
    # A test's transaction never commits, so nothing gets to a depot from it; the rows are there.
    broker = get_rows()
    for name in broker.queues_with_work(sorted(client.known_queues())):
        # Claims of one process are numbered; this process is no worker, and holds one at a time.
        for delivery in broker.claim(name, 1, eager.EAGER_PROCESS, 1):
            return delivery
    return None


class TestClock:
    """The time inside a :func:`clock` block."""

    __test__ = False  # for pytest, which collects classes of this name

    @property
    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        return package_clock.now()

    def advance(self, by: timedelta | None = None, /, **parts: float) -> list[TaskResult[Any]]:
        """Move on by a timedelta, or ``hours=3``, running on the way what falls due, each at its time.

        Delayed runs, retries and schedules come in their order, as they would with a worker that idles. Returns the
        results of the attempts.
        """
        span = timedelta(**parts) if by is None else by
        if span < timedelta(0):
            raise ValueError("time only moves on: advance() takes a positive span")
        end = self.now + span
        results = drain()
        while (due := _next_due()) is not None and due <= end:
            # Never back: what is overdue is due now.
            self._set(max(due, self.now))
            results += drain()
        self._set(end)
        return results + drain()

    def _set(self, moment: datetime) -> None:
        package_clock.move(package_clock.moved() + (moment - package_clock.now()))


def _next_due() -> datetime | None:
    """When the next delayed run or schedule is due."""
    delayed = maintenance.records().filter(status=Status.SCHEDULED).order_by("run_after")
    planned = scheduler.periodic_tasks().active().filter(next_start_at__isnull=False).order_by("next_start_at")
    opening = maintenance.next_opening()
    found = [
        None if opening is None else datetime.fromtimestamp(opening, UTC),
        delayed.values_list("run_after", flat=True).first(),
        planned.values_list("next_start_at", flat=True).first(),
    ]
    times = [aware(moment) for moment in found if moment is not None]
    return min(times) if times else None


@contextmanager
def resources(**given: Any) -> Iterator[Resources]:
    """A block in which the runs of this process share resources, opened at first need and closed when it ends.

    Without it each ``drain()`` opens its own. ``resources(search=FakeSearch())`` stands in for a declared one.
    """
    with open_resources.scope(given) as found:
        yield found


_clock: TestClock | None = None


@contextmanager
def clock() -> Iterator[TestClock]:
    """A block in which :func:`advance` moves the time of this package: due times, expiry, retries and schedules.

    It is the time of this process alone, and not that of ``timezone.now()`` in the project's own code.
    """
    global _clock
    if _clock is not None:
        raise RuntimeError("testing.clock() is open already: blocks of it do not nest")
    _clock = TestClock()
    try:
        yield _clock
    finally:
        _clock = None
        package_clock.move(timedelta(0))


def advance(by: timedelta | None = None, /, **parts: float) -> list[TaskResult[Any]]:
    """:meth:`TestClock.advance` of the open :func:`clock` block. Raises ``RuntimeError`` outside of one."""
    if _clock is None:
        raise RuntimeError("advance() needs an open clock: `with testing.clock():`, or the fixture taskq_clock")
    return _clock.advance(by, **parts)
