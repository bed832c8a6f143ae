"""``taskq workflow``: what it shows of workflows that really ran, what it does to them, and how it waits."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_taskq.canvas import chain, group
from django_taskq.graph import Workflow as Graph
from django_taskq.management.verbs.workflow import WorkflowVerb
from django_taskq.management.verbs.workflow_waiting import bar, wait
from django_taskq.models import TaskRecord, Workflow
from django_taskq.status import Status
from django_taskq.testing import drain
from django_taskq.workflow_result import WorkflowResult
from tests.commands.conftest import Output
from tests.testapp.canvas_tasks import add, echo, fail_after, total

pytestmark = [pytest.mark.database, pytest.mark.django_db]

Call = Callable[..., Output]


def failing() -> WorkflowResult:
    """Three steps: one good, one that fails, one cancelled because of that. It has run."""
    graph = Graph("invoices")
    first = graph.add(add.s(1, 2), name="first")
    second = graph.add(fail_after.s(0, "no paper\x1b[2J"), after=[first], name="second")
    graph.add(echo.s("printed"), after=[second], name="third")
    result = graph.start()
    drain()
    return result


def refused(call: Call, *arguments: str) -> CommandError:
    with pytest.raises(CommandError) as caught:
        call("workflow", *arguments)
    return caught.value


class TestList:
    def test_those_that_run_come_first(self, call: Call) -> None:
        ran = chain(add.s(1, 1), add.s(1)).named("done").enqueue()
        drain()
        failed = failing()
        running = group(add.s(1, 1), add.s(2, 2)).named("going").enqueue()
        lines = call("workflow").out.splitlines()
        assert [line.split()[0] for line in lines] == [running.id, failed.id, ran.id]
        assert [line.split()[1] for line in lines] == ["RUNNING", "FAILED", "SUCCESSFUL"]
        assert "0 of 2" in lines[0]
        assert "3 of 3, 1 failed" in lines[1]
        assert lines[2].endswith("done")

    def test_options(self, call: Call) -> None:
        failed, other = failing(), chain(add.s(1, 1), add.s(1)).named("orders").enqueue()

        def ids(*arguments: str) -> list[str]:
            return [each["id"] for each in json.loads(call("workflow", "list", "--json", *arguments).out)["workflows"]]

        assert ids() == [other.id, failed.id]
        assert ids("--status", "failed") == [failed.id]
        assert ids("--status", "running") == [other.id]
        assert ids("--status", "successful") == []
        assert ids("--name", "ORD") == [other.id]
        assert ids("--limit", "1") == [other.id]

    def test_json(self, call: Call) -> None:
        failing()
        (found,) = json.loads(call("workflow", "list", "--json").out)["workflows"]
        assert (found["name"], found["status"], found["size"]) == ("invoices", "FAILED", 3)
        assert {status: count for status, count in found["counts"].items() if count} == {
            "SUCCESSFUL": 1,
            "FAILED": 1,
            "CANCELLED": 1,
        }

    def test_nothing(self, call: Call) -> None:
        assert call("workflow") == Output("", "No workflow is there, or none that matches.\n")

    def test_a_page_of_many_costs_a_few_queries(self, call: Call) -> None:
        for _ in range(15):
            group(add.s(1, 1), add.s(2, 2)).enqueue()
        with CaptureQueriesContext(connection) as captured:
            assert len(call("workflow").out.splitlines()) == 15
        assert len(captured) <= 4


class TestShow:
    def test_the_steps_with_what_became_of_them(self, call: Call) -> None:
        result = failing()
        shown = call("workflow", "show", result.id).out
        assert "status        FAILED" in shown
        assert "progress      3 of 3, 1 failed" in shown
        first, second, third = (shown.index(f" {name} (canvas.") for name in ("first", "second", "third"))
        assert first < second < third
        assert "builtins.ValueError: no paper\\x1b[2J" in shown
        assert "\x1b" not in shown
        assert "UpstreamFailed" in shown
        assert "queue default, started " in shown

    def test_json(self, call: Call) -> None:
        result = failing()
        found = json.loads(call("workflow", "show", result.id, "--json").out)
        assert [step["label"] for step in found["steps"]] == ["first", "second", "third"]
        assert [step["status"] for step in found["steps"]] == ["SUCCESSFUL", "FAILED", "CANCELLED"]
        assert found["steps"][1]["error"].startswith("builtins.ValueError: no paper")
        assert {"name": "canvas.add", "status": "SUCCESSFUL", "count": 1} in found["tasks"]

    def test_what_a_step_waits_for(self, call: Call) -> None:
        result = chain(add.s(1, 1), add.s(1)).enqueue()
        first, second = result.steps()
        found = json.loads(call("workflow", "show", result.id, "--json").out)["steps"]
        assert [step["waits_for"] for step in found] == [None, str(first.pk)]
        assert f"{second.pk}  WAITING" in call("workflow", "show", result.id).out
        assert f"    waits for {first.pk}" in call("workflow", "show", result.id).out

    def test_of_many_steps_some_are_shown_failed_ones_first(self, call: Call) -> None:
        result = group([*(add.s(n, 1) for n in range(30)), fail_after.s(0, "x"), fail_after.s(0, "y")]).enqueue()
        drain()
        shown = call("workflow", "show", result.id, "--limit", "3")
        lines = shown.out.partition("\n\n")[2].splitlines()
        steps = [line for line in lines if not line.startswith(" ")]
        assert [line.split()[1] for line in steps] == ["FAILED", "FAILED", "SUCCESSFUL"]
        assert "2  FAILED      canvas.fail_after" in shown.out
        assert "30  SUCCESSFUL  canvas.add" in shown.out
        assert "3 of 32 steps" in shown.err

    @pytest.mark.parametrize("steps", [10, 200])
    def test_it_costs_the_same_for_any_size(self, call: Call, steps: int) -> None:
        result = (group(add.s(n, 1) for n in range(steps)) | total.s()).enqueue()
        with CaptureQueriesContext(connection) as captured:
            call("workflow", "show", result.id, "--limit", "5")
        assert len(captured) <= 14

    @pytest.mark.parametrize("id", ["nonsense", "01890a5d-ac96-774b-bcce-b302099a8057"])
    def test_one_that_is_not_there(self, call: Call, id: str) -> None:
        error = refused(call, "show", id)
        assert error.returncode == 2
        assert id in str(error)


class TestCancel:
    def test_it_ends_with_the_reason(self, call: Call) -> None:
        result = chain(add.s(1, 1), add.s(1)).enqueue()
        out = call("workflow", "cancel", result.id, "--reason", "wrong prices").out
        assert out == f"{result.id}: 2 step(s) cancelled, or told to stop where they run\n"
        assert {row.reason for row in result.steps()} == {"TaskCancelled: wrong prices"}
        row = Workflow.objects.get(pk=result.id)
        assert (row.status, row.reason) == ("CANCELLED", "TaskCancelled: wrong prices")

    def test_what_has_ended_stays(self, call: Call) -> None:
        error = refused(call, "cancel", failing().id)
        assert error.returncode == 1
        assert "FAILED already" in str(error)


class TestResume:
    @pytest.fixture
    def repaired(self, monkeypatch: pytest.MonkeyPatch) -> WorkflowResult:
        """It has failed, and would not a second time."""
        result = failing()
        TaskRecord.objects.filter(name="canvas.fail_after").update(name="canvas.echo", payload='[["repaired"],{}]')
        return result

    @pytest.mark.parametrize(
        ("arguments", "count"),
        [([], 2), (["--failed"], 1), (["--from", "second"], 2), (["--from", "first"], 3)],
        ids=["all", "failed", "from the failed one", "from the first"],
    )
    def test_the_rest_runs(self, call: Call, repaired: WorkflowResult, arguments: list[str], count: int) -> None:
        out = call("workflow", "resume", repaired.id, *arguments).out
        assert out == f"{repaired.id}: {count} step(s) will run again\n"
        assert Workflow.objects.get(pk=repaired.id).status == "RUNNING"
        ran = drain()
        assert len(ran) == (3 if "first" in arguments else 2)
        repaired.refresh()
        assert repaired.status == "SUCCESSFUL"
        assert {row.status for row in repaired.steps()} == {Status.SUCCESSFUL}

    def test_nothing_to_do(self, call: Call) -> None:
        result = chain(add.s(1, 1), add.s(1)).enqueue()
        drain()
        for arguments, words in (([], "FAILED or CANCELLED"), (["--failed"], "no step of it is FAILED")):
            error = refused(call, "resume", result.id, *arguments)
            assert error.returncode == 1
            assert words in str(error)

    def test_no_such_step(self, call: Call) -> None:
        error = refused(call, "resume", failing().id, "--from", "fourth")
        assert error.returncode == 2
        assert "fourth" in str(error)


class TestWait:
    def test_exit_codes(self, call: Call) -> None:
        good = chain(add.s(1, 1), add.s(1)).enqueue()
        drain()
        assert call("workflow", "wait", good.id) == Output("SUCCESSFUL\n", "2 of 2\n")
        error = refused(call, "wait", failing().id)
        assert error.returncode == 1
        assert "it ended as FAILED" in str(error)
        cancelled = chain(add.s(1, 1), add.s(1)).enqueue()
        cancelled.cancel()
        assert refused(call, "wait", cancelled.id).returncode == 1

    def test_timeout(self, call: Call) -> None:
        result = chain(add.s(1, 1), add.s(1)).enqueue()
        error = refused(call, "wait", result.id, "--timeout", "0.01")
        assert error.returncode == 124
        assert "still RUNNING" in str(error)

    def test_it_says_that_nobody_works(self, call: Call) -> None:
        err = StringIO()
        result = chain(add.s(1, 1), add.s(1)).enqueue()
        with pytest.raises(CommandError):
            call_command("taskq", "workflow", "wait", result.id, "--timeout", "0.01", stderr=err)
        assert "No worker is online" in err.getvalue()
        assert "0 of 2" in err.getvalue()

    @pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "log"])
    def test_how_it_goes_on(self, is_terminal: bool) -> None:
        result = group(fail_after.s(0, "no"), add.s(1, 1), add.s(2, 2), add.s(3, 3)).enqueue()
        stream, clock = Terminal(is_terminal), [0.0]

        def sleep(seconds: float) -> None:
            clock[0] += 20
            drain(limit=4) if clock[0] >= 40 else None

        workflow = Workflow.objects.get(pk=result.id)
        status = wait(made(stream), workflow, None, now=lambda: clock[0], sleep=sleep)
        assert status == "FAILED"
        said = stream.getvalue()
        if is_terminal:
            assert "\r[----------------------------------------] 0 of 4\x1b[K" in said
            assert said.endswith("\r[########################################] 4 of 4, 1 failed\x1b[K\n")
        else:
            assert said == "0 of 4\n4 of 4, 1 failed\n"

    def test_silent_when_asked_to_be(self, call: Call) -> None:
        result = chain(add.s(1, 1), add.s(1)).enqueue()
        drain()
        assert call("workflow", "wait", result.id, verbosity=0) == Output("SUCCESSFUL\n", "")

    def test_one_that_is_removed_meanwhile(self) -> None:
        result = chain(add.s(1, 1), add.s(1)).enqueue()
        workflow = Workflow.objects.get(pk=result.id)
        with pytest.raises(CommandError, match="is gone") as caught:
            wait(made(Terminal(False)), workflow, 5, sleep=lambda _: Workflow.objects.all()._raw_delete("default"))
        assert caught.value.returncode == 1

    def test_counting_takes_a_tenth_of_the_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As steps of a large workflow are counted for long, they are counted rarely."""
        result, clock, counted = chain(add.s(1, 1), add.s(1)).enqueue(), [0.0], list[float]()

        def count(workflow: Any) -> dict[str, int]:
            counted.append(clock[0])
            clock[0] += 3
            return {}

        def sleep(seconds: float) -> None:
            clock[0] += seconds

        monkeypatch.setattr("django_taskq.management.verbs.workflow_waiting.counted", count)
        workflow = Workflow.objects.get(pk=result.id)
        with pytest.raises(CommandError):
            wait(made(Terminal(True)), workflow, 100, now=lambda: clock[0], sleep=sleep)
        assert len(counted) == 4

    def test_the_bar(self) -> None:
        assert bar(4, {"SUCCESSFUL": 1, "RUNNING": 3}, 12) == "[###---------] "
        assert bar(0, {}, 10) == "[##########] "
        assert bar(4, {}, 9) == ""
        assert bar(2, {"SUCCESSFUL": 5}, 10) == "[##########] "


