"""Limits that are changed while they are in use: what was set, released, declared anew, and forgotten."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from django_taskq import TaskResult, clock, flow, maintenance, registry
from django_taskq.brokers.database import limit_verbs
from django_taskq.gates import Gate, Kind
from django_taskq.models import Limit, Permit, TaskRecord
from django_taskq.models.flow import PermitState
from django_taskq.status import Status
from django_taskq.task import Task
from django_taskq.worker.keeper import Keeper
from tests.unit.making import make_task
from tests.unit.working import claim, run

pytestmark = pytest.mark.django_db
Made = Task[Any, Any]
USING = "default"


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without what other tests have limited.
    free = {name: task for name, task in registry._tasks.items() if task.flow is None}
    monkeypatch.setattr(registry, "_tasks", free)


@pytest.fixture
def make() -> Callable[..., Made]:
    def made(**options: Any) -> Made:
        return make_task(lambda number=0, fails=False: 1 / (not fails), name="shop.send", **options)

    return made


@pytest.fixture
def move_on() -> Iterator[Callable[[float], None]]:
    """Move the time on by so many seconds, and let nobody notice by himself."""
    yield lambda seconds: clock.move(clock.moved() + timedelta(seconds=seconds))
    clock.move(timedelta(0))


def whole(kind: Kind, task: Made) -> Gate:
    """The gate of a task's limit, as its code declares it."""
    return next(gate for gate in flow.all_declared() if gate.kind == kind and gate.name == task.name)


def ready() -> int:
    maintenance.tend_limits()
    return int(TaskRecord.objects.filter(status=Status.READY).count())


def enqueue(task: Made, *numbers: int) -> list[TaskResult[Any]]:
    return [task.enqueue(number) for number in numbers]


