"""``TASKQ["EAGER"]``: the run happens inside the call, through the same rows, serialisation and executor."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from django_taskq import Call, chain, current_task, registry
from django_taskq.exceptions import SerializationError, TaskExpired
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.testapp.models import Effect
from tests.testapp.tasks import add, fail
from tests.unit.making import make_task

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))
    with override_settings(TASKQ={"EAGER": True}):
        yield


def test_the_value_is_there_when_the_call_returns() -> None:
    result = add.enqueue(1, 2)
    assert TaskRecord.objects.get().status == Status.SUCCESSFUL
    assert result.get(timeout=0) == 3


def test_many() -> None:
    assert [result.get(timeout=0) for result in add.enqueue_many([((1, 2), {}), ((3, 4), {})])] == [3, 7]


def test_arguments_travel_as_json() -> None:
    seen: list[Any] = []
    given = {"list": [1, (2,)]}
    make_task(lambda value: seen.append(value), name="sees").enqueue(given)
    assert seen == [given]
    assert seen[0] is not given
    with pytest.raises(SerializationError, match="primary key"):
        add.enqueue(Effect(), 2)


def test_an_error_is_the_run_s_not_the_caller_s() -> None:
    result = fail.enqueue("x")
    with pytest.raises(ValueError, match="x"):
        result.get(timeout=0)
    assert (result.status, len(result.errors)) == (Status.FAILED, 1)


def test_a_result_that_cannot_travel_fails() -> None:
    with pytest.raises(SerializationError):
        make_task(lambda: object(), name="objects").enqueue().get(timeout=0)


def test_retries_follow_at_once() -> None:
    calls: list[int] = []

    def flaky(self: Any) -> int:
        calls.append(self.request.attempt)
        if len(calls) < 3:
            self.retry(countdown=3600)
        return len(calls)

    assert make_task(flaky, bind=True).enqueue().get(timeout=0) == 3
    assert calls == [1, 2, 3]


def test_retries_end() -> None:
    def fails() -> None:
        raise OSError("x")

    result = make_task(fails, autoretry_for=(OSError,), max_retries=2).enqueue()
    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == (Status.FAILED, 3, 3)


def test_a_snoozed_run_is_left_scheduled() -> None:
    def dozes() -> None:
        current_task.snooze(0.001)

    result = make_task(dozes).enqueue()
    row = TaskRecord.objects.get()
    assert (row.status, row.attempt, row.reason, row.claim) == (Status.SCHEDULED, 1, "", None)
    assert row.run_after > timezone.now() - timedelta(minutes=1)
    assert result.errors == []


def test_so_is_a_snoozed_step_and_what_waits_for_it() -> None:
    calls: list[str] = []

    def dozes() -> str:
        calls.append("dozes")
        return current_task.snooze(60)

    chain(make_task(dozes).s(), make_task(lambda value: calls.append(value), name="after").s()).enqueue()
    assert calls == ["dozes"]
    assert sorted(TaskRecord.objects.values_list("status", flat=True)) == [Status.SCHEDULED, Status.WAITING]


def test_calls_enqueued_together_come_in_batches() -> None:
    sizes: list[int] = []

    def batch(calls: list[Call[[int]]]) -> list[int]:
        sizes.append(len(calls))
        for call in calls:
            if call.args[0] == 1 and call.attempt == 1:
                call.retry(countdown=60)
        return [2 * call.args[0] for call in calls]

    made = make_task(batch, batch_size=3, batch_wait=60)
    results = made.enqueue_many([((number,), {}) for number in range(5)])
    assert [result.get(timeout=0) for result in results] == [0, 2, 4, 6, 8]
    assert sizes == [3, 3]
    assert made.enqueue(7).get(timeout=0) == 14


def test_an_expired_run_does_not_run() -> None:
    with pytest.raises(TaskExpired):
        add.using(expires=timezone.now()).enqueue(1, 2).get(timeout=0)


def test_a_task_may_enqueue_and_wait_for_another() -> None:
    def outer() -> list[Any]:
        inner = add.enqueue(1, 2).get(timeout=0)
        return [inner, current_task.name]

    assert make_task(outer).enqueue().get(timeout=0) == [3, "outer"]
    assert not current_task


def test_an_unknown_task_waits_as_anywhere() -> None:
    made = make_task(lambda: None, name="gone")
    registry._tasks.pop("gone")
    made.enqueue()
    assert TaskRecord.objects.get().status == Status.SCHEDULED


@pytest.mark.django_db(transaction=True)
class TestTransactions:
    def test_a_failing_run_leaves_the_caller_s_transaction_usable(self) -> None:
        def breaks() -> None:
            Effect.objects.create(pk=1, name="second")

        made = make_task(breaks)
        with transaction.atomic():
            Effect.objects.create(pk=1, name="first")
            result = made.enqueue()
            Effect.objects.create(pk=2, name="third")
        result.refresh()
        assert result.status == Status.FAILED
        assert Effect.objects.count() == 2

    def test_transactional_success(self) -> None:
        made = make_task(lambda: Effect.objects.create(name="x").name, name="writes", transactional=True)
        assert made.enqueue().get(timeout=0) == "x"
        assert TaskRecord.objects.get().status == Status.SUCCESSFUL

    def test_transactional_failure(self) -> None:
        def fails() -> None:
            Effect.objects.create(name="x")
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            make_task(fails, transactional=True).enqueue().get(timeout=0)
        assert not Effect.objects.exists()