class Terminal(StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def made(stream: StringIO) -> WorkflowVerb:
    """A verb of a command that writes its messages here."""
    from django_taskq.management.commands.taskq import Command

    verb = WorkflowVerb()
    verb.command = Command(stderr=stream, no_color=True)  # type: ignore[arg-type]
    return verb


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show"], "show takes the id of a workflow"),
        (["list", "x"], "list takes no id"),
        (["show", "x", "--reason", "r"], "argument --reason: it goes with cancel"),
        (["show", "x", "--status", "failed"], "argument --status: it goes with list"),
        (["cancel", "x", "--json"], "argument --json: it goes with list and show"),
        (["wait", "x", "--from", "a"], "argument --from: it goes with resume"),
        (["list", "--timeout", "3"], "argument --timeout: it goes with wait"),
        (["list", "--limit", "0"], "1 to 10000"),
        (["list", "--limit", "many"], "1 to 10000"),
        (["wait", "x", "--timeout", "-1"], "a number of seconds above 0"),
        (["resume", "x", "--failed", "--from", "a"], "not allowed with"),
    ],
)
def test_bad_input(call: Call, arguments: list[str], words: str) -> None:
    error = refused(call, *arguments)
    assert words in str(error)
    assert getattr(error, "returncode", 2) in (1, 2)
