"""Limits, with their rows: who waits, who is next, and who has what when runs end in any way they can."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, connections, transaction
from django.test import override_settings
from django.utils import timezone

from django_taskq import Breaker, chain, chord, control, current_task, group, maintenance, registry, task, testing
from django_taskq.brokers import get_broker
from django_taskq.brokers.database.broker import give_back
from django_taskq.brokers.database.locks import take_lock
from django_taskq.charging import Death
from django_taskq.exceptions import InvalidArguments, InvalidLock
from django_taskq.flow import lock
from django_taskq.gates import AT_GATE
from django_taskq.locks import Lock
from django_taskq.message import Action, Delivery, Room
from django_taskq.models import Limit, Permit, TaskAttempt, TaskRecord, Workflow
from django_taskq.models.flow import PermitState
from django_taskq.status import FINAL, Status
from tests.conformance.test_concurrency import in_threads
from tests.testapp.tasks import add
from tests.unit.making import ago, make_outcome, make_task

pytestmark = pytest.mark.django_db(transaction=True)

PROCESS = 71
IS_WHOLE = bool(os.environ.get("TASKQ_TEST_WHOLE"))
_claims = count(1)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))


@pytest.fixture
def time_moves() -> Iterator[testing.TestClock]:
    with testing.clock() as clock:
        yield clock


def limited(**options: Any) -> Any:
    """A task of a number, of which so much may run."""

    def work(number: int, tenant: str = "") -> int:
        return number

    return make_task(work, **options)


def claim(limit: int = 100, process: int = PROCESS, queue: str = "default") -> list[Delivery]:
    """What a worker takes, after what supervisors see to."""
    maintenance.promote_due()
    maintenance.tend_limits()
    first = next(_claims) * 100_000
    return get_broker().claim(queue, limit, process, first)


def end(*deliveries: Delivery, action: Action = Action.SUCCESS, process: int = PROCESS, **changes: Any) -> None:
    assert not get_broker().settle(process, [make_outcome(action, each, **changes) for each in deliveries])


def numbers(deliveries: list[Delivery]) -> list[int]:
    """Their first arguments."""
    rows = {str(row.pk): row.args[0] for row in TaskRecord.objects.filter(pk__in=[each.id for each in deliveries])}
    return [rows[each.id] for each in deliveries]


def next_ones(limit: int = 100) -> list[int]:
    return numbers(claim(limit))


def statuses() -> Counter[str]:
    return Counter(TaskRecord.objects.values_list("status", flat=True))


def held(key: str) -> int:
    return Permit.objects.filter(key=key, state=PermitState.HELD).count()


class TestConcurrency:
    def test_so_many_run_and_the_others_wait(self) -> None:
        work = limited(concurrency=3)
        work.enqueue_many([((number,), {}) for number in range(10)])
        running = claim()
        assert numbers(running) == [0, 1, 2]
        assert statuses() == {Status.RUNNING: 3, Status.WAITING: 7}
        assert claim() == []

    @pytest.mark.parametrize("action", [Action.SUCCESS, Action.FAILED, Action.CANCELLED])
    def test_the_next_one_is_ready_with_the_commit_of_an_end(self, action: Action) -> None:
        work = limited(concurrency=2)
        work.enqueue_many([((number,), {}) for number in range(4)])
        first, _ = claim()
        end(first, action=action)
        # Nobody has tended anything.
        assert TaskRecord.objects.filter(status=Status.READY).count() == 1
        assert numbers(get_broker().claim("default", 10, PROCESS, next(_claims) * 100_000)) == [2]

    def test_higher_priority_first_and_then_in_order(self) -> None:
        work = limited(concurrency=1)
        (running,) = [work.enqueue(0)] and claim()
        for number, priority in ((1, 0), (2, 10), (3, 0), (4, 10), (5, -10)):
            work.using(priority=priority).enqueue(number)
        order = []
        for _ in range(5):
            end(running)
            (running,) = claim()
            order += numbers([running])
        assert order == [2, 4, 1, 3, 5]

    def test_what_had_to_wait_is_not_put_before_others_of_its_queue(self) -> None:
        work, free = limited(concurrency=1), make_task(lambda number: number, name="free")
        work.enqueue_many([((number,), {}) for number in (1, 2)])
        (running,) = claim()
        free.enqueue_many([((number,), {}) for number in (10, 11)])
        end(running)
        assert next_ones() == [10, 11, 2]

    def test_keys_do_not_wait_for_each_other(self) -> None:
        work = limited(concurrency=1, concurrency_key="tenant:{tenant}")
        for number, tenant in enumerate("aaabbc"):
            work.enqueue(number, tenant)
        running = claim()
        assert numbers(running) == [0, 3, 5]
        end(running[1])
        assert next_ones() == [4]

    def test_one_key_with_thousands_does_not_hold_up_another(self) -> None:
        work = limited(concurrency=1, concurrency_key="{tenant}")
        work.enqueue_many([((number, "much"), {}) for number in range(3000)])
        work.enqueue(-1, "little")
        assert sorted(next_ones()) == [-1, 0]

    def test_a_queue_lets_so_much_through_of_all_its_tasks(self) -> None:
        work, free = limited(concurrency=2), make_task(lambda number: number, name="free")
        with override_settings(TASKQ={"QUEUES": {"mail": {"concurrency": 3}}}):
            for number in range(4):
                work.using(queue_name="mail").enqueue(number)
            maintenance.tend_limits()
            for number in range(10, 14):
                free.using(queue_name="mail").enqueue(number)
            running = claim(queue="mail")
            assert numbers(running) == [0, 1, 10], "narrow gates first: two of the one task, and then of the queue"
            end(running[0])
            # What waits for its own task's limit takes no place of the queue's.
            assert (held("queue:mail"), held("task:work")) == (3, 2)
            assert statuses()[Status.WAITING] == 4

    def test_a_retry_at_once_goes_to_the_end_of_the_line(self) -> None:
        work = limited(concurrency=1)
        work.enqueue_many([((number,), {}) for number in range(3)])
        (first,) = claim()
        end(first, action=Action.RETRY)
        assert TaskRecord.objects.get(pk=first.id).status == Status.WAITING
        (second,) = claim()
        end(second)
        (third,) = claim()
        end(third)
        assert numbers([second, third]) == [1, 2]
        assert next_ones() == [0]

    def test_a_retry_with_a_delay_keeps_nothing_and_comes_back_through_the_gate(
        self, time_moves: testing.TestClock
    ) -> None:
        work = limited(concurrency=1)
        work.enqueue_many([((number,), {}) for number in range(2)])
        (first,) = claim()
        end(first, action=Action.RETRY, delay=60)
        assert next_ones() == [1]
        time_moves._set(time_moves.now + timedelta(seconds=61))
        assert next_ones() == []
        row = TaskRecord.objects.get(pk=first.id)
        assert (row.status, row.waits_at, row.attempt) == (Status.WAITING, AT_GATE, 2)

    def test_delayed_runs_come_through_the_gate_when_they_are_due(self) -> None:
        work = limited(concurrency=1)
        work.enqueue(0)
        work.using(countdown=60).enqueue(1)
        (running,) = claim()
        TaskRecord.objects.filter(status=Status.SCHEDULED).update(run_after=ago(1))
        assert claim() == []
        assert statuses() == {Status.RUNNING: 1, Status.WAITING: 1}
        end(running)
        assert next_ones() == [1]

    @pytest.mark.parametrize("how", ["released", "stalled", "dead", "crashed"])
    def test_what_comes_back_to_its_queue_keeps_its_permit(self, how: str) -> None:
        work = limited(concurrency=1)
        work.enqueue_many([((number,), {}) for number in range(2)])
        (first,) = claim()
        if how == "released":
            end(first, action=Action.RELEASED)
        elif how == "stalled":
            give_back("default", PROCESS, is_suspect=False)
        else:
            maintenance.settle_death(Death(PROCESS, "test", [first.claim] if how == "crashed" else []))
        maintenance.tend_limits()
        assert statuses() == {Status.READY: 1, Status.WAITING: 1}
        assert next_ones() == [0]
        assert held("task:work") == 1

    def test_what_the_dead_held_is_free_once_they_are_settled(self) -> None:
        work = limited(concurrency=1, acks_late=False)
        work.enqueue_many([((number,), {}) for number in range(2)])
        (first,) = claim()
        maintenance.settle_death(Death(PROCESS, "test", [first.claim]))
        assert TaskRecord.objects.get(pk=first.id).status == Status.FAILED
        assert next_ones() == [1]

    def test_the_newest_declaration_holds(self) -> None:
        limited(concurrency=1).enqueue(0)
        assert next_ones() == [0]
        registry._tasks.pop("work")
        limited(concurrency=3).enqueue_many([((number,), {}) for number in range(1, 5)])
        assert next_ones() == [1, 2]
        registry._tasks.pop("work")
        limited(concurrency=2).enqueue(5)
        assert next_ones() == []
        assert Limit.objects.get(pk="task:work").most == 2

    def test_a_run_that_was_enqueued_before_does_not_undo_it(self) -> None:
        limited(concurrency=1).using(countdown=60).enqueue(0)
        registry._tasks.pop("work")
        limited(concurrency=3).enqueue(1)
        assert next_ones() == [1]
        TaskRecord.objects.filter(status=Status.SCHEDULED).update(run_after=ago(1))
        assert next_ones() == [0]
        assert Limit.objects.get(pk="task:work").most == 3

    def test_a_run_that_expires_while_it_waits_gives_its_place_on(self, time_moves: testing.TestClock) -> None:
        work = limited(concurrency=1)
        (running,) = [work.enqueue(0)] and claim()
        late = work.using(expires=30).enqueue(1)
        work.enqueue(2)
        time_moves._set(time_moves.now + timedelta(seconds=60))
        end(running)
        testing.drain()
        late.refresh()
        assert late.status == Status.CANCELLED
        assert statuses() == {Status.SUCCESSFUL: 2, Status.CANCELLED: 1}

    def test_nothing_is_left_when_all_have_ended(self) -> None:
        work = limited(concurrency=2, lock="{tenant}", rate_limit=1000)
        work.enqueue_many([((number, "ab"[number % 2]), {}) for number in range(20)])
        while statuses()[Status.SUCCESSFUL] < 20:
            end(*claim())
        assert not Permit.objects.exists()

    def test_in_a_rolled_back_transaction_nothing_stands_anywhere(self) -> None:
        work = limited(concurrency=1)
        with transaction.atomic():
            work.enqueue(0)
            transaction.set_rollback(True)
        assert not Permit.objects.exists()

    def test_without_workers_it_runs_at_once(self) -> None:
        work = limited(concurrency=1, rate_limit="1/h", lock="x", breaker=1)
        with override_settings(TASKQ={"EAGER": True}):
            results = [work.enqueue(number) for number in range(3)]
        assert [result.get(timeout=0) for result in results] == [0, 1, 2]
        assert not Permit.objects.exists()

    def test_a_transactional_run_leaves_its_place_to_others_after_its_commit(self) -> None:
        """Within it the limit is left alone: at a higher isolation level it sees who held it long ago."""
        seen = []

        @task(name="exact", transactional=True, concurrency=1)
        def exact(number: int) -> int:
            seen.append(TaskRecord.objects.filter(status=Status.WAITING).count())
            return number

        results = [exact.enqueue(number) for number in range(3)]
        testing.drain()
        assert [result.get(timeout=0) for result in results] == [0, 1, 2]
        assert seen == [2, 1, 0]
        assert not Permit.objects.exists()

    def test_a_success_in_the_tasks_own_transaction_lets_nobody_pass_before_it_is_told_again(self) -> None:
        work = limited(concurrency=1)
        work.enqueue_many([((number,), {}) for number in range(2)])
        (first,) = claim()
        inside = make_outcome(Action.SUCCESS, first, is_inside=True)
        assert not get_broker().settle(PROCESS, [inside])
        assert statuses() == {Status.SUCCESSFUL: 1, Status.WAITING: 1}
        assert not get_broker().settle(PROCESS, [make_outcome(Action.SUCCESS, first, is_recorded=True)])
        assert statuses() == {Status.SUCCESSFUL: 1, Status.READY: 1}


class TestCancelling:
    def test_thousands_of_one_key(self) -> None:
        """The next one that is wanted passes at once, and nothing stays of the others."""
        work = limited(concurrency=1)
        work.enqueue_many([((number,), {}) for number in range(10_000 if IS_WHOLE else 1500)])
        work.enqueue(-1)
        (running,) = claim(1)
        TaskRecord.objects.filter(status=Status.WAITING).exclude(payload__contains="-1").cancel()
        end(running)
        assert next_ones() == [-1]
        assert Permit.objects.count() == 1

    def test_those_of_two_gates(self) -> None:
        work = limited(concurrency=2)
        with override_settings(TASKQ={"QUEUES": {"default": {"concurrency": 1}}}):
            work.enqueue_many([((number,), {}) for number in range(500)])
            work.enqueue(-1)
        (running,) = claim(1)
        TaskRecord.objects.filter(status=Status.WAITING).exclude(payload__contains="-1").cancel()
        end(running)
        assert next_ones() == [-1]
        assert Permit.objects.count() == 2

    def test_a_deleted_row_keeps_no_place(self) -> None:
        work = limited(concurrency=1)
        with override_settings(TASKQ={"QUEUES": {"default": {"concurrency": 1}}}):
            other = make_task(lambda number: number, name="other")
            other.enqueue(9)
            (running,) = claim()
            work.enqueue_many([((number,), {}) for number in range(2)])
            maintenance.tend_limits()
            # The first has passed its own task's gate, and stands at the queue's.
            TaskRecord.objects.filter(payload__contains="[0]").delete()
            end(running)
        assert next_ones() == [1]

    def test_one_that_is_ready(self) -> None:
        work = limited(concurrency=1)
        work.enqueue_many([((number,), {}) for number in range(2)])
        maintenance.tend_limits()
        TaskRecord.objects.filter(status=Status.READY).cancel()
        assert next_ones() == [1]

    def test_one_that_is_given_back(self) -> None:
        work = limited(concurrency=1)
        work.enqueue_many([((number,), {}) for number in range(2)])
        (first,) = claim()
        TaskRecord.objects.filter(pk=first.id).cancel()
        end(first, action=Action.RELEASED)
        assert TaskRecord.objects.get(pk=first.id).status == Status.CANCELLED
        assert next_ones() == [1]

    def test_a_purge(self) -> None:
        work = limited(concurrency=1)
        work.enqueue_many([((number,), {}) for number in range(3)])
        maintenance.tend_limits()
        get_broker().purge("default")
        work.enqueue(7)
        assert next_ones() in ([7], [1]), "whether a purge takes what waits at gates or not, its place is free"


class TestRunningAgain:
    def test_a_failed_run_goes_to_its_gate(self) -> None:
        work = limited(concurrency=1)
        work.enqueue_many([((number,), {}) for number in range(2)])
        (first,) = claim()
        end(first, action=Action.FAILED)
        (second,) = claim()
        assert control.retry(TaskRecord.objects.filter(pk=first.id)) == 1
        assert claim() == []
        end(second)
        assert next_ones() == [0]

    def test_one_that_was_cancelled_at_its_second_gate_starts_at_its_first(self) -> None:
        """What it held when it was cancelled is somebody else's by now."""
        work = limited(concurrency=1)
        with override_settings(TASKQ={"QUEUES": {"mail": {"concurrency": 1}}}):
            make_task(lambda number: number, name="other").using(queue_name="mail").enqueue(9)
            (other,) = claim(queue="mail")
            first = work.using(queue_name="mail").enqueue(0)
            maintenance.tend_limits()
            assert held("task:work") == 1
            TaskRecord.objects.filter(pk=first.id).cancel()
            work.enqueue(1)  # of another queue
            assert next_ones() == [1]
            assert control.retry(TaskRecord.objects.filter(pk=first.id)) == 1
            end(other)
            assert claim(queue="mail") == []
            assert held("task:work") == 1

    def test_many_at_once(self) -> None:
        work = limited(concurrency=2)
        work.enqueue_many([((number,), {}) for number in range(50)])
        TaskRecord.objects.cancel()
        assert control.retry(TaskRecord.objects.all()) == 50
        assert len(next_ones()) == 2
        assert Permit.objects.count() == 50


