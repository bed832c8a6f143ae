"""``TASKQ["EAGER"]``: the run happens inside the call, through the same rows, serialisation and executor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from django_taskq import current_task, registry
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
