"""Every canvas of ``docs/canvas.md``: what it yields here, on the database."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from django_taskq import TaskResult, testing
from django_taskq.canvas import chain, chord, group
from django_taskq.exceptions import InvalidArguments, InvalidWorkflow, ResultUnavailable, UnknownTask
from django_taskq.models import TaskRecord
from django_taskq.signatures import signature
from django_taskq.steps import FailedStep, StepError
from django_taskq.workflow_result import GroupResult, WorkflowResult
from tests.docs import pages
from tests.testapp import canvas_tasks
from tests.testapp.canvas_tasks import add, alert, echo, fail, say, show, silent, total

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]
PAGE = pages.DOCS / "canvas.md"
CALLBACKS = (say.name, alert.name)
TIMEOUT = 5


class later:
    """In Celery's column it sleeps. Here less urgent members end later."""

    @staticmethod
    def s(seconds: float, value: Any) -> Any:
        return echo.s(value).set(priority=-round(seconds * 10))


def linked(canvas: Any, callback: Any) -> Any:
    canvas.link(callback)
    return canvas


def alerted(canvas: Any, callback: Any) -> Any:
    canvas.link_error(callback)
    return canvas


def back(canvas: Any) -> Any:
    return signature(json.loads(json.dumps(canvas.to_dict())))


NAMES: dict[str, Any] = {
    **vars(canvas_tasks),
    "chain": chain,
    "group": group,
    "chord": chord,
    "signature": signature,
    "later": later,
    "linked": linked,
    "alerted": alerted,
    "back": back,
}


def started(code: str) -> Any:
    """The handle of the canvas in this text, after everything has run."""
    found = eval(code, dict(NAMES))
    handle = found if isinstance(found, (TaskResult, WorkflowResult)) else found.enqueue()
    testing.drain()
    return handle


def named(value: Any) -> Any:
    """A run that failed by the name of its task, and an error by its message."""
    if isinstance(value, FailedStep):
        return value.name
    if isinstance(value, StepError):
        return value.message
    return [named(item) for item in value] if isinstance(value, (list, tuple)) else value


def shown(value: Any) -> str:
    return f"`{value!r}`".replace("canvas.", "").replace("|", "\\|")


class Value:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __str__(self) -> str:
        return shown(self.value)

    def check(self, code: str) -> None:
        self.check_handle(started(code))

    def check_handle(self, handle: Any) -> None:
        assert handle.get(TIMEOUT) == self.value