class TestSet:
    def test_more_may_start_at_once(self, make: Callable[..., Made]) -> None:
        task = make(concurrency=1)
        enqueue(task, *range(5))
        assert ready() == 1
        limit_verbs.set_limit(USING, whole(Kind.TASK, task), most=3, by="ann")
        # Nobody had to look for it.
        assert TaskRecord.objects.filter(status=Status.READY).count() == 3
        row = Limit.objects.get()
        assert (row.most, row.set_most, row.set_by, row.set_at is not None) == (1, 3, "ann", True)

    def test_before_anybody_came_to_it(self, make: Callable[..., Made]) -> None:
        task = make(concurrency=1)
        limit_verbs.set_limit(USING, whole(Kind.TASK, task), most=2)
        enqueue(task, *range(5))
        assert ready() == 2

    def test_nothing_passes_at_0_until_it_is_cleared(self, make: Callable[..., Made]) -> None:
        task = make(concurrency=2)
        limit_verbs.set_limit(USING, whole(Kind.TASK, task), most=0)
        enqueue(task, 1, 2, 3)
        assert ready() == 0
        assert limit_verbs.clear_limit(USING, f"task:{task.name}")
        assert TaskRecord.objects.filter(status=Status.READY).count() == 2
        assert not limit_verbs.clear_limit(USING, f"task:{task.name}")
        assert Limit.objects.get().set_by == ""

    def test_a_lower_one_stops_nobody_who_has_passed(self, make: Callable[..., Made]) -> None:
        task = make(concurrency=3)
        enqueue(task, *range(5))
        assert ready() == 3
        limit_verbs.set_limit(USING, whole(Kind.TASK, task), most=1)
        assert ready() == 3
        run(claim(limit=2))
        assert ready() == 1
        run(claim())
        assert ready() == 1

    def test_for_all_keys_and_for_one(self, make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limit_verbs, "AT_ONCE", 2)
        task = make(concurrency=1, concurrency_key="{number}")
        enqueue(task, *(list(range(5)) * 3))
        assert ready() == 5
        limit_verbs.set_limit(USING, whole(Kind.TASK, task), most=2)
        assert TaskRecord.objects.filter(status=Status.READY).count() == 7
        limit_verbs.let_pass(USING, f"task:{task.name}")
        assert TaskRecord.objects.filter(status=Status.READY).count() == 10
        limit_verbs.set_limit(USING, whole(Kind.TASK, task)._replace(sub="3"), most=3)
        assert TaskRecord.objects.filter(status=Status.READY).count() == 11
        # What was set for one key holds for it when that for all is cleared.
        limit_verbs.set_limit(USING, whole(Kind.TASK, task), most=0)
        limit_verbs.clear_limit(USING, f"task:{task.name}:3")
        run(claim())
        assert ready() == 0
        limit_verbs.clear_limit(USING, f"task:{task.name}")
        limit_verbs.let_pass(USING, f"task:{task.name}")
        assert TaskRecord.objects.filter(status=Status.READY).count() == 4

    def test_a_rate(self, make: Callable[..., Made], move_on: Callable[[float], None]) -> None:
        task = make(rate_limit="1/h")
        enqueue(task, *range(30))
        assert ready() == 1
        run(claim())
        limit_verbs.set_limit(USING, whole(Kind.RATE, task), rate=100.0)
        # It could not be reached with a burst of one.
        assert (Limit.objects.get().set_burst, Limit.objects.get().burst) == (10, 1)
        move_on(1)
        assert 10 <= ready() <= 10 + 25
        limit_verbs.set_limit(USING, whole(Kind.RATE, task), rate=0)
        run(claim())
        move_on(86400)
        assert ready() == 0
        limit_verbs.set_limit(USING, whole(Kind.RATE, task), rate=1.0, burst=3)
        assert ready() == 3

    def test_a_burst_that_was_declared_stays(self, make: Callable[..., Made]) -> None:
        task = make(rate_limit="100/m", rate_burst=50)
        limit_verbs.set_limit(USING, whole(Kind.RATE, task), rate=100.0)
        assert Limit.objects.get().set_burst is None

    def test_those_behind_a_depot_are_handed_on(self, make: Callable[..., Made], settings: Any) -> None:
        settings.TASKQ = {"BROKER_URL": "memory://"}
        task = make(concurrency=1)
        enqueue(task, 1, 2)
        maintenance.tend_limits()
        limit_verbs.set_limit(USING, whole(Kind.TASK, task), most=2)
        assert TaskRecord.objects.filter(status=Status.READY, publish_after__isnull=False).count() == 2


class TestRelease:
    def test_the_next_one_passes_and_the_holder_goes_on(self, make: Callable[..., Made]) -> None:
        task = make(lock="report")
        first, second, third = enqueue(task, 1, 2, 3)
        assert ready() == 1
        (delivery,) = claim()
        assert delivery.id == first.id
        assert limit_verbs.release_permit(USING, "lock:report", first.id)
        assert TaskRecord.objects.get(status=Status.READY).pk.hex == second.id.replace("-", "")
        run([delivery])
        # Its end does not free what it had lost.
        assert ready() == 1
        for result, status in ((first, Status.SUCCESSFUL), (second, Status.READY), (third, Status.WAITING)):
            result.refresh()
            assert result.status == status

    def test_only_holders_have_something_to_lose(self, make: Callable[..., Made]) -> None:
        first, second = enqueue(make(lock="report"), 1, 2)
        assert ready() == 1
        assert not limit_verbs.release_permit(USING, "lock:report", second.id)
        assert not limit_verbs.release_permit(USING, "lock:other", first.id)
        assert Permit.objects.count() == 2


class TestBreakers:
    def test_one_that_is_open_is_closed(self, make: Callable[..., Made]) -> None:
        task = make(breaker=2)
        for _ in range(2):
            task.enqueue(fails=True)
            maintenance.tend_limits()
            run(claim())
        enqueue(task, 1, 2, 3)
        assert ready() == 0
        assert limit_verbs.reset_breaker(USING, f"breaker:{task.name}")
        assert TaskRecord.objects.filter(status=Status.READY).count() == 3
        assert not limit_verbs.reset_breaker(USING, f"breaker:{task.name}")


