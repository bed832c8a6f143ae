"""``taskq workers``, ``taskq limits`` and ``taskq queues pause``: what they say, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.utils import timezone

from django_taskq import control
from django_taskq.control.issuing import Reply
from django_taskq.management.verbs import workers
from django_taskq.models import Command, Queue, TaskLimits, Worker
from tests.commands.conftest import Output
from tests.testapp.tasks import add

pytestmark = [pytest.mark.database, pytest.mark.django_db]

Call = Callable[..., Output]


@pytest.fixture
def online() -> Worker:
    """A row of a worker that answers nobody."""
    return Worker.objects.create(
        hostname="host", boot_id="b", pid_namespace="n", pid=7, pid_started=1, table_path="/x", queues="default",
        processes=2, threads=1, version="0", lease_expires_at=timezone.now() + timedelta(minutes=1),
    )  # fmt: skip


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """The calls of control, which are answered by one worker."""
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def answering(name: str) -> Callable[..., dict[str, Reply]]:
        def order(*values: Any, **how: Any) -> dict[str, Reply]:
            calls.append((name, values, how))
            return {"host:7": Reply("host:7", 1, is_ok=True, value={"pid": 7, "queues": ["a", "b"]})}

        return order

    for name in workers.ORDERS:
        monkeypatch.setitem(workers.ORDERS, name, answering(name))
    return calls


class TestWorkers:
    def test_list(self, call: Call, online: Worker) -> None:
        assert call("workers").out.startswith("host:7  2 x 1  default  heartbeat ")
        (found,) = json.loads(call("workers", "list", "--json").out)["workers"]
        assert (found["name"], found["processes"]) == ("host:7", 2)

    def test_nobody(self, call: Call) -> None:
        assert call("workers").out == ""
        with pytest.raises(CommandError, match="no worker is online") as caught:
            call("workers", "ping")
        assert caught.value.returncode == 1

    @pytest.mark.parametrize(
        ("arguments", "values"),
        [
            pytest.param(["ping"], (), id="ping"),
            pytest.param(["inspect", "active", "stats"], ("active", "stats"), id="inspect"),
            pytest.param(["processes", "3"], (3,), id="processes"),
            pytest.param(["autoscale", "2,8"], (2, 8), id="autoscale"),
            pytest.param(["consume", "default"], ("default",), id="consume"),
        ],
    )
    def test_orders(self, call: Call, answered: Any, arguments: list[str], values: tuple[Any, ...]) -> None:
        shown = call("workers", *arguments, "--worker", "host:7", "--timeout", "3").out
        assert shown == "host:7  ok\n  pid: 7\n  queues: a, b\n"
        ((name, given, how),) = answered
        assert (name, given) == (arguments[0], values)
        assert (how["workers"], how["timeout"]) == (["host:7"], 3.0)
        assert "@" in how["by"]
        assert json.loads(call("workers", *arguments, "--json").out)["host:7"]["is_ok"] is True

    def test_one_that_does_not_answer(self, call: Call, online: Worker) -> None:
        with pytest.raises(CommandError, match=r"1 of 1 worker\(s\) did not obey") as caught:
            call("workers", "stop", "--timeout", "0.01")
        assert caught.value.returncode == 1
        assert Command.objects.get().name == "shutdown"

    @pytest.mark.parametrize(
        "arguments",
        [["list", "x"], ["list", "--worker", "x"], ["ping", "x"], ["processes"], ["processes", "two"],
         ["processes", "0"], ["autoscale", "3"], ["autoscale", "3,2"], ["inspect", "activ"], ["consume", "nowhere"],
         ["ping", "--worker", "nobody"], ["ping", "--timeout", "0"], ["explode"]],
        ids=" ".join,
    )  # fmt: skip
    def test_wrong_usage(self, call: Call, online: Worker, arguments: list[str]) -> None:
        with pytest.raises(CommandError) as caught:
            call("workers", *arguments)
        # argparse's own errors have none when the command is called from Python; they exit with 2 as well.
        assert caught.value.returncode in (1, 2)
        assert not Command.objects.exists()


class TestLimits:
    def test_set_show_and_clear(self, call: Call) -> None:
        assert call("limits", "set", add.name, "--soft", "5", "--hard", "9").out == f"limits of {add.name} set\n"
        row = TaskLimits.objects.get()
        assert (row.task_name, row.soft_time_limit, row.time_limit) == (add.name, 5.0, 9.0)
        assert call("limits").out.startswith(f"{add.name}  soft 5 s, hard 9 s, set by ")
        (found,) = json.loads(call("limits", "--json").out)["limits"]
        assert (found["task"], found["time_limit"]) == (add.name, 9.0)
        assert call("limits", "clear", add.name).out == f"limits of {add.name} cleared\n"
        assert call("limits").out == ""

    def test_those_of_a_task_that_is_no_more_can_be_cleared(self, call: Call) -> None:
        TaskLimits.objects.put("shop.gone", None, 3, by="")
        assert call("limits", "clear", "shop.gone").out == "limits of shop.gone cleared\n"
        assert not TaskLimits.objects.exists()
        with pytest.raises(CommandError, match="no task is named 'shop.gone'"):
            call("limits", "clear", "shop.gone")

    @pytest.mark.parametrize(
        "arguments",
        [["set"], ["set", add.name], ["clear", add.name, "--hard", "1"], ["list", add.name],
         ["set", "nothing", "--hard", "1"], ["set", add.name, "--soft", "2", "--hard", "1"],
         ["set", add.name, "--hard", "-1"], ["clear", add.name, "--json"]],
        ids=" ".join,
    )  # fmt: skip
    def test_wrong_usage(self, call: Call, arguments: list[str]) -> None:
        with pytest.raises(CommandError):
            call("limits", *arguments)
        assert not TaskLimits.objects.exists()


class TestPausing:
    def test_pause_show_and_resume(self, call: Call) -> None:
        assert call("queues", "pause", "default", "--reason", "the\nprovider").out == "queue default paused\n"
        assert Queue.objects.get().reason == "the\nprovider"
        (line,) = [line for line in call("queues").out.splitlines() if line.startswith("default ")][:1]
        assert "PAUSED by " in line
        assert line.endswith(r": the\x0aprovider")
        (found,) = json.loads(call("queues", "--json").out)["queues"]
        assert found["paused"]["reason"] == "the\nprovider"
        assert call("queues", "resume", "default").out == "queue default resumed\n"
        (found,) = json.loads(call("queues", "--json").out)["queues"]
        assert found["paused"] is None

    def test_one_that_nobody_knows_any_more_is_shown(self, call: Call) -> None:
        Queue.objects.pause("old", by="ann", reason="")
        assert "PAUSED by ann" in call("queues").out
        call("queues", "resume", "old")
        assert "old" not in call("queues").out

    @pytest.mark.parametrize(
        "arguments",
        [["pause"], ["resume"], ["pause", "nowhere"], ["resume", "nowhere"], ["pause", "default", "--yes"],
         ["pause", "default", "--json"], ["resume", "default", "--reason", "x"], ["list", "--reason", "x"]],
        ids=" ".join,
    )  # fmt: skip
    def test_wrong_usage(self, call: Call, arguments: list[str]) -> None:
        with pytest.raises(CommandError) as caught:
            call("queues", *arguments)
        assert caught.value.returncode == 2
        assert not Queue.objects.exists()


def test_every_order_has_its_function() -> None:
    assert set(workers.ORDERS.values()) <= {getattr(control, name) for name in control.__all__}
