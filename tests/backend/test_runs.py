"""Running and reading: the state machine, retries, errors, results; with a worker in this thread."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import override_settings
from django.utils import timezone

from django_taskq import registry, serializers
from django_taskq.backend import TaskqBackend, framework
from django_taskq.exceptions import TaskCancelled, TaskExpired, WorkerLost
from django_taskq.maintenance import Death, settle_death
from django_taskq.message import new_ids
from django_taskq.models import TaskRecord
from django_taskq.result import TaskResult
from tests.backend import tasks
from tests.testapp.models import Effect
from tests.unit.making import make_message
from tests.unit.working import PROCESS, claim, work

pytestmark = pytest.mark.django_db
Status = framework.TaskResultStatus


def run(task: Any, *args: Any, **kwargs: Any) -> Any:
    result = task.enqueue(*args, **kwargs)
    work(task.queue_name)
    result.refresh()
    return result


def make_due() -> None:
    TaskRecord.objects.filter(status="SCHEDULED").update(run_after=timezone.now() - timedelta(seconds=1))


class TestSuccess:
    def test_everything_about_it(self) -> None:
        result = run(tasks.plus, 1, y=2)
        assert result.status == Status.SUCCESSFUL
        assert result.taskq_status == "SUCCESSFUL"
        assert result.is_finished
        assert result.return_value == 3
        assert result.enqueued_at <= result.started_at == result.last_attempted_at <= result.finished_at
        assert result.attempts == len(result.worker_ids) == 1
        assert result.errors == []
        assert result.handle.get(timeout=0) == 3

    def test_a_coroutine(self) -> None:
        assert run(tasks.aplus, 1, 2).return_value == 3

    def test_the_context(self) -> None:
        result = tasks.tell.enqueue(5)
        work()
        expected = [1, "RUNNING", result.id, [5], 1, "RUNNING", 1, 5]
        assert tasks.tell.get_result(result.id).return_value == expected

    def test_plain_values_come_back_plain(self) -> None:
        assert run(tasks.echo, (1,), b"a", x={"k": (2,)}).return_value == [[[1], "a"], {"x": {"k": [2]}}]

    def test_a_task_sent_here_by_using(self) -> None:
        """Nothing of ours has seen this task before."""
        registry._tasks.pop("tests.backend.tasks.of_another_backend", None)
        result = tasks.of_another_backend.using(backend="default").enqueue(4)
        registry._tasks.pop("tests.backend.tasks.of_another_backend")  # as in a worker
        work()
        assert framework.task_backends["default"].get_result(result.id).return_value == 8

    def test_priorities(self) -> None:
        ids = [tasks.plus.using(priority=priority).enqueue(priority).id for priority in (-1, 0, 100, 5)]
        order = [str(delivery.id) for delivery in claim()]
        assert order == [ids[2], ids[3], ids[1], ids[0]]


class TestFailure:
    def test_everything_about_it(self) -> None:
        result = run(tasks.fail, "why")
        assert result.status == Status.FAILED
        (error,) = result.errors
        assert error.exception_class is tasks.Boom
        assert error.exception_class_path == "tests.backend.tasks.Boom"
        assert "why" in error.traceback
        assert "in fail" in error.traceback
        assert result.attempts == len(result.worker_ids) == 1
        assert result.started_at <= result.finished_at
        with pytest.raises(ValueError, match="Task failed"):
            _ = result.return_value

    def test_errors_of_classes_in_classes(self) -> None:
        assert run(tasks.miss).errors[0].exception_class is Effect.DoesNotExist

    def test_a_value_that_is_not_json(self) -> None:
        result = run(tasks.give_set)
        assert result.status == Status.FAILED
        assert result.errors[0].exception_class is TypeError

    def test_a_run_that_was_cancelled(self) -> None:
        result = tasks.plus.enqueue(1)
        assert result.handle.cancel()
        result.refresh()
        assert (result.status, result.taskq_status) == (Status.FAILED, "CANCELLED")
        assert result.errors[0].exception_class is TaskCancelled
        assert (result.attempts, result.started_at) == (0, None)

    def test_a_run_that_expired(self, heard: list[Any]) -> None:
        result = tasks.plus.enqueue(1)
        TaskRecord.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        work()
        result.refresh()
        assert result.status == Status.FAILED
        assert result.errors[0].exception_class is TaskExpired
        assert "not started before" in result.errors[0].traceback
        assert [name for name, *_ in heard] == ["task_enqueued", "task_finished"]
        assert heard[-1][3] is TaskExpired

    def test_a_run_whose_worker_died_until_it_was_given_up(self, heard: list[Any]) -> None:
        result = tasks.plus.enqueue(1)
        for crash in range(3):
            (delivery,) = claim()
            result.refresh()
            assert result.attempts == crash
            settle_death(Death(PROCESS, "test", [delivery.claim]))
        result.refresh()
        assert result.status == Status.FAILED
        assert result.errors[0].exception_class is WorkerLost
        assert result.attempts == len(result.worker_ids) == len(result.errors) == 3
        assert "PoisonTask" in result.errors[-1].traceback
        assert [name for name, *_ in heard] == ["task_enqueued", "task_finished"]
        assert heard[-1][2].status == Status.FAILED


class TestRetries:
    def test_from_the_first_to_the_last(self, heard: list[Any]) -> None:
        result = tasks.until.enqueue(3)
        seen = []
        for _ in range(3):
            work()
            result.refresh()
            seen.append((result.status, result.attempts, len(result.errors), result.finished_at is None))
            make_due()
        assert seen == [(Status.READY, 1, 1, True), (Status.READY, 2, 2, True), (Status.SUCCESSFUL, 3, 2, False)]
        assert result.return_value == 3
        assert "attempt 2, errors before: 1" in result.errors[1].traceback
        assert result.started_at < result.last_attempted_at
        started = ["task_started"] * 3
        assert [name for name, *_ in heard] == ["task_enqueued", *started, "task_finished"]
        assert [task_result.attempts for _, _, task_result, _ in heard] == [0, 1, 2, 3, 3]

    def test_when_none_are_left(self) -> None:
        result = tasks.until.enqueue(9)
        for _ in range(4):
            work()
            make_due()
        result.refresh()
        assert (result.status, result.attempts, len(result.errors)) == (Status.FAILED, 3, 3)

    def test_options_of_the_decorator(self) -> None:
        if not hasattr(tasks, "optioned"):
            with pytest.raises(TypeError):  # Django 6.0's own decorator
                tasks.task(max_retries=5)
            return
        options = registry.find("tests.backend.tasks.optioned").options
        assert (options.max_retries, options.time_limit, options.autoretry_for) == (5, 50, (KeyError,))
        tasks.optioned.enqueue()
        work()
        assert TaskRecord.objects.get().status == "SCHEDULED"


@pytest.mark.django_db(transaction=True)
class TestSignals:
    def test_of_a_success(self, heard: list[Any]) -> None:
        result = run(tasks.plus, 1)
        assert [name for name, *_ in heard] == ["task_enqueued", "task_started", "task_finished"]
        assert {sender for _, sender, *_ in heard} == {TaskqBackend}
        statuses = [task_result.status for _, _, task_result, _ in heard]
        assert statuses == [Status.READY, Status.RUNNING, Status.SUCCESSFUL]
        assert [task_result.id for _, _, task_result, _ in heard] == [result.id] * 3
        finished = heard[-1][2]
        assert (finished.return_value, finished.attempts) == (1, 1)
        assert heard[-1][3] is None

    def test_of_a_failure(self, heard: list[Any]) -> None:
        run(tasks.fail)
        assert heard[-1][0] == "task_finished"
        assert heard[-1][3] is tasks.Boom
        assert heard[-1][2].errors[0].exception_class is tasks.Boom

    def test_the_row_is_final_by_then(self) -> None:
        seen: list[Any] = []

        def look(sender: Any, task_result: Any, **kwargs: Any) -> None:
            seen.append(tasks.plus.get_result(task_result.id).status)

        framework.task_finished.connect(look)
        try:
            run(tasks.plus, 1)
        finally:
            framework.task_finished.disconnect(look)
        assert seen == [Status.SUCCESSFUL]

    def test_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        logger = "django.tasks" if framework.IS_DJANGO_S_OWN else "django_tasks"
        caplog.set_level(logging.DEBUG, logger)
        result = run(tasks.fail, "on record")
        mine = [record for record in caplog.records if record.name == logger]
        assert [record.levelname for record in mine] == ["DEBUG", "INFO", "ERROR"]
        assert all(result.id in record.getMessage() for record in mine)
        assert mine[-1].exc_info[0] is tasks.Boom

    def test_a_receiver_that_raises_harms_nothing(self, caplog: pytest.LogCaptureFixture, heard: list[Any]) -> None:
        def broken(**kwargs: Any) -> None:
            raise RuntimeError("receiver")

        for signal in (framework.task_enqueued, framework.task_started, framework.task_finished):
            signal.connect(broken)
        try:
            result = run(tasks.plus, 1)
        finally:
            for signal in (framework.task_enqueued, framework.task_started, framework.task_finished):
                signal.disconnect(broken)
        assert result.status == Status.SUCCESSFUL
        assert len(heard) == 3
        assert caplog.text.count("broken failed") == 3

    def test_tasks_of_ours_send_none(self, heard: list[Any]) -> None:
        tasks.own_add.enqueue(1, 2)
        work()
        assert heard == []

    def test_eager(self, heard: list[Any]) -> None:
        with override_settings(TASKQ={"EAGER": True}):
            result = tasks.plus.enqueue(1, 2)
            assert (result.status, result.return_value) == (Status.SUCCESSFUL, 3)
            failed = tasks.fail.enqueue()
            assert failed.status == Status.FAILED
            assert failed.errors[0].exception_class is tasks.Boom
            assert tasks.until.enqueue(3).return_value == 3
        names = [name for name, *_ in heard]
        assert names[:6] == ["task_enqueued", "task_started", "task_finished"] * 2


class TestReading:
    def test_by_the_task_and_by_the_backend(self) -> None:
        result = run(tasks.plus, 1)
        assert tasks.plus.get_result(result.id) == result
        assert framework.task_backends["open"].get_result(result.id) == result

    @pytest.mark.parametrize("id", ["", "nonsense", "1", "\x00", "0" * 500, None, 5])
    def test_what_is_not_an_id(self, id: Any) -> None:
        with pytest.raises(framework.TaskResultDoesNotExist):
            tasks.plus.get_result(id)

    def test_an_id_that_nobody_has(self) -> None:
        with pytest.raises(framework.TaskResultDoesNotExist):
            tasks.plus.get_result(str(uuid4()))
        result = run(tasks.plus, 1)
        TaskRecord.objects.all().delete()
        with pytest.raises(framework.TaskResultDoesNotExist):
            result.refresh()

    def test_the_id_of_another_task(self) -> None:
        result = tasks.plus.enqueue(1)
        with pytest.raises(framework.TaskResultMismatch):
            tasks.echo.get_result(result.id)

    def test_the_id_of_a_task_of_ours(self) -> None:
        own: TaskResult[Any] = tasks.own_add.enqueue(1, 2)
        with pytest.raises(framework.TaskResultMismatch):
            tasks.plus.get_result(own.id)
        with pytest.raises(framework.TaskResultDoesNotExist):
            framework.task_backends["default"].get_result(own.id)

    def test_old_results_under_other_settings(self) -> None:
        result = run(tasks.plus.using(queue_name="framework", priority=3), 1, 2)
        before = framework.task_backends["default"].get_result(result.id)
        only_mail = {"default": {"BACKEND": "django_taskq.backend.TaskqBackend", "QUEUES": ["mail"]}}
        with override_settings(TASKS=only_mail):
            found = framework.task_backends["default"].get_result(result.id)
            assert (found.return_value, found.task.queue_name, found.task.priority) == (3, "framework", 3)
            assert found == before
        with override_settings(TASKS={"new": only_mail["default"]}):
            assert framework.task_backends["new"].get_result(result.id).return_value == 3
            result.refresh()
            assert result.return_value == 3

    def test_old_results_of_tasks_that_are_gone(self) -> None:
        from django_taskq.brokers import get_broker

        id = new_ids(1)[0]
        get_broker().enqueue([make_message(id=id, name="shop.tasks.gone", payload=serializers.dumps([[1], {}]))])
        found = framework.task_backends["default"].get_result(id)
        assert (found.task.module_path, found.task.name, found.args) == ("shop.tasks.gone", "gone", [1])
        with pytest.raises(framework.TaskResultMismatch):
            tasks.plus.get_result(id)
        with pytest.raises(framework.InvalidTask):
            found.task.enqueue(1)

    def test_refresh_takes_our_own_field_along(self) -> None:
        result = tasks.plus.using(run_after=timezone.now() + timedelta(days=1)).enqueue(1)
        assert result.taskq_status == "SCHEDULED"
        make_due()
        work()
        result.refresh()
        assert result.taskq_status == "SUCCESSFUL"