class TestRates:
    def test_so_many_in_a_time(self, time_moves: testing.TestClock) -> None:
        work = limited(rate_limit="6/m", rate_burst=2)
        work.enqueue_many([((number,), {}) for number in range(8)])
        testing.drain()
        assert statuses()[Status.SUCCESSFUL] == 2
        testing.advance(seconds=9)
        assert statuses()[Status.SUCCESSFUL] == 2
        testing.advance(seconds=2)
        assert statuses()[Status.SUCCESSFUL] == 3
        testing.advance(seconds=30)
        assert statuses()[Status.SUCCESSFUL] == 6
        testing.advance(minutes=5)
        assert statuses() == {Status.SUCCESSFUL: 8}

    def test_keys_have_rates_of_their_own(self, time_moves: testing.TestClock) -> None:
        work = limited(rate_limit="1/m", rate_key="{tenant}")
        for number, tenant in enumerate("aab"):
            work.enqueue(number, tenant)
        testing.drain()
        assert statuses()[Status.SUCCESSFUL] == 2
        testing.advance(seconds=61)
        assert statuses() == {Status.SUCCESSFUL: 3}

    def test_a_queue_has_one(self, time_moves: testing.TestClock) -> None:
        with override_settings(TASKQ={"QUEUES": {"mail": {"rate_limit": "1/m"}}}):
            for name in "ab":
                make_task(lambda: None, name=name).using(queue_name="mail").enqueue()
            testing.drain()
            assert statuses()[Status.SUCCESSFUL] == 1
            testing.advance(seconds=61)
            assert statuses() == {Status.SUCCESSFUL: 2}

    def test_hundreds_of_keys_open_at_the_same_time(self, time_moves: testing.TestClock) -> None:
        """More than are looked at in one transaction."""
        work = limited(rate_limit="1/m", rate_key="{tenant}")
        work.enqueue_many([((number, str(number % 450)), {}) for number in range(900)])
        assert len(claim(1000)) == 450
        time_moves._set(time_moves.now + timedelta(seconds=61))
        assert len(claim(1000)) == 450

    def test_a_retry_counts_as_a_start(self, time_moves: testing.TestClock) -> None:
        work = limited(rate_limit="1/m")
        work.enqueue(0)
        (running,) = claim()
        end(running, action=Action.RETRY)
        assert claim() == []
        testing.advance(seconds=61)
        assert statuses() == {Status.SUCCESSFUL: 1}


