"""``django_taskq.testing``, as a project uses it: what each helper does, and a real mistake that it catches."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import TestCase
from django.utils import timezone

from django_taskq import Call, TaskResult, crontab, current_task, every, registry, task, testing
from django_taskq import clock as package_clock
from django_taskq.exceptions import PoisonTask
from django_taskq.models import PeriodicTask, TaskAttempt, TaskRecord
from django_taskq.models.schedule import Decision
from django_taskq.status import Status
from tests.testapp.models import Effect
from tests.testapp.tasks import add, fail, leave_effect

pytestmark = pytest.mark.django_db


@task(name="helpers.flaky", autoretry_for=(OSError,), max_retries=3, retry_backoff=60, retry_jitter=False)
def flaky(good: int) -> int:
    if current_task.attempt < good:
        raise OSError("not yet")
    return int(current_task.attempt)


@task(name="helpers.endless")
def endless() -> None:
    endless.enqueue()


@task(name="helpers.parent")
def parent() -> None:
    add.enqueue(1, 1)


@task(name="helpers.once", acks_late=False)
def at_most_once() -> None:
    Effect.objects.create(name="once")


@pytest.fixture(autouse=True, scope="module")
def _only_here() -> Iterator[None]:
    """Other modules' tests look at every registered task."""
    ours = {name: found for name, found in registry._tasks.items() if name.startswith("helpers.")}
    registry._tasks.update(ours)
    yield
    for name in ours:
        registry._tasks.pop(name, None)


@task(name="helpers.together", batch_size=3, batch_wait=60)
def together(calls: list[Call[[int]]]) -> list[int]:
    return [len(calls)] * len(calls)


class TestBatches:
    def test_drain_makes_them_of_what_is_there(self) -> None:
        results = together.enqueue_many([((number,), {}) for number in range(4)])
        drained = testing.drain()
        assert [result.id for result in drained] == [result.id for result in results]
        assert [result.get(timeout=0) for result in results] == [3, 3, 3, 1]

    def test_what_took_its_worker_down_starts_alone(self) -> None:
        results = together.enqueue_many([((number,), {}) for number in range(3)])
        with testing.worker_dies_in(together, times=1):
            testing.drain()
        assert [result.get(timeout=0) for result in results] == [1, 2, 2]

    def test_what_a_batch_wrote_is_undone_where_no_call_of_it_succeeded(self) -> None:
        @task(name="helpers.writes", batch_size=2)
        def writes(calls: list[Call[[bool]]]) -> None:
            Effect.objects.create(name="written")
            for call in calls:
                if call.args[0]:
                    call.done()
            raise ValueError("no")

        writes.enqueue_many([((False,), {})] * 2)
        testing.drain()
        assert not Effect.objects.exists()
        writes.enqueue_many([((False,), {}), ((True,), {})])
        testing.drain()
        assert Effect.objects.count() == 1


class TestCaptured:
    def test_what_is_enqueued_inside(self) -> None:
        add.enqueue(0, 0)
        with testing.captured_tasks() as tasks:
            add.using(priority=5).enqueue(1, y=2)
            leave_effect.enqueue("x")
        add.enqueue(9, 9)
        assert [run.task_name for run in tasks] == [add.name, leave_effect.name]
        assert (tasks[0].args, tasks[0].kwargs, tasks[0].priority) == ([1], {"y": 2}, 5)
        assert [run.args for run in tasks.of(leave_effect)] == [["x"]]
        assert len(tasks) == 2

    def test_arguments_are_those_a_worker_gets(self) -> None:
        with testing.captured_tasks() as tasks:
            leave_effect.enqueue(["a", dt.date(2026, 1, 2)])  # type: ignore[arg-type]
        assert tasks[0].args == [["a", dt.date(2026, 1, 2)]]

    def test_it_catches_a_run_that_was_rolled_back(self) -> None:
        """The mistake: the view enqueues, and then its transaction fails."""
        with testing.captured_tasks() as tasks, pytest.raises(ZeroDivisionError), transaction.atomic():
            add.enqueue(1, 2)
            raise ZeroDivisionError
        assert list(tasks) == []


