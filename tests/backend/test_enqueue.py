"""What the framework's callers meet: definition, validation, arguments, transactions, the result that comes back."""

from __future__ import annotations

import copy
import inspect
import json
import os
import pickle
import subprocess
import sys
from datetime import datetime, timedelta
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
from django.db import models, transaction
from django.test import override_settings
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.safestring import mark_safe

from django_taskq import Unique, client, conf, registry
from django_taskq.backend import TaskqBackend, framework
from django_taskq.backend.twins import Twin
from django_taskq.models import TaskRecord
from django_taskq.uniqueness import Uniqueness
from tests.backend import tasks
from tests.conftest import ROOT

READY = framework.TaskResultStatus.READY


class TestDefinition:
    def test_the_backend_can_do_all_there_is(self) -> None:
        assert TaskqBackend.supports_defer
        assert TaskqBackend.supports_async_task
        assert TaskqBackend.supports_get_result
        assert TaskqBackend.supports_priority

    def test_it_needs_no_database(self) -> None:
        """``django_db`` is not asked for, so a query would fail this test."""
        tasks.plus.using(priority=3, run_after=timezone.now())
        assert isinstance(framework.task_backends["default"], TaskqBackend)

    def test_it_needs_no_models(self) -> None:
        """Any module may define tasks, those of models among them, before the app registry is ready."""
        code = (
            "import sys, types\n"
            "from django_taskq.backend.framework import IS_DJANGO_S_OWN\n"
            "task = __import__('django.tasks' if IS_DJANGO_S_OWN else 'django_tasks', fromlist=['task']).task\n"
            "early = sys.modules['early'] = types.ModuleType('early')\n"
            "exec('def send(): ...', vars(early))\n"
            "early.send = task(backend='patient')(early.send).using(priority=3)\n"
            "from django.apps import apps\n"
            "assert not apps.ready and not [name for name in sys.modules if name.startswith('django_taskq.models')]\n"
        )
        environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)

    def test_the_path_leads_to_the_task(self) -> None:
        assert tasks.plus.module_path == "tests.backend.tasks.plus"
        assert import_string(tasks.plus.module_path) is tasks.plus

    def test_a_task_is_one_of_ours_as_well(self) -> None:
        twin = registry.find("tests.backend.tasks.leave_effect")
        assert isinstance(twin, Twin)
        assert twin in registry.all_tasks()
        assert (twin.options.queue_name, twin.options.priority) == ("default", 7)

    def test_using_makes_no_other(self) -> None:
        before = registry.find(tasks.plus.module_path)
        assert before is not None
        tasks.plus.using(queue_name="framework", priority=5).using(backend="open")
        assert registry.find(tasks.plus.module_path) is before
        assert before.options.queue_name == "default"

    def test_one_function_on_several_aliases_and_queues(self) -> None:
        assert tasks.twice_here.func is tasks.twice_there.func
        tasks.task(queue_name="framework")(tasks.twice)
        assert registry.find("tests.backend.tasks.twice").framework_task is tasks.twice_here

    def test_it_stands_beside_tasks_of_ours(self) -> None:
        assert tasks.own_add.name == "tests.backend.tasks.own_add"
        assert not isinstance(registry.find(tasks.own_add.name), Twin)

    def test_a_function_is_a_task_of_one_kind(self) -> None:
        with pytest.raises(framework.InvalidTask, match="two tasks are named"):
            tasks.task(tasks.own_add.function)

    def test_pickling(self) -> None:
        changed = tasks.plus.using(priority=9)
        assert pickle.loads(pickle.dumps(changed)) == changed
        assert copy.deepcopy(changed) is changed

    def test_pickling_what_no_path_leads_to(self) -> None:
        with pytest.raises(ValueError, match="Expected"):
            pickle.loads(pickle.dumps(tasks.twice_here))


def local() -> Any:
    def inner() -> None: ...

    return inner


def no_context(x: int) -> None: ...


class Callable_:
    def __call__(self) -> None: ...


