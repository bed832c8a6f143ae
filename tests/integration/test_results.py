"""What a run leaves behind: values, errors, attempts, and the ways in which runs end."""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from django_taskq import maintenance, registry, signals
from django_taskq.brokers import get_broker
from django_taskq.exceptions import (
    PoisonTask,
    ResultNotFound,
    ResultUnavailable,
    TaskCancelled,
    TaskExpired,
    TaskFailed,
    TimeLimitExceeded,
    WorkerLost,
)
from django_taskq.maintenance import Death, settle_death
from django_taskq.message import Action, Outcome
from django_taskq.models import TaskAttempt, TaskRecord, Worker, WorkerProcess
from django_taskq.result import TaskError, TaskResult
from django_taskq.status import Status
from tests.testapp.models import Effect
from tests.testapp.tasks import add, fail
from tests.unit.making import make_task
from tests.unit.working import PROCESS, claim, run, work

pytestmark = pytest.mark.django_db(transaction=True)


class NeedsTwo(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")


class Outer:
    class Inner(Exception):
        pass


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))


def raiser(error: BaseException, **options: Any) -> Any:
    def fails() -> None:
        raise error

    return make_task(fails, **options)


def refreshed(result: TaskResult[Any]) -> TaskResult[Any]:
    result.refresh()
    return result


def make_due() -> None:
    """Let the time pass until everything delayed is due."""
    TaskRecord.objects.filter(status=Status.SCHEDULED).update(run_after=timezone.now() - timedelta(seconds=1))


def row() -> TaskRecord:
    return TaskRecord.objects.get()


class TestValues:
    def test_the_value_and_its_times(self) -> None:
        result = add.enqueue(1, 2)
        assert (result.status, result.is_finished, result.attempts) == (Status.READY, False, 0)
        work()
        assert result.get(timeout=0) == 3
        assert (result.status, result.return_value, result.attempts, result.errors) == (Status.SUCCESSFUL, 3, 1, [])
        assert result.enqueued_at <= result.started_at <= result.finished_at

    def test_another_process_s_handle(self) -> None:
        result = add.enqueue(1, 2)
        work()
        again = add.get_result(result.id)
        assert (again, again.return_value, again.name) == (result, 3, add.name)

    @pytest.mark.parametrize("ignored", [{"task": True}, {"call": True}])
    def test_an_ignored_value_is_dropped_the_row_is_not(self, ignored: Any) -> None:
        made = make_task(lambda: 5, name="five", ignore_result="task" in ignored)
        result = made.using(ignore_result=True).enqueue() if "call" in ignored else made.enqueue()
        work()
        assert result.get(timeout=0) is None
        assert (row().status, row().result) == (Status.SUCCESSFUL, None)

    def test_a_value_before_the_end_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="READY, so it has no return value"):
            add.enqueue(1, 2).return_value  # noqa: B018 - the look-up is what is tested

    def test_waiting_has_a_limit(self) -> None:
        with pytest.raises(TimeoutError, match="still READY"):
            add.enqueue(1, 2).get(timeout=0)

    @pytest.mark.parametrize("id", ["01980000-0000-7000-8000-000000000000", "nonsense"])
    def test_an_unknown_id(self, id: str) -> None:
        with pytest.raises(ResultNotFound, match=id):
            add.get_result(id)

    def test_waiting_inside_a_task_raises_at_once(self) -> None:
        def waits() -> None:
            add.enqueue(1, 2).get()

        result = make_task(waits).enqueue()
        work()
        with pytest.raises(ResultUnavailable, match="inside a task"):
            result.get(timeout=0)


