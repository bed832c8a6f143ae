"""Rows and a depot together: what each does when the other, or the process between them, fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test import override_settings
from django.utils import timezone

from django_taskq import charging, maintenance, testing
from django_taskq.brokers import intake, outbox
from django_taskq.brokers.database import DatabaseBroker
from django_taskq.brokers.mixed import MixedBroker
from django_taskq.exceptions import BrokerUnavailable, EnqueueUncertain, MessageRefused
from django_taskq.maintenance import Death
from django_taskq.message import Action, Message, Tracking
from django_taskq.models import TaskAttempt, TaskRecord, Worker, WorkerProcess
from django_taskq.status import Status
from tests.conformance.bed import QUEUE, Bed, ids
from tests.conformance.conftest import mixed_bed
from tests.conformance.memory_depot import MemoryDepot
from tests.unit.making import make_message

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def depot() -> MemoryDepot:
    return MemoryDepot()


@pytest.fixture
def mixed(depot: MemoryDepot, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    broker = MixedBroker(DatabaseBroker("default"), {"default": depot}, lambda name: "default")
    monkeypatch.setattr(maintenance, "get_broker", lambda: broker)
    # One failure must not silence the depot for the rest of a test.
    monkeypatch.setattr(outbox, "REST", 0.0)
    with override_settings(TASKQ={"BROKER_URL": "memory://"}):
        yield mixed_bed(broker)


def row(message: Message) -> TaskRecord:
    return TaskRecord.objects.get(pk=message.id)


@contextmanager
def losing_the_answer(broker: DatabaseBroker) -> Iterator[None]:
    """A transaction that commits, and whose connection breaks before it can say so."""
    with transaction.atomic(using=broker.using):
        yield
    raise OperationalError("server closed the connection unexpectedly")


def process() -> WorkerProcess:
    """A worker process that lives, as far as the registry goes."""
    worker = Worker.objects.create(
        hostname="elsewhere",
        boot_id="x",
        pid_namespace="x",
        pid=1,
        pid_started=1,
        table_path="/nowhere",
        processes=1,
        threads=1,
        version="0",
        lease_expires_at=timezone.now(),
    )
    return WorkerProcess.objects.create(worker=worker)


class TestPublishing:
    def test_a_depot_that_took_nothing_leaves_nothing(self, mixed: Bed, depot: MemoryDepot) -> None:
        depot.fail = {"publish"}
        message = make_message()
        with pytest.raises(BrokerUnavailable, match="Nothing will run"):
            mixed.broker.enqueue([message])
        assert (row(message).status, row(message).publish_after) == (Status.CANCELLED, None)
        depot.fail = set()
        mixed.promote()
        assert mixed.take() == []

    def test_what_may_have_been_taken_stays_and_runs_once(self, mixed: Bed, depot: MemoryDepot) -> None:
        depot.fail, depot.fails_late = {"publish"}, True
        message = make_message()
        with pytest.raises(EnqueueUncertain, match=message.id) as caught:
            mixed.broker.enqueue([message])
        assert caught.value.ids == (message.id,)
        depot.fail = set()
        TaskRecord.objects.update(publish_after=timezone.now())
        mixed.promote()
        assert mixed.take_ids() == [message.id]

    @override_settings(TASKQ={"BROKER_URL": "memory://", "ENQUEUE_FALLBACK": "outbox"})
    @pytest.mark.parametrize("tracking", Tracking)
    def test_the_outbox_keeps_it_where_the_project_wants_that(
        self, mixed: Bed, depot: MemoryDepot, tracking: Tracking
    ) -> None:
        with override_settings(TASKQ={"BROKER_URL": "memory://", "ENQUEUE_FALLBACK": "outbox"}):
            depot.fail = {"publish"}
            message = make_message(tracking=tracking)
            mixed.broker.enqueue([message])
            depot.fail = set()
            TaskRecord.objects.update(publish_after=timezone.now())
            mixed.promote()
            assert mixed.take_ids() == [message.id]

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite knows no locks on rows")
    def test_noting_what_was_published_waits_for_nobody_who_claims_it(self, mixed: Bed, depot: MemoryDepot) -> None:
        depot.fail = {"publish"}
        with transaction.atomic():
            first, second = mixed.put(2)
        depot.fail = set()
        TaskRecord.objects.update(publish_after=timezone.now())
        is_locked, may_end = threading.Event(), threading.Event()

        def claim_slowly() -> None:
            with transaction.atomic():
                TaskRecord.objects.select_for_update().get(pk=second.id)
                is_locked.set()
                may_end.wait(10)
            connection.close()

        claimant, publish = threading.Thread(target=claim_slowly), depot.publish

        def be_taken_at_once(messages: Sequence[Message]) -> None:
            publish(messages)
            claimant.start()
            assert is_locked.wait(10)

        depot.publish = be_taken_at_once  # type: ignore[method-assign]
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '2s'")
        try:
            assert mixed.broker.relay() == 2
        finally:
            may_end.set()
            claimant.join()
            connection.close()  # and with it the timeout
        assert row(first).publish_after is None
        assert row(second).publish_after is not None, "whoever claims it clears the column with the claim"
        assert second.id in mixed.take_ids()
        assert row(second).publish_after is None

    @pytest.mark.parametrize("tracking", Tracking)
    def test_nothing_leaves_before_the_commit(self, mixed: Bed, depot: MemoryDepot, tracking: Tracking) -> None:
        with transaction.atomic():
            message = make_message(tracking=tracking)
            mixed.broker.enqueue([message])
            assert depot.kept == {}
        assert mixed.take_ids() == [message.id]
        assert row(message).status == Status.RUNNING

    @pytest.mark.parametrize("tracking", Tracking)
    def test_nothing_leaves_after_a_rollback(self, mixed: Bed, depot: MemoryDepot, tracking: Tracking) -> None:
        with suppress(ZeroDivisionError), transaction.atomic():
            mixed.put(3, tracking=tracking)
            raise ZeroDivisionError
        assert (depot.kept, TaskRecord.objects.count()) == ({}, 0)

    def test_a_depot_that_is_down_at_the_commit_gets_it_later(self, mixed: Bed, depot: MemoryDepot) -> None:
        depot.fail = {"publish"}
        with transaction.atomic():
            mixed.put(3)
        assert mixed.broker.relay() == 0
        depot.fail = set()
        TaskRecord.objects.update(publish_after=timezone.now())
        assert mixed.broker.relay() == 3
        assert len(mixed.take()) == 3

    def test_what_a_dead_process_left_is_published_once_its_time_has_passed(
        self, mixed: Bed, depot: MemoryDepot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(depot, "publish", lambda messages: None)  # it dies here, after its commit
        (message,) = mixed.put()
        monkeypatch.undo()
        with testing.clock() as clock:
            assert mixed.broker.relay() == 0
            clock._set(clock.now + timedelta(seconds=outbox.GRACE + 1))
            assert mixed.broker.relay() == 1
            assert mixed.broker.relay() == 0
        assert mixed.take_ids() == [message.id]

    def test_published_runs_are_noted_in_batches(self, mixed: Bed) -> None:
        for _ in range(outbox.NOTED_AT_ONCE):
            mixed.put()
        assert TaskRecord.objects.filter(publish_after__isnull=False).count() == 0

    def test_supervisors_that_relay_at_once_share_the_work(self, mixed: Bed, depot: MemoryDepot) -> None:
        depot.fail = {"publish"}
        with transaction.atomic():
            mixed.put(30)
        depot.fail = set()
        TaskRecord.objects.update(publish_after=timezone.now())
        assert sum(mixed.broker.relay() for _ in range(3)) == 30


class TestTickets:
    """A message is good once."""

    def test_a_second_message_of_a_run_that_is_over_is_dropped(self, mixed: Bed, depot: MemoryDepot) -> None:
        (message,) = mixed.put()
        mixed.settle(Action.SUCCESS, *mixed.take())
        depot.publish([message])
        assert mixed.take() == []
        assert depot.kept == {}

    def test_a_second_message_of_a_run_that_runs_is_dropped(self, mixed: Bed, depot: MemoryDepot) -> None:
        (message,) = mixed.put()
        (delivery,) = mixed.take(process=1)
        depot.publish([message])
        assert mixed.take(process=2) == []
        assert mixed.settle(Action.SUCCESS, delivery, process=1) == []

    def test_a_run_cancelled_while_it_waits_is_not_handed_out(self, mixed: Bed, depot: MemoryDepot) -> None:
        mixed.put()
        TaskRecord.objects.all().cancel()
        assert mixed.take() == []
        assert depot.kept == {}

    def test_a_run_that_was_deleted_is_not_handed_out(self, mixed: Bed) -> None:
        mixed.put()
        TaskRecord.objects.all().delete()
        assert mixed.take() == []

    def test_a_cancelled_backlog_is_passed_over(
        self, mixed: Bed, depot: MemoryDepot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(intake, "STALE_FOR", 60.0)
        mixed.put(50, priority=1)
        TaskRecord.objects.all().cancel()
        (good,) = mixed.put()
        assert mixed.take_ids(1, first=1) == [good.id]
        assert set(depot.kept) == set()

    def test_passing_over_takes_no_longer_than_it_may(self, mixed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(intake, "STALE_FOR", 0.0)
        mixed.put(5, priority=1)
        TaskRecord.objects.all().cancel()
        (good,) = mixed.put(tracking=Tracking.FAILURE)
        for number in range(1, 6):
            assert mixed.take(1, first=number) == []
            assert mixed.broker.is_behind
        assert mixed.take_ids(1, first=6) == [good.id]
        assert not mixed.broker.is_behind

    def test_who_has_just_published_is_not_idle(self, mixed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody may have taken it yet, and a worker that is to end when all is done would end too early."""
        mixed.put()
        (run,) = mixed.take()
        assert not mixed.broker.is_behind
        mixed.settle(Action.RETRY, run)
        assert mixed.broker.is_behind
        now = time.monotonic()
        monkeypatch.setattr("django_taskq.brokers.mixed.time.monotonic", lambda: now + 1)
        assert not mixed.broker.is_behind

    def test_the_row_knows_the_attempt(self, mixed: Bed) -> None:
        mixed.put()
        mixed.settle(Action.RETRY, *mixed.take(), delay=0.0)
        mixed.promote()
        (delivery,) = mixed.take()
        assert delivery.attempt == 2

    def test_a_claim_that_did_not_commit_gives_the_message_back(self, mixed: Bed, depot: MemoryDepot) -> None:
        (message,) = mixed.put()
        with suppress(ZeroDivisionError), mixed.broker.transaction():
            assert mixed.take(first=1)
            raise ZeroDivisionError
        assert depot.held(1)
        # What a courier does about numbers it cannot be sure of.
        mixed.broker.release(1, range(1, 101))
        assert mixed.take_ids(first=101) == [message.id]

    def test_a_claim_the_database_refused_gives_the_message_back(
        self, mixed: Bed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (message,) = mixed.put()

        def refuse(*args: Any) -> Any:
            raise OperationalError("the server has gone away")

        with monkeypatch.context() as patch:
            patch.setattr(mixed.broker.rows.dialect, "claim_known", refuse)
            with pytest.raises(OperationalError):
                mixed.take(first=1)
        mixed.broker.release(1, range(1, 101))
        assert mixed.take_ids(first=101) == [message.id]


class TestWithoutRows:
    """``track_pending=False``."""

    def test_a_success_nobody_asks_for_leaves_nothing(self, mixed: Bed, depot: MemoryDepot) -> None:
        mixed.put(3, tracking=Tracking.FAILURE)
        mixed.settle(Action.SUCCESS, *mixed.take())
        assert (TaskRecord.objects.count(), depot.kept) == (0, {})

    def test_a_success_leaves_its_result(self, mixed: Bed, depot: MemoryDepot) -> None:
        (message,) = mixed.put(tracking=Tracking.END, priority=7, headers='{"language":"de"}')
        mixed.settle(Action.SUCCESS, *mixed.take(), result="42", started_at=1.0, finished_at=2.0)
        found = row(message)
        assert (found.status, found.result, found.priority) == (Status.SUCCESSFUL, "42", 7)
        assert (found.payload, found.headers) == (message.payload, message.headers)
        assert found.enqueued_at == message.enqueued_at
        assert depot.kept == {}

    @pytest.mark.parametrize("tracking", [Tracking.END, Tracking.FAILURE])
    def test_a_failure_leaves_its_error(self, mixed: Bed, tracking: Tracking) -> None:
        (message,) = mixed.put(tracking=tracking)
        mixed.settle(Action.FAILED, *mixed.take(), started_at=1.0, finished_at=2.0)
        assert row(message).status == Status.FAILED
        assert TaskAttempt.objects.get().task_id == row(message).pk

    def test_a_retry_has_a_row_from_then_on(self, mixed: Bed) -> None:
        (message,) = mixed.put(tracking=Tracking.FAILURE)
        mixed.settle(Action.RETRY, *mixed.take(), delay=0.0)
        (delivery,) = mixed.take()
        assert (delivery.id, delivery.attempt) == (message.id, 2)
        mixed.settle(Action.SUCCESS, delivery)
        assert row(message).status == Status.SUCCESSFUL

    def test_what_lasts_is_shown_and_needs_its_message_no_more(self, mixed: Bed, depot: MemoryDepot) -> None:
        (message,) = mixed.put(tracking=Tracking.FAILURE)
        (delivery,) = mixed.take()
        assert mixed.broker.mark_started(1, delivery, 1_700_000_000.0)
        assert (row(message).status, depot.kept) == (Status.RUNNING, {})
        mixed.settle(Action.SUCCESS, delivery)
        assert row(message).status == Status.SUCCESSFUL

    @pytest.mark.parametrize("action", [Action.SUCCESS, Action.RELEASED])
    def test_a_row_that_may_have_been_made_does_not_stay_behind(
        self, mixed: Bed, depot: MemoryDepot, monkeypatch: pytest.MonkeyPatch, action: Action
    ) -> None:
        """The commit of its start got through, and the answer to it did not."""
        (message,) = mixed.put(tracking=Tracking.FAILURE)
        (delivery,) = mixed.take()
        with monkeypatch.context() as patched:
            patched.setattr(DatabaseBroker, "transaction", losing_the_answer)
            with pytest.raises(OperationalError):
                mixed.broker.mark_started(1, delivery, 1_700_000_000.0)
        assert row(message).status == Status.RUNNING
        assert mixed.settle(action, delivery) == []
        if action is Action.RELEASED:
            assert row(message).status == Status.READY
            assert mixed.take_ids() == [message.id]
        else:
            assert (row(message).status, depot.kept) == (Status.SUCCESSFUL, {})

    def test_given_back_it_is_as_before(self, mixed: Bed) -> None:
        (message,) = mixed.put(tracking=Tracking.FAILURE)
        (delivery,) = mixed.take()
        mixed.settle(Action.RELEASED, delivery)
        assert TaskRecord.objects.count() == 0
        (delivery,) = mixed.take()
        assert mixed.broker.release(1, [delivery.claim]) == 1
        assert mixed.take_ids() == [message.id]

    def test_refused_it_has_a_row_that_says_why(self, mixed: Bed, depot: MemoryDepot) -> None:
        (message,) = mixed.put(tracking=Tracking.FAILURE)
        (delivery,) = mixed.take()
        assert mixed.broker.reject(1, delivery.claim, "broken")
        assert (row(message).status, row(message).reason, depot.kept) == (Status.FAILED, "broken", {})

    def test_what_did_not_commit_is_settled_again(self, mixed: Bed, depot: MemoryDepot) -> None:
        mixed.put(tracking=Tracking.FAILURE)
        (delivery,) = mixed.take()
        with suppress(ZeroDivisionError), mixed.broker.transaction():
            mixed.settle(Action.FAILED, delivery)
            raise ZeroDivisionError
        assert depot.held(1)
        assert mixed.settle(Action.FAILED, delivery) == []
        assert (TaskRecord.objects.get().status, depot.kept) == (Status.FAILED, {})

    def test_a_later_call_has_a_row(self, mixed: Bed) -> None:
        (message,) = mixed.put(tracking=Tracking.FAILURE, run_after=timezone.now() + timedelta(hours=1))
        assert row(message).status == Status.SCHEDULED


class TestDeaths:
    def test_the_started_are_charged_and_the_others_given_back(self, mixed: Bed, depot: MemoryDepot) -> None:
        dead = process().pk
        messages = [*mixed.put(2), *mixed.put(2, tracking=Tracking.FAILURE)]
        claims = {delivery.id: delivery.claim for delivery in mixed.take(process=dead)}
        started = [messages[0].id, messages[2].id]
        maintenance.settle_death(Death(dead, "it died", [claims[id] for id in started]))
        mixed.promote()
        again = {delivery.id: delivery for delivery in mixed.take(process=2)}
        assert set(again) == {message.id for message in messages}
        assert {id: run.crashes for id, run in again.items() if run.crashes} == dict.fromkeys(started, 1)
        assert not any(run.is_suspect for run in again.values())

    def test_where_nobody_knows_all_are_suspect(self, mixed: Bed) -> None:
        dead = process().pk
        mixed.put(2)
        mixed.put(2, tracking=Tracking.FAILURE)
        mixed.take(process=dead)
        maintenance.settle_death(Death(dead, "its host died", None))
        mixed.promote()
        assert [delivery.is_suspect for delivery in mixed.take(process=2)] == [True] * 4

    def test_a_depot_that_was_down_then_is_swept_later(self, mixed: Bed, depot: MemoryDepot) -> None:
        dead, living = process(), process()
        mixed.put(2, tracking=Tracking.FAILURE)
        mixed.take(1, process=dead.pk)
        mixed.take(1, process=living.pk)
        depot.fail = {"held", "rescue"}
        maintenance.settle_death(Death(dead.pk, "it died", None))
        depot.fail = set()
        assert mixed.broker.sweep(lease=1000) == 0  # it may just be slow
        assert mixed.broker.sweep(lease=0) == 1
        assert len(mixed.take(process=living.pk)) == 1

    def test_a_run_that_kills_its_process_each_time_is_ended(self, mixed: Bed) -> None:
        (message,) = mixed.put(tracking=Tracking.FAILURE)
        for _ in range(charging.MAX_CRASHES):
            dead = process().pk
            (delivery,) = mixed.take(process=dead)
            maintenance.settle_death(Death(dead, "it died", [delivery.claim]))
            mixed.promote()
        assert (row(message).status, mixed.take()) == (Status.FAILED, [])


class TestFaults:
    def test_work_goes_on_while_the_depot_is_down(self, mixed: Bed, depot: MemoryDepot) -> None:
        mixed.put()
        (delivery,) = mixed.take()
        depot.fail = {"take", "drop", "give_back", "queues_with_work"}
        assert mixed.broker.queues_with_work([QUEUE]) == []
        assert mixed.take() == []
        assert mixed.settle(Action.SUCCESS, delivery) == []

    def test_what_could_not_be_given_back_is_before_nothing_is_taken_for_long(
        self, mixed: Bed, depot: MemoryDepot
    ) -> None:
        mixed.put(tracking=Tracking.FAILURE)
        (delivery,) = mixed.take()
        depot.fail = {"give_back"}
        mixed.broker.release(1, [delivery.claim])
        assert depot.held(1)
        depot.fail = set()
        mixed.broker.pause()
        assert not depot.held(1)

    def test_an_outage_is_said_once_and_so_is_its_end(
        self, mixed: Bed, depot: MemoryDepot, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "django_taskq")
        depot.fail = {"take"}
        for _ in range(3):
            mixed.take()
        depot.fail = set()
        for _ in range(3):
            mixed.take()
        said = [record.getMessage() for record in caplog.records]
        assert said == [
            "broker 'default' failed, trying again: the depot was told to fail",
            "broker 'default' is back",
        ]

    def test_what_could_not_be_dropped_is_dropped_later(self, mixed: Bed, depot: MemoryDepot) -> None:
        mixed.put(tracking=Tracking.FAILURE)
        (delivery,) = mixed.take()
        depot.fail = {"drop"}
        mixed.settle(Action.SUCCESS, delivery)
        assert depot.held(1)
        depot.fail = set()
        assert mixed.take() == []
        assert depot.kept == {}

    def test_what_was_taken_without_an_answer_is_taken_again(self, mixed: Bed, depot: MemoryDepot) -> None:
        (message,) = mixed.put()
        depot.fail, depot.fails_late = {"take"}, True
        assert mixed.take() == []
        assert depot.held(1)
        depot.fail = set()
        assert mixed.take_ids() == [message.id]

    def test_a_take_without_an_answer_is_work_of_which_only_its_process_knows(
        self, mixed: Bed, depot: MemoryDepot
    ) -> None:
        (message,) = mixed.put()
        depot.fail, depot.fails_late = {"take"}, True
        assert mixed.take() == []
        depot.fail = set()
        assert depot.queues_with_work([QUEUE]) == []
        assert mixed.broker.queues_with_work([QUEUE]) == [QUEUE]
        assert mixed.take_ids() == [message.id]
        assert mixed.broker.queues_with_work([QUEUE]) == []

    def test_a_process_that_ends_drops_what_is_over(
        self, mixed: Bed, depot: MemoryDepot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outbox, "REST", 60.0)
        mixed.put(tracking=Tracking.FAILURE)
        (delivery,) = mixed.take()
        depot.fail = {"drop"}
        mixed.settle(Action.SUCCESS, delivery)
        depot.fail = set()
        assert depot.held(1)
        mixed.broker.close()
        assert depot.kept == {}

    def test_what_the_depot_lost_is_published_again(self, mixed: Bed, depot: MemoryDepot) -> None:
        messages = mixed.put(5)
        TaskRecord.objects.update(publish_after=None)
        depot.kept.clear()
        assert mixed.broker.find_lost([QUEUE]) == 0  # one look may have met a worker between two steps
        assert mixed.broker.find_lost([QUEUE]) == 5
        mixed.promote()
        assert mixed.take_ids() == ids(messages)

    def test_what_is_only_slow_is_not_taken_for_lost(self, mixed: Bed) -> None:
        mixed.put(2)
        TaskRecord.objects.update(publish_after=None)
        assert [mixed.broker.find_lost([QUEUE]) for _ in range(3)] == [0, 0, 0]


class TestSeveralBrokers:
    @pytest.fixture
    def mixed(self) -> Iterator[Bed]:
        settings = {"BROKERS": {"other": {"URL": "memory://"}}, "QUEUES": {"mail": {"broker": "other"}}}
        with override_settings(TASKQ=settings):
            aliases = {"mail": "other"}
            depots = {"other": MemoryDepot()}
            rows = DatabaseBroker("default")
            yield mixed_bed(MixedBroker(rows, depots, lambda name: aliases.get(name, "default")))

    def test_each_queue_is_served_where_it_is_kept(self, mixed: Bed) -> None:
        here, there = make_message(), make_message(queue_name="mail")
        mixed.broker.enqueue([here, there])
        assert mixed.broker.queues_with_work(["mail", "default"]) == ["mail", "default"]
        assert (mixed.broker.size("default"), mixed.broker.size("mail")) == (1, 1)
        taken = [*mixed.take(first=1), *mixed.take(queue="mail", first=101)]
        assert ids(taken) == [here.id, there.id]
        assert mixed.settle(Action.SUCCESS, *taken) == []
        assert TaskRecord.objects.filter(status=Status.SUCCESSFUL).count() == 2

    def test_only_runs_for_depots_go_through_the_outbox(self, mixed: Bed) -> None:
        mixed.broker.enqueue([make_message(), make_message(queue_name="mail")])
        waiting = TaskRecord.objects.filter(publish_after__isnull=False)
        assert [record.queue_name for record in waiting] == ["mail"]

    def test_a_retry_goes_back_to_its_own_broker(self, mixed: Bed) -> None:
        mixed.broker.enqueue([make_message(), make_message(queue_name="mail")])
        taken = [*mixed.take(first=1), *mixed.take(queue="mail", first=101)]
        mixed.settle(Action.RETRY, *taken, delay=0.0)
        assert len(mixed.take(first=201)) == 1
        assert len(mixed.take(queue="mail", first=301)) == 1


def test_a_message_may_come_from_an_exchange(mixed: Bed, depot: MemoryDepot) -> None:
    """Each copy is a run of its own, with a row from its claim on; the same copy twice is one run."""
    parent = make_message()
    copy = replace(make_message(), tracking=Tracking.START, parent_id=parent.id)
    depot.publish([copy])
    (delivery,) = mixed.take()
    assert str(row(copy).parent_id) == parent.id
    depot.publish([copy])
    assert mixed.take() == []
    mixed.settle(Action.SUCCESS, delivery)
    assert row(copy).status == Status.SUCCESSFUL


class TestExchanges:
    """A message to an exchange has a row while it waits to leave, and none once it has left."""

    @pytest.fixture(autouse=True)
    def settings(self, mixed: Bed) -> Iterator[None]:
        exchanges = {"events": {"type": "fanout"}}
        with override_settings(TASKQ={"BROKER_URL": "memory://", "EXCHANGES": exchanges}):
            yield

    def put(self, mixed: Bed, **changes: Any) -> Message:
        headers = '{"routing_key":"a.b"}'
        (message,) = mixed.put(
            queue_name="exchange:events", exchange="events", routing_key="a.b", headers=headers, **changes
        )
        return message

    def test_outside_of_transactions_it_just_leaves(self, mixed: Bed, depot: MemoryDepot) -> None:
        message = self.put(mixed)
        assert (set(depot.kept), TaskRecord.objects.count()) == ({message.id}, 0)

    def test_inside_it_leaves_with_the_commit(self, mixed: Bed, depot: MemoryDepot) -> None:
        with transaction.atomic():
            message = self.put(mixed)
            assert (depot.kept, TaskRecord.objects.count()) == ({}, 1)
        assert (set(depot.kept), TaskRecord.objects.count()) == ({message.id}, 0)

    def test_what_waited_keeps_its_address(self, mixed: Bed, depot: MemoryDepot) -> None:
        depot.fail = {"publish"}
        with transaction.atomic():
            message = self.put(mixed)
        depot.fail = set()
        TaskRecord.objects.update(publish_after=timezone.now())
        assert mixed.broker.relay() == 1
        found = depot.kept[message.id].message
        assert (found.exchange, found.routing_key, TaskRecord.objects.count()) == ("events", "a.b", 0)

    def test_it_may_be_for_later(self, mixed: Bed, depot: MemoryDepot) -> None:
        message = self.put(mixed, run_after=timezone.now() + timedelta(hours=1))
        assert depot.kept == {}
        TaskRecord.objects.update(run_after=timezone.now())
        mixed.promote()
        assert (set(depot.kept), TaskRecord.objects.count()) == ({message.id}, 0)

    def test_an_exchange_that_is_gone_is_said_and_nothing_deleted(self, mixed: Bed, depot: MemoryDepot) -> None:
        depot.fail = {"publish"}
        with transaction.atomic():
            message = self.put(mixed)
        TaskRecord.objects.update(publish_after=timezone.now())
        broker = MixedBroker(mixed.broker.rows, {"default": depot}, lambda name: "gone")
        broker.relay()
        assert row(message).status == Status.FAILED
        assert "UnknownExchange" in row(message).reason

    def test_one_that_no_server_takes_does_not_hold_up_the_others(
        self, mixed: Bed, depot: MemoryDepot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish = depot.publish

        def refuse(messages: Sequence[Message]) -> None:
            if any(message.priority == 13 for message in messages):
                raise MessageRefused("no queue is bound")
            publish(messages)

        monkeypatch.setattr(depot, "publish", refuse)
        with transaction.atomic():
            bad = self.put(mixed, priority=13)
            good = mixed.put(3)
        TaskRecord.objects.update(publish_after=timezone.now())
        assert mixed.broker.relay() == 3
        assert set(depot.kept) == set(ids(good))
        assert (row(bad).status, row(bad).reason) == (Status.FAILED, "MessageRefused: no queue is bound")
        with pytest.raises(BrokerUnavailable, match=r"no queue is bound\. Nothing will run\.$"):
            self.put(mixed, priority=13)
