"""The framework's tasks in a real worker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.utils import timezone

from django_taskq import registry
from django_taskq.backend import framework
from tests.backend import tasks
from tests.testapp.models import Effect
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)
Worker = Callable[..., WorkerProcess]


def ended(result: Any) -> Any:
    def look() -> bool:
        result.refresh()
        return bool(result.is_finished)

    wait_for(look, 20, lambda: f"the end of {result}")
    return result


def test_runs_of_all_kinds(worker: Worker) -> None:
    worker("--processes", "1")
    results = {
        "sum": tasks.plus.enqueue(1, 2),
        "coroutine": async_to_sync(tasks.aplus.aenqueue)(3, 4),
        "context": tasks.tell.enqueue(1),
        "retried": tasks.until.enqueue(3),
        "failed": tasks.fail.enqueue("in the worker"),
        "sent here": tasks.of_another_backend.using(backend="default").enqueue(21),
        "one of two": tasks.twice_there.enqueue(4),
    }
    for result in results.values():
        ended(result)
    values = {name: result.return_value for name, result in results.items() if name not in ("failed", "context")}
    assert values == {"sum": 3, "coroutine": 7, "retried": 3, "sent here": 42, "one of two": 8}
    assert results["context"].return_value[:2] == [1, "RUNNING"]
    retried, failed = results["retried"], results["failed"]
    assert retried.attempts == len(retried.worker_ids) == 3
    assert len(set(retried.worker_ids)) == 1  # one process made all attempts, and is there three times
    assert [error.exception_class for error in retried.errors] == [OSError, OSError]
    assert failed.errors[0].exception_class is tasks.Boom
    assert "in the worker" in failed.errors[0].traceback


def test_the_worker_serves_the_queues_of_the_aliases_and_logs(worker: Worker) -> None:
    process = worker("--processes", "1", env={"TASKQ_TEST_FRAMEWORK_QUEUES": "framework"})
    tasks.leave_effect.using(queue_name="framework").enqueue("here")
    wait_for(lambda: Effect.objects.filter(name="here").exists(), 20, process.log)
    ended(tasks.fail.enqueue("on record"))
    wait_for(lambda: "Task id=" in process.log() and "state=FAILED" in process.log(), 5, process.log)


def test_not_before_its_time(worker: Worker) -> None:
    worker("--processes", "1")
    due = timezone.now() + timedelta(seconds=1.5)
    result = ended(tasks.plus.using(run_after=due).enqueue(1))
    assert result.started_at >= due


def test_higher_priorities_first(worker: Worker) -> None:
    results = [tasks.plus.using(priority=priority).enqueue(priority) for priority in (-50, 0, 50)]
    worker("--processes", "1", "--burst")
    low, usual, high = (ended(result).started_at for result in results)
    assert high <= usual <= low


def test_the_commands_know_them(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("taskq", "settings", "--task", "tests.backend.tasks.until")
    assert "builtins.OSError" in capsys.readouterr().out
    call_command("taskq", "run", "tests.backend.tasks.plus", "--args", "[1, 2]")
    id = capsys.readouterr().out.split()[0]
    assert tasks.plus.get_result(id).args == [1, 2]


def test_enqueued_by_others_than_the_framework(heard: list[Any]) -> None:
    """The admin, schedules and commands enqueue the twin."""
    twin = registry.find("tests.backend.tasks.plus")
    id = twin.enqueue(5).id
    assert [name for name, *_ in heard] == ["task_enqueued"]
    assert tasks.plus.get_result(id).task == tasks.plus
    with pytest.raises(TypeError, match="plain JSON"):
        twin.enqueue({1, 2})
    assert framework.task_backends["default"].get_result(id).backend == "default"
