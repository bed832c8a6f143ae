"""``taskq queues``, and ``taskq status`` beside brokers that may be down."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from django_taskq.management.verbs import queues, status
from django_taskq.models import Queue, TaskRecord
from django_taskq.status import Status
from tests.commands.conftest import Output
from tests.lettered_depot import LetteredDepot
from tests.servers import RedisServer
from tests.testapp.tasks import add
from tests.unit.making import make_message

pytestmark = [pytest.mark.database, pytest.mark.django_db]

Call = Callable[..., Output]
Depots = dict[str, LetteredDepot]


def make(queue_name: str, count: int = 1, **columns: Any) -> None:
    values = {"status": Status.READY, "payload": "[[2, 3], {}]", "enqueued_at": timezone.now()} | columns
    TaskRecord.objects.bulk_create(TaskRecord(name=add.name, queue_name=queue_name, **values) for _ in range(count))


def listed(call: Call) -> dict[str, dict[str, Any]]:
    return {queue["name"]: queue for queue in json.loads(call("queues", "--json").out)["queues"]}


class TestList:
    def test_json(self, call: Call, depots: Depots) -> None:
        now = timezone.now()
        make("mail", 3, publish_after=None)
        make("mail", 2, publish_after=now + timedelta(seconds=9))
        make("rows", 1, enqueued_at=now - timedelta(seconds=60))
        make("strange", status=Status.RUNNING)
        make("strange", publish_after=now)
        make("exchange:orders", publish_after=now)
        depots["bulk"].publish([make_message(queue_name="mail") for _ in range(3)])
        for number in range(3):
            depots["bulk"].refuse(str(number))
        found = json.loads(call("queues", "--json").out)
        assert set(found) == {"counted_up_to", "queues", "brokers"}
        rows = {queue.pop("name"): queue for queue in found["queues"]}
        assert list(rows) == sorted(rows)
        age = rows["mail"].pop("oldest_seconds")
        assert age is not None
        assert rows["mail"] == {
            "broker": "bulk", "available": 3, "ready": 5, "outbox": 2, "error": None, "is_known": True,
            "paused": None, "max_length": None, "when_full": None,
        }  # fmt: skip
        assert 59 < rows["rows"].pop("oldest_seconds") < 90
        assert rows["rows"] == {
            "broker": "rows", "available": 1, "ready": 1, "outbox": 0, "error": None, "is_known": True,
            "paused": None, "max_length": None, "when_full": None,
        }  # fmt: skip
        assert (rows["strange"]["broker"], rows["strange"]["is_known"]) == ("default", False)
        assert (rows["exchange:orders"]["available"], rows["exchange:orders"]["outbox"]) == (0, 1)
        assert found["brokers"] == [
            {"alias": "default", "url": "memory://", "dead_letters": 0, "error": None},
            {"alias": "bulk", "url": "memory://ann:***@mq", "dead_letters": 3, "error": None},
            {"alias": "rows", "url": "database://", "dead_letters": 0, "error": None},
        ]

    def test_text(self, call: Call, depots: Depots) -> None:
        make("strange")
        lines = [line.split() for line in call("queues").out.splitlines()]
        assert lines[0] == ["QUEUE", "BROKER", "AVAILABLE", "OLDEST", "READY", "OUTBOX"]
        assert ["default", "default", "0", "0", "0"] in lines
        (strange,) = [line for line in lines if line[:1] == ["strange"]]
        assert " ".join(strange).endswith("1 0 (no worker serves it by default)")
        assert lines[-4:] == [
            ["BROKER", "URL", "DEAD", "LETTERS"],
            ["default", "memory://", "0"],
            ["bulk", "memory://ann:***@mq", "0"],
            ["rows", "database://", "0"],
        ]

    def test_a_bound_is_shown_beside_a_pause(self, call: Call, settings: Any) -> None:
        settings.TASKQ = {"QUEUES": {"mail": {"max_length": 10_000, "when_full": "keep_newest"}}}
        assert (listed(call)["mail"]["max_length"], listed(call)["mail"]["when_full"]) == (10_000, "keep_newest")
        (line,) = [line for line in call("queues").out.splitlines() if line.startswith("mail ")]
        assert line.endswith("  at most 10,000 (keep_newest)")
        Queue.objects.pause("mail", by="ann", reason="")
        (line,) = [line for line in call("queues").out.splitlines() if line.startswith("mail ")]
        assert line.endswith("  PAUSED by ann; at most 10,000 (keep_newest)")

    def test_a_broker_that_is_down_is_one_line_and_one_wait(self, call: Call, depots: Depots) -> None:
        make("mail", 2)
        make("rows")
        depots["bulk"].go_down()
        with pytest.raises(CommandError, match="broker 'bulk' is unreachable: the depot was told to fail") as caught:
            call("queues")
        assert caught.value.returncode == 1
        assert sum(depots["bulk"].asked.values()) == 1

    def test_what_is_shown_then(self, depots: Depots) -> None:
        make("mail", 2)
        depots["bulk"].go_down()
        out = StringIO()
        with pytest.raises(CommandError):
            call_command("taskq", "queues", stdout=out, no_color=True)
        (mail,) = [line.split(None, 6) for line in out.getvalue().splitlines() if line.startswith("mail")]
        assert mail[:3] == ["mail", "bulk", "?"]
        assert "unreachable: the depot was told to fail" in " ".join(mail)
        (bulk,) = [line for line in out.getvalue().splitlines() if line.startswith("bulk ")]
        assert bulk.endswith("unreachable: the depot was told to fail")
        out = StringIO()
        with pytest.raises(CommandError):
            call_command("taskq", "queues", "--json", stdout=out)
        (found,) = [queue for queue in json.loads(out.getvalue())["queues"] if queue["name"] == "mail"]
        assert (found["available"], found["ready"], found["error"]) == (None, 2, "the depot was told to fail")

    def test_nothing_is_counted_for_long(self, call: Call, depots: Depots, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(status, "COUNTED", 3)
        monkeypatch.setattr(queues, "COUNTED_LETTERS", 2)
        make("rows", 5)
        for number in range(4):
            depots["default"].refuse(str(number))
        out = call("queues").out
        (rows,) = [line.split() for line in out.splitlines() if line.startswith("rows     ")][:1]
        assert rows[2] == "3+"
        assert "2+" in out.splitlines()[-3]

    def test_without_brokers(self, call: Call) -> None:
        make("default", 2)
        found = json.loads(call("queues", "--json").out)
        assert next(queue for queue in found["queues"] if queue["name"] == "default")["available"] == 2
        assert found["brokers"] == [{"alias": "default", "url": "database://", "dead_letters": 0, "error": None}]

    def test_an_error_shows_no_password_and_is_one_line(self, call: Call, depots: Depots) -> None:
        depots["bulk"].go_down()
        depots["bulk"].why = "no way to amqp://ann:hunter2@mq\nqueue default is fine\x1b[2J"
        expected = "no way to amqp://ann:***@mq queue default is fine\\x1b[2J"
        for arguments in (["queues"], ["queues", "purge", "mail", "--yes"], ["dead-letters"]):
            with pytest.raises(CommandError) as caught:
                call(*arguments)
            assert str(caught.value).endswith(f"broker 'bulk' is unreachable: {expected}")
        assert expected in call("status").err


class TestPurge:
    def test_only_with_yes(self, call: Call, depots: Depots) -> None:
        make("mail", 2)
        make("mail", status=Status.SCHEDULED, run_after=timezone.now() + timedelta(hours=1))
        make("mail", status=Status.RUNNING)
        make("rows")
        depots["bulk"].publish([make_message(queue_name="mail") for _ in range(2)])
        with pytest.raises(CommandError, match="nothing was thrown away: add --yes") as caught:
            call("queues", "purge", "mail")
        assert caught.value.returncode == 2
        assert TaskRecord.objects.count() == 5
        assert call("queues", "purge", "mail", "--yes").out == "3 run(s) of queue mail thrown away\n"
        assert sorted(TaskRecord.objects.values_list("queue_name", "status")) == [
            ("mail", "RUNNING"), ("rows", "READY")
        ]  # fmt: skip
        assert depots["bulk"].size("mail") == 0

    def test_a_wrong_name(self, call: Call, depots: Depots) -> None:
        with pytest.raises(CommandError, match="no queue is named 'mial'. Did you mean \"mail\"") as caught:
            call("queues", "purge", "mial", "--yes")
        assert caught.value.returncode == 2

    def test_a_broker_that_is_down(self, call: Call, depots: Depots) -> None:
        depots["bulk"].go_down()
        for arguments in (["--yes"], []):
            with pytest.raises(CommandError, match="'mail' could not be purged: broker 'bulk' is unreach") as caught:
                call("queues", "purge", "mail", *arguments)
            assert caught.value.returncode == 1

    @pytest.mark.parametrize(
        "arguments", [["purge"], ["list", "mail"], ["--yes"], ["purge", "mail", "--json"], ["explode"]]
    )
    def test_wrong_use(self, call: Call, arguments: list[str]) -> None:
        with pytest.raises(CommandError) as caught:
            call("queues", *arguments)
        assert caught.value.returncode in (1, 2)


class TestStatus:
    def test_a_broker_that_is_down(self, call: Call, depots: Depots) -> None:
        make("mail")
        make("default")
        depots["bulk"].go_down()
        depots["default"].go_down()
        output = call("status", "--json")
        found = {queue["name"]: queue for queue in json.loads(output.out)["queues"]}
        assert (found["mail"]["ready"], found["mail"]["oldest_seconds"]) == (1, None)
        output = call("status")
        assert "broker 'bulk' is unreachable: the depot was told to fail\n" in output.err
        assert "mail" in output.out
        assert sum(depots["default"].asked.values()) == 2  # once for each command, however many queues it keeps


@pytest.mark.django_db(transaction=True)
def test_on_redis(call: Call, settings: Any, redis_server: RedisServer) -> None:
    prefix = f"t{uuid4().hex[:12]}"
    settings.TASKQ = {
        "BROKERS": {"fast": {"URL": redis_server.url, "PREFIX": prefix}},
        "QUEUES": {"x": {"broker": "fast"}},
    }
    for _ in range(3):
        add.using(queue_name="x").enqueue(1, 2)
    found = listed(call)["x"]
    assert (found["broker"], found["available"], found["ready"], found["error"]) == ("fast", 3, 3, None)
    assert found["oldest_seconds"] is not None
    assert call("queues", "purge", "x", "--yes").out == "3 run(s) of queue x thrown away\n"
    assert not TaskRecord.objects.exists()
    with redis_server.client() as client:
        assert not list(client.scan_iter(f"*{prefix}*ready*"))


@pytest.mark.django_db(transaction=True)
def test_on_a_redis_that_is_not_there(call: Call, settings: Any) -> None:
    settings.TASKQ = {"BROKER_URL": "redis://:hunter2@127.0.0.1:1/0"}
    with pytest.raises(CommandError, match="broker 'default' is unreachable") as caught:
        call("queues")
    assert "hunter2" not in str(caught.value)