class Fails:
    """``get()`` raises this."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def __str__(self) -> str:
        return f"`{self.error.__name__}`"

    def check(self, code: str) -> None:
        self.check_handle(started(code))

    def check_handle(self, handle: Any) -> None:
        with pytest.raises(self.error):
            handle.get(TIMEOUT)


class Refused(Fails):
    """It cannot be started, and nothing of it is stored."""

    def __str__(self) -> str:
        return f"refused: {super().__str__()}"

    def check(self, code: str) -> None:
        with pytest.raises(self.error):
            started(code)
        assert not TaskRecord.objects.exists()


class Calls:
    """What callbacks were called with, in any order."""

    def __init__(self, outcome: Value | Fails, *calls: list[Any]) -> None:
        self.outcome = outcome
        self.calls = calls

    def __str__(self) -> str:
        return f"{self.outcome}; {', '.join(map(shown, self.calls)) or 'not called'}"

    def check(self, code: str) -> None:
        self.outcome.check_handle(started(code))
        rows = TaskRecord.objects.filter(name__in=CALLBACKS, status="SUCCESSFUL")
        calls = [named(TaskResult(pk).get(TIMEOUT)) for pk in rows.values_list("pk", flat=True)]
        assert sorted(calls, key=str) == sorted(self.calls, key=str)
        assert not TaskRecord.objects.filter(name__in=CALLBACKS, status="FAILED").exists()


class Steps:
    """How its steps end, in the order of the canvas."""

    def __init__(self, *statuses: Any) -> None:
        self.expected = list(statuses)

    def __str__(self) -> str:
        return shown(self.expected)

    def check(self, code: str) -> None:
        handle = started(code)
        assert list(handle.steps().values_list("status", flat=True)) == self.expected
        left = handle.steps().filter(status="CANCELLED")
        assert {row.reason.partition(":")[0].partition(" ")[0] for row in left} <= {"UpstreamFailed"}


class Seconds(Steps):
    """How many runs there are at once, after a second, and after two."""

    def check(self, code: str) -> None:
        with testing.clock() as clock:
            found = eval(code, dict(NAMES))
            if not isinstance(found, (TaskResult, WorkflowResult)):
                found.enqueue()
            runs = [len(testing.drain()), *(len(clock.advance(seconds=1)) for _ in range(2))]
        assert runs == self.expected


@dataclass(frozen=True)
class Point:
    """A row of the page. ``code`` is what runs, where that differs from the ``canvas`` which is shown."""

    id: str
    canvas: str
    expected: Value | Fails | Calls | Steps
    code: str = ""


POINTS = [
    # Chains and arguments.
    Point("chain", "chain(add.s(2, 2), add.s(4), add.s(8))", Value(16)),
    Point("chain_pipe", "add.s(2, 2) | add.s(4) | add.s(8)", Value(16)),
    Point("chain_list", "chain([add.s(2, 2), add.s(4)])", Value(8)),
    Point("chain_in_chain", "chain(add.s(1, 1), chain(add.s(2), add.s(3)), add.s(4))", Value(11)),
    Point("chain_none", "nothing.s() | show.s(1)", Value([None, 1])),
    Point("chain_list_value", "show.s(1, 2) | show.s(3)", Value([[1, 2], 3])),
    Point("partial", "show.s(1, 2).delay(9)", Value([9, 1, 2])),
    Point("partial_many", "show.s(1).delay(8, 9)", Value([8, 9, 1])),
    Point(
        "partial_kwargs",
        "show.s(**{'a': 1, 'c': 3}).apply_async((), {'a': 2, 'b': 3})",
        Value([{"a": 2, "c": 3, "b": 3}]),
    ),
    Point("partial_chain", "(show.s(1) | show.s(2)).delay(9)", Value([[9, 1], 2])),
    Point("partial_group", "group(show.s(1), show.s(2)).delay(9)", Value([[9, 1], [9, 2]])),
    Point("partial_chord", "chord([show.s(1), show.s(2)], show.s(3)).delay(9)", Value([[[9, 1], [9, 2]], 3])),
    Point("immutable", "add.s(2, 2) | show.si(1) | show.s(2)", Value([[1], 2])),
    Point("immutable_args", "show.si(1).delay(9)", Value([1])),
    Point("immutable_kwargs", "show.si(1).apply_async((), {'a': 2})", Value([1])),
    Point("empty_chain", "chain()", Value(None)),
    Point("empty_chain_list", "chain([])", Value(None)),
    Point("empty_chain_then", "chain() | add.s(1, 1)", Value(2)),
    Point("empty_chain_last", "add.s(1, 1) | chain()", Value(2)),
    Point("empty_chain_in_group", "group(chain(), add.s(1, 1))", Value([None, 2])),
    # Groups.
    Point("group_order", "group(later.s(0.4, 'a'), later.s(0.2, 'b'), later.s(0, 'c'))", Value(["a", "b", "c"])),
    Point("group_generator", "group(add.s(i, i) for i in range(3))", Value([0, 2, 4])),
    Point("group_chains", "group(add.s(1, 1) | add.s(2), add.s(3, 3) | add.s(4))", Value([4, 10])),
    Point("group_after_chain_none", "add.s(1, 1) | group(show.s(5), show.s(6))", Value([[2, 5], [2, 6]])),
    Point("group_immutable_member", "add.s(1, 1) | group(show.s(5), show.si(6))", Value([[2, 5], [6]])),
    Point("nested_groups", "group(group(add.s(1, 1), add.s(2, 2)), add.s(3, 3))", Value([2, 4, 6])),
    Point("nested_groups_deep", "group(group(group(add.s(1, 1))), add.s(3, 3))", Value([2, 6])),
    Point("nested_groups_then", "group(group(add.s(1, 1), add.s(2, 2)), add.s(3, 3)) | show.s()", Value([[2, 4, 6]])),
    Point("nested_groups_in_chain", "add.s(1, 1) | group(group(add.s(1), add.s(2)), add.s(3))", Value([3, 4, 5])),
    Point(
        "nested_groups_order",
        "group(group(later.s(0.2, 'a'), later.s(0, 'b')), later.s(0.1, 'c')) | show.s()",
        Value([["a", "b", "c"]]),
    ),
    Point("chain_group_in_group", "group(add.s(1, 1) | group(add.s(1), add.s(2)), add.s(5, 5))", Value([[3, 4], 10])),
    Point(
        "chain_group_in_group_then",
        "group(add.s(1, 1) | group(add.s(1), add.s(2)), add.s(5, 5)) | show.s()",
        Value([[[3, 4], 10]]),
    ),
    Point("group_one", "group(add.s(1, 1))", Value([2])),
    Point("group_one_then", "group(add.s(1, 1)) | show.s()", Value([[2]])),
    Point("group_one_middle", "add.s(1, 1) | group(add.s(1)) | show.s()", Value([[3]])),
    Point("group_one_chain", "chain(add.s(1, 1), group(add.s(1)), show.s())", Value([[3]])),
    Point("group_one_chain_first", "chain(group(add.s(1, 1)), show.s())", Value([[2]])),
    Point("group_one_last", "add.s(1, 1) | group(add.s(1))", Value([3])),
    Point("group_one_in_group_chain", "add.s(1, 1) | group(group(add.s(1))) | show.s()", Value([[3]])),
    Point("group_one_of_chain", "add.s(1, 1) | group(add.s(1) | add.s(2)) | show.s()", Value([[5]])),
    Point(
        "group_one_then_group",
        "add.s(1, 1) | group(add.s(1)) | group(show.s('a'), show.s('b'))",
        Value([[[3], "a"], [[3], "b"]]),
    ),
    Point("empty_group", "group()", Value([])),
    Point("empty_group_list", "group([])", Value([])),
    Point("empty_group_first", "group([]) | show.s()", Value([[]])),
    Point("empty_group_chain_first", "chain(group([]), show.s())", Value([[]])),
    Point("empty_group_middle", "add.s(1, 1) | group([]) | show.s()", Value([[]])),
    Point("empty_group_last", "add.s(1, 1) | group([])", Value([])),
    Point("empty_group_in_group", "group(group([]), add.s(1, 1))", Value([2])),
    Point("group_then_empty", "group(add.s(1, 1), add.s(2, 2)) | group([])", Value([])),
    Point("empty_both", "group([]) | group([])", Value([])),
    # Groups followed by something, and chords.
    Point("group_then", "group(add.s(1, 1), add.s(2, 2)) | total.s()", Value(6)),
    Point("group_then_immutable", "group(add.s(1, 1), add.s(2, 2)) | show.si(7)", Value([7])),
    Point("group_middle", "add.s(1, 1) | group(add.s(1), add.s(2)) | total.s() | add.s(10)", Value(17)),
    Point(
        "group_group",
        "group(add.s(1, 1), add.s(2, 2)) | group(show.s(1), show.s(2))",
        Value([[[2, 4], 1], [[2, 4], 2]]),
    ),
    Point(
        "group_group_then",
        "group(add.s(1, 1), add.s(2, 2)) | group(show.s(1), show.s(2)) | show.s()",
        Value([[[[2, 4], 1], [[2, 4], 2]]]),
    ),
    Point(
        "group_group_group",
        "group(add.s(1, 1), add.s(2, 2)) | group(total.s(), total.s()) | group(total.s(), total.s())",
        Value([12, 12]),
    ),
    Point(
        "group_three_show",
        ("group(add.s(1, 1), add.s(2, 2)) | group(show.s('a'), show.s('b')) | group(show.s('c'), show.s('d'))"),
        Value([[[[[2, 4], "a"], [[2, 4], "b"]], "c"], [[[[2, 4], "a"], [[2, 4], "b"]], "d"]]),
    ),
    Point(
        "group_three_chain",
        "chain(group(add.s(1, 1), add.s(2, 2)), group(total.s(), total.s()), group(total.s(), total.s()))",
        Value([12, 12]),
    ),
    Point("group_four", "add.s(1, 1) | group(add.s(1), add.s(2)) | group(total.s(), total.s()) | total.s()", Value(14)),
    Point(
        "three_levels",
        (
            "group(chord([add.s(1, 1), add.s(2, 2)], total.s()) | add.s(1), "
            "add.s(3, 3) | group(add.s(1), add.s(2)) | total.s()) | show.s()"
        ),
        Value([[7, 15]]),
    ),
    Point("chord", "chord([add.s(1, 1), add.s(2, 2)], total.s())", Value(6)),
    Point("chord_call", "chord([add.s(1, 1), add.s(2, 2)])(total.s())", Value(6)),
    Point("chord_generator", "chord((add.s(i, i) for i in range(3)), total.s())", Value(6)),
    Point(
        "chord_order",
        "chord([later.s(0.4, 'a'), later.s(0.2, 'b'), later.s(0, 'c')], show.s())",
        Value([["a", "b", "c"]]),
    ),
    Point("chord_partial_body", "chord([add.s(1, 1), add.s(2, 2)], show.s(5))", Value([[2, 4], 5])),
    Point("chord_immutable_body", "chord([add.s(1, 1), add.s(2, 2)], show.si(5))", Value([5])),
    Point("chord_one", "chord([add.s(1, 1)], show.s())", Value([[2]])),
    Point("chord_one_bare", "chord(add.s(1, 1), show.s())", Value([[2]])),
    Point("chord_one_group", "chord(group(add.s(1, 1)), show.s())", Value([[2]])),
    Point("chord_first", "chord([add.s(1, 1), add.s(2, 2)], total.s()) | add.s(10)", Value(16)),
    Point("chord_in_chain", "add.s(1, 1) | chord([add.s(1), add.s(2)], total.s()) | add.s(10)", Value(17)),
    Point("chord_last", "add.s(1, 1) | chord([add.s(1), add.s(2)], total.s())", Value(7)),
    Point("chord_one_in_chain", "add.s(1, 1) | chord([add.s(1)], show.s())", Value([[3]])),
    Point("chord_of_chains", "chord([add.s(1, 1) | add.s(2), add.s(3, 3)], total.s())", Value(10)),
    Point(
        "chain_group_in_header",
        "chord([add.s(1, 1) | group(add.s(1), add.s(2)), add.s(5, 5)], show.s())",
        Value([[[3, 4], 10]]),
    ),
    Point("chord_of_group", "chord([group(add.s(1, 1), add.s(2, 2)), add.s(3, 3)], show.s())", Value([[2, 4, 6]])),
    Point(
        "chord_of_chord",
        "chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(3, 3)], show.s())",
        Value([[6, 6]]),
    ),
    Point("chord_body_chain", "chord([add.s(1, 1), add.s(2, 2)], total.s() | add.s(5))", Value(11)),
    Point(
        "chord_body_group",
        "chord([add.s(1, 1), add.s(2, 2)], group(show.s(1), show.s(2)))",
        Value([[[2, 4], 1], [[2, 4], 2]]),
    ),
    Point("chord_body_chord", "chord([add.s(1, 1), add.s(2, 2)], chord([total.s(), total.s()], total.s()))", Value(12)),
    Point(
        "chord_group_of",
        "group(chord([add.s(1, 1), add.s(2, 2)], total.s()), chord([add.s(3, 3)], total.s()))",
        Value([6, 6]),
    ),
    Point(
        "chord_chain_chord",
        "chord([add.s(1, 1), add.s(2, 2)], show.s()) | chord([show.s(1), show.s(2)], show.s())",
        Value([[[[[2, 4]], 1], [[[2, 4]], 2]]]),
    ),
    Point("chord_no_body", "chord([add.s(1, 1), add.s(2, 2)])", Refused(InvalidWorkflow)),
    Point("empty_header", "chord([], show.s())", Value([[]])),
    Point("empty_header_total", "chord([], total.s())", Value(0)),
    Point("empty_header_in_chain", "add.s(1, 1) | chord([], show.s())", Value([[]])),
    Point("empty_header_then", "chord([], show.s()) | show.s(1)", Value([[[]], 1])),
    # map, starmap, chunks.
    Point("map", "total.map([[1, 2], [3, 4]])", Value([3, 7])),
    Point("map_empty", "total.map([])", Value([])),
    Point("map_then", "total.map([[1, 2], [3, 4]]) | show.s()", Value([[3, 7]])),
    Point("map_in_chain", "show.s(1) | total.map([[1, 2], [3, 4]])", Value([3, 7])),
    Point("map_generator", "nothing.s() | show.map(range(3))", Value([[0], [1], [2]])),
    Point("starmap", "add.starmap([(2, 2), (4, 4)])", Value([4, 8])),
    Point("starmap_fails", "fail.map(['one', 'two'])", Fails(ValueError)),
    Point("chunks", "add.chunks(zip(range(5), range(5)), 2)", Value([[0, 2], [4, 6], [8]])),
    Point("chunks_call", "add.chunks(zip(range(5), range(5)), 2)()", Value([[0, 2], [4, 6], [8]])),
    Point("chunks_then", "add.chunks([(i, i) for i in range(5)], 2) | show.s()", Value([[[0, 2], [4, 6], [8]]])),
    Point("chunks_empty", "add.chunks([], 2)", Value([])),
    # link.
    Point("link", "linked(add.s(1, 1), say.s('cb'))", Calls(Value(2), [2, "cb"])),
    Point(
        "link_two", "linked(linked(add.s(1, 1), say.s('one')), say.s('two'))", Calls(Value(2), [2, "one"], [2, "two"])
    ),
    Point("link_twice", "linked(linked(add.s(1, 1), say.s('cb')), say.s('cb'))", Calls(Value(2), [2, "cb"])),
    Point("link_immutable", "linked(add.s(1, 1), say.si('cb'))", Calls(Value(2), ["cb"])),
    Point("link_failed", "linked(fail.s('no'), say.s('cb'))", Calls(Fails(ValueError))),
    Point("link_chain", "linked(add.s(1, 1) | add.s(2), say.s('cb'))", Calls(Value(4), [4, "cb"])),
    Point("link_chain_first", "linked(add.s(1, 1), say.s('cb')) | add.s(2)", Calls(Value(4), [2, "cb"])),
    Point(
        "link_group", "linked(group(add.s(1, 1), add.s(2, 2)), say.s('cb'))", Calls(Value([2, 4]), [2, "cb"], [4, "cb"])
    ),
    Point(
        "link_group_chain",
        "linked(add.s(1, 1) | group(add.s(1), add.s(2)), say.s('cb'))",
        Calls(Value([3, 4]), [[3, 4], "cb"]),
    ),
    Point(
        "link_member", "chord([linked(add.s(1, 1), say.s('cb')), add.s(2, 2)], total.s())", Calls(Value(6), [2, "cb"])
    ),
    Point(
        "link_chord", "linked(chord([add.s(1, 1), add.s(2, 2)], total.s()), say.s('cb'))", Calls(Value(6), [6, "cb"])
    ),
    Point(
        "link_chord_group",
        "linked(group(add.s(1, 1), add.s(2, 2)) | total.s(), say.s('cb'))",
        Calls(Value(6), [6, "cb"]),
    ),
    Point(
        "link_is_chain",
        "linked(add.s(1, 1), say.s('cb') | say.s('next'))",
        Calls(Value(2), [2, "cb"], [[2, "cb"], "next"]),
    ),
    Point("link_is_group", "linked(add.s(1, 1), group(say.s('a'), say.s('b')))", Calls(Value(2), [2, "a"], [2, "b"])),
    # link_error.
    Point("error_none", "alerted(add.s(1, 1), alert.s())", Calls(Value(2))),
    Point("error_signature", "alerted(fail.s('no'), alert.s())", Calls(Fails(ValueError), ["canvas.fail", "no"])),
    Point("error_signature_id", "alerted(fail.s('no'), alert_one.s())", Refused(InvalidArguments)),
    Point("error_chain_none", "alerted(add.s(1, 1) | add.s(2), alert.s())", Calls(Value(4))),
    Point(
        "error_chain_first",
        "alerted(fail.s('no') | show.s() | show.s(), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail", "no"]),
    ),
    Point(
        "error_chain_last",
        "alerted(add.s(1, 1) | fail_after.s('no'), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail_after", "no"]),
    ),
    Point("error_on_first", "alerted(add.s(1, 1), alert.s()) | fail_after.s('no')", Calls(Fails(ValueError))),
    Point("error_group_0", "alerted(group(add.s(1, 1), add.s(2, 2)), alert.s())", Calls(Value([2, 4]))),
    Point(
        "error_group_1",
        "alerted(group(fail.s('no'), add.s(1, 1)), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail", "no"]),
    ),
    Point(
        "error_group_2",
        "alerted(group(fail.s('one'), fail.s('two')), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail", "one"]),
    ),
    Point(
        "error_group_chain",
        "alerted(group(add.s(1, 1) | fail_after.s('no'), add.s(2, 2)), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail_after", "no"]),
    ),
    Point(
        "error_member",
        "group(alerted(fail.s('no'), alert.s()), add.s(1, 1))",
        Calls(Fails(ValueError), ["canvas.fail", "no"]),
    ),
    Point("error_chord_0", "alerted(chord([add.s(1, 1), add.s(2, 2)], total.s()), alert.s())", Calls(Value(6))),
    Point(
        "error_chord_1",
        "alerted(chord([fail.s('no'), add.s(1, 1)], show.s()), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail", "no"]),
    ),
    Point(
        "error_chord_2",
        "alerted(chord([fail.s('one'), fail.s('two')], show.s()), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail", "one"]),
    ),
    Point(
        "error_chord_body",
        "alerted(chord([add.s(1, 1), add.s(2, 2)], fail_after.s('no')), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail_after", "no"]),
    ),
    Point(
        "error_header_member",
        "chord([alerted(fail.s('no'), alert.s()), add.s(1, 1)], show.s())",
        Calls(Fails(ValueError), ["canvas.fail", "no"]),
    ),
    Point(
        "error_chord_pipe_1",
        "alerted(group(fail.s('no'), add.s(1, 1)) | show.s(), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail", "no"]),
    ),
    Point(
        "error_chord_pipe_2",
        "alerted(group(fail.s('one'), fail.s('two')) | show.s(), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail", "one"]),
    ),
    Point(
        "error_middle_1",
        "alerted(add.s(1, 1) | group(fail_after.s('no'), add.s(1)) | show.s(), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail_after", "no"]),
    ),
    Point(
        "error_middle_2",
        "alerted(add.s(1, 1) | group(fail_after.s('one'), fail_after.s('two')) | show.s(), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail_after", "one"]),
    ),
    Point(
        "error_group_chord",
        "alerted(group(chord([fail.s('no'), add.s(1, 1)], show.s()), add.s(2, 2)), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail", "no"]),
    ),
    Point("error_immutable", "alerted(fail.s('no'), say.si('told'))", Calls(Fails(ValueError), ["told"])),
    Point("error_args", "alerted(fail.s('no'), say.s('own'))", Calls(Fails(ValueError), ["canvas.fail", "no", "own"])),
    Point(
        "error_twice",
        "alerted(alerted(fail.s('no'), alert.s()), alert.s())",
        Calls(Fails(ValueError), ["canvas.fail", "no"]),
    ),
    Point(
        "error_chain_callback",
        "alerted(fail.s('no'), say.s('told') | say.s('next'))",
        Calls(Fails(ValueError), ["canvas.fail", "no", "told"], [["canvas.fail", "no", "told"], "next"]),
    ),
    # Failures.
    Point("failed", "fail.s('no')", Fails(ValueError)),
    Point("failed_chain", "fail.s('no') | show.s()", Fails(ValueError)),
    Point(
        "failed_chain_states",
        "add.s(1, 1) | fail_after.s('no') | show.s() | show.s()",
        Steps("SUCCESSFUL", "FAILED", "CANCELLED", "CANCELLED"),
    ),
    Point("failed_group", "group(fail.s('no'), later.s(0.2, 1))", Fails(ValueError)),
    Point("failed_header", "chord([fail.s('no'), add.s(1, 1)], show.s())", Fails(ValueError)),
    Point(
        "failed_header_two",
        "chord([fail.s('one'), later.s(0.3, 1) | fail_after.s('two')], show.s())",
        Fails(ValueError),
    ),
    Point(
        "failed_header_body",
        "chord([fail.s('no'), add.s(1, 1)], show.s()) | show.s()",
        Steps("FAILED", "SUCCESSFUL", "CANCELLED", "CANCELLED"),
    ),
    Point("failed_header_runs", "chord([fail.s('no'), add.s(1, 1)], say.s('body'))", Calls(Fails(ValueError))),
    Point(
        "failed_header_others",
        "chord([fail.s('no'), later.s(0.3, 0) | say.s('other')], show.s())",
        Calls(Fails(ValueError), [0, "other"]),
    ),
    Point(
        "failed_inner_chord",
        "chord([chord([fail.s('no'), add.s(1, 1)], show.s()), add.s(2, 2)], show.s())",
        Fails(ValueError),
    ),
    Point("arity", "add.s(1, 1) | add.s(1, 2)", Refused(InvalidArguments)),
    Point("unknown", "signature('nope', (1,))", Refused(UnknownTask)),
    Point("unknown_chain", "add.s(1, 1) | signature('nope')", Refused(UnknownTask)),
    Point("get_inside", "waits.s()", Fails(ResultUnavailable)),
    # Retries and replace().
    Point("retry_chain", "add.s(1, 1) | again.s() | show.s(9)", Value([2, 9])),
    Point("retry_group", "chord([again.s('a'), add.s(1, 1)], show.s())", Value([["a", 2]])),
    Point("replace_task", "becomes.s('task')", Value(30)),
    Point("replace_chain_step", "add.s(1, 1) | becomes.s('task') | add.s(3)", Value(33)),
    Point("replace_partial", "add.s(1, 1) | becomes.s('with the value') | add.s(3)", Value(25)),
    Point("replace_by_chain", "add.s(1, 1) | becomes.s('chain') | add.s(3)", Value(63)),
    Point("replace_by_group", "add.s(1, 1) | becomes.s('group') | show.s()", Value([[2, 4]])),
    Point("replace_by_group_alone", "becomes.s('group')", Value([2, 4])),
    Point("replace_by_chord", "add.s(1, 1) | becomes.s('chord') | add.s(3)", Value(9)),
    Point("replace_by_empty", "becomes.s('nothing') | show.s()", Value([[]])),
    Point("replace_header", "chord([becomes.s('task'), add.s(1, 1)], show.s())", Value([[30, 2]])),
    Point("replace_header_group", "chord([becomes.s('group'), add.s(1, 1)], show.s())", Value([[[2, 4], 2]])),
    Point("replace_body", "chord([add.s(1, 1), add.s(2, 2)], becomes.s('task')) | add.s(1)", Value(31)),
    Point("replace_group", "group(becomes.s('task'), add.s(1, 1))", Value([30, 2])),
    Point("replace_link", "linked(becomes.s('task'), say.s('cb'))", Calls(Value(30), [30, "cb"])),
    Point(
        "replace_error",
        "alerted(becomes.s('failure'), alert.s())",
        Calls(Fails(ValueError), ["canvas.becomes", "replaced"]),
    ),
    # Options.
    Point("countdown_step", "stamped.s() | stamped.s().set(countdown=2) | stamped.s()", Seconds(1, 0, 2)),
    Point("countdown_first", "stamped.s().set(countdown=2) | stamped.s()", Seconds(0, 0, 2)),
    Point("countdown_call_chain", "(stamped.s() | stamped.s()).apply_async(countdown=2)", Seconds(0, 0, 2)),
    Point("countdown_set_chain", "(stamped.s() | stamped.s()).set(countdown=2)", Seconds(0, 0, 2)),
    Point("countdown_call_group", "group(stamped.s(), stamped.s()).apply_async(countdown=2)", Seconds(0, 0, 2)),
    Point("countdown_set_group", "group(stamped.s(), stamped.s()).set(countdown=2)", Seconds(0, 0, 2)),
    Point(
        "countdown_call_chord",
        "chord([stamped.s(), stamped.s()], stamped.s()).apply_async(countdown=2)",
        Seconds(0, 0, 3),
    ),
    Point("ignored_alone", "silent.s(1, 1)", Value(None)),
    Point("ignored_chain", "silent.s(1, 1) | show.s(2)", Value([2, 2])),
    Point("ignored_set", "add.s(1, 1).set(ignore_result=True) | show.s(2)", Value([2, 2])),
    Point("ignored_header", "chord([silent.s(1, 1), add.s(2, 2)], show.s())", Value([[2, 4]])),
    Point("ignored_last", "add.s(1, 1) | silent.s(2)", Value(None)),
    # Signatures as values.
    Point("clone", "show.s(4).clone((2,))", Value([2, 4])),
    Point("assoc_group_left", "(add.s(1, 1) | group(add.s(1), add.s(2))) | show.s()", Value([[3, 4]])),
    Point("assoc_group_right", "add.s(1, 1) | (group(add.s(1), add.s(2)) | show.s())", Value([[3, 4]])),
    Point(
        "assoc_groups_right",
        "group(add.s(1, 1), add.s(2, 2)) | (group(total.s(), total.s()) | show.s())",
        Value([[6, 6]]),
    ),
    Point("as_argument", "show.s(add.s(1, 1))", Value([add.s(1, 1)])),
]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.id)
def test_point(point: Point) -> None:
    point.expected.check(point.code or point.canvas)


@pytest.mark.one_database
def test_the_page_shows_what_is_tested() -> None:
    rows = pages.rows(PAGE.read_text(), "canvas")
    here = {row[0].strip("`").replace("\\|", "|"): row[2] for row in rows}
    assert here == {point.canvas: str(point.expected) for point in POINTS}


@pytest.mark.one_database
def test_the_page_names_each_difference() -> None:
    for canvas, celery, here, note in (row[:4] for row in pages.rows(PAGE.read_text(), "canvas")):
        if re.fullmatch(r"`[^`]*`", celery) and celery != here:
            assert note.rstrip("|").strip() != "Same.", canvas


# What the tables say about signatures as values.


def test_a_group_that_goes_on_has_errors_in_the_places_of_values() -> None:
    error, value = started("group(fail.s('no'), add.s(1, 1), on_failure='continue')").get(TIMEOUT)
    assert (error.class_path, error.message, error.name, value) == ("builtins.ValueError", "no", fail.name, 2)


def test_the_first_member_s_error_is_raised() -> None:
    handle = started("group(later.s(0.2, 'a') | fail_after.s('one'), fail.s('two'))")
    with pytest.raises(ValueError, match="one"):
        handle.get(TIMEOUT)


def test_a_canvas_starts_more_than_once() -> None:
    one = add.s(1, 1) | group(add.s(1), add.s(2)) | total.s()
    handles = [one.delay(), one.delay()]
    testing.drain()
    assert [handle.get(TIMEOUT) for handle in handles] == [7, 7]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("add.s(1, 1).delay()", TaskResult),
        ("(add.s(1, 1) | add.s(2)).delay()", WorkflowResult),
        ("(add.s(1, 1) | add.s(2))()", WorkflowResult),
        ("group(add.s(1, 1), add.s(2, 2)).delay()", GroupResult),
        ("group(add.s(1, 1), add.s(2, 2))()", GroupResult),
        ("(add.s(1, 1) | group(add.s(1), add.s(2))).delay()", WorkflowResult),
    ],
)
def test_what_starting_gives(code: str, kind: type) -> None:
    assert type(started(code)) is kind


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("type(group(add.s(1, 1), add.s(2, 2)) | total.s())", chain),
        ("type(add.chunks(zip(range(5), range(5)), 2))", group),
        ("hasattr(add.chunks([(1, 1)], 2), 'group')", False),
        ("add.s(1, 1).link(say.s()) == say.s()", True),
        ("add.s(1, 1).link_error(alert.s()) == alert.s()", True),
        ("add.s(1, 1).on_error(alert.s()) == alerted(add.s(1, 1), alert.s())", True),
        ("(lambda one: (one.clone((2,), {'b': 2}), one)[1] == add.s(4))(add.s(4))", True),
        ("show.si(4).clone((2,)) == show.si(4)", True),
        ("dict(add.s(1).set(priority=3).clone(countdown=5).options)", {"priority": 3, "countdown": 5}),
        ("(lambda one: one.set(countdown=1) is one)(add.s(1, 1))", True),
        ("add.s(2)(3)", 5),
        ("show.si(2)(3)", [2]),
        ("((add.s(1, 1) | add.s(2)) | add.s(3)) == (add.s(1, 1) | (add.s(2) | add.s(3)))", True),
        ("(add.s(1, 1) | group(add.s(1)) | show.s()) == (add.s(1, 1) | (group(add.s(1)) | show.s()))", True),
        ("add.s(2, 2) == add.s(2, 2)", True),
        ("add.s(2, 2) == add.s(2, 3)", False),
        ("add.s(2, 2) == add.si(2, 2)", False),
        ("add.s(2, 2) == add.s(2, 2).set(countdown=1)", False),
        ("chain(add.s(1, 1), add.s(2)) == (add.s(1, 1) | add.s(2))", True),
        ("group(add.s(1, 1)) == group([add.s(1, 1)])", True),
        ("chord([add.s(1, 1)], show.s()) == chord(group(add.s(1, 1)), show.s())", True),
        ("repr(add.s(2, 2))", "canvas.add(2, 2)"),
        ("repr(add.s(2, y=3))", "canvas.add(2, y=3)"),
        ("repr(add.si(2))", "canvas.add(2)"),
        ("repr(add.s(2, 2) | add.s(y=4) | add.s(6))", "canvas.add(2, 2) | add(y=4) | add(6)"),
        ("repr(group(add.s(2, 2), add.s(4, 4)))", "group((canvas.add(2, 2), add(4, 4)))"),
        ("repr(chord([add.s(2, 2), add.s(4, 4)], total.s()))", "%canvas.total([add(2, 2), add(4, 4)])"),
        ("repr(chord([add.s(2, 2)]))", "<chord without body: [canvas.add(2, 2)]>"),
    ],
)
def test_signatures_as_values(code: str, expected: Any) -> None:
    assert eval(code, dict(NAMES)) == expected


OPERANDS = {
    "signature": lambda: add.s(1, 1),
    "chain": lambda: add.s(1, 1) | add.s(2),
    "group": lambda: group(add.s(1, 1), add.s(2, 2)),
    "chord": lambda: chord([add.s(1, 1), add.s(2, 2)], total.s()),
    "chord with a chain": lambda: chord([add.s(1, 1), add.s(2, 2)], total.s() | add.s(1)),
    "chain that ends in a chord": lambda: chain(add.s(1, 1), chord([add.s(1), add.s(2)], total.s())),
    "chain that ends in a group": lambda: chain(add.s(1, 1), group(add.s(1), add.s(2))),
}


@pytest.mark.one_database
@pytest.mark.parametrize("left", OPERANDS)
@pytest.mark.parametrize("right", OPERANDS)
def test_joining_leaves_both_alone(left: str, right: str) -> None:
    a, b = OPERANDS[left](), OPERANDS[right]()
    assert (a | b) == (a | b)
    assert (a.to_dict(), b.to_dict()) == (OPERANDS[left]().to_dict(), OPERANDS[right]().to_dict())


@pytest.mark.one_database
@pytest.mark.parametrize("name", OPERANDS)
def test_the_json_form_leads_back(name: str) -> None:
    assert back(OPERANDS[name]()) == OPERANDS[name]()


@pytest.mark.one_database
def test_the_json_form() -> None:
    keys = {"task": add.name, "args": [2], "kwargs": {"y": 3}, "subtask_type": None, "immutable": False}
    assert add.signature((2,), {"y": 3}, countdown=5).to_dict() == {**keys, "options": {"countdown": 5}}
    assert add.si(2, y=3).to_dict() == {**keys, "options": {}, "immutable": True}
    linking = linked(alerted(add.s(2, y=3), alert.s()), say.s()).to_dict()["options"]
    assert linking == {"link": [say.s().to_dict()], "link_error": [alert.s().to_dict()]}
    for kind, canvas in (
        ("chain", add.s(1, 1) | add.s(2)),
        ("group", group(add.s(1, 1))),
        ("chord", chord([], say.s())),
    ):
        found = canvas.to_dict()
        assert (found.keys() - {"name", "expires"}, found["subtask_type"]) == (keys.keys() | {"options"}, kind)
        assert found["task"] == f"django_taskq.{kind}"


@pytest.mark.one_database
@pytest.mark.parametrize("other", [3, show], ids=["number", "task"])
def test_only_signatures_are_joined(other: Any) -> None:
    with pytest.raises(TypeError):
        add.s(1, 1) | other


@pytest.mark.one_database
def test_signatures_are_no_keys() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(silent.s(1, 1))