class TestSteps:
    def test_a_group_of_limited_steps_and_what_follows(self) -> None:
        work, show = limited(concurrency=2), make_task(lambda values: values, name="show")
        result: Any = chord([work.s(number) for number in range(5)], show.s()).enqueue()
        first = claim()
        assert numbers(first) == [0, 1]
        end(*first, result="1")
        assert numbers(claim(1)) == [2]
        give_back("default", PROCESS, is_suspect=False)
        testing.drain()
        assert result.get(timeout=0)[2:] == [2, 3, 4]
        assert not Permit.objects.exists()

    def test_a_link_of_a_chain_comes_to_its_gate_when_it_may_go_on(self) -> None:
        work, free = limited(concurrency=1), make_task(lambda number: number, name="free")
        (holder,) = [work.enqueue(0)] and claim()
        chain(free.s(5), work.s()).enqueue()
        assert statuses() == {Status.RUNNING: 1, Status.READY: 1, Status.WAITING: 1}
        assert not Permit.objects.filter(state__lt=PermitState.HELD).exists()
        end(*claim(), result="5")
        assert claim() == []
        assert TaskRecord.objects.get(status=Status.WAITING).waits_at == AT_GATE
        end(holder)
        (last,) = claim()
        assert last.payload == "[[5],{}]"

    def test_a_step_that_follows_its_parent_in_the_same_worker_passes_its_gate_first(self) -> None:
        """Claiming what follows with the end of a step is a short way past the queue, and not past a gate."""
        work, free = limited(concurrency=1), make_task(lambda number: number, name="free")
        work.enqueue(0)
        claim()
        chain(free.s(5), work.s()).enqueue()
        (parent,) = claim()
        lost, taken = get_broker().settle_and_take(
            PROCESS, [make_outcome(Action.SUCCESS, parent, result="5")], Room(next(_claims) * 100_000, 5, ("default",))
        )
        assert (lost, taken) == ([], [])
        assert statuses() == {Status.RUNNING: 1, Status.WAITING: 1, Status.SUCCESSFUL: 1}

    def test_an_error_callback(self) -> None:
        told: list[int] = []

        def tell(run: Any, error: Any, number: int) -> None:
            told.append(number)

        tell_task = make_task(tell, concurrency=1, lock="tell:{number}")
        fail = make_task(lambda number: 1 / 0, name="fail")
        for number in range(3):
            fail.s(number).on_error(tell_task.s(number)).enqueue()
        testing.drain()
        assert sorted(told) == [0, 1, 2]
        assert not Permit.objects.exists()

    def test_a_run_that_is_replaced_keeps_nothing_meanwhile(self) -> None:
        work = limited(name="small", concurrency=1)

        @task(name="large", concurrency=1)
        def large(number: int) -> Any:
            return current_task.replace(chain(work.si(number), work.si(number + 1)))

        results = [large.enqueue(number) for number in range(3)]
        testing.drain()
        assert [result.get(timeout=0) for result in results] == [1, 2, 3]
        assert not Permit.objects.exists()

    def test_cancelled_and_resumed(self) -> None:
        work = limited(concurrency=1)
        result: Any = group(work.s(number) for number in range(4)).enqueue()
        (running,) = claim()
        result.cancel()
        end(running, action=Action.CANCELLED)
        assert statuses() == {Status.CANCELLED: 4}
        assert claim() == []
        result.resume()
        assert len(claim()) == 1
        give_back("default", PROCESS, is_suspect=False)
        testing.drain()
        assert result.get(timeout=0) == [0, 1, 2, 3]
        assert not Permit.objects.exists()

    def test_one_whose_steps_all_wait_at_gates_is_let_be(self) -> None:
        """It stands still for a reason: looking after it must not let its steps past."""
        work = limited(concurrency=1)
        (holder,) = [work.enqueue(0)] and claim()
        group(work.s(number) for number in range(3)).enqueue()
        for _ in range(3):
            maintenance.look_after_workflows()
            assert claim() == []
        assert statuses() == {Status.RUNNING: 1, Status.WAITING: 3}
        end(holder)
        assert len(claim()) == 1
        assert Workflow.objects.unfinished().count() == 1

    def test_a_key_of_an_earlier_value_is_refused_before_anything_is_stored(self) -> None:
        work = limited(concurrency=1, concurrency_key="{number}")
        free = make_task(lambda number: number, name="free")
        with pytest.raises(InvalidArguments, match="which comes from a step before it"):
            chain(free.s(1), work.s()).enqueue()
        assert not TaskRecord.objects.exists()

    def test_members_of_a_group_with_a_concurrency(self) -> None:
        free = make_task(lambda number: number, name="free")
        result: Any = group((free.s(number) for number in range(6)), concurrency=2).enqueue()
        other: Any = group((free.s(number) for number in range(10, 13)), concurrency=1).enqueue()
        running = claim()
        assert sorted(numbers(running)) == [0, 1, 10]
        give_back("default", PROCESS, is_suspect=False)
        testing.drain()
        assert result.get(timeout=0) == list(range(6))
        assert other.get(timeout=0) == [10, 11, 12]