class TestRefusals:
    @pytest.mark.parametrize("function", [local(), Callable_(), print, "text", Callable_().__call__])
    def test_functions_no_worker_could_import(self, function: Any) -> None:
        with pytest.raises((framework.InvalidTask, AttributeError)):
            tasks.task(function)

    def test_a_first_argument_that_is_not_the_context(self) -> None:
        with pytest.raises(framework.InvalidTask, match="context"):
            tasks.task(takes_context=True)(no_context)

    @pytest.mark.parametrize("priority", [101, -101, 1.5, float("nan"), "high"])
    def test_priorities(self, priority: Any) -> None:
        with pytest.raises(framework.InvalidTask):
            tasks.plus.using(priority=priority)

    @pytest.mark.parametrize("moment", [datetime(2030, 1, 1), "tomorrow", timedelta(1)])  # noqa: DTZ001
    def test_times(self, moment: Any) -> None:
        with pytest.raises((framework.InvalidTask, AttributeError)):
            tasks.plus.using(run_after=moment)

    def test_a_queue_outside_the_alias(self) -> None:
        with pytest.raises(framework.InvalidTask, match="Queue 'framework' is not valid"):
            tasks.twice_there.using(queue_name="framework")

    def test_an_alias_without_queues_takes_those_that_workers_serve(self, db: None) -> None:
        tasks.plus.using(backend="open", queue_name="framework").enqueue(1)
        task = tasks.plus.using(backend="open", queue_name="nobody-serves-it")
        with pytest.raises(framework.InvalidTask, match="no queue is named 'nobody-serves-it'"):
            task.enqueue(1)
        with pytest.raises(framework.InvalidTask, match="letters, digits"):
            tasks.plus.using(backend="open", queue_name="no such name")
        assert TaskRecord.objects.count() == 1

    def test_what_was_valid_once_is_looked_at_again(self, db: None) -> None:
        task = tasks.plus.using(queue_name="framework")
        with (
            override_settings(TASKS={"default": {"BACKEND": "django_taskq.backend.TaskqBackend"}}),
            pytest.raises(framework.InvalidTask, match="Queue 'framework'"),
        ):
            task.enqueue(1)
        assert not TaskRecord.objects.exists()

    def test_a_function_that_cannot_be_imported(self, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
        module = ModuleType("shop_gone")
        monkeypatch.setitem(sys.modules, "shop_gone", module)
        exec("def send(): ...", vars(module))
        task = tasks.task(module.send)
        task.enqueue()
        del module.send
        with pytest.raises(framework.InvalidTask, match=r"shop_gone\.send does not lead to a task"):
            task.enqueue()

    @pytest.mark.parametrize(
        "value", [object(), {1, 2}, datetime(2030, 1, 1), Decimal(1), b"\xff", [object()], {"a": {1}}]  # noqa: DTZ001
    )  # fmt: skip
    def test_arguments_that_are_not_json(self, db: None, value: Any) -> None:
        for call in ((value,), {}), ((), {"y": value}):
            with pytest.raises((TypeError, ValueError)):
                tasks.echo.enqueue(*call[0], **call[1])
        assert not TaskRecord.objects.exists()

    def test_a_call_that_does_not_fit(self, db: None) -> None:
        with pytest.raises(TypeError, match="missing a required argument: 'x'"):
            tasks.plus.enqueue()
        assert not TaskRecord.objects.exists()


class Size(models.TextChoices):
    BIG = "big"


@pytest.mark.django_db
class TestEnqueue:
    def test_the_result(self) -> None:
        before = timezone.now()
        result = tasks.plus.enqueue(1, y=2)
        assert result.status == READY
        assert not result.is_finished
        assert (result.args, result.kwargs, result.backend, result.task) == ([1], {"y": 2}, "default", tasks.plus)
        assert before <= result.enqueued_at <= timezone.now()
        assert (result.started_at, result.finished_at, result.last_attempted_at) == (None, None, None)
        assert (result.errors, result.worker_ids, result.attempts) == ([], [], 0)
        assert len(result.id) <= 64
        with pytest.raises(ValueError, match="not finished"):
            _ = result.return_value

    def test_the_row(self) -> None:
        task = tasks.plus.using(priority=-5, queue_name="framework")
        record = TaskRecord.objects.get(pk=task.enqueue(1).id)
        assert (record.name, record.queue_name, record.priority) == ("tests.backend.tasks.plus", "framework", -5)
        assert (record.headers, record.run_after) == (None, None)

    @pytest.mark.parametrize(
        ("given", "stored"),
        [
            ((1, 2), [1, 2]),
            (b"text", "text"),
            (Size.BIG, "big"),
            (mark_safe("<b>"), "<b>"),
            ({"a": [True, None, 1.5]}, {"a": [True, None, 1.5]}),
        ],
    )
    def test_arguments_are_plain_json(self, given: Any, stored: Any) -> None:
        result = tasks.echo.enqueue(given, key=given)
        record = TaskRecord.objects.get(pk=result.id)
        assert json.loads(record.payload) == [[stored], {"key": stored}]

    def test_the_result_is_nobody_else_s(self, heard: list[Any]) -> None:
        values = [1]
        result = tasks.echo.enqueue(values)
        values.append(2)
        heard[0][2].args.append(3)
        heard[0][2].errors.append("x")
        assert (result.args, result.errors) == ([[1]], [])

    def test_later(self) -> None:
        tomorrow = timezone.now() + timedelta(days=1)
        result = tasks.plus.using(run_after=tomorrow).enqueue(1)
        assert result.status == READY
        assert result.taskq_status == "SCHEDULED"
        assert TaskRecord.objects.get().run_after == tomorrow
        assert framework.task_backends["default"].get_result(result.id).task.run_after == tomorrow

    def test_without_time_zones(self) -> None:
        with override_settings(USE_TZ=False):
            soon = datetime.now() + timedelta(hours=1)  # noqa: DTZ005
            result = tasks.plus.using(run_after=soon).enqueue(1)
            assert timezone.is_naive(result.enqueued_at)

    def test_a_priority_that_is_a_whole_float(self) -> None:
        tasks.plus.using(priority=5.0).enqueue(1)
        assert TaskRecord.objects.get().priority == 5

    def test_the_alias_that_took_it_is_kept(self) -> None:
        result = tasks.plus.using(backend="patient").enqueue(1)
        assert result.backend == "patient"
        found = tasks.plus.get_result(result.id)
        assert (found.backend, found.task.backend) == ("patient", "patient")

    def test_a_duplicate_has_the_result_of_the_run_that_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        twin = registry.find("tests.backend.tasks.plus")
        assert twin is not None
        signature = inspect.signature(tasks.plus.func)
        monkeypatch.setattr(twin, "uniqueness", Uniqueness(twin.name, Unique(by=["x"]), signature))
        monkeypatch.setattr(registry, "_is_unique", True)
        first, again = tasks.plus.enqueue(1, 2), tasks.plus.enqueue(1, 3)
        assert (again.id, again.args, again.status) == (first.id, [1, 2], READY)
        assert tasks.plus.enqueue(2).id != first.id

    def test_queues_of_the_aliases_are_known(self) -> None:
        assert "framework" in client.known_queues()
        assert "framework" not in conf.get_settings().queues
        assert "framework" not in {task.options.queue_name for task in registry.all_tasks()}
        client.check_queue("framework")


@pytest.mark.django_db(transaction=True)
def test_a_rollback_leaves_nothing() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        result = tasks.plus.enqueue(1)
        1 / 0  # noqa: B018
    assert not TaskRecord.objects.exists()
    with pytest.raises(framework.TaskResultDoesNotExist):
        tasks.plus.get_result(result.id)
    with transaction.atomic():
        result = tasks.plus.enqueue(1)
    assert tasks.plus.get_result(result.id).status == READY