class TestOnCommit(TestCase):
    """In a TestCase nothing commits; Django's own way to run the callbacks is all it takes."""

    def test_enqueued_on_commit(self) -> None:
        with testing.captured_tasks() as tasks, self.captureOnCommitCallbacks(execute=True):
            transaction.on_commit(lambda: add.enqueue(1, 2) and None)
            assert len(tasks) == 0
        assert [run.args for run in tasks] == [[1, 2]]

    def test_it_catches_callbacks_that_never_ran(self) -> None:
        with testing.captured_tasks() as tasks:
            transaction.on_commit(lambda: add.enqueue(1, 2) and None)
        assert not tasks
        with pytest.raises(AssertionError, match="found 0"):
            testing.assert_enqueued(add)

    def test_drain_inside_a_test_case(self) -> None:
        leave_effect.enqueue("kept")
        result = fail.enqueue("no")
        testing.drain()
        result.refresh()
        assert result.status == Status.FAILED
        assert Effect.objects.get().name == "kept"

    def test_what_a_failed_attempt_wrote_is_undone_and_the_test_goes_on(self) -> None:
        row = flaky.enqueue(9)
        with transaction.atomic():
            testing.drain()
        assert TaskAttempt.objects.filter(task_id=row.id).count() == 1


class TestAssertEnqueued:
    def test_it_finds_by_every_property(self) -> None:
        when = timezone.now() + dt.timedelta(hours=1)
        add.using(priority=3, run_after=when).enqueue(1, y=2)
        (run,) = testing.assert_enqueued(
            add, args=[1], kwargs={"y": 2}, count=1, queue_name="default", priority=3, run_after=when
        )
        assert run.run_after == when
        testing.assert_enqueued(add.name)
        testing.assert_enqueued(fail, count=0)

    def test_a_run_that_is_done_counts(self) -> None:
        add.enqueue(1, 2)
        testing.drain()
        testing.assert_enqueued(add, args=(1, 2))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"args": [2, 1]},
            {"kwargs": {"y": 2}},
            {"count": 2},
            {"count": 0},
            {"queue_name": "mail"},
            {"priority": 1},
            {"run_after": timezone.now()},
        ],
        ids=lambda wrong: next(iter(wrong)),
    )
    def test_it_catches_each_kind_of_mistake(self, wrong: dict[str, Any]) -> None:
        add.enqueue(1, 2)
        leave_effect.enqueue("x")
        with pytest.raises(AssertionError) as caught:
            testing.assert_enqueued(add, **wrong)
        text = str(caught.value)
        assert f"of {add.name} with" in text or "count" in wrong
        assert f"{add.name}(1, 2) on default, priority 0" in text, "what there is"
        assert f"{leave_effect.name}('x')" in text, "and what else there is"


class TestDrain:
    def test_it_runs_what_is_due_in_order(self) -> None:
        low = add.using(priority=-1).enqueue(1, 1)
        high = add.using(priority=1).enqueue(2, 2)
        later = add.using(countdown=60).enqueue(3, 3)
        assert [result.id for result in testing.drain()] == [high.id, low.id]
        later.refresh()
        assert later.status == Status.SCHEDULED
        assert low.get() == 2

    def test_it_runs_what_tasks_enqueue(self) -> None:
        parent.enqueue()
        assert [result.name for result in testing.drain()] == [parent.name, add.name]

    def test_it_runs_schedules_that_are_due(self) -> None:
        row = PeriodicTask.objects.create(name="x", task_name=add.name, payload="[[1,2],{}]", schedule="every 1 hour")
        PeriodicTask.objects.update(next_start_at=timezone.now(), next_due_at=timezone.now())
        assert [result.get() for result in testing.drain()] == [3]
        assert row.ticks.get().decision == Decision.ENQUEUED

    def test_it_catches_a_task_that_fails(self) -> None:
        """The mistake: nobody looked at the result."""
        fail.enqueue("broken")
        (result,) = testing.drain()
        with pytest.raises(ValueError, match="broken"):
            result.get()

    def test_it_catches_arguments_that_do_not_survive(self) -> None:
        """The mistake: a task that relies on getting the caller's own object."""
        name = {"a": 1}
        leave_effect.enqueue(name)  # type: ignore[arg-type]
        name["a"] = 2
        testing.drain()
        assert TaskRecord.objects.get().args == [{"a": 1}]

    def test_it_catches_a_task_that_enqueues_itself_for_ever(self) -> None:
        endless.enqueue()
        with pytest.raises(RuntimeError, match=r"made 50 attempts and there is more: does helpers\.endless"):
            testing.drain(limit=50)