class TestOrphans:
    @pytest.mark.parametrize("how", ["deleted", "ended by hand"])
    def test_permits_of_runs_that_are_gone_are_swept(self, how: str) -> None:
        work = limited(concurrency=1)
        work.enqueue_many([((number,), {}) for number in range(2)])
        (first,) = claim()
        row = TaskRecord.objects.filter(pk=first.id)
        row.delete() if how == "deleted" else row.update(status=Status.SUCCESSFUL, finished_at=timezone.now())
        assert next_ones() == [1]
        assert held("task:work") == 1


class TestLocks:
    def test_one_at_a_time_by_decorator(self) -> None:
        work, other = limited(lock="t:{tenant}"), make_task(lambda tenant: tenant, name="other", lock="t:{tenant}")
        work.enqueue(0, "a")
        work.enqueue(1, "b")
        other.enqueue("a")
        running = claim()
        assert numbers(running) == [0, 1]
        end(*running)
        assert next_ones() == ["a"]  # type: ignore[comparison-overlap]

    def test_any_text_names_one(self) -> None:
        """Also what PostgreSQL does not keep."""
        work = limited(lock="t:{tenant}")
        for tenant in ("a\0b", "a?b", "a\0b", "'%s\"", "x" * 5000):
            work.enqueue(0, tenant)
        assert len(claim()) == 4

    def test_a_block_frees_it(self) -> None:
        seen = []

        @task(name="locks")
        def locks(number: int) -> int:
            with current_task.lock("x"):
                seen.append(held("lock:x"))
            seen.append(held("lock:x"))
            return number

        results = [locks.enqueue(number) for number in range(2)]
        testing.drain()
        assert seen == [1, 0, 1, 0]
        assert [result.get(timeout=0) for result in results] == [0, 1]

    def test_an_async_block_frees_it(self) -> None:
        @task(name="locks_on_loop")
        async def locks_on_loop() -> list[int]:
            async with current_task.lock("x"):
                inside = await Permit.objects.filter(key="lock:x").acount()
            return [inside, await Permit.objects.filter(key="lock:x").acount()]

        result = locks_on_loop.enqueue()
        testing.drain()
        assert result.get(timeout=0) == [1, 0]

    def test_who_is_refused_leaves_and_comes_back_in_order_without_an_attempt(self) -> None:
        calls: list[int] = []

        @task(name="locks", max_retries=0)
        def locks(number: int) -> None:
            calls.append(number)
            with current_task.lock("x"):
                calls.append(100 + number)

        holder = limited(lock="x")
        (running,) = [holder.enqueue(9)] and claim()
        results = [locks.enqueue(number) for number in range(3)]
        testing.drain()
        assert calls == [0, 1, 2]
        waiting = TaskRecord.objects.filter(name="locks")
        assert {(row.status, row.attempt, row.reason) for row in waiting} == {(Status.WAITING, 1, "")}
        end(running)
        testing.drain()
        assert calls[3:] == [0, 100, 1, 101, 2, 102]
        assert [result.get(timeout=0) for result in results] == [None] * 3
        assert not TaskAttempt.objects.exists()
        assert not Permit.objects.exists()

    def test_whoever_waits_as_a_row_comes_before_who_asks_now(self) -> None:
        @task(name="locks")
        def locks(number: int) -> None:
            with current_task.lock("x"):
                pass

        holder = limited(lock="x")
        (running,) = [holder.enqueue(1)] and claim()
        holder.enqueue(2)
        maintenance.tend_limits()
        end(running)
        locks.enqueue(0)
        (second,) = claim(1)
        assert numbers([second]) == [2]
        testing.drain()
        assert TaskRecord.objects.get(name="locks").status == Status.WAITING
        end(second)
        testing.drain()
        assert TaskRecord.objects.get(name="locks").status == Status.SUCCESSFUL

    def test_it_waits_for_it_in_its_slot_where_it_is_told_to(self) -> None:
        """The holder leaves while it waits: after its first look, and before the wait is over."""
        holder = limited(lock="x")
        (running,) = [holder.enqueue(9)] and claim()
        has_asked = threading.Event()

        @task(name="locks")
        def locks() -> int:
            with current_task.lock("x", wait=20):
                return 1

        def free() -> None:
            has_asked.wait(10)
            try:
                end(running)
            finally:
                connections.close_all()

        take = Lock._take

        def asking(self: Lock) -> bool:
            found = take(self)
            has_asked.set()
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Lock, "_take", asking)
            thread = threading.Thread(target=free)
            thread.start()
            result = locks.enqueue()
            testing.drain()
            thread.join()
        assert result.get(timeout=0) == 1
        assert TaskRecord.objects.get(name="locks").attempt == 1

    def test_two_of_them_one_inside_the_other(self) -> None:
        @task(name="locks")
        def locks(first: str, second: str) -> int:
            with current_task.lock(first), current_task.lock(second):
                return held(f"lock:{first}") + held(f"lock:{second}")

        results = [locks.enqueue("a", "b"), locks.enqueue("b", "a")]
        testing.drain()
        assert [result.get(timeout=0) for result in results] == [2, 2]
        assert not Permit.objects.exists()

    def test_the_same_twice_is_an_error(self) -> None:
        @task(name="locks", lock="declared")
        def locks(name: str) -> None:
            with current_task.lock("x"), current_task.lock(name):
                pass

        results = [locks.enqueue("x"), locks.enqueue("declared")]
        testing.drain()
        for result in results:
            with pytest.raises(Exception, match="holds the lock '(x|declared)' already"):
                result.get(timeout=0)
        assert not Permit.objects.exists()

    def test_inside_a_transaction_is_an_error(self) -> None:
        @task(name="locks")
        def locks() -> None:
            with transaction.atomic(), current_task.lock("x"):
                pass

        result = locks.enqueue()
        testing.drain()
        with pytest.raises(Exception, match=r"takes the lock 'x' inside a transaction"):
            result.get(timeout=0)

    def test_outside_of_a_worker_is_an_error(self) -> None:
        @task(name="locks")
        def locks() -> None:
            with current_task.lock("x"):
                pass

        with pytest.raises((InvalidLock, RuntimeError)):
            locks()

    @pytest.mark.parametrize("how", ["dead", "taken over"])
    def test_it_is_free_when_its_holder_is_gone(self, how: str) -> None:
        locks = limited(name="locks")
        locks.enqueue_many([((number,), {}) for number in range(2)])
        running, other = claim()
        assert take_lock("default", running.id, running.claim, lock("x"))
        assert not take_lock("default", other.id, other.claim, lock("x"))
        if how == "dead":
            maintenance.settle_death(Death(PROCESS, "test", []))
        else:
            TaskRecord.objects.filter(pk=running.id).update(claim=running.claim + 1)
        maintenance.tend_limits()
        assert held("lock:x") == 0


