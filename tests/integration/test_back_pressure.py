"""Queues with a bound: who is refused, who makes room, and what does not count."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_taskq import brokers, chain, client, group, maintenance, registry, scheduler
from django_taskq.brokers import get_broker
from django_taskq.exceptions import BrokerUnavailable, QueueFull
from django_taskq.gates import AT_GATE
from django_taskq.message import Message
from django_taskq.models import PeriodicTask, ScheduleTick, TaskRecord
from django_taskq.models.schedule import Decision
from django_taskq.signatures import Signature
from django_taskq.status import Status
from tests.depots.tasks import note_untracked
from tests.lettered_depot import LetteredDepot
from tests.servers import RedisServer
from tests.testapp.tasks import add
from tests.unit.making import make_task

mail = add.using(queue_name="mail")


def bounded(max_length: int, when_full: str | None = None, **others: Any) -> Any:
    queue: dict[str, Any] = {"max_length": max_length} | ({"when_full": when_full} if when_full else {})
    return override_settings(TASKQ={"QUEUES": {"mail": queue | others, "other": {"max_length": 1}}})


@pytest.fixture
def refusing() -> Iterator[None]:
    with bounded(2):
        yield


@pytest.fixture
def keeping() -> Iterator[None]:
    with bounded(2, "keep_newest"):
        yield


@pytest.fixture
def dropping() -> Iterator[None]:
    with bounded(2, "drop_lowest"):
        yield


def waiting() -> list[int]:
    """The first arguments of what waits, in the order of enqueueing."""
    rows = TaskRecord.objects.filter(status__in=(Status.READY, Status.WAITING, Status.SCHEDULED))
    return [row.args[0] for row in rows.order_by("pk")]


def dropped() -> dict[int, str]:
    return {row.args[0]: row.reason for row in TaskRecord.objects.filter(status=Status.CANCELLED)}


def step(*args: int, priority: int = 0) -> Signature:
    return add.signature(args, queue_name="mail", priority=priority)


def calls(*numbers: int) -> list[tuple[tuple[int, int], dict[str, int]]]:
    return [((number, 0), {}) for number in numbers]


@pytest.mark.django_db
@pytest.mark.usefixtures("refusing")
class TestRefuse:
    def test_what_does_not_fit_is_an_error_that_says_how_to_mend_it(self) -> None:
        mail.enqueue(1, 0)
        mail.enqueue(2, 0)
        with pytest.raises(QueueFull, match=r"queue 'mail': its max_length is 2.*raise TASKQ\['QUEUES'\]\['mail'\]"):
            mail.enqueue(3, 0)
        assert (waiting(), dropped()) == ([1, 2], {})

    def test_other_queues_have_their_own_room(self) -> None:
        mail.enqueue_many(calls(1, 2))
        add.using(queue_name="other").enqueue(3, 0)
        add.enqueue_many(calls(4, 5, 6))
        assert waiting() == [1, 2, 3, 4, 5, 6]

    def test_many_at_once_are_all_or_none(self) -> None:
        mail.enqueue(1, 0)
        with pytest.raises(QueueFull, match="2 runs do not fit"):
            mail.enqueue_many(calls(2, 3))
        with pytest.raises(QueueFull, match="3 runs at once never fit"):
            mail.enqueue_many(calls(2, 3, 4))
        assert waiting() == [1]

    def test_async_calls_are_refused_alike(self) -> None:
        async_to_sync(mail.aenqueue)(1, 0)
        async_to_sync(mail.aenqueue)(2, 0)
        with pytest.raises(QueueFull):
            async_to_sync(mail.aenqueue)(3, 0)
        assert waiting() == [1, 2]

    def test_a_refusal_leaves_the_caller_s_transaction_as_it_was(self) -> None:
        with transaction.atomic():
            mail.enqueue_many(calls(1, 2))
            with pytest.raises(QueueFull):
                mail.enqueue(3, 0)
            add.enqueue(4, 0)
        assert waiting() == [1, 2, 4]

    def test_what_has_been_claimed_waits_no_more(self) -> None:
        mail.enqueue_many(calls(1, 2))
        get_broker().claim("mail", 1, 7, 1)
        mail.enqueue(3, 0)
        assert waiting() == [2, 3]

    def test_what_is_due_later_neither_counts_nor_is_refused(self) -> None:
        later = mail.using(countdown=60)
        for number in (1, 2, 3):
            later.enqueue(number, 0)
        mail.enqueue_many(calls(4, 5))
        later.enqueue(6, 0)
        assert waiting() == [1, 2, 3, 4, 5, 6]

    def test_what_becomes_due_or_is_given_back_comes_in_whether_there_is_room_or_not(self) -> None:
        mail.using(countdown=60).enqueue(1, 0)
        mail.enqueue(2, 0)
        get_broker().claim("mail", 1, 7, 1)
        mail.enqueue_many(calls(3, 4))
        TaskRecord.objects.filter(status=Status.SCHEDULED).update(run_after=timezone.now() - timedelta(seconds=1))
        maintenance.promote_due()
        get_broker().release(7, [1])
        assert TaskRecord.objects.filter(status=Status.READY, queue_name="mail").count() == 4
        with pytest.raises(QueueFull):
            mail.enqueue(5, 0)

    def test_what_waits_at_a_gate_counts(self) -> None:
        with bounded(2, concurrency=1):
            mail.enqueue_many(calls(1, 2))
            TaskRecord.objects.update(status=Status.WAITING, waits_at=AT_GATE)
            with pytest.raises(QueueFull):
                mail.enqueue(3, 0)
            TaskRecord.objects.filter(status=Status.WAITING).update(waits_at=None)
            mail.enqueue(4, 0)

    def test_a_failed_run_may_be_retried_into_a_full_queue(self) -> None:
        failed = mail.enqueue(1, 0)
        TaskRecord.objects.update(status=Status.FAILED, finished_at=timezone.now())
        mail.enqueue_many(calls(2, 3))
        assert TaskRecord.objects.filter(pk=failed.id).retry() == 1
        assert waiting() == [1, 2, 3]


@pytest.mark.django_db
@pytest.mark.usefixtures("refusing")
class TestWorkflows:
    def test_one_whose_first_steps_do_not_fit_is_refused_as_a_whole(self) -> None:
        mail.enqueue(1, 0)
        with pytest.raises(QueueFull):
            group(step(2, 0), step(3, 0)).enqueue()
        assert (waiting(), TaskRecord.objects.count()) == ([1], 1)

    def test_steps_that_wait_for_others_are_not_counted(self) -> None:
        chain(step(1, 0), step(0), step(0), step(0)).enqueue()
        mail.enqueue(2, 0)
        assert TaskRecord.objects.filter(status=Status.READY).count() == 2

    def test_one_whose_step_made_room_ends(self) -> None:
        with bounded(1, "keep_newest"):
            workflow = chain(step(1, 0), step(0)).enqueue()
            mail.enqueue(2, 0)
        maintenance.look_after_workflows()
        steps = TaskRecord.objects.filter(workflow_id=workflow.id)
        assert set(steps.values_list("status", flat=True)) == {Status.CANCELLED}
        workflow.refresh()
        assert workflow.status == Status.CANCELLED

    @pytest.mark.parametrize("when_full", ["keep_newest", "drop_lowest"])
    def test_none_drops_its_own_steps(self, when_full: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("django_taskq.workflows.AT_ONCE", 1)
        with bounded(2, when_full), pytest.raises(QueueFull):
            group(*(step(number, 0, priority=number) for number in (1, 2, 3))).enqueue()
        assert TaskRecord.objects.count() == 0


@pytest.mark.django_db
class TestKeepNewest:
    pytestmark = pytest.mark.usefixtures("keeping")

    def test_the_oldest_make_room_whatever_their_priority(self) -> None:
        mail.using(priority=9).enqueue(1, 0)
        mail.enqueue(2, 0)
        mail.using(priority=-9).enqueue(3, 0)
        assert waiting() == [2, 3]
        assert dropped() == {1: "QueueFull: newer runs took its place in queue 'mail'"}

    def test_many_at_once_drop_as_many_as_they_need(self) -> None:
        mail.enqueue(1, 0)
        mail.enqueue_many(calls(2, 3))
        assert (waiting(), list(dropped())) == ([2, 3], [1])
        with pytest.raises(QueueFull, match="3 runs at once never fit"):
            mail.enqueue_many(calls(4, 5, 6))
        assert (waiting(), list(dropped())) == ([2, 3], [1])

    def test_a_call_that_is_rolled_back_drops_nothing(self) -> None:
        mail.enqueue_many(calls(1, 2))
        with pytest.raises(RuntimeError), transaction.atomic():
            mail.enqueue(3, 0)
            assert waiting() == [2, 3]
            raise RuntimeError
        assert (waiting(), dropped()) == ([1, 2], {})

    def test_no_call_drops_more_than_it_brings(self) -> None:
        with override_settings(TASKQ={"QUEUES": ["mail"]}):
            mail.enqueue_many(calls(1, 2, 3, 4, 5))
        mail.enqueue(6, 0)
        assert (waiting(), list(dropped())) == ([2, 3, 4, 5, 6], [1])

    def test_nor_where_some_wait_at_gates(self) -> None:
        with override_settings(TASKQ={"QUEUES": ["mail"]}):
            results = mail.enqueue_many(calls(1, 2, 3, 4))
        at_gate = TaskRecord.objects.filter(pk__in=[result.id for result in results[:2]])
        at_gate.update(status=Status.WAITING, waits_at=AT_GATE)
        with bounded(2, "keep_newest", concurrency=1):
            mail.enqueue(5, 0)
        assert (waiting(), list(dropped())) == ([2, 3, 4, 5], [1])

    def test_async(self) -> None:
        for number in (1, 2, 3):
            async_to_sync(mail.aenqueue)(number, 0)
        assert waiting() == [2, 3]

    def test_those_at_a_gate_make_room_as_well(self) -> None:
        with bounded(2, "keep_newest", concurrency=1):
            first, second = mail.enqueue_many(calls(1, 2))
            TaskRecord.objects.filter(pk=first.id).update(status=Status.READY, waits_at=None)
            TaskRecord.objects.filter(pk=second.id).update(status=Status.WAITING, waits_at=AT_GATE)
            mail.enqueue_many(calls(3, 4))
        assert (waiting(), sorted(dropped())) == ([3, 4], [1, 2])

    def test_a_run_that_made_room_may_be_retried(self) -> None:
        mail.enqueue_many(calls(1, 2))
        mail.enqueue(3, 0)
        assert TaskRecord.objects.filter(status=Status.CANCELLED).retry() == 1
        assert waiting() == [1, 2, 3]


@pytest.mark.django_db
class TestDropLowest:
    pytestmark = pytest.mark.usefixtures("dropping")

    def test_what_would_start_last_makes_room(self) -> None:
        mail.enqueue(1, 0)
        mail.enqueue(2, 0)
        mail.using(priority=5).enqueue(3, 0)
        assert waiting() == [1, 3]
        assert dropped() == {2: "QueueFull: runs of a higher priority took its place in queue 'mail'"}

    def test_a_call_of_the_lowest_priority_is_refused(self) -> None:
        mail.enqueue_many(calls(1, 2))
        for priority in (0, -1):
            with pytest.raises(QueueFull, match="too little of a lower priority waits there"):
                mail.using(priority=priority).enqueue(3, 0)
        assert (waiting(), dropped()) == ([1, 2], {})

    def test_many_at_once_are_all_or_none(self) -> None:
        mail.enqueue(1, 0)
        mail.using(priority=5).enqueue(2, 0)
        with pytest.raises(QueueFull):
            mail.using(priority=5).enqueue_many(calls(3, 4))
        assert (waiting(), dropped()) == ([1, 2], {})
        mail.using(priority=6).enqueue_many(calls(5, 6))
        assert (waiting(), sorted(dropped())) == ([5, 6], [1, 2])

    def test_those_at_a_gate_make_room_by_the_same_order(self) -> None:
        with bounded(2, "drop_lowest", concurrency=1):
            low, lowest = mail.enqueue(1, 0), mail.using(priority=-1).enqueue(2, 0)
            TaskRecord.objects.filter(pk=low.id).update(status=Status.READY, waits_at=None)
            TaskRecord.objects.filter(pk=lowest.id).update(status=Status.WAITING, waits_at=AT_GATE)
            mail.using(priority=1).enqueue(3, 0)
        assert (waiting(), list(dropped())) == ([1, 3], [2])

    def test_a_refusal_leaves_the_caller_s_transaction_as_it_was(self) -> None:
        with transaction.atomic():
            mail.enqueue_many(calls(1, 2))
            with pytest.raises(QueueFull):
                mail.enqueue(3, 0)
            mail.using(priority=1).enqueue(4, 0)
        assert waiting() == [1, 4]


@pytest.mark.django_db
class TestUniqueRuns:
    """A call that adds no run needs no room, and a refused one leaves the key to the next."""

    @pytest.fixture(autouse=True)
    def own_registry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))

    @pytest.mark.parametrize("when_full", ["refuse", "keep_newest"])
    def test_a_duplicate_joins_the_first_although_the_queue_is_full(self, when_full: str) -> None:
        once = make_task(lambda number: None, name="once", queue_name="mail", unique=True)
        with bounded(1, when_full):
            first = once.enqueue(1)
            assert once.enqueue(1).id == first.id
        assert (waiting(), dropped()) == ([1], {})

    def test_what_was_refused_may_be_called_again(self) -> None:
        once = make_task(lambda number: None, name="once", queue_name="mail", unique=True)
        with bounded(1):
            mail.enqueue(1, 0)
            with pytest.raises(QueueFull):
                once.enqueue(2)
            get_broker().claim("mail", 1, 7, 1)
            again = once.enqueue(2)
        assert TaskRecord.objects.get(status=Status.READY).pk == UUID(again.id)


class NothingFits:
    def make_room(self, messages: Sequence[Message]) -> None:
        raise QueueFull("somebody was faster")


@pytest.mark.django_db
class TestSchedules:
    def test_a_due_time_that_does_not_fit_is_on_record_and_the_others_run(self) -> None:
        with bounded(2):
            rows = [
                PeriodicTask.objects.create(
                    name=f"p{number}",
                    task_name=add.name,
                    schedule="every minute",
                    queue_name=queue,
                    payload="[[1,2],{}]",
                )
                for number, queue in enumerate(("mail", "mail", "mail", "default"))
            ]
            PeriodicTask.objects.update(
                next_due_at=timezone.now() - timedelta(seconds=1), next_start_at=timezone.now() - timedelta(seconds=1)
            )
            assert scheduler.run_due() == 4
        decided = [ScheduleTick.objects.get(periodic_task=row) for row in rows]
        assert [tick.decision for tick in decided].count(Decision.REFUSED) == 1
        assert next(tick.reason for tick in decided if tick.decision == Decision.REFUSED).startswith("QueueFull: ")
        assert TaskRecord.objects.filter(queue_name="mail").count() == 2
        assert TaskRecord.objects.filter(queue_name="default").count() == 1

    def test_whoever_takes_the_last_room_meanwhile_holds_up_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        PeriodicTask.objects.create(name="p", task_name=add.name, schedule="every minute", payload="[[1,2],{}]")
        PeriodicTask.objects.update(next_due_at=timezone.now(), next_start_at=timezone.now() - timedelta(seconds=1))
        monkeypatch.setattr(client, "back_pressure", NothingFits())
        assert scheduler.run_due() == 1
        assert TaskRecord.objects.count() == 1


@pytest.mark.django_db(transaction=True)
class TestOnRedis:
    """Runs with a row are counted by their rows, wherever their messages are; those without by the messages."""

    @pytest.fixture
    def on_redis(self, redis_server: RedisServer) -> Iterator[Callable[..., Any]]:
        prefix = f"bp{uuid4().hex[:8]}"

        def bounded_there(when_full: str = "refuse") -> Any:
            mail = {"max_length": 2, "when_full": when_full}
            brokers = {"default": {"URL": redis_server.url, "PREFIX": prefix}}
            return override_settings(TASKQ={"BROKERS": brokers, "QUEUES": {"mail": mail}})

        with bounded_there():
            yield bounded_there
            get_broker().purge("mail")

    def test_refuse(self, on_redis: Callable[..., Any]) -> None:
        mail.enqueue_many(calls(1, 2))
        with pytest.raises(QueueFull):
            mail.enqueue(3, 0)
        with transaction.atomic(), pytest.raises(QueueFull):
            mail.enqueue(4, 0)
        assert (waiting(), get_broker().size("mail")) == ([1, 2], 2)

    def test_what_made_room_is_not_handed_out(self, on_redis: Callable[..., Any]) -> None:
        with on_redis("keep_newest"):
            for number in (1, 2, 3):
                mail.enqueue(number, 0)
            deliveries = get_broker().claim("mail", 10, 7, 1)
        assert [delivery.payload for delivery in deliveries] == ["[[2,0],{}]", "[[3,0],{}]"]

    def test_messages_of_what_made_room_do_not_count(self, on_redis: Callable[..., Any]) -> None:
        with on_redis("keep_newest"):
            for number in range(6):
                mail.enqueue(number, 0)
            assert (waiting(), get_broker().size("mail")) == ([4, 5], 6)

    def test_drop_lowest(self, on_redis: Callable[..., Any]) -> None:
        with on_redis("drop_lowest"):
            mail.enqueue_many(calls(1, 2))
            mail.using(priority=1).enqueue(3, 0)
            with pytest.raises(QueueFull):
                mail.enqueue(4, 0)
        assert (waiting(), list(dropped())) == ([1, 3], [2])

    @pytest.mark.parametrize("when_full", ["refuse", "keep_newest", "drop_lowest"])
    def test_runs_without_a_row_are_refused_whatever_the_policy(
        self, on_redis: Callable[..., Any], when_full: str
    ) -> None:
        untracked = note_untracked.using(queue_name="mail")
        with on_redis(when_full):
            untracked.enqueue("path", "first")
            untracked.enqueue("path", "second")
            with pytest.raises(QueueFull):
                untracked.using(priority=5).enqueue("path", "third")
            with pytest.raises(QueueFull):
                untracked.enqueue_many([(("path", "third"), {})])
            assert (get_broker().size("mail"), TaskRecord.objects.count()) == (2, 0)

    def test_inside_a_transaction_they_have_a_row_and_are_counted_by_it(self, on_redis: Callable[..., Any]) -> None:
        untracked = note_untracked.using(queue_name="mail")
        with on_redis("keep_newest"), transaction.atomic():
            for key in ("first", "second", "third"):
                untracked.enqueue("path", key)
            ready = TaskRecord.objects.filter(status=Status.READY)
            assert [row.args[1] for row in ready.order_by("pk")] == ["second", "third"]


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_down_fails_the_call_as_it_does_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    depot = LetteredDepot()
    depot.go_down()
    monkeypatch.setattr(brokers, "make_depot", lambda config: depot)
    mail = {"max_length": 2}
    untracked = note_untracked.using(queue_name="mail")
    with (
        override_settings(TASKQ={"BROKER_URL": "memory://", "QUEUES": {"mail": mail}}),
        pytest.raises(BrokerUnavailable),
    ):
        untracked.enqueue("path", "key")
    kept = {"BROKER_URL": "memory://", "QUEUES": {"mail": mail}, "ENQUEUE_FALLBACK": "outbox"}
    with override_settings(TASKQ=kept):
        untracked.enqueue("path", "key")
    assert TaskRecord.objects.filter(status=Status.READY).count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite alone refuses to write after others have")
@pytest.mark.parametrize("when_full", ["refuse", "keep_newest"])
def test_a_transaction_on_sqlite_begins_with_a_write(when_full: str) -> None:
    with bounded(1, when_full), CaptureQueriesContext(connection) as captured, transaction.atomic():
        mail.enqueue(1, 0)
    statements = [query["sql"] for query in captured if not query["sql"].startswith("BEGIN")]
    assert statements[0].startswith("UPDATE")


@pytest.mark.django_db(transaction=True)
def test_one_call_for_several_full_queues_drops_nothing_where_one_refuses() -> None:
    queues = {"mail": {"max_length": 1, "when_full": "keep_newest"}, "other": {"max_length": 1}}
    with override_settings(TASKQ={"QUEUES": queues}):
        mail.enqueue(1, 0)
        add.using(queue_name="other").enqueue(2, 0)
        with pytest.raises(QueueFull, match="queue 'other'"):
            client.enqueue([*mail.messages(calls(3)), *add.using(queue_name="other").messages(calls(4))])
    assert (waiting(), dropped()) == ([1, 2], {})


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("when_full", ["refuse", "keep_newest", "drop_lowest"])
def test_callers_at_the_same_moment_pass_the_bound_by_no_more_than_there_are_of_them(when_full: str) -> None:
    most, callers, each = 20, 4, 15
    barrier = threading.Barrier(callers)
    errors: list[BaseException] = []

    def call(caller: int) -> None:
        try:
            barrier.wait(20)
            for number in range(each):
                try:
                    mail.using(priority=number).enqueue(caller, number)
                except QueueFull:
                    assert when_full != "keep_newest"
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    with bounded(most, when_full):
        threads = [threading.Thread(target=call, args=(caller,)) for caller in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert errors == []
    left = TaskRecord.objects.filter(status=Status.READY).count()
    assert most <= left <= most + callers - 1