class TestDeclared:
    def test_the_code_that_starts_holds_for_runs_that_wait(self, make: Callable[..., Made]) -> None:
        enqueue(make(concurrency=1), *range(6))
        assert ready() == 1
        registry._tasks.pop("shop.send")
        task = make(concurrency=4)
        assert maintenance.declare_limits() == 1
        assert TaskRecord.objects.filter(status=Status.READY).count() == 4
        assert maintenance.declare_limits() == 0
        # A run of the older code, which was enqueued before, does not undo it.
        run(claim())
        assert ready() == 2
        assert Limit.objects.get(pk=f"task:{task.name}").most == 4

    def test_for_keys_too(self, make: Callable[..., Made]) -> None:
        enqueue(make(concurrency=1, concurrency_key="{number}"), 1, 1, 1, 2, 2)
        assert ready() == 2
        registry._tasks.pop("shop.send")
        make(concurrency=2, concurrency_key="{number}")
        maintenance.declare_limits()
        assert ready() == 4

    def test_very_many_by_and_by(self, make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limit_verbs, "AT_ONCE", 2)
        enqueue(make(concurrency=1, concurrency_key="{number}"), *(list(range(7)) * 2))
        assert ready() == 7
        registry._tasks.pop("shop.send")
        make(concurrency=2, concurrency_key="{number}")
        # The first is the row of the whole.
        assert [maintenance.declare_limits(at_most=3) for _ in range(4)] == [3, 4, 1, 0]
        assert ready() == 14

    def test_by_a_worker_that_starts(self, make: Callable[..., Made]) -> None:
        make(concurrency=1)
        keeper = Keeper(0, lambda: True)
        keeper.look()
        assert not Limit.objects.exists()
        keeper._declared.due_at = 0.0
        keeper.look()
        assert Limit.objects.get().most == 1
        assert keeper._declared.due_at == math.inf

    def test_what_was_set_goes_before(self, make: Callable[..., Made]) -> None:
        task = make(concurrency=1)
        limit_verbs.set_limit(USING, whole(Kind.TASK, task), most=2)
        registry._tasks.pop("shop.send")
        task = make(concurrency=4)
        maintenance.declare_limits()
        enqueue(task, *range(5))
        assert ready() == 2

    def test_queues(self, make: Callable[..., Made], settings: Any) -> None:
        settings.TASKQ = {"QUEUES": {"mail": {"concurrency": 3, "rate_limit": "100/m"}}}
        make(concurrency=1, rate_limit="1/s", breaker=3)
        assert maintenance.declare_limits() == 5
        assert list(Limit.objects.order_by("pk").values_list("pk", "most", "rate")) == [
            ("breaker:shop.send", 3, None),
            ("queue-rate:mail", None, 100 / 60),
            ("queue:mail", 3, None),
            ("rate:shop.send", None, 1.0),
            ("task:shop.send", 1, None),
        ]
        assert maintenance.declare_limits() == 0


def prune() -> list[str]:
    """Prune; the keys that are left."""
    maintenance.prune()
    return list(Limit.objects.order_by("pk").values_list("pk", flat=True))