class TestBreakers:
    @pytest.fixture
    def work(self) -> Any:
        return limited(breaker=Breaker(failures=3, rest=60))

    def fail(self, delivery: Delivery, kind: str = "builtins.OSError") -> None:
        end(delivery, action=Action.FAILED, trips=kind)

    def is_open(self) -> bool:
        return Limit.objects.get(pk="breaker:work").tripped_at is not None

    def test_it_opens_after_so_many_of_one_kind(self, work: Any) -> None:
        work.enqueue_many([((number,), {}) for number in range(10)])
        running = claim(5)
        for delivery in running[:2]:
            self.fail(delivery)
        assert not self.is_open()
        self.fail(running[2])
        assert self.is_open()
        # What was READY has come back, and stands where it stood.
        assert statuses() == {Status.FAILED: 3, Status.RUNNING: 2, Status.WAITING: 5}
        assert claim() == []

    @pytest.mark.parametrize("what", ["another kind", "a success", "what does not count"])
    def test_only_in_a_row(self, work: Any, what: str) -> None:
        work.enqueue_many([((number,), {}) for number in range(10)])
        running = claim()
        self.fail(running[0])
        self.fail(running[1])
        if what == "a success":
            end(running[2])
        else:
            self.fail(running[2], "builtins.ValueError" if what == "another kind" else "")
        self.fail(running[3])
        assert self.is_open() is (what == "what does not count")
        self.fail(running[4])
        self.fail(running[5])
        assert self.is_open()

    def test_one_is_tried_after_the_rest_and_all_go_on_when_it_succeeds(
        self, work: Any, time_moves: testing.TestClock
    ) -> None:
        work.enqueue_many([((number,), {}) for number in range(8)])
        for delivery in claim(3):
            self.fail(delivery)
        time_moves._set(time_moves.now + timedelta(seconds=59))
        assert claim() == []
        time_moves._set(time_moves.now + timedelta(seconds=2))
        (tried,) = claim()
        assert numbers([tried]) == [3]
        assert claim() == []
        end(tried)
        assert not self.is_open()
        assert next_ones() == [4, 5, 6, 7]

    def test_the_rest_begins_anew_when_it_fails(self, work: Any, time_moves: testing.TestClock) -> None:
        work.enqueue_many([((number,), {}) for number in range(8)])
        for delivery in claim(3):
            self.fail(delivery)
        for _ in range(2):
            time_moves._set(time_moves.now + timedelta(seconds=61))
            (tried,) = claim()
            self.fail(tried, "builtins.ValueError")
            assert claim() == []
        assert self.is_open()

    def test_with_nobody_waiting_time_passes_and_the_next_to_come_is_tried(
        self, work: Any, time_moves: testing.TestClock
    ) -> None:
        work.enqueue_many([((number,), {}) for number in range(3)])
        for delivery in claim():
            self.fail(delivery)
        testing.advance(hours=1)
        assert maintenance.tend_limits() is None, "nobody is to be woken for it again and again"
        work.enqueue_many([((number,), {}) for number in range(5, 8)])
        (tried,) = claim()
        assert self.is_open()
        end(tried)
        assert next_ones() == [6, 7]

    def test_a_task_that_fails(self, time_moves: testing.TestClock) -> None:
        """Through the executor: errors that count, those of retries among them, and what they tell."""
        calls: list[int] = []

        @task(
            name="flaky", breaker=Breaker(failures=2, rest=60, on=(OSError,)), autoretry_for=(OSError,), max_retries=9
        )
        def flaky(number: int) -> None:
            calls.append(number)
            if len(calls) <= 2:
                raise OSError("away")
            if number == 7:
                raise ValueError("its own fault")

        flaky.enqueue_many([((number,), {}) for number in range(5, 10)])
        testing.drain()
        assert len(calls) == 2
        assert Limit.objects.get(pk="breaker:flaky").failure == "builtins.OSError"
        testing.advance(minutes=30)
        assert statuses() == {Status.SUCCESSFUL: 4, Status.FAILED: 1}
        assert Limit.objects.get(pk="breaker:flaky").tripped_at is None


