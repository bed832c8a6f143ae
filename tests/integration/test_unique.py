"""Unique tasks: which of their calls get a run, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_taskq import TaskResult, Unique, chain, control, current_task, maintenance, registry, scheduler, testing
from django_taskq import clock as package_clock
from django_taskq.admin import verbs
from django_taskq.exceptions import EnqueueError, TaskCancelled
from django_taskq.models import PeriodicTask, TaskRecord, UniqueKey
from django_taskq.models.schedule import Decision
from django_taskq.schedules import Overlap
from django_taskq.status import FINAL, Status
from django_taskq.task import Task
from tests.unit.making import make_task
from tests.unit.working import claim, run

pytestmark = pytest.mark.django_db
Made = Task[Any, Any]


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))


@pytest.fixture
def seen() -> list[Any]:
    """What ran, in order."""
    return []


@pytest.fixture
def make(seen: list[Any]) -> Callable[..., Made]:
    """A task that notes the text of its call, unique by its number."""

    def made(unique: Any, **options: Any) -> Made:
        return make_task(lambda number, text="": seen.append(text), name="noted", unique=unique, **options)

    return made


def by_number(**options: Any) -> Unique:
    return Unique(by=["number"], **options)


def live() -> list[TaskRecord]:
    return list(TaskRecord.objects.exclude(status__in=FINAL).order_by("pk"))


def start() -> None:
    """Have a worker take what may start, without ending it."""
    maintenance.promote_due()
    maintenance.tend_limits()
    claim()


class TestReturn:
    def test_the_second_call_gets_a_handle_on_the_first_run(self, make: Callable[..., Made], seen: list[Any]) -> None:
        task = make(by_number())
        first, second, other = task.enqueue(1, "a"), task.enqueue(1, "b"), task.enqueue(2, "c")
        assert (second.id, second.is_duplicate, second.status) == (first.id, True, Status.READY)
        assert (first.is_duplicate, other.is_duplicate) == (False, False)
        testing.drain()
        assert seen == ["a", "c"]

    @pytest.mark.parametrize("end", [Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED])
    def test_until_the_run_has_ended(self, make: Callable[..., Made], end: Status) -> None:
        task = make(by_number())
        first = task.enqueue(1)
        start()
        assert task.enqueue(1).id == first.id
        TaskRecord.objects.filter(pk=first.id).update(status=end, finished_at=package_clock.now())
        again = task.enqueue(1)
        assert again.id != first.id
        assert (again.is_duplicate, task.enqueue(1).id) == (False, again.id)

    def test_a_delayed_run_and_one_that_waits_for_its_retry_have_their_key(self) -> None:
        def fails(number: int) -> None:
            raise OSError

        task = make_task(fails, unique=True, autoretry_for=(OSError,), default_retry_delay=60)
        delayed = task.using(countdown=60).enqueue(1)
        retried = task.enqueue(2)
        testing.drain()
        retried.refresh()
        assert (retried.status, retried.attempts) == (Status.SCHEDULED, 1)
        assert [task.enqueue(number).id for number in (1, 2)] == [delayed.id, retried.id]
        with testing.clock() as clock:
            clock.advance(minutes=10)
        retried.refresh()
        assert (retried.status, retried.attempts) == (Status.FAILED, 4)
        assert not task.enqueue(2).is_duplicate

    def test_many_at_once(self, make: Callable[..., Made], seen: list[Any]) -> None:
        task = make(by_number())
        there = task.enqueue(3)
        results = task.enqueue_many([((number, text), {}) for number, text in ((2, "a"), (1, "b"), (2, "c"), (3, "d"))])
        assert [result.is_duplicate for result in results] == [False, False, True, True]
        assert (results[2].id, results[3].id) == (results[0].id, there.id)
        assert TaskRecord.objects.count() == 3

    def test_a_rolled_back_call_leaves_its_key_free(self, make: Callable[..., Made]) -> None:
        task = make(by_number())
        with transaction.atomic():
            task.enqueue(1)
            transaction.set_rollback(True)
        assert not UniqueKey.objects.exists()
        assert not task.enqueue(1).is_duplicate

    def test_a_call_that_fails_leaves_its_key_free(self, make: Callable[..., Made]) -> None:
        task = make(by_number())
        there = task.enqueue(1)
        with pytest.raises(EnqueueError, match="exists already"):
            task.using(task_id=there.id).enqueue(2)
        assert not task.enqueue(2).is_duplicate

    def test_one_s_own_id_twice_is_a_duplicate(self, make: Callable[..., Made]) -> None:
        task = make(by_number()).using(task_id=UUID(int=7))
        assert [task.enqueue(1).is_duplicate, task.enqueue(1).is_duplicate] == [False, True]

    def test_nobody_is_told_of_a_duplicate(self, make: Callable[..., Made]) -> None:
        task = make(by_number())
        with testing.captured_tasks() as tasks:
            task.enqueue(1)
            task.enqueue(1)
            assert len(tasks._messages) == 1


class TestPeriod:
    def test_one_in_a_window(self, make: Callable[..., Made], seen: list[Any]) -> None:
        task = make(by_number(period=60))
        with testing.clock() as clock:
            first = task.enqueue(1, "a")
            testing.drain()
            clock.advance(seconds=59)
            again = task.enqueue(1, "b")
            assert (again.id, again.is_duplicate, again.status) == (first.id, True, Status.SUCCESSFUL)
            clock.advance(seconds=2)
            assert not task.enqueue(1, "c").is_duplicate
            clock.advance(seconds=59)
            assert task.enqueue(1, "d").is_duplicate  # the window began with c
        assert seen == ["a", "c"]

    def test_a_run_that_takes_longer_still_counts(self, make: Callable[..., Made]) -> None:
        task = make(by_number(period=60))
        with testing.clock() as clock:
            first = task.enqueue(1)
            start()
            clock.advance(hours=1)
            assert task.enqueue(1).id == first.id

    def test_a_cancelled_one_does_not_count(self, make: Callable[..., Made]) -> None:
        task = make(by_number(period=60))
        task.enqueue(1).cancel()
        assert not task.enqueue(1).is_duplicate

    def test_one_whose_record_is_gone_counts(self, make: Callable[..., Made]) -> None:
        task = make(by_number(period=60))
        first = task.enqueue(1)
        TaskRecord.objects.all().delete()
        assert task.enqueue(1).id == first.id


class TestReplace:
    def test_the_last_arguments_run_under_the_first_id(self, make: Callable[..., Made], seen: list[Any]) -> None:
        task = make(by_number(on_duplicate="replace"))
        first = task.enqueue(1, "a")
        assert [task.enqueue(1, text).id for text in "bc"] == [first.id] * 2
        testing.drain()
        assert seen == ["c"]
        assert TaskRecord.objects.count() == 1

    def test_once_it_has_started_it_keeps_its_own(self, make: Callable[..., Made], seen: list[Any]) -> None:
        task = make(by_number(on_duplicate="replace"))
        first = task.enqueue(1, "a")
        deliveries = claim()
        assert task.enqueue(1, "b").id == first.id
        run(deliveries)
        assert seen == ["a"]
        assert live() == []

    def test_so_does_one_that_waits_for_its_retry(self, seen: list[Any]) -> None:
        def fails(number: int, text: str) -> None:
            seen.append(text)
            if current_task.attempt == 1:
                raise OSError

        options = {"autoretry_for": (OSError,), "default_retry_delay": 60}
        task = make_task(fails, unique=by_number(on_duplicate="replace"), **options)
        first = task.enqueue(1, "a")
        testing.drain()
        assert task.enqueue(1, "b").id == first.id
        with testing.clock() as clock:
            clock.advance(minutes=2)
        assert seen == ["a", "a"]

    def test_its_time_and_priority_stay(self, make: Callable[..., Made]) -> None:
        task = make(by_number(on_duplicate="replace"))
        first = task.using(countdown=60, priority=5).enqueue(1, "a")
        again = task.using(priority=-5).enqueue(1, "b")
        assert (again.id, again.status) == (first.id, Status.SCHEDULED)
        (row,) = live()
        assert (row.status, row.priority, row.args) == (Status.SCHEDULED, 5, [1, "b"])

    def test_in_one_batch(self, make: Callable[..., Made], seen: list[Any]) -> None:
        results = make(by_number(on_duplicate="replace")).enqueue_many([((1, text), {}) for text in "abc"])
        assert len({result.id for result in results}) == 1
        testing.drain()
        assert seen == ["c"]

    def test_what_would_need_another_limit_takes_its_place_instead(
        self, make: Callable[..., Made], seen: list[Any]
    ) -> None:
        task = make(by_number(on_duplicate="replace"), lock="text:{text}")
        first = task.enqueue(1, "a")
        maintenance.tend_limits()
        again = task.enqueue(1, "b")
        first.refresh()
        assert (again.is_duplicate, first.status) == (False, Status.CANCELLED)
        with pytest.raises(TaskCancelled, match=f"run {again.id} took its place, with newer arguments"):
            first._value()
        testing.drain()
        assert seen == ["b"]


class TestLatest:
    def test_one_runs_and_one_waits_with_the_latest_arguments(self, make: Callable[..., Made], seen: list[Any]) -> None:
        task = make(by_number(on_duplicate="latest"))
        first = task.enqueue(1, "a")
        maintenance.tend_limits()
        deliveries = claim()
        assert [delivery.id for delivery in deliveries] == [first.id]
        second = task.enqueue(1, "b")
        assert [task.enqueue(1, text).id for text in "cd"] == [second.id] * 2
        assert (second.is_duplicate, [row.status for row in live()]) == (False, [Status.RUNNING, Status.WAITING])
        maintenance.tend_limits()
        assert claim() == []  # never beside the one that runs
        run(deliveries)
        testing.drain()
        assert seen == ["a", "d"]

    def test_one_that_waits_is_enough(self, make: Callable[..., Made], seen: list[Any]) -> None:
        task = make(by_number(on_duplicate="latest"))
        assert len({task.enqueue(1, text).id for text in "abc"}) == 1
        testing.drain()
        assert seen == ["c"]

    def test_newer_arguments_take_the_place_of_a_retry(self, seen: list[Any]) -> None:
        def fails(number: int, text: str) -> None:
            seen.append((text, current_task.attempt))
            if text == "a":
                raise OSError

        options = {"autoretry_for": (OSError,), "default_retry_delay": 60}
        task = make_task(fails, unique=by_number(on_duplicate="latest"), **options)
        first = task.enqueue(1, "a")
        testing.drain()
        assert not task.enqueue(1, "b").is_duplicate
        with testing.clock() as clock:
            clock.advance(minutes=10)
        first.refresh()
        assert (first.status, seen) == (Status.CANCELLED, [("a", 1), ("b", 1)])

    def test_a_failed_attempt_is_not_tried_again_beside_a_newer_call(self, seen: list[Any]) -> None:
        def fails(number: int, text: str) -> None:
            seen.append(text)
            if text == "a":
                raise OSError

        options = {"autoretry_for": (OSError,), "default_retry_delay": 60}
        task = make_task(fails, unique=by_number(on_duplicate="latest"), **options)
        with testing.clock() as clock:
            first = task.enqueue(1, "a")
            maintenance.tend_limits()
            deliveries = claim()
            task.enqueue(1, "b")
            run(deliveries)
            clock.advance(minutes=10)
        first.refresh()
        assert (first.status, seen) == (Status.CANCELLED, ["a", "b"])
        assert len(first.errors) == 1


class TestDebounce:
    def test_it_starts_so_long_after_the_last_call(self, make: Callable[..., Made], seen: list[Any]) -> None:
        task = make(by_number(debounce=10))
        with testing.clock() as clock:
            first = task.enqueue(1, "a")
            for text in "bc":
                clock.advance(seconds=9)
                again = task.enqueue(1, text)
                assert (again.id, again.is_duplicate, again.status) == (first.id, True, Status.SCHEDULED)
            clock.advance(seconds=9)
            assert seen == []
            clock.advance(seconds=1)
            assert seen == ["c"]
            task.enqueue(1, "d")
            clock.advance(seconds=10)
        assert seen == ["c", "d"]

    def test_a_call_while_one_runs_has_another_follow(self, make: Callable[..., Made], seen: list[Any]) -> None:
        task = make(by_number(debounce=10))
        with testing.clock() as clock:
            task.enqueue(1, "a")
            package_clock.move(timedelta(seconds=10))
            maintenance.promote_due()
            maintenance.tend_limits()
            deliveries = claim()
            results = [task.enqueue(1, text) for text in "bc"]
            assert ([result.is_duplicate for result in results], len(deliveries)) == ([False, True], 1)
            clock.advance(seconds=30)
            assert seen == []  # it is due, and waits for the one that runs
            run(deliveries)
            testing.drain()
        assert seen == ["a", "c"]

    def test_one_that_is_due_and_has_not_started_is_put_off(self, make: Callable[..., Made], seen: list[Any]) -> None:
        task = make(by_number(debounce=10))
        with testing.clock() as clock:
            task.enqueue(1, "a")
            package_clock.move(timedelta(seconds=10))
            maintenance.promote_due()
            maintenance.tend_limits()
            assert [row.status for row in live()] == [Status.READY]
            task.enqueue(1, "b")
            assert [row.status for row in live()] == [Status.SCHEDULED]
            clock.advance(seconds=9)
            assert seen == []
            clock.advance(seconds=1)
        assert seen == ["b"]

    def test_it_expires_by_its_last_call(self, make: Callable[..., Made], seen: list[Any]) -> None:
        task = make(by_number(debounce=10), expires=15)
        with testing.clock() as clock:
            task.enqueue(1, "a")
            clock.advance(seconds=9)
            task.enqueue(1, "b")
            clock.advance(seconds=10)
        assert seen == ["b"]


class TestOtherWaysIn:
    def test_a_schedule_notes_the_run_that_was_there(self, make: Callable[..., Made]) -> None:
        make(Unique(by="all"))
        first = registry.find("noted").enqueue(1)  # type: ignore[union-attr]
        with testing.clock() as clock:
            row = PeriodicTask.objects.create(
                name="x", task_name="noted", payload="[[2],{}]", schedule="every 60s", overlap=Overlap.CANCEL_PREVIOUS
            )
            row.last_run_id = UUID(first.id)
            row.save()
            start()
            clock.advance(minutes=2)
        ticks = list(row.ticks.order_by("due_at"))
        assert {(tick.decision, str(tick.run_id)) for tick in ticks} == {(Decision.ENQUEUED, first.id)}
        assert all("unique" in tick.reason for tick in ticks)
        row.refresh_from_db()
        assert str(row.last_run_id) == first.id
        assert [str(record.pk) for record in live()] == [first.id]
        assert scheduler.run_now(row) == first.id
        assert str(row.ticks.get(decision=Decision.BY_HAND).run_id) == first.id

    def test_a_schedule_with_arguments_that_give_no_key_is_refused_alone(self, make: Callable[..., Made]) -> None:
        make(by_number())
        with testing.clock() as clock:
            rows = [
                PeriodicTask.objects.create(name=name, task_name="noted", payload=payload, schedule="every 60s")
                for name, payload in (("good", "[[1],{}]"), ("bad", '[[],{"no":1}]'))
            ]
            clock.advance(minutes=1, seconds=1)
        good, bad = ([tick.decision for tick in row.ticks.all()] for row in rows)
        assert (set(good), set(bad)) == ({Decision.ENQUEUED}, {Decision.REFUSED})

    def test_run_again_passes_over_what_has_a_run(self, make: Callable[..., Made], seen: list[Any]) -> None:
        task = make(by_number())
        task.enqueue(1, "a")
        testing.drain()
        ended = TaskRecord.objects.all()
        assert verbs.run_again(ended).done == 1
        tally = verbs.run_again(ended.filter(status=Status.SUCCESSFUL))
        assert (tally.done, tally.made, sum(tally.passed_over.values())) == (0, [], 1)
        testing.drain()
        assert seen == ["a", "a"]

    def test_steps_of_workflows_all_run(self, make: Callable[..., Made], seen: list[Any]) -> None:
        task = make(by_number())
        task.enqueue(1, "a")
        chain(task.si(1, "b"), task.si(1, "c")).enqueue()
        testing.drain()
        assert sorted(seen) == ["a", "b", "c"]

    @pytest.mark.parametrize("options", [{}, {"on_duplicate": "latest"}, {"debounce": 60}])
    def test_eager_runs_end_in_the_call(
        self, make: Callable[..., Made], seen: list[Any], options: dict[str, Any]
    ) -> None:
        with override_settings(TASKQ={"EAGER": True}):
            task = make(by_number(**options))
            assert [task.enqueue(1, text).is_duplicate for text in "ab"] == [False, False]
        assert seen == ["a", "b"]
        assert live() == []

    def test_in_an_eager_period(self, make: Callable[..., Made], seen: list[Any]) -> None:
        with override_settings(TASKQ={"EAGER": True}):
            task = make(by_number(period=60))
            assert [task.enqueue(1, text).is_duplicate for text in "ab"] == [False, True]
        assert seen == ["a"]


def fail_once(task: Made, *args: Any) -> TaskResult[Any]:
    result = task.enqueue(*args)
    TaskRecord.objects.filter(pk=result.id).update(status=Status.FAILED, finished_at=package_clock.now())
    return result


class TestRetrying:
    def test_a_failed_run_takes_its_key_again(self, make: Callable[..., Made]) -> None:
        task = make(by_number())
        first = fail_once(task, 1)
        assert control.retry(TaskRecord.objects.all()) == 1
        assert task.enqueue(1).id == first.id

    def test_also_after_another_one_had_it(self, make: Callable[..., Made]) -> None:
        task = make(by_number())
        first, _ = fail_once(task, 1), fail_once(task, 1)
        assert control.retry(TaskRecord.objects.filter(pk=first.id)) == 1
        assert task.enqueue(1).id == first.id

    def test_not_while_another_one_has_it(self, make: Callable[..., Made]) -> None:
        task = make(by_number())
        first, other, second = fail_once(task, 1), fail_once(task, 2), task.enqueue(1)
        tally = verbs.retry(TaskRecord.objects.filter(status=Status.FAILED))
        assert (tally.done, dict(tally.passed_over)) == (1, {"unique, and another run has their key now": 1})
        assert {str(row.pk) for row in live()} == {other.id, second.id}
        errors = StringIO()
        with pytest.raises(CommandError, match="1 run"):
            call_command("taskq", "retry", first.id, stderr=errors)
        assert f"{first.id} is unique, and run {second.id} has its key now" in errors.getvalue()

    def test_of_two_that_failed_one_is_tried_again(self, make: Callable[..., Made]) -> None:
        task = make(by_number())
        fail_once(task, 1)
        fail_once(task, 1)
        assert control.retry(TaskRecord.objects.all()) == 1
        assert len(live()) == 1


class TestPruning:
    def test_keys_go_once_nothing_has_them(self, make: Callable[..., Made]) -> None:
        plain, windowed = make(by_number()), make_task(lambda number: None, name="windowed", unique=Unique(period=60))
        with testing.clock() as clock:
            for number in (1, 2):
                plain.enqueue(number)
            windowed.enqueue(1)
            maintenance.prune()
            assert UniqueKey.objects.count() == 3
            plain.enqueue(3)
            TaskRecord.objects.filter(pk=plain.enqueue(1).id).delete()
            TaskRecord.objects.filter(pk=plain.enqueue(2).id).update(status=Status.RUNNING)
            clock.advance(seconds=59)
            maintenance.prune()
            assert set(UniqueKey.objects.values_list("key", flat=True)) == {
                'noted:{"number":2}',
                'windowed:{"number":1}',
            }
            clock.advance(seconds=2)
            maintenance.prune()
            assert set(UniqueKey.objects.values_list("key", flat=True)) == {'noted:{"number":2}'}
        assert plain.enqueue(2).is_duplicate


def test_a_task_without_it_asks_nothing(make: Callable[..., Made]) -> None:
    make(by_number())
    plain = make_task(lambda: None, name="plain")
    with CaptureQueriesContext(connection) as queries:
        plain.enqueue()
    assert [query["sql"] for query in queries if "taskq_unique" in query["sql"]] == []
