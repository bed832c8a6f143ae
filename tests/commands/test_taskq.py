"""The verbs of ``taskq``, on real rows, called in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.db import connections
from django.utils import timezone

from django_taskq import control
from django_taskq.brokers.database import get_dialect
from django_taskq.management.verbs import VERBS, demo, prune, retry, status
from django_taskq.models import TaskAttempt, TaskRecord, Worker, WorkerProcess
from django_taskq.models.clock import database_now_plus
from django_taskq.options import option_names
from django_taskq.status import Status
from django_taskq.task import task
from tests.commands.conftest import Output
from tests.testapp.tasks import add, fail

pytestmark = [pytest.mark.database, pytest.mark.django_db]

Call = Callable[..., Output]


def make(name: str = add.name, status: str = Status.READY, count: int = 1, **columns: Any) -> list[TaskRecord]:
    now = timezone.now()
    values = {"queue_name": "default", "payload": "[[2, 3], {}]", "enqueued_at": now} | columns
    if status in (Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED):
        values = {"finished_at": now} | values
    rows = [TaskRecord(name=name, status=status, **values) for _ in range(count)]
    return sorted(TaskRecord.objects.bulk_create(rows), key=lambda row: row.pk)


def statuses() -> dict[str, int]:
    rows = list(TaskRecord.objects.values_list("status", flat=True))
    return {status: rows.count(status) for status in sorted(set(rows))}


def online_worker() -> Worker:
    return Worker.objects.create(
        hostname="box", pid=7, pid_started=1, processes=2, threads=1, version="0.1", queues="default",
        lease_expires_at=database_now_plus("default", 30),
    )  # fmt: skip


def test_every_verb_says_what_it_does() -> None:
    for name, verb in VERBS.items():
        assert verb.help.endswith("."), name
        assert verb.help[0].isupper(), name


class TestStatus:
    def test_json(self, call: Call) -> None:
        make(count=3, enqueued_at=timezone.now() - timedelta(seconds=60))
        make(status=Status.RUNNING)  # claimed, not begun: shown as READY
        make(status=Status.RUNNING, started_at=timezone.now())
        make(status=Status.SCHEDULED, run_after=timezone.now() + timedelta(hours=1))
        make(status=Status.SUCCESSFUL, count=2)
        make(fail.name, Status.FAILED)
        make(status=Status.CANCELLED)
        make(queue_name="strange")
        online_worker()
        output = call("status", "--json")
        found = json.loads(output.out)
        assert output.err == ""
        assert set(found) == {"counts", "counted_up_to", "queues", "workers"}
        assert found["counts"] == {
            "SCHEDULED": 1, "READY": 5, "RUNNING": 1, "SUCCESSFUL": 2, "FAILED": 1, "CANCELLED": 1
        }  # fmt: skip
        default, strange = found["queues"]
        assert set(default) == {"name", "ready", "oldest_seconds", "is_known"}
        assert (default["name"], default["ready"], default["is_known"]) == ("default", 3, True)
        assert 59 < default["oldest_seconds"] < 90
        assert (strange["name"], strange["ready"], strange["is_known"]) == ("strange", 1, False)
        (worker,) = found["workers"]
        assert set(worker) == {
            "name", "queues", "processes", "threads", "version", "started_at", "heartbeat_seconds"
        }  # fmt: skip
        assert worker["name"] == "box:7"

    def test_nothing_is_counted_for_long(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(status, "COUNTED", 3)
        make(count=5)
        make(status=Status.SUCCESSFUL, count=5)
        output = call("status")
        assert [line.split() for line in output.out.splitlines()[1:7]] == [
            ["SCHEDULED", "0"], ["READY", "3+"], ["RUNNING", "0"], ["SUCCESSFUL", "3+"], ["FAILED", "0"],
            ["CANCELLED", "0"],
        ]  # fmt: skip
        assert "default" in output.out
        assert "3+ ready" in output.out

    def test_without_a_worker_it_says_how_to_start_one(self, call: Call) -> None:
        assert call("status").err == "No worker is online. Start one: python manage.py taskworker\n"
        assert call("status", verbosity=0).err == ""


class TestShow:
    def test_json(self, call: Call) -> None:
        process = WorkerProcess.objects.create(worker=online_worker(), pid=8)
        (record,) = make(fail.name, Status.FAILED, payload='[["x"], {"y": 1}]', worker=process, reason="ValueError: x")
        record.attempt_set.create(
            attempt=1, kind="FAILED", finished_at=timezone.now(), class_path="builtins.ValueError", message="x"
        )
        found = json.loads(call("show", str(record.pk), "--json").out)
        assert set(found) == {
            "id", "name", "status", "queue_name", "priority", "attempt", "crashes", "args", "kwargs", "return_value",
            "reason", "enqueued_at", "run_after", "expires_at", "started_at", "finished_at", "cancel_requested_at",
            "worker", "attempts", "waits_for",
        }  # fmt: skip
        assert (found["id"], found["name"], found["status"]) == (str(record.pk), fail.name, "FAILED")
        assert (found["args"], found["kwargs"], found["return_value"]) == (["x"], {"y": 1}, None)
        assert found["worker"] == "box:8"
        assert datetime.fromisoformat(found["finished_at"]).utcoffset() == timedelta(0)
        (attempt,) = found["attempts"]
        assert set(attempt) == {
            "attempt", "kind", "class_path", "message", "traceback", "started_at", "finished_at"
        }  # fmt: skip

    def test_text_cannot_be_forged(self, call: Call) -> None:
        (record,) = make(fail.name, Status.FAILED, reason="x\nstatus                SUCCESSFUL\x1b[2J")
        record.attempt_set.create(
            attempt=1, kind="FAILED", finished_at=timezone.now(), class_path="e.E", message="a\nb", traceback="1\n\x1b2"
        )
        out = call("show", str(record.pk)).out
        assert [line.split()[1] for line in out.splitlines() if line.startswith("status ")] == ["FAILED"]
        assert "\x1b" not in out
        assert "attempt 1 FAILED: e.E: a\\x0ab" in out

    def test_json_cannot_drive_a_terminal_and_keeps_every_character(self, call: Call) -> None:
        text = "\u202e\U000e0001\x9b"
        (record,) = make(payload=f'[["{text}", "ほげ"], {{}}]')
        out = call("show", str(record.pk), "--json").out
        assert "ほげ" in out
        assert all(char.isprintable() or char == "\n" for char in out)
        assert json.loads(out)["args"] == [text, "ほげ"]

    def test_what_cannot_be_read_is_said(self, call: Call) -> None:
        (record,) = make(payload='[[{"__taskq__": "nowhere", "v": 1}], {}]')
        assert "the serializer tag 'nowhere' is not registered in this process" in call("show", str(record.pk)).out


class TestRun:
    def test_it_prints_the_id(self, call: Call) -> None:
        output = call("run", add.name, "--args", "[2]", "--kwargs", '{"y": 3}')
        record = TaskRecord.objects.get()
        assert output == Output(f"{record.pk}\n", "")
        assert (record.args, record.kwargs, record.queue_name) == ([2], {"y": 3}, "default")

    def test_queue(self, call: Call, settings: Any) -> None:
        settings.TASKQ = {"QUEUES": ["bulk"]}
        call("run", add.name, "--args", "[2, 3]", "--queue", "bulk")
        assert TaskRecord.objects.get().queue_name == "bulk"

    @pytest.mark.django_db(transaction=True)
    def test_wait(self, call: Call, settings: Any) -> None:
        settings.TASKQ = {"EAGER": True}
        assert call("run", add.name, "--args", "[2, 3]", "--wait").out.splitlines()[1:] == ["5"]
        with pytest.raises(CommandError, match=r"ValueError: oh \(see python manage.py taskq show ") as caught:
            call("run", fail.name, "--args", '["oh"]', "--wait")
        assert caught.value.returncode == 1


class TestRetry:
    def test_by_id(self, call: Call) -> None:
        (failed,), (cancelled,), (ready,) = make(fail.name, Status.FAILED), make(status=Status.CANCELLED), make()
        assert call("retry", str(failed.pk), str(cancelled.pk)).out.count("will be tried again") == 2
        assert statuses() == {"READY": 3}
        with pytest.raises(CommandError, match=r"1 run\(s\) not changed"):
            call("retry", str(ready.pk))

    def test_nothing_is_done_when_one_id_is_wrong(self, call: Call) -> None:
        (failed,) = make(fail.name, Status.FAILED)
        with pytest.raises(CommandError, match="is not the id of a run"):
            call("retry", str(failed.pk), "12")
        assert statuses() == {"FAILED": 1}

    def test_everything_that_failed(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retry, "CHUNK", 2)
        for name, count in (("a", 5), ("b", 2), ("c", 1)):
            make(name, Status.FAILED, count)
        make(status=Status.CANCELLED)
        assert call("retry", "--failed").out == "8 run(s) will be tried again\n"
        assert statuses() == {"CANCELLED": 1, "READY": 8}

    def test_of_one_task(self, call: Call) -> None:
        make("a", Status.FAILED, 2)
        make("b", Status.FAILED)
        assert call("retry", "--failed", "--task", "a").out == "2 run(s) will be tried again\n"
        assert set(TaskRecord.objects.filter(status="READY").values_list("name", flat=True)) == {"a"}

    def test_what_fails_again_at_once_is_not_tried_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retry, "CHUNK", 2)
        make("a", Status.FAILED, 5)
        seen = []
        for ids in retry._failed(None):
            seen += ids
            control.retry(TaskRecord.objects.filter(pk__in=ids))
            TaskRecord.objects.filter(pk__in=ids).update(status=Status.FAILED, finished_at=timezone.now())
        assert len(seen) == len(set(seen)) == 5

    @pytest.mark.django_db(transaction=True)
    def test_it_rings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rung = []
        dialect = type(get_dialect("default"))
        monkeypatch.setattr(dialect, "wake", lambda self, connection, names: rung.append((connection.alias, names)))
        rows = make("a", Status.FAILED, queue_name="mail") + make("a", Status.FAILED)
        assert control.retry(TaskRecord.objects.filter(pk__in=[row.pk for row in rows])) == 2
        assert rung == [("default", ["default", "mail"])]
        assert not connections["default"].in_atomic_block


class TestCancel:
    def test_it(self, call: Call) -> None:
        (ready,), (running,), (done,) = make(), make(status=Status.RUNNING), make(status=Status.SUCCESSFUL)
        output = call("cancel", str(ready.pk), str(running.pk))
        assert output.out == (f"{ready.pk} cancelled\n{running.pk} is with a worker, which is told to stop it\n")
        assert statuses() == {"CANCELLED": 1, "RUNNING": 1, "SUCCESSFUL": 1}
        running.refresh_from_db()
        assert running.cancel_requested_at
        with pytest.raises(CommandError, match=r"1 run\(s\) not changed"):
            call("cancel", str(done.pk))


class TestPrune:
    def test_it(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prune, "AT_ONCE", 2)
        monkeypatch.setattr(prune, "LINE_INTERVAL", 0)
        old = timezone.now() - timedelta(days=8)
        for record in make(status=Status.SUCCESSFUL, count=5, finished_at=old):
            record.attempt_set.create(attempt=1, kind="RETRIED", finished_at=old, class_path="e.E")
        make(status=Status.FAILED, finished_at=old)
        make(status=Status.SUCCESSFUL)
        kept = "(kept: results 7 days, 0:00:00, failures 30 days, 0:00:00)"
        assert call("prune", "--dry-run").out == f"5 run(s) would be deleted {kept}\n"
        assert statuses() == {"FAILED": 1, "SUCCESSFUL": 6}
        output = call("prune")
        assert output == Output(f"5 run(s) deleted {kept}\n", "2 of 5 (40 %)\n4 of 5 (80 %)\n")
        assert statuses() == {"FAILED": 1, "SUCCESSFUL": 1}
        assert not TaskAttempt.objects.exists()


class TestSettings:
    def test_json(self, call: Call, settings: Any) -> None:
        settings.TASKQ = {"THREADS": 4, "QUEUES": ["b", "a"], "RESULT_EXPIRES": timedelta(days=1)}
        found = json.loads(call("settings", "--json").out)
        assert found["THREADS"] == {"value": 4, "source": "TASKQ"}
        assert found["QUEUES"] == {"value": {"b": {}, "a": {}}, "source": "TASKQ"}
        assert found["RESULT_EXPIRES"] == {"value": "P1DT00H00M00S", "source": "TASKQ"}
        assert found["GRACE"] == {"value": 30.0, "source": "default"}

    def test_of_a_task(self, call: Call, settings: Any, own_tasks: None) -> None:
        settings.TASKQ = {"TIME_LIMIT": 60, "QUEUES": ["mail"]}
        task(name="own", queue_name="mail", autoretry_for=(OSError,), soft_time_limit=5)(lambda: None)
        found = json.loads(call("settings", "--task", "own", "--json").out)
        assert list(found) == option_names()
        assert found["queue_name"] == {"value": "mail", "source": "@task option"}
        assert found["autoretry_for"] == {"value": ["builtins.OSError"], "source": "@task option"}
        assert found["soft_time_limit"] == {"value": 5.0, "source": "@task option"}
        assert found["time_limit"] == {"value": 60.0, "source": "TASKQ"}
        assert found["priority"] == {"value": 0, "source": "default"}

    def test_passwords_are_masked(self, call: Call, settings: Any) -> None:
        options = {"transport_options": {"password": "hunter2"}, "connect_timeout": 3}
        settings.TASKQ = {
            "BROKER_URL": "redis://:hunter2%40@cache:6379/0",
            "BROKERS": {"mq": {"URL": ["amqp://a:hunter2@b", "amqp://a:hunter2@c"], "OPTIONS": options}},
        }
        for arguments in (["settings"], ["settings", "--json"]):
            out = call(*arguments).out
            assert "redis://:***@cache:6379/0" in out
            assert "amqp://a:***@b;amqp://a:***@c" in out
            assert "connect_timeout" in out
            assert "hunter2" not in out

    def test_what_is_parsed_is_shown_as_it_was_written(self, call: Call, settings: Any) -> None:
        binding = {"queue": "mail", "routing_key": "order.*"}
        settings.TASKQ = {
            "BROKER_URL": "amqp://",
            "QUEUES": {"mail": {"arguments": {"x-max-length": 5}}, "bulk": {}},
            "EXCHANGES": {"orders": {"type": "topic", "bindings": [binding]}},
            "ROUTES": [{"shop.*": "mail"}, json.dumps],
        }
        found = json.loads(call("settings", "--json").out)
        assert found["QUEUES"]["value"] == {"mail": {"arguments": {"x-max-length": 5}}, "bulk": {}}
        assert found["EXCHANGES"]["value"]["orders"]["bindings"] == [{"queue_name": "mail", "routing_key": "order.*"}]
        assert found["ROUTES"]["value"] == [
            {"pattern": "shop.*", "route": {"queue_name": "mail"}}, {"router": "json.dumps"}
        ]  # fmt: skip
        assert "bulk" in call("settings").out

    def test_text(self, call: Call) -> None:
        lines = call("settings").out.splitlines()
        assert lines[0].split() == ["BROKER_URL", "database://", "default"]


@pytest.mark.django_db(transaction=True)
def test_demo(call: Call, worker_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, own_tasks: None) -> None:
    for name, value in worker_env.items():
        monkeypatch.setenv(name, value)
    output = call("demo")
    assert [line.split(None, 1)[0] for line in output.out.splitlines() if "attempt " in line] == [
        "successful", "successful", "failed"
    ]  # fmt: skip
    assert "5" in output.out
    assert "attempt 3 went through" in output.out
    assert "this one always fails" in output.out
    assert statuses() == {"FAILED": 1, "SUCCESSFUL": 2}


@pytest.mark.django_db(transaction=True)
def test_demo_that_cannot_start_its_worker(call: Call, monkeypatch: pytest.MonkeyPatch, own_tasks: None) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.nowhere")
    with pytest.raises(CommandError, match=r"the worker ended with 1:[\s\S]*No module named 'tests.nowhere'"):
        call("demo")
    assert demo.Demo.help
    assert statuses() == {"CANCELLED": 3}


def test_options_may_stand_on_both_sides_of_the_verb(call: Call) -> None:
    assert call("--verbosity", "0", "status").err == ""
    assert call("status", "--verbosity", "0").err == ""
    assert "No worker" in call("status", "--no-color").err