class TestAtTheSameMoment:
    """Several connections at once."""

    @pytest.fixture(autouse=True)
    def _several_connections(self) -> None:
        if connection.vendor != "postgresql":
            pytest.skip("SQLite has one writer at a time")

    def test_two_that_end_and_one_that_comes_never_exceed_a_limit_nor_forget_a_waiter(self) -> None:
        work = limited(concurrency=2)
        work.enqueue_many([((number,), {}) for number in range(5)])
        pair = claim()
        barrier = threading.Barrier(3)

        def at_once(do: Callable[..., Any], *args: Any) -> None:
            barrier.wait(60)
            do(*args)

        with ThreadPoolExecutor(3) as pool:
            for _ in range(200 if IS_WHOLE else 40):
                jobs = [(end, pair[0]), (end, pair[1]), (work.enqueue, 0)]
                for job in [pool.submit(at_once, *each) for each in jobs]:
                    job.result()
                # There were three to choose from, and nobody has tended anything.
                assert (statuses()[Status.READY], held("task:work")) == (2, 2)
                pair = get_broker().claim("default", 9, PROCESS, next(_claims) * 100_000)
                assert len(pair) == 2
                work.enqueue(0)
            for job in [pool.submit(at_once, connections.close_all) for _ in range(3)]:
                job.result()

    def test_a_crowd(self) -> None:
        """Some enqueue, others run: never over the limit, nobody left, and nobody waits for a deadlock to be found."""
        work = limited(concurrency=3, concurrency_key="{tenant}")
        total, most, stop = 120, Counter[str](), threading.Event()

        def play(number: int) -> None:
            rng = random.Random(number)
            if number <= 2:
                for each in range(total):
                    work.enqueue(each, rng.choice("ab"))
                return
            while not stop.is_set():
                get_broker().admit()
                taken = get_broker().claim("default", 2, PROCESS + number, next(_claims) * 100_000)
                for key in ("a", "b"):
                    most[key] = max(most[key], held(f"task:work:{key}"))
                end(*taken, process=PROCESS + number)
                if statuses()[Status.SUCCESSFUL] == 2 * total:
                    stop.set()

        deadlocks = deadlocks_so_far()
        in_threads(6, play)
        assert set(most.values()) == {3}
        assert not Permit.objects.exists()
        assert deadlocks_so_far() == deadlocks