class TestErrors:
    def test_the_error_is_raised_with_the_worker_s_traceback(self) -> None:
        result = fail.enqueue("no luck")
        work()
        with pytest.raises(ValueError, match="no luck") as caught:
            result.get(timeout=0)
        assert "In the worker:\nTraceback" in caught.value.__notes__[0]
        assert "raise ValueError(text)" in caught.value.__notes__[0]
        (error,) = result.errors
        assert (error.attempt, error.exception_class_path, error.message) == (1, "builtins.ValueError", "no luck")
        assert error.exception_class is ValueError

    @pytest.mark.parametrize(
        ("error", "raised"),
        [
            (NeedsTwo(5, "x"), TaskFailed),
            (SystemExit(3), TaskFailed),
            (KeyboardInterrupt(), TaskFailed),
            (Outer.Inner("nested"), Outer.Inner),
            (Effect.DoesNotExist("gone"), Effect.DoesNotExist),
            (ExceptionGroup("g", [ValueError()]), TaskFailed),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
    )
    def test_its_class_where_that_is_safe(self, error: BaseException, raised: type[Exception]) -> None:
        result = raiser(error).enqueue()
        work()
        with pytest.raises(raised) as caught:
            result.get(timeout=0)
        assert type(caught.value) is raised

    @pytest.mark.parametrize(
        "path",
        ["os.system", "builtins.eval", "builtins.int", "os", "", ".", "this.Zen", "nobody.Knows", "a..b", "\x00"],
    )
    def test_a_class_path_calls_and_imports_nothing(self, path: str) -> None:
        error = TaskError(1, path, "touch /nowhere", "")
        assert type(error.exception()) is TaskFailed
        with pytest.raises(ValueError, match="not an exception class"):
            error.exception_class  # noqa: B018 - the look-up is what is tested
        assert "this" not in sys.modules

    def test_a_module_s_own_getattr_is_not_called(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lazy, asked = types.ModuleType("lazy_module"), []
        lazy.__getattr__ = asked.append  # type: ignore[method-assign]
        monkeypatch.setitem(sys.modules, "lazy_module", lazy)
        assert type(TaskError(1, "lazy_module.Error", "", "").exception()) is TaskFailed
        assert asked == []


class TestRetries:
    def test_until_it_works(self) -> None:
        calls: list[int] = []

        def flaky() -> int:
            calls.append(1)
            if len(calls) < 3:
                raise OSError(f"try {len(calls)}")
            return len(calls)

        result = make_task(flaky, autoretry_for=(OSError,), default_retry_delay=60).enqueue()
        work()
        assert (refreshed(result).status, result.attempts) == (Status.SCHEDULED, 1)
        work()
        assert len(calls) == 1, "it ran again before it was due"
        for _ in range(2):
            make_due()
            work()
        assert result.get(timeout=0) == 3
        assert result.attempts == 3
        assert [(error.attempt, error.message) for error in result.errors] == [(1, "try 1"), (2, "try 2")]

    def test_until_none_are_left(self) -> None:
        result = raiser(OSError("x"), autoretry_for=(OSError,), max_retries=2, default_retry_delay=0).enqueue()
        for _ in range(5):
            work()
        assert (refreshed(result).status, result.attempts) == (Status.FAILED, 3)
        assert list(TaskAttempt.objects.values_list("attempt", "kind")) == [
            (1, "RETRIED"),
            (2, "RETRIED"),
            (3, "FAILED"),
        ]
        with pytest.raises(OSError, match="x"):
            result.get(timeout=0)

    def test_a_cancelled_retry_counts_what_had_begun(self) -> None:
        result = raiser(OSError("x"), autoretry_for=(OSError,)).enqueue()
        work()
        assert result.cancel()
        assert (refreshed(result).status, result.attempts) == (Status.CANCELLED, 1)

    def test_by_hand_keeps_the_history(self) -> None:
        result = fail.enqueue("x")
        work()
        assert TaskRecord.objects.all().retry() == 1
        assert (refreshed(result).status, result.attempts, row().reason) == (Status.READY, 1, "")
        work()
        assert [error.attempt for error in result.errors] == [1, 2]
        assert refreshed(result).status == Status.FAILED

    def test_by_hand_is_for_failed_and_cancelled_only(self) -> None:
        cancelled, ready = add.enqueue(1, 2), add.enqueue(3, 4)
        cancelled.cancel()
        assert TaskRecord.objects.all().retry() == 1
        work()
        assert (cancelled.get(timeout=0), ready.get(timeout=0)) == (3, 7)
        assert TaskRecord.objects.all().retry() == 0


class TestCancelling:
    @pytest.mark.parametrize("countdown", [None, 60])
    def test_before_it_starts(self, countdown: float | None) -> None:
        result = add.using(countdown=countdown).enqueue(1, 2)
        assert result.cancel() is True
        work()
        with pytest.raises(TaskCancelled, match=result.id):
            result.get(timeout=0)
        assert (result.status, row().started_at) == (Status.CANCELLED, None)

    def test_what_is_over_stays(self) -> None:
        result = add.enqueue(1, 2)
        work()
        assert result.cancel() is False
        assert result.get(timeout=0) == 3

    def test_what_is_claimed_is_marked(self) -> None:
        result = add.enqueue(1, 2)
        deliveries = claim()
        assert result.cancel() is False
        assert row().cancel_requested_at is not None
        run(deliveries)
        assert result.get(timeout=0) == 3


class TestExpiry:
    def test_what_starts_too_late_is_cancelled(self) -> None:
        result = add.using(expires=60).enqueue(1, 2)
        TaskRecord.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        work()
        with pytest.raises(TaskExpired):
            result.get(timeout=0)
        assert (result.status, result.attempts) == (Status.CANCELLED, 0)


class TestUnknownTasks:
    @pytest.fixture
    def result(self) -> TaskResult[Any]:
        made = make_task(lambda: 5, name="gone.tomorrow")
        result = made.enqueue()
        registry._tasks.pop("gone.tomorrow")
        work()
        return result

    def test_are_kept_with_a_visible_reason(self, result: TaskResult[Any]) -> None:
        assert (refreshed(result).status, row().attempt) == (Status.SCHEDULED, 1)
        assert row().reason == "UnknownTask: no task is named 'gone.tomorrow' here"
        assert result.attempts == 0

    def test_run_when_a_worker_knows_them(self, result: TaskResult[Any]) -> None:
        make_task(lambda: 5, name="gone.tomorrow")
        make_due()
        work()
        assert result.get(timeout=0) == 5

    def test_fail_after_the_deadline(self, result: TaskResult[Any]) -> None:
        TaskRecord.objects.update(enqueued_at=timezone.now() - timedelta(days=2))
        make_due()
        work()
        with pytest.raises(TaskFailed, match="UnknownTask"):
            result.get(timeout=0)


class TestTransactional:
    """``transactional=True``: the task's writes and its success commit together, or neither."""

    def test_success(self) -> None:
        result = make_task(lambda: Effect.objects.create(name="x").name, name="writes", transactional=True).enqueue()
        work()
        assert (result.get(timeout=0), Effect.objects.count()) == ("x", 1)

    def test_failure_rolls_back_and_is_recorded(self) -> None:
        def fails() -> None:
            Effect.objects.create(name="x")
            raise ValueError("after the write")

        result = make_task(fails, transactional=True).enqueue()
        work()
        with pytest.raises(ValueError, match="after the write"):
            result.get(timeout=0)
        assert not Effect.objects.exists()

    def test_retry_rolls_back(self) -> None:
        def fails(self: Any) -> None:
            Effect.objects.create(name="x")
            self.retry(countdown=60)

        result = make_task(fails, transactional=True, bind=True).enqueue()
        work()
        assert refreshed(result).status == Status.SCHEDULED
        assert not Effect.objects.exists()

    def test_a_claim_lost_before_the_call_ends_is_refused(self) -> None:
        made = make_task(lambda: Effect.objects.create(name="x") and None, name="writes", transactional=True)
        made.enqueue()
        deliveries = claim()
        TaskRecord.objects.update(worker_id=PROCESS + 1)
        (lost,) = run(deliveries)
        assert lost.error.summary.startswith("LeaseLost")
        assert not Effect.objects.exists()
        assert row().status == Status.RUNNING

    def test_a_broken_transaction_is_a_failure(self) -> None:
        def breaks() -> None:
            with transaction.atomic():
                Effect.objects.create(name="x")
            transaction.set_rollback(True)

        result = make_task(breaks, transactional=True).enqueue()
        work()
        assert refreshed(result).status == Status.FAILED
        assert not Effect.objects.exists()


class TestDeaths:
    """What is charged, given back or ended when a worker process dies."""

    @pytest.fixture(autouse=True)
    def process(self) -> None:
        worker = Worker.objects.create(
            hostname="here", pid=1, pid_started=1, processes=1, threads=1, lease_expires_at=timezone.now()
        )
        WorkerProcess.objects.create(pk=PROCESS, worker=worker, pid=2, pid_started=2)

    def start(self, made: Any = add, *args: Any, mark: bool = False) -> TaskResult[Any]:
        result = made.enqueue(*(args or (() if made is not add else (1, 2))))
        (delivery,) = claim()
        if mark:
            TaskRecord.objects.filter(pk=delivery.id).update(started_at=timezone.now())
        return result

    def die(self, **how: Any) -> None:
        claims = list(TaskRecord.objects.filter(status=Status.RUNNING).values_list("claim", flat=True))
        settle_death(Death(PROCESS, "killed by signal 9", how.pop("running", claims), **how))

    def test_twice_is_an_accident_thrice_is_poison(self) -> None:
        result = self.start()
        for crashes in (1, 2):
            self.die()
            assert (row().status, row().crashes, row().attempt) == (Status.READY, crashes, 1)
            claim()
        self.die()
        assert (row().status, row().crashes) == (Status.FAILED, 3)
        with pytest.raises(PoisonTask, match="3 times.*signal 9"):
            result.get(timeout=0)
        assert list(TaskAttempt.objects.values_list("kind", flat=True)) == ["CRASHED"] * 3
        assert row().finished_at is not None

    def test_what_had_not_started_is_charged_nothing(self) -> None:
        self.start()
        self.die(running=[])
        assert (row().status, row().crashes, row().is_suspect, row().started_at) == (Status.READY, 0, False, None)

    def test_what_nobody_knows_about_becomes_a_suspect(self) -> None:
        self.start()
        self.die(running=None)
        assert (row().status, row().crashes, row().is_suspect) == (Status.READY, 0, True)
        assert [delivery.is_suspect for delivery in claim()] == [True]

    def test_a_start_that_was_committed_is_charged_even_then(self) -> None:
        self.start(mark=True)
        self.die(running=None)
        assert (row().status, row().crashes) == (Status.READY, 1)

    def test_a_kill_that_was_not_its_fault_is_not_charged(self) -> None:
        self.start()
        self.die(is_charged=False)
        assert (row().status, row().crashes) == (Status.READY, 0)

    @pytest.mark.parametrize("is_charged", [True, False])
    def test_at_most_once_is_never_started_again(self, is_charged: bool) -> None:
        result = self.start(make_task(lambda: None, name="once", acks_late=False))
        self.die(is_charged=is_charged)
        with pytest.raises(WorkerLost, match="acks_late=False"):
            result.get(timeout=0)

    def test_at_most_once_that_had_not_started_is_given_back(self) -> None:
        self.start(make_task(lambda: None, name="once", acks_late=False))
        self.die(running=[])
        assert row().status == Status.READY

    def test_a_hard_limit_ends_it(self) -> None:
        result = self.start()
        self.die(errors={row().claim: TimeLimitExceeded("2 s passed")}, is_charged=False)
        with pytest.raises(TimeLimitExceeded, match="2 s passed"):
            result.get(timeout=0)

    def test_killed_for_a_cancel_it_is_cancelled_and_charged_nothing(self) -> None:
        result = self.start()
        self.die(errors={row().claim: TaskCancelled("while it ran")}, is_charged=False)
        with pytest.raises(TaskCancelled):
            result.get(timeout=0)
        assert (row().status, row().crashes, row().reason) == (Status.CANCELLED, 0, "TaskCancelled")
        assert not TaskAttempt.objects.exists()

    def test_a_run_is_ended_while_its_process_lives(self) -> None:
        result = self.start()
        (outcome,) = maintenance.end_runs(PROCESS, {row().claim: TimeLimitExceeded("2 s passed")})
        assert outcome.delivery.id == result.id
        with pytest.raises(TimeLimitExceeded, match="2 s passed"):
            result.get(timeout=0)
        assert WorkerProcess.objects.get(pk=PROCESS).stopped_at is None
        # What its thread still returns is refused, and the end of the process changes nothing.
        late = Outcome(outcome.delivery, Action.SUCCESS, time.time(), time.time(), "3")
        assert get_broker().settle(PROCESS, [late]) == [late]
        self.die(running=[row().claim])
        assert (row().status, row().crashes) == (Status.FAILED, 1)
        assert TaskAttempt.objects.count() == 1

    def test_what_ended_by_itself_is_not_ended_again(self) -> None:
        add.enqueue(1, 2)
        work()
        assert maintenance.end_runs(PROCESS, {row().claim: TimeLimitExceeded("2 s passed")}) == []
        assert not TaskAttempt.objects.exists()

    def test_a_claim_that_is_made_after_the_death_is_given_back_in_the_end(self) -> None:
        """A database may carry out what had been waiting for a lock when its client was killed."""
        self.die(running=[])
        self.start()
        maintenance.rescue_strays()
        assert row().status == Status.RUNNING
        WorkerProcess.objects.filter(pk=PROCESS).update(stopped_at=timezone.now() - timedelta(hours=1))
        assert maintenance.rescue_strays() == 1
        assert row().status == Status.READY

    def test_a_cancel_that_was_asked_for_is_honoured(self) -> None:
        result = self.start()
        result.cancel()
        self.die()
        assert row().status == Status.CANCELLED

    def test_what_had_finished_is_left_alone(self) -> None:
        result = add.enqueue(1, 2)
        work()
        self.die(running=[row().claim])
        assert result.get(timeout=0) == 3
        assert not TaskAttempt.objects.exists()


class TestPromotion:
    def test_what_is_due_becomes_ready(self) -> None:
        due, later = add.using(countdown=60).enqueue(1, 2), add.using(countdown=60).enqueue(1, 2)
        assert maintenance.promote_due() == 0
        TaskRecord.objects.filter(pk=due.id).update(run_after=timezone.now() - timedelta(seconds=1))
        assert maintenance.promote_due() == 1
        assert (refreshed(due).status, refreshed(later).status) == (Status.READY, Status.SCHEDULED)

    def test_the_next_due_time_is_known(self) -> None:
        assert maintenance.seconds_until_due() is None
        add.using(countdown=60).enqueue(1, 2)
        assert maintenance.seconds_until_due() == pytest.approx(60, abs=5)
        make_due()
        assert maintenance.seconds_until_due() == 0


class TestPruning:
    @pytest.fixture(autouse=True)
    def history(self) -> Iterator[None]:
        """Of each age in days one success and one failure; one cancelled, one ready."""
        for _ in range(3):
            add.enqueue(1, 2), fail.enqueue("x")
        work()
        for kind in (Status.SUCCESSFUL, Status.FAILED):
            for days, pk in zip(
                (1, 10, 40), TaskRecord.objects.filter(status=kind).values_list("pk", flat=True), strict=True
            ):
                TaskRecord.objects.filter(pk=pk).update(finished_at=timezone.now() - timedelta(days=days))
        add.enqueue(1, 2).cancel()
        TaskRecord.objects.filter(status=Status.CANCELLED).update(finished_at=timezone.now() - timedelta(days=10))
        add.enqueue(1, 2)
        with override_settings(TASKQ={}):
            yield

    def test_by_default_a_week_and_a_month_are_kept(self) -> None:
        assert maintenance.prune(dry_run=True) == 4
        assert TaskRecord.objects.count() == 8
        assert maintenance.prune() == 4
        assert maintenance.prune() == 0
        left = sorted(TaskRecord.objects.values_list("status", flat=True))
        assert left == [Status.FAILED, Status.FAILED, Status.READY, Status.SUCCESSFUL]
        assert TaskAttempt.objects.count() == 2

    @pytest.mark.parametrize(
        ("taskq", "count"),
        [
            ({"RESULT_EXPIRES": None}, 1),
            ({"FAILURE_EXPIRES": None}, 3),
            ({"RESULT_EXPIRES": None, "FAILURE_EXPIRES": None}, 0),
        ],
    )
    def test_none_keeps_for_ever(self, taskq: Any, count: int) -> None:
        with override_settings(TASKQ=taskq):
            assert maintenance.prune() == count

    def test_at_most(self) -> None:
        assert [maintenance.prune(at_most=3), maintenance.prune(at_most=3)] == [3, 1]


class TestSignals:
    def test_each_ending_is_told_once(self) -> None:
        told: list[Any] = []
        watched = {"finished": signals.task_finished, "failed": signals.task_failed, "retried": signals.task_retried}
        receivers = {}
        for name, signal in watched.items():
            receivers[name] = lambda sender, outcome, name=name, **kwargs: told.append((sender, name))
            signal.connect(receivers[name])
        try:
            add.enqueue(1, 2), fail.enqueue("x")
            raiser(OSError("x"), autoretry_for=(OSError,), name="again").enqueue()
            work()
        finally:
            for name, signal in watched.items():
                signal.disconnect(receivers[name])
        assert sorted(told) == [
            ("again", "retried"),
            (add.name, "finished"),
            (fail.name, "failed"),
            (fail.name, "finished"),
        ]
