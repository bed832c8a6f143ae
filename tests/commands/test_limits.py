"""``taskq limits`` for what holds runs back: what it shows, changes and refuses; and why a run waits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management.base import CommandError

from django_taskq import TaskResult, control, maintenance, registry
from django_taskq.exceptions import InvalidCommand
from django_taskq.models import Command, Limit, TaskRecord
from django_taskq.status import Status
from django_taskq.task import Task
from tests.admin.rows import make_user
from tests.commands.conftest import Output
from tests.unit.making import make_task
from tests.unit.working import claim, run

pytestmark = [pytest.mark.database, pytest.mark.django_db]
Call = Callable[..., Output]
Made = Task[Any, Any]
NAME = "shop.send"


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))


@pytest.fixture
def task() -> Made:
    return make_task(lambda number=0: None, name=NAME, concurrency=1)


def wait(made: Made, *numbers: int) -> list[TaskResult[Any]]:
    results = [made.enqueue(number) for number in numbers]
    maintenance.tend_limits()
    return results


def ready() -> int:
    return int(TaskRecord.objects.filter(status=Status.READY).count())


class TestList:
    def test_a_table(self, call: Call, task: Made) -> None:
        make_task(lambda: None, name="shop.call", rate_limit="100/m", rate_burst=7)
        maintenance.declare_limits()
        wait(task, 1, 2, 3)
        control.set_limit("shop.call", rate="50/m", by="ann")
        lines = call("limits").out.splitlines()
        assert lines[0].split() == ["KEY", "AT", "ONCE", "HELD", "WAITING", "RATE", "BURST"]
        # Those with waiters come first.
        assert lines[1].split() == ["task:shop.send", "1", "1", "2"]
        assert lines[2].split(None, 5) == ["rate:shop.call", "0", "0", "50/m", "7", "set by ann; the code says 100/m"]

    def test_json(self, call: Call, task: Made) -> None:
        wait(task, 1, 2, 3)
        control.set_limit(NAME, most=2)
        document = json.loads(call("limits", "--json").out)
        (found,) = document["flow"]
        assert (found["key"], found["most"], found["declared"]["most"]) == (f"task:{NAME}", 2, 1)
        assert (found["held"], found["waiting"], found["breaker"]) == (2, 1, None)
        assert document["limits"] == []

    def test_a_few_of_many(self, call: Call) -> None:
        made = make_task(lambda number=0: None, name=NAME, concurrency=1, concurrency_key="n{number}")
        wait(made, *range(5))
        output = call("limits", "--limit", "2")
        assert len(output.out.splitlines()) == 3
        assert "There are more" in output.err
        assert f"task:{NAME}:n3" in call("limits", "--key", "n3").out
        assert call("limits", "--key", "n7").out == ""

    def test_when_the_next_may_pass(self, call: Call) -> None:
        wait(make_task(lambda number=0: None, name=NAME, rate_limit="1/h"), 1, 2)
        assert re.search(r"the next one may pass in 3[56]\d\d\.", call("limits").out)

    def test_names_cannot_forge_lines(self, call: Call) -> None:
        made = make_task(lambda text: None, name=NAME, lock="{text}")
        made.enqueue("a\nlock:forged")
        maintenance.tend_limits()
        assert "lock:a\\x0alock:forged" in call("limits").out


class TestShow:
    def test_holders_and_waiters_in_their_order(self, call: Call, task: Made) -> None:
        first, second = wait(task, 1, 2)
        urgent = task.using(priority=9).enqueue(3)
        maintenance.tend_limits()
        claim()
        document = json.loads(call("limits", "show", f"task:{NAME}", "--json").out)
        (found,) = document["limits"]
        assert [each["id"] for each in found["holders"]] == [first.id]
        assert [each["id"] for each in found["waiters"]] == [urgent.id, second.id]
        out = call("limits", "show", NAME).out
        assert out.index("Held by: 1") < out.index(first.id) < out.index("Waiting: 2") < out.index(urgent.id)
        assert "first 1" in call("limits", "show", NAME, "--limit", "1").out

    def test_one_that_nobody_came_to(self, call: Call, task: Made) -> None:
        output = call("limits", "show", NAME)
        assert (output.out, output.err) == ("", f"Nothing has come to task:{NAME} yet.\n")

    def test_why_a_run_waits(self, call: Call, task: Made) -> None:
        first, second, third = wait(task, 1, 2, 3)
        assert json.loads(call("show", first.id, "--json").out)["waits_for"] == ""
        assert f"task:{NAME}: it is the next; held by {first.id}" in call("show", second.id).out
        assert f"task:{NAME}: 1 before it; held by {first.id}" in call("show", third.id).out
        control.set_limit(NAME, most=0)
        assert "lets nothing pass" in call("show", third.id).out

    def test_a_breaker_that_is_open(self, call: Call) -> None:
        made = make_task(lambda number=0: 1 / number, name=NAME, breaker=1)
        wait(made, 0)
        run(claim())
        _, second = wait(made, 1, 2)
        assert "OPEN after 1 x ZeroDivisionError, a trial may pass in" in call("limits").out
        assert "OPEN after 1 x" in call("show", second.id).out
        assert call("limits", "reset", NAME).out == f"the breaker {NAME} is closed: runs may pass\n"
        assert ready() == 2
        assert "closed already" in call("limits", "reset", f"breaker:{NAME}").err


class TestChange:
    def test_by_a_tasks_name_and_by_key(self, call: Call, task: Made) -> None:
        wait(task, *range(6))
        assert call("limits", "set", NAME, "--most", "3").out == f"limit {NAME} set\n"
        assert ready() == 3
        assert Limit.objects.get().set_by
        call("limits", "set", f"task:{NAME}", "--most", "4")
        assert ready() == 4
        assert call("limits", "clear", f"task:{NAME}").out == f"limit task:{NAME} is as in the code\n"
        assert Limit.objects.get().set_most is None
        call("limits", "set", NAME, "--most", "0")
        # The name alone clears all that was set on the task.
        assert call("limits", "clear", NAME).out == f"limits of {NAME} cleared\n"
        assert Limit.objects.get().set_at is None
        names = ["set_limit", "set_limit", "clear_limit", "set_limit", "set_time_limits", "clear_limit"]
        assert list(Command.objects.order_by("pk").values_list("name", flat=True)) == names

    def test_a_rate(self, call: Call) -> None:
        made = make_task(lambda number=0: None, name=NAME, rate_limit="1/h")
        wait(made, *range(30))
        call("limits", "set", f"rate:{NAME}", "--rate", "600/m", "--burst", "20")
        row = Limit.objects.get()
        assert (row.set_rate, row.set_burst) == (10.0, 20)
        call("limits", "set", NAME, "--rate", "0")
        assert Limit.objects.get().set_rate == 0

    def test_one_key(self, call: Call) -> None:
        made = make_task(lambda number=0: None, name=NAME, concurrency=1, concurrency_key="n{number}")
        call("limits", "set", f"task:{NAME}:n1", "--most", "2")
        wait(made, 1, 1, 1, 2, 2)
        assert ready() == 3

    def test_a_holder_is_released(self, call: Call) -> None:
        first, _second = wait(make_task(lambda number=0: None, name=NAME, lock="report"), 1, 2)
        out = call("limits", "release", "lock:report", first.id).out
        assert out == f"run {first.id} holds lock:report no more; it was not stopped\n"
        assert ready() == 2
        with pytest.raises(CommandError, match="does not hold lock:report") as failed:
            call("limits", "release", "lock:report", first.id)
        assert failed.value.returncode == 1
        assert [row.name for row in Command.objects.all()] == ["release_permit", "release_permit"]

    def test_a_queue(self, call: Call, settings: Any) -> None:
        settings.TASKQ = {"QUEUES": {"mail": {"concurrency": 1}, "plain": {}}}
        make_task(lambda: None, name=NAME)
        call("limits", "set", "queue:mail", "--most", "2")
        assert Limit.objects.get().set_most == 2
        with pytest.raises(CommandError, match="the queue plain has no concurrency"):
            call("limits", "set", "queue:plain", "--most", "2")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("list", NAME), "list takes no name"),
        (("show",), "show takes the name of a task, or the key"),
        (("release", "lock:x"), "release takes the key of a limit, and the id of the run"),
        (("set", NAME), "set takes --most or --rate"),
        (("set", NAME, "--most", "1", "--hard", "2"), "set takes --most or --rate"),
        (("clear", NAME, "--most", "1"), "argument --most: it goes with set"),
        (("set", NAME, "--most", "1", "--json"), "argument --json: it goes with list and show"),
        (("set", NAME, "--most", "-1"), "'-1' is not usable: it takes a whole number from 0"),
        (("set", NAME, "--rate", "often"), "'often' is not usable: it takes a rate such as"),
        (("set", NAME, "--burst", "2"), "set_limit takes most or rate"),
        (("set", NAME, "--rate", "1/s"), f"{NAME} has no rate_limit, so its runs pass no limit 'rate:{NAME}'"),
        (("set", f"task:{NAME}", "--rate", "1/s"), f"task:{NAME} is no rate: it takes most"),
        (("set", f"task:{NAME}:n1", "--most", "1"), f"no limit has the key 'task:{NAME}:n1'. Did you mean"),
        (("set", "breaker:shop.fail", "--most", "0"), "breaker:shop.fail is a breaker"),
        (("set", "lock:x", "--most", "2"), "lock:x is a lock, which one holds at a time"),
        (("set", "shop.sent", "--most", "2"), f"no task is named 'shop.sent'. Did you mean \"{NAME}\"?"),
        (("show", "task:shop.sent"), f"no limit has the key 'task:shop.sent'. Did you mean \"task:{NAME}\"?"),
        (("clear", "task:shop.sent"), "no limit has the key 'task:shop.sent'"),
        (("reset", NAME), f"{NAME} has no breaker"),
        (("release", "lock:x", "nonsense"), "is not the id of a run"),
    ],
)
def test_what_is_refused(call: Call, task: Made, arguments: tuple[str, ...], expected: str) -> None:
    make_task(lambda: None, name="shop.fail", breaker=2)
    with pytest.raises(CommandError) as refused:
        call("limits", *arguments)
    assert expected in str(refused.value)
    # What the parser itself refuses has its own code where there is a command line.
    assert refused.value.returncode == 2 or "is not usable" in expected
    assert not Command.objects.exists()


class TestControl:
    def test_only_who_may_can(self, task: Made) -> None:
        with pytest.raises(Exception, match=r"needs the permission django_taskq\.change_limits"):
            control.set_limit(NAME, most=2, by=make_user("ann", ["set_limits"]))
        assert not Limit.objects.exists()
        control.set_limit(NAME, most=2, by=make_user("ben", ["change_limits"]))
        assert Limit.objects.get().set_by == "ben"
        assert Command.objects.get().issued_by == "ben"

    def test_both_limits_of_a_task_or_none(self) -> None:
        make_task(lambda: None, name=NAME, concurrency=1, rate_limit="1/s")
        with pytest.raises(InvalidCommand, match=r"set_limit\(burst=0\) is not usable"):
            control.set_limit(NAME, most=2, rate="5/s", burst=0)
        assert not Limit.objects.exists()
        control.set_limit(NAME, most=2, rate="5/s", burst=3)
        assert set(Limit.objects.values_list("set_most", "set_rate", "set_burst")) == {(2, None, None), (None, 5.0, 3)}
        assert control.clear_limit(NAME)
        assert not control.clear_limit(NAME)

    def test_a_handle_names_its_run(self) -> None:
        first, _second = wait(make_task(lambda number=0: None, name=NAME, lock="report"), 1, 2)
        assert control.release_permit("lock:report", first)
        assert ready() == 2