def deadlocks_so_far() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        (found,) = cursor.fetchone()
    return int(found)


class Model:
    """What should be so after each step, read from the rows."""

    LIMITS = {"task:one": 2, "task:two:a": 1, "task:two:b": 1, "queue:default": 4, "lock:x": 1}

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.one = limited(name="one", concurrency=2)
        self.two = limited(name="two", concurrency=1, concurrency_key="{tenant}")
        self.three = limited(name="three", lock="x")
        self.running: list[Delivery] = []
        self.served: dict[str, list[str]] = defaultdict(list)
        self.steps: dict[str, Callable[[], Any]] = {
            name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }

    def do_enqueue(self) -> None:
        made = self.rng.choice([self.one, self.two, self.three]).using(priority=self.rng.choice([0, 0, 0, 5]))
        made.enqueue(0, self.rng.choice("ab"))

    def do_enqueue_many(self) -> None:
        for _ in range(4):
            self.do_enqueue()

    def do_delay(self) -> None:
        self.one.using(countdown=60).enqueue(0)

    def do_due(self) -> None:
        TaskRecord.objects.filter(status=Status.SCHEDULED).update(run_after=ago(1))
        maintenance.promote_due()

    def do_claim(self) -> None:
        self.running += get_broker().claim("default", self.rng.choice([1, 3]), PROCESS, next(_claims) * 100_000)

    def _one(self) -> list[Delivery]:
        return [self.running.pop(self.rng.randrange(len(self.running)))] if self.running else []

    def do_finish(self) -> None:
        end(*self._one())

    def do_finish_all(self) -> None:
        self.running, ended = [], self.running
        end(*ended)

    def do_fail(self) -> None:
        end(*self._one(), action=Action.FAILED)

    def do_retry_at_once(self) -> None:
        end(*self._one(), action=Action.RETRY)

    def do_retry_later(self) -> None:
        end(*self._one(), action=Action.RETRY, delay=60)

    def do_release(self) -> None:
        end(*self._one(), action=Action.RELEASED)

    def do_kill(self) -> None:
        started = [each.claim for each in self.running if self.rng.random() < 0.5]
        self.running = []
        maintenance.settle_death(Death(PROCESS, "test", started))

    def do_cancel(self) -> None:
        open_ones = list(TaskRecord.objects.exclude(status__in=FINAL).values_list("pk", flat=True))
        TaskRecord.objects.filter(pk__in=self.rng.sample(open_ones, min(2, len(open_ones)))).cancel()

    def do_run_again(self) -> None:
        over = list(TaskRecord.objects.filter(status__in=("FAILED", "CANCELLED")).values_list("pk", flat=True))
        control.retry(TaskRecord.objects.filter(pk__in=self.rng.sample(over, min(2, len(over)))))

    def do_delete(self) -> None:
        idle = TaskRecord.objects.exclude(status=Status.RUNNING).values_list("pk", flat=True)
        TaskRecord.objects.filter(pk__in=self.rng.sample(list(idle), min(1, len(idle)))).delete()

    def check(self) -> None:
        live = {str(row.pk): row for row in TaskRecord.objects.exclude(status__in=FINAL)}
        counts = Counter(Permit.objects.filter(state=PermitState.HELD).values_list("key", flat=True))
        for key, most in self.LIMITS.items():
            assert counts[key] <= most, f"{counts[key]} are past {key}"
        for name, key in (("one", "task:one"), ("three", "lock:x")):
            going = [row for row in live.values() if row.name == name and row.status in (Status.READY, Status.RUNNING)]
            assert len(going) <= self.LIMITS[key]
        assert sum(row.status in (Status.READY, Status.RUNNING) for row in live.values()) <= 4

    def check_tended(self) -> None:
        """After supervisors have looked: nobody waits while there is room, and nothing is kept for who is gone."""
        live = {row.pk: row for row in TaskRecord.objects.exclude(status__in=FINAL)}
        permits = list(Permit.objects.order_by("-priority", "id"))
        assert not [permit for permit in permits if permit.state == PermitState.NEW]
        held_by = {permit.task_id for permit in permits if permit.state == PermitState.HELD}
        assert held_by <= set(live), "permits of runs that are gone"
        at_gates = {pk for pk, row in live.items() if row.status == Status.WAITING}
        standing = defaultdict[UUID, list[str]](list)
        for permit in permits:
            if permit.state != PermitState.HELD and permit.task_id in at_gates:
                standing[permit.task_id].append(permit.key)
        assert set(standing) == at_gates, "runs that stand at no gate"
        assert all(len(keys) == 1 for keys in standing.values()), "runs that stand at several gates"
        counts = Counter(permit.key for permit in permits if permit.state == PermitState.HELD)
        for (key,) in standing.values():
            assert counts[key] == self.LIMITS[key], f"somebody waits at {key}, past which are {counts[key]}"