class TestPruning:
    def test_what_is_as_if_it_had_never_been(self, make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limit_verbs, "PRUNED_AT_ONCE", 2)
        task = make(concurrency=1, concurrency_key="{number}")
        enqueue(task, *range(5), 0)
        assert ready() == 5
        run(claim(limit=5))
        assert len(prune()) == 1
        run(claim())
        assert prune() == []

    def test_declared_wholes_stay(self, make: Callable[..., Made]) -> None:
        make(concurrency=1, concurrency_key="{number}", rate_limit="1/s")
        maintenance.declare_limits()
        assert prune() == ["rate:shop.send", "task:shop.send"]
        registry._tasks.pop("shop.send")
        assert prune() == []

    def test_what_was_set_and_open_breakers_stay(self, make: Callable[..., Made]) -> None:
        task = make(concurrency=1, breaker=5)
        limit_verbs.set_limit(USING, whole(Kind.TASK, task), most=2)
        task.enqueue(fails=True)
        maintenance.tend_limits()
        run(claim())
        registry._tasks.pop("shop.send")
        assert prune() == ["breaker:shop.send", "task:shop.send"]
        limit_verbs.clear_limit(USING, "task:shop.send")
        limit_verbs.reset_breaker(USING, "breaker:shop.send")
        assert prune() == []

    @pytest.mark.parametrize("rate", [None, 1 / 36000, 0.0], ids=["declared", "set lower", "paused"])
    def test_a_rate_stays_until_it_is_full_again(
        self, make: Callable[..., Made], move_on: Callable[[float], None], rate: float | None
    ) -> None:
        task = make(rate_limit="1/h", rate_key="{number}")
        enqueue(task, 1)
        assert ready() == 1
        run(claim())
        assert prune() == ["rate:shop.send:1"]
        if rate is not None:
            limit_verbs.set_limit(USING, whole(Kind.RATE, task), rate=rate)
        move_on(2 * 3600)
        assert ("rate:shop.send:1" in prune()) is (rate is not None)
        move_on(20 * 3600)
        assert ("rate:shop.send:1" in prune()) is (rate == 0)


@pytest.fixture
def other_thread() -> Iterator[Callable[[Callable[[], Any]], threading.Thread]]:
    """Has something done in a thread, with a connection of its own."""
    threads = []

    def start(work: Callable[[], Any]) -> threading.Thread:
        def body() -> None:
            try:
                work()
            finally:
                connection.close()

        threads.append(threading.Thread(target=body))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(20)


@pytest.mark.django_db(transaction=True)
class TestAtTheSameTime:
    def test_a_limit_that_somebody_is_just_passing_stays(
        self, make: Callable[..., Made], other_thread: Callable[[Callable[[], Any]], threading.Thread]
    ) -> None:
        if not connection.features.has_select_for_update_skip_locked:
            pytest.skip("one writer at a time: nobody is just passing while another one deletes")
        task = make(concurrency=1)
        enqueue(task, 1)
        maintenance.tend_limits()
        run(claim())
        with transaction.atomic():
            enqueue(task, 2)
            maintenance.tend_limits()
            # It is idle in what others see of it.
            pruning = other_thread(lambda: limit_verbs.prune(USING))
            pruning.join(10)
            assert not pruning.is_alive(), "it waits for the lock"
        assert Limit.objects.count() == 1
        assert ready() == 1

    def test_never_more_than_may_pass_while_they_are_pruned(
        self, make: Callable[..., Made], other_thread: Callable[[Callable[[], Any]], threading.Thread]
    ) -> None:
        task = make(concurrency=1, concurrency_key="{number}")
        is_over, pruned = threading.Event(), []

        def prune_again_and_again() -> None:
            while not is_over.is_set():
                pruned.append(limit_verbs.prune(USING))

        other_thread(prune_again_and_again)
        try:
            for _ in range(60):
                enqueue(task, 1, 1, 2)
                while TaskRecord.objects.exclude(status=Status.SUCCESSFUL).exists():
                    maintenance.tend_limits()
                    deliveries = claim()
                    assert Permit.objects.filter(state=PermitState.HELD, key=f"task:{task.name}:1").count() <= 1
                    run(deliveries)
        finally:
            is_over.set()
        assert TaskRecord.objects.filter(status=Status.SUCCESSFUL).count() == 180
        assert sum(pruned) > 0
        assert not Permit.objects.exists()
