"""Snoozing: a run that leaves and comes back later, with its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from django_taskq import current_task, registry, task, testing
from django_taskq.models import TaskAttempt, TaskRecord
from django_taskq.status import Status
from tests.testapp.tasks import snooze_on_loop, snooze_once
from tests.unit import working
from tests.unit.making import ago
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.one_database, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))


@pytest.fixture
def time_moves() -> Iterator[testing.TestClock]:
    with testing.clock() as clock:
        yield clock


def snoozer(times: int) -> tuple[Any, list[int]]:
    """A task that snoozes for a minute so often, and the attempts it was called with."""
    calls: list[int] = []

    @task(name="snoozes", max_retries=0)
    def snoozes() -> str:
        calls.append(current_task.attempt)
        if len(calls) <= times:
            current_task.snooze(60)
        return "done"

    return snoozes, calls


def test_it_comes_back_with_the_same_attempt_and_no_trace_of_errors(time_moves: testing.TestClock) -> None:
    made, calls = snoozer(3)
    result = made.enqueue()
    testing.drain()
    row = TaskRecord.objects.get()
    assert (row.status, row.attempt, row.worker_id, row.started_at, row.reason) == (
        Status.SCHEDULED, 1, None, None, "",
    )  # fmt: skip
    assert 59 < (row.run_after - timezone.now()).total_seconds() < 61
    testing.advance(seconds=59)
    assert calls == [1]
    testing.advance(minutes=3)
    assert result.get(timeout=0) == "done"
    assert calls == [1, 1, 1, 1]
    assert not TaskAttempt.objects.exists()


def test_a_cancel_while_it_ran_is_honoured() -> None:
    @task(name="cancelled")
    def cancelled() -> None:
        TaskRecord.objects.update(cancel_requested_at=timezone.now())
        current_task.snooze(60)

    cancelled.enqueue()
    working.work()
    row = TaskRecord.objects.get()
    assert (row.status, row.reason) == (Status.CANCELLED, "TaskCancelled")
    assert not TaskAttempt.objects.exists()


def test_a_snoozed_run_can_be_cancelled() -> None:
    made, calls = snoozer(1)
    result = made.enqueue()
    working.work()
    assert result.cancel()
    TaskRecord.objects.update(run_after=ago(1))
    working.work()
    assert (TaskRecord.objects.get().status, calls) == (Status.CANCELLED, [1])


def test_it_may_not_start_again_after_it_has_expired(time_moves: testing.TestClock) -> None:
    made, calls = snoozer(1_000)
    made.using(expires=150).enqueue()
    testing.drain()
    testing.advance(minutes=10)
    row = TaskRecord.objects.get()
    assert (row.status, len(calls)) == (Status.CANCELLED, 3)
    assert row.reason.startswith("TaskExpired")


def test_without_time_zones_it_sees_when_it_was_enqueued() -> None:
    @task(name="waits")
    def waits() -> float:
        return (datetime.now(UTC) - current_task.enqueued_at).total_seconds()

    with override_settings(USE_TZ=False):
        result = waits.enqueue()
        working.work()
        assert 0 <= result.get(timeout=0) < 60


@pytest.mark.parametrize("options", [("--threads", "1"), ("--coroutines", "1")], ids=["thread", "coroutine"])
def test_in_a_real_worker(worker: Callable[..., WorkerProcess], options: tuple[str, str]) -> None:
    process = worker("--processes", "1", *options)
    made = snooze_on_loop if "--coroutines" in options else snooze_once
    result = made.enqueue(0.3)
    wait_for(lambda: TaskRecord.objects.get().status == Status.SUCCESSFUL, 20, process.log)
    assert result.get(timeout=0) >= 0.3
    assert not TaskAttempt.objects.exists()
    assert "runs again in 0.3s" in process.log()