@pytest.mark.parametrize("seed", range(40 if IS_WHOLE else 3))
def test_whatever_happens(seed: int) -> None:
    """Random steps, and the same sentences about limits hold after each of them."""
    with override_settings(TASKQ={"QUEUES": {"default": {"concurrency": 4}}}):
        model = Model(seed)
        weights = {"enqueue_many": 3, "claim": 6, "finish": 5, "kill": 1, "finish_all": 1}
        for _ in range(100):
            name = model.rng.choices(list(model.steps), [weights.get(name, 2) for name in model.steps])[0]
            model.steps[name]()
            model.check()
            if model.rng.random() < 0.5:
                maintenance.tend_limits()
                model.check()
                model.check_tended()
        # And all of it comes to its end.
        model.do_due()
        for _ in range(1000):
            maintenance.tend_limits()
            model.do_claim()
            if not model.running:
                break
            model.do_finish_all()
        assert not TaskRecord.objects.exclude(status__in=FINAL).exists()
        assert not Permit.objects.filter(state=PermitState.HELD).exists()


def test_a_run_with_spoilt_gates_fails_alone() -> None:
    good, bad, later = (add.enqueue(1, 1), add.enqueue(2, 2), add.using(countdown=3600).enqueue(3, 3))
    TaskRecord.objects.filter(pk__in=[bad.id, later.id]).update(headers='{"gates":[["no such kind","x"]]')
    with testing.clock() as clock:
        testing.drain()
        clock.advance(hours=1)
    statuses = dict(TaskRecord.objects.values_list("pk", "status"))
    assert [statuses[UUID(str(run.id))] for run in (good, bad, later)] == ["SUCCESSFUL", "FAILED", "FAILED"]
