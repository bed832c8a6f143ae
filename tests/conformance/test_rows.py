"""What the database broker's verbs leave in the rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.utils import timezone

from django_taskq.message import Action, ErrorText
from django_taskq.models import TaskAttempt, TaskRecord
from django_taskq.models.task import AttemptKind
from django_taskq.status import Status
from tests.conformance.bed import Bed
from tests.unit.making import ago, make_outcome

DISK = ErrorText("builtins.OSError", "disk full", "Traceback: disk full")
GIVEN_BACK: dict[str, Any] = {"worker_id": None, "claim": None, "started_at": None, "finished_at": None}


def the_row() -> TaskRecord:
    return TaskRecord.objects.get()


def assert_row(**fields: Any) -> None:
    row = the_row()
    assert {name: getattr(row, name) for name in fields} == fields


def ask_to_cancel() -> None:
    TaskRecord.objects.all().cancel()
    assert_row(status=Status.RUNNING)
    assert the_row().cancel_requested_at is not None


class TestInsert:
    def test_ready_or_scheduled(self, rows: Bed) -> None:
        (plain,) = rows.put()
        (delayed,) = rows.put(run_after=ago(-60))
        assert TaskRecord.objects.get(pk=plain.id).status == Status.READY
        assert TaskRecord.objects.get(pk=delayed.id).status == Status.SCHEDULED

    @pytest.mark.parametrize("count", [1, 3], ids=["one", "many"])
    def test_the_row_is_the_message(self, rows: Bed, count: int) -> None:
        moment = datetime(2026, 3, 4, 5, 6, 7, 891_011, UTC)
        messages = rows.put(count, priority=-7, headers="{}", run_after=moment, expires_at=moment, enqueued_at=moment)
        for message in messages:
            row = TaskRecord.objects.get(pk=message.id)
            assert (row.run_after, row.expires_at, row.enqueued_at) == (moment, moment, moment)
            assert (row.name, row.queue_name, row.priority) == (message.name, "default", -7)
            assert (row.args, row.kwargs) == ([1, 2], {})
            assert (row.attempt, row.crashes, row.is_suspect, row.reason, row.result) == (1, 0, False, "", None)
            assert (row.worker_id, row.claim, row.started_at, row.finished_at) == (None, None, None, None)


class TestClaim:
    def test_is_running_but_shown_as_ready_until_it_starts(self, rows: Bed) -> None:
        rows.put()
        (delivery,) = rows.take(process=4, first=9)
        assert_row(status=Status.RUNNING, shown_status=Status.READY, worker_id=4, claim=9, started_at=None)
        rows.broker.mark_started(4, delivery, 1000.25)
        assert_row(shown_status=Status.RUNNING, started_at=datetime.fromtimestamp(1000.25, UTC))


class TestSettle:
    def test_success(self, rows: Bed) -> None:
        rows.put()
        rows.settle(Action.SUCCESS, *rows.take(), result='{"a":"ä"}', started_at=1000.123456, finished_at=1001.5)
        assert_row(status=Status.SUCCESSFUL, result='{"a":"ä"}', reason="", worker_id=1, claim=1)
        row = the_row()
        assert row.started_at.timestamp() == pytest.approx(1000.123456, abs=2e-6)
        assert row.finished_at == datetime.fromtimestamp(1001.5, UTC)
        assert TaskAttempt.objects.count() == 0

    def test_success_without_a_result(self, rows: Bed) -> None:
        rows.put()
        rows.settle(Action.SUCCESS, *rows.take())
        assert_row(status=Status.SUCCESSFUL, result=None, return_value=None)

    def test_success_after_a_retry_forgets_the_reason(self, rows: Bed) -> None:
        rows.put()
        rows.settle(Action.RETRY, *rows.take(), delay=0.0, error=DISK)
        assert_row(reason="OSError: disk full")
        rows.settle(Action.SUCCESS, *rows.take(first=2))
        assert_row(status=Status.SUCCESSFUL, reason="", attempt=2)

    def test_failure_keeps_the_error(self, rows: Bed) -> None:
        rows.put()
        rows.settle(Action.FAILED, *rows.take(process=3), process=3, error=DISK)
        assert_row(status=Status.FAILED, reason="OSError: disk full", worker_id=3)
        attempt = TaskAttempt.objects.get()
        assert (attempt.attempt, attempt.kind) == (1, AttemptKind.FAILED)
        assert attempt.worker
        assert (attempt.class_path, attempt.message, attempt.traceback) == DISK
        assert (attempt.started_at, attempt.finished_at) == (the_row().started_at, the_row().finished_at)

    def test_texts_of_any_length_and_kind_are_kept(self, rows: Bed) -> None:
        rows.put()
        long = ErrorText("a." + "b" * 400, "ž" * 70_000, "%s %(x)s '" * 1000)
        rows.settle(Action.FAILED, *rows.take(), error=long)
        attempt = TaskAttempt.objects.get()
        assert (attempt.message, attempt.traceback) == (long.message, long.traceback)
        assert attempt.class_path == long.class_path[:255]

    def test_retry_later_is_scheduled_by_the_database_s_clock(self, rows: Bed) -> None:
        rows.put()
        rows.settle(Action.RETRY, *rows.take(), delay=60.0, error=DISK)
        assert_row(status=Status.SCHEDULED, attempt=2, reason="OSError: disk full", **GIVEN_BACK)
        assert 55 < (the_row().run_after - timezone.now()).total_seconds() < 65
        assert TaskAttempt.objects.get().kind == AttemptKind.RETRIED

    def test_retry_at_once_is_ready(self, rows: Bed) -> None:
        rows.put()
        rows.settle(Action.RETRY, *rows.take(), delay=0.0)
        assert_row(status=Status.READY, attempt=2, run_after=None, **GIVEN_BACK)

    def test_what_never_started_leaves_no_attempt(self, rows: Bed) -> None:
        rows.put()
        rows.settle(Action.RETRY, *rows.take(), delay=5.0, is_counted=False, started_at=None, finished_at=None)
        assert_row(status=Status.SCHEDULED, attempt=1)
        assert TaskAttempt.objects.count() == 0

    def test_expired(self, rows: Bed) -> None:
        rows.put()
        error = ErrorText("django_taskq.exceptions.TaskExpired", "too late")
        rows.settle(Action.CANCELLED, *rows.take(), error=error, started_at=None, finished_at=None)
        assert_row(status=Status.CANCELLED, reason="TaskExpired: too late", started_at=None)
        assert the_row().finished_at is not None

    @pytest.mark.parametrize("action", list(Action))
    def test_a_lost_claim_changes_nothing(self, rows: Bed, action: Action) -> None:
        rows.put()
        old = rows.take(process=1)
        rows.broker.rescue(1)
        rows.take(process=2)
        before = TaskRecord.objects.values().get()
        rows.settle(action, *old, process=1, delay=0.0, result="1", error=DISK)
        assert TaskRecord.objects.values().get() == before
        assert TaskAttempt.objects.count() == 0


class TestCancelRequested:
    """Asked for while claimed: honoured as soon as the run is given back or wants another attempt."""

    @pytest.fixture
    def delivery(self, rows: Bed) -> Any:
        rows.put()
        (delivery,) = rows.take()
        ask_to_cancel()
        return delivery

    def assert_cancelled(self) -> None:
        assert_row(status=Status.CANCELLED, worker_id=None, claim=None, started_at=None)
        assert the_row().finished_at is not None
        assert the_row().reason.startswith("TaskCancelled")

    def test_whoever_is_told_of_the_retry_hears_of_the_end(self, rows: Bed, delivery: Any) -> None:
        outcome = make_outcome(Action.RETRY, delivery, error=ErrorText("builtins.OSError", "disk"), delay=5)
        assert rows.broker.settle(1, [outcome]) == []
        assert outcome.action is Action.CANCELLED
        self.assert_cancelled()

    def test_release(self, rows: Bed, delivery: Any) -> None:
        rows.broker.release(1, [1])
        self.assert_cancelled()

    def test_released_outcome(self, rows: Bed, delivery: Any) -> None:
        rows.settle(Action.RELEASED, delivery)
        self.assert_cancelled()

    def test_rescue(self, rows: Bed, delivery: Any) -> None:
        rows.broker.rescue(1)
        self.assert_cancelled()

    @pytest.mark.parametrize("due", [{"delay": 0.0}, {"delay": 60.0}, {"run_after": ago(-60)}], ids=["now", "in", "at"])
    def test_retry(self, rows: Bed, delivery: Any, due: Any) -> None:
        rows.settle(Action.RETRY, delivery, **due)
        self.assert_cancelled()
        assert TaskAttempt.objects.count() == 1

    def test_a_success_is_one_all_the_same(self, rows: Bed, delivery: Any) -> None:
        assert rows.settle(Action.SUCCESS, delivery) == []
        assert_row(status=Status.SUCCESSFUL)


class TestStartingSeveral:
    def test_they_start_in_one_moment(self, rows: Bed) -> None:
        rows.put(3)
        taken = rows.take()
        assert rows.broker.mark_all_started(1, taken[:2], 1000.25) == taken[:2]
        started = dict(TaskRecord.objects.values_list("claim", "started_at"))
        assert started[1] == started[2] == datetime.fromtimestamp(1000.25, UTC)
        assert started[3] is None

    def test_what_is_to_be_cancelled_does_not_start(self, rows: Bed) -> None:
        rows.put(2)
        one, two = rows.take()
        TaskRecord.objects.filter(pk=one.id).cancel()
        assert rows.broker.mark_all_started(1, [one, two], 1000.0) == [two]
        assert TaskRecord.objects.get(pk=one.id).started_at is None


class TestGivingBack:
    def test_release_leaves_the_row_as_it_was(self, rows: Bed) -> None:
        rows.put()
        rows.settle(Action.RETRY, *rows.take(), delay=0.0, error=DISK)
        before = TaskRecord.objects.values().get()
        (delivery,) = rows.take(first=2)
        rows.broker.mark_started(1, delivery, 1000.0)
        rows.broker.release(1, [2])
        assert TaskRecord.objects.values().get() == before

    def test_rescue_marks_it_suspect_and_nothing_else(self, rows: Bed) -> None:
        rows.put()
        before = TaskRecord.objects.values().get()
        rows.take()
        rows.broker.rescue(1)
        assert TaskRecord.objects.values().get() == before | {"is_suspect": True}

    def test_reject(self, rows: Bed) -> None:
        rows.put()
        rows.take()
        rows.broker.reject(1, 1, "cannot be read")
        assert_row(status=Status.FAILED, reason="cannot be read")
        assert the_row().finished_at is not None