class TestAdvance:
    def test_delayed_runs_and_retries_come_at_their_time(self) -> None:
        with testing.clock() as clock:
            begin = clock.now
            later = add.using(countdown=3600).enqueue(1, 2)
            retried = flaky.enqueue(3)
            testing.drain()
            assert retried.attempts == 0 or not retried.is_finished
            assert [result.id for result in clock.advance(minutes=10)] == [retried.id, retried.id]
            assert retried.get() == 3
            assert not clock.advance(minutes=49)
            assert [result.id for result in testing.advance(minutes=2)] == [later.id]
            assert abs(clock.now - begin - dt.timedelta(minutes=61)) < dt.timedelta(seconds=10)
        row = TaskRecord.objects.get(pk=later.id)
        assert row.started_at is not None
        assert abs(row.started_at - begin - dt.timedelta(hours=1)) < dt.timedelta(seconds=10)
        assert abs(package_clock.now() - timezone.now()) < dt.timedelta(seconds=10), "it is over"

    def test_schedules_run_at_each_due_time(self) -> None:
        with testing.clock():
            for schedule in (every(minutes=30), crontab(minute=15)):
                PeriodicTask.objects.create(
                    name=str(schedule), task_name=add.name, payload="[[1,2],{}]", schedule=str(schedule)
                )
            assert len(testing.advance(hours=3)) == 6 + 3

    def test_it_catches_a_run_that_expires_while_it_waits(self) -> None:
        """The mistake: it may start for a minute, and is delayed by two."""
        with testing.clock() as clock:
            result = add.using(countdown=120, expires=60).enqueue(1, 2)
            clock.advance(minutes=3)
            result.refresh()
            assert result.status == Status.CANCELLED
            assert TaskRecord.objects.get().reason.startswith("TaskExpired")

    def test_it_does_not_go_back(self) -> None:
        with testing.clock() as clock, pytest.raises(ValueError, match="only moves on"):
            clock.advance(hours=-1)

    def test_it_needs_a_clock(self) -> None:
        with pytest.raises(RuntimeError, match="taskq_clock"):
            testing.advance(hours=1)
        with testing.clock(), pytest.raises(RuntimeError, match="do not nest"), testing.clock():
            pass


class TestFaults:
    def test_a_worker_that_dies_once(self) -> None:
        result = add.enqueue(1, 2)
        with testing.worker_dies_in(add, times=1):
            testing.drain()
        assert result.get() == 3
        assert TaskRecord.objects.get().crashes == 1

    def test_it_catches_a_task_that_is_poison(self) -> None:
        result = add.enqueue(1, 2)
        with testing.worker_dies_in(add):
            assert len(testing.drain()) == 3
        with pytest.raises(PoisonTask):
            result.get()

    def test_it_catches_an_effect_that_is_lost_for_good(self) -> None:
        """The mistake: at most once, for an effect that has to happen."""
        at_most_once.enqueue()
        with testing.worker_dies_in(at_most_once, times=1):
            testing.drain()
        assert TaskRecord.objects.get().status == Status.FAILED
        assert not Effect.objects.exists()

    def test_it_catches_a_caller_that_does_not_expect_an_outage(self) -> None:
        with testing.broker_down(), pytest.raises(testing.BrokerDown, match="broker_down"):
            add.enqueue(1, 2)
        assert not TaskRecord.objects.exists()
        add.enqueue(1, 2)
        testing.assert_enqueued(add, count=1)


class TestFixtures:
    def test_captured_tasks(self, captured_tasks: testing.Captured) -> None:
        add.enqueue(1, 2)
        assert len(captured_tasks) == 1

    def test_drain_tasks(self, drain_tasks: Callable[..., list[TaskResult[Any]]]) -> None:
        add.enqueue(1, 2)
        assert [result.get() for result in drain_tasks()] == [3]

    def test_taskq_clock(self, taskq_clock: testing.TestClock) -> None:
        add.using(countdown=60).enqueue(1, 2)
        assert len(taskq_clock.advance(minutes=1)) == 1


@pytest.mark.django_db(transaction=True)
class TestWorker:
    def test_it_runs_what_is_committed(
        self, taskq_worker: Callable[..., AbstractContextManager[testing.RealWorker]]
    ) -> None:
        with taskq_worker("--processes", "1") as worker:
            assert add.enqueue(1, 2).get(timeout=20) == 3
            assert "ready" in worker.log
            assert worker.stop() == 0

    def test_it_catches_options_that_do_not_work(self) -> None:
        with pytest.raises(RuntimeError, match="no queue is named 'nowhere'"), testing.worker("--queues", "nowhere"):
            pass

    def test_it_refuses_what_a_worker_would_never_see(self) -> None:
        with transaction.atomic(), pytest.raises(RuntimeError, match="TransactionTestCase"), testing.worker():
            pass

    def test_it_refuses_a_database_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if connection.vendor != "sqlite":
            pytest.skip("about SQLite")
        monkeypatch.setitem(connection.settings_dict, "NAME", "file:memorydb_default?mode=memory&cache=shared")
        with pytest.raises(RuntimeError, match='"TEST": {"NAME"'), testing.worker():
            pass
