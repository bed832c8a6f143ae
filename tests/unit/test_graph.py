"""``Workflow``: steps by hand, results by reference, order alone, cycles."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_taskq import Workflow, chain, chord, group, workflows
from django_taskq.composing import Canvas
from django_taskq.exceptions import CyclicWorkflow, InvalidArguments, InvalidWorkflow, SerializationError
from django_taskq.graph import Step
from django_taskq.steps import Reference
from tests.testapp.tasks import add
from tests.unit import running_plans
from tests.unit.canvas_oracle import alert, expect, fail, show, weigh
from tests.unit.test_plan import links


def value_of(workflow: Workflow) -> Any:
    ran = running_plans.run(workflow.plan())
    assert not ran.errors
    return ran.value


class TestValues:
    def test_of_the_one_step_nobody_waits_for(self) -> None:
        workflow = Workflow("sums")
        one, two = workflow.add(add.s(1, 1)), workflow.add(add.s(2, 2))
        workflow.add(add.s(one.result, y=two.result))
        assert value_of(workflow) == 6
        assert workflow.plan().name == "sums"

    def test_of_several_in_the_order_in_which_they_were_added(self) -> None:
        workflow = Workflow()
        first = workflow.add(show.s(1))
        workflow.add(show.s(2), after=first)
        workflow.add(show.s(3))
        workflow.add(group(show.s(4)), after=[first])
        workflow.add(group())
        workflow.add(chain())
        assert value_of(workflow) == [[2], [3], [[4]], [], None]

    def test_of_none(self) -> None:
        assert Workflow().plan().constant == "null"

    def test_one_step_without_nodes(self) -> None:
        workflow = Workflow()
        workflow.add(group())
        assert (workflow.plan().nodes, workflow.plan().constant) == ([], "[]")


class TestReferences:
    def test_anywhere_in_arguments(self) -> None:
        workflow = Workflow()
        one = workflow.add(show.s(1))
        workflow.add(show.s({"deep": [(one.result, 2)]}, one.result, one.result))
        assert value_of(workflow) == [{"deep": [([1], 2)]}, [1], [1]]

    def test_one_link_however_often_it_is_named(self) -> None:
        workflow = Workflow()
        one, two = workflow.add(show.s(1)), workflow.add(show.s(2))
        workflow.add(show.s(two.result, one.result, two.result), after=[one, two])
        plan = workflow.plan()
        assert links(plan)[2] == [(1, "SUCCESS", 0, 0, True), (0, "SUCCESS", 0, 0, True)]
        assert (plan.nodes[2].refers, plan.nodes[2].front) == (True, 0)
        first, second, again = plan.nodes[2].signature.args
        assert isinstance(first, Reference)
        assert first is again
        assert ((first.start, first.stop), (second.start, second.stop)) == ((0, 1), (1, 2))

    def test_of_a_group_it_is_the_list(self) -> None:
        workflow = Workflow()
        many = workflow.add(group(show.s(1), show.s(2)))
        workflow.add(show.s("before", many.result, "behind"))
        assert value_of(workflow) == ["before", [[1], [2]], "behind"]
        assert len(workflow.plan().nodes) == 3  # nothing between for a single reader

    def test_of_nothing_it_is_a_constant(self) -> None:
        workflow = Workflow()
        empty, nothing = workflow.add(group()), workflow.add(chain())
        workflow.add(show.s(empty.result, nothing.result))
        assert value_of(workflow) == [[], None]
        assert len(workflow.plan().nodes) == 1

    def test_inside_a_canvas(self) -> None:
        workflow = Workflow()
        one = workflow.add(show.s(1))
        many = workflow.add(group(show.s(2), show.s(3)))
        workflow.add(chain(show.s(one.result), show.s(many.result), group(show.si(one.result), show.s(many.result))))
        assert value_of(workflow) == [[[1]], [[[[1]], [[2], [3]]], [[2], [3]]]]

    def test_in_a_callback(self) -> None:
        workflow = Workflow()
        one = workflow.add(show.s(1))
        two = show.s(2)
        two.link(show.s(one.result))
        workflow.add(two)
        assert running_plans.run(workflow.plan()).calls["oracle.show[[2], [1]]"] == 1

    def test_not_in_an_error_callback(self) -> None:
        workflow = Workflow()
        one = workflow.add(show.s(1))
        workflow.add(show.s(2).on_error(show.s(one.result)))
        with pytest.raises(InvalidWorkflow, match="error callback, which may run before"):
            workflow.plan()

    def test_a_large_result_that_many_want_goes_through_one(self) -> None:
        workflow = Workflow()
        many = workflow.add(group(show.s(number) for number in range(10)))
        workflow.add(group(weigh.s(many.result) for _ in range(10)))
        workflow.add(show.s(), after=many)
        plan = workflow.plan()
        assert len(plan.nodes) == 10 + 1 + 10 + 1
        assert {len(each) for each in links(plan)[11:]} == {1}
        assert value_of(workflow) == [[1 + sum(number + 1 for number in range(10))] * 10, []]

    def test_arguments_that_cannot_bind(self) -> None:
        workflow = Workflow()
        one = workflow.add(add.s(1, 1))
        workflow.add(add.s(1, 2, one.result))
        with pytest.raises(InvalidArguments, match="too many positional"):
            workflow.plan()

    def test_nowhere_else(self) -> None:
        one = Workflow("mine").add(show.s(1))
        with pytest.raises(SerializationError, match=r"<result of oracle\.show\(1\)>"):
            show.enqueue(one.result)

    def test_its_name_is_shown(self) -> None:
        step = Workflow("mine").add(show.s(1), name="first")
        assert (repr(step), repr(step.result)) == (
            "<Step first of <Workflow 'mine' of 1 steps>>",
            "<result of first>",
        )


class TestOrder:
    def test_after_carries_nothing(self) -> None:
        workflow = Workflow()
        one = workflow.add(show.s(1))
        workflow.add(show.s(2), after=[one])
        assert links(workflow.plan()) == [[], [(0, "SUCCESS", 0, 0, False)]]
        assert value_of(workflow) == [2]

    def test_a_group_after_several(self) -> None:
        workflow = Workflow()
        some = [workflow.add(show.s(number)) for number in range(3)]
        workflow.add(group(show.s(), show.s(7)), after=some)
        assert value_of(workflow) == [[], [7]]
        assert len(workflow.plan().nodes) == 3 + 1 + 2

    def test_connected_backwards(self) -> None:
        workflow = Workflow()
        one, two, three = (workflow.add(show.s(number)) for number in range(3))
        workflow.connect(three, two)
        workflow.connect(two, one)
        plan = workflow.plan()
        assert [node.signature.args for node in plan.nodes] == [(2,), (1,), (0,)]
        assert value_of(workflow) == [0]

    def test_names_are_labels(self) -> None:
        workflow = Workflow()
        workflow.add(show.s(1) | show.s(2), name="both")
        workflow.add(show.s(3))
        assert [node.label for node in workflow.plan().nodes] == ["both", "both", None]


class TestPolicy:
    def test_of_the_workflow(self) -> None:
        workflow = Workflow(on_failure="continue")
        one = workflow.add(fail.s("no"))
        two = workflow.add(fail.s("never").set(on_failure="stop"))
        workflow.add(show.s(one.result), after=one)
        assert [node.continues for node in workflow.plan().nodes] == [True, False, True]
        workflow.connect(one, two)
        assert running_plans.run(workflow.plan()).errors == {"never"}

    def test_a_failure_stops_what_follows(self) -> None:
        workflow = Workflow()
        one = workflow.add(fail.s("no"))
        workflow.add(show.s(), after=one)
        assert running_plans.run(workflow.plan()).errors == {"no"}

    def test_error_callbacks(self) -> None:
        workflow = Workflow()
        workflow.add((show.s(1) | fail.s("no")).on_error(alert.s()))
        assert running_plans.run(workflow.plan()).calls["oracle.alert['run', 'error']"] == 1


class TestCycles:
    def test_the_way_around_is_named(self) -> None:
        workflow = Workflow("mine")
        one = workflow.add(show.s(1), name="one")
        two = workflow.add(show.s(2), name="two", after=[one])
        three = workflow.add(show.s(two.result), name="three")
        with pytest.raises(CyclicWorkflow, match=r"'mine'.*: one -> two -> three -> one$"):
            workflow.connect(three, one)
        assert value_of(workflow) == [[2]]

    def test_with_itself(self) -> None:
        workflow = Workflow()
        one = workflow.add(show.s(1))
        with pytest.raises(CyclicWorkflow, match=r"oracle\.show\(1\) -> oracle\.show\(1\)"):
            workflow.connect(one, one)

    def test_by_a_forward_connection(self) -> None:
        workflow = Workflow()
        one, two, three = (workflow.add(show.s(number), name=f"s{number}") for number in range(3))
        workflow.connect(three, one)
        with pytest.raises(CyclicWorkflow, match="s2 -> s0 -> s1 -> s2"):
            workflow.connect(one, two), workflow.connect(two, three)

    def test_a_long_line_is_quick_and_takes_no_stack(self) -> None:
        workflow = Workflow()
        steps = [workflow.add(show.s()) for _ in range(5_000)]
        for one, two in pairwise(steps):
            workflow.connect(one, two)
        with pytest.raises(CyclicWorkflow):
            workflow.connect(steps[-1], steps[0])
        assert len(workflow.plan().nodes) == 5_000


class TestRefusals:
    @pytest.mark.parametrize("wrong", [5, "one", None, show.s()], ids=repr)
    def test_what_is_no_step(self, wrong: Any) -> None:
        workflow = Workflow("mine")
        one = workflow.add(show.s(1))
        for use in (lambda: workflow.add(show.s(), after=[wrong]), lambda: workflow.connect(one, wrong)):
            with pytest.raises(InvalidWorkflow, match="is no step of <Workflow 'mine'"):
                use()
        assert len(workflow.steps) == 1

    def test_a_step_of_another(self) -> None:
        workflow, stranger = Workflow("mine"), Workflow("other").add(show.s(1))
        for use in (
            lambda: workflow.add(show.s(), after=stranger),
            lambda: workflow.add(show.s([stranger.result])),
            lambda: workflow.connect(stranger, stranger),
        ):
            with pytest.raises(InvalidWorkflow, match="belongs to another workflow"):
                use()

    @pytest.mark.parametrize("name", ["", "x" * 201, 5])
    def test_a_step_s_name(self, name: Any) -> None:
        with pytest.raises(InvalidWorkflow, match="1 to 200 characters"):
            Workflow().add(show.s(), name=name)

    def test_a_name_that_is_taken(self) -> None:
        workflow = Workflow()
        workflow.add(show.s(), name="one")
        with pytest.raises(InvalidWorkflow, match="'one'"):
            workflow.add(show.s(), name="one")

    @pytest.mark.parametrize("given", [{"name": 5}, {"on_failure": "maybe"}, {"on_failure": None}, {"expires": -1}])
    def test_what_a_workflow_cannot_be(self, given: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="5|maybe|None|-1"):
            Workflow(**given)

    def test_a_part_that_expires_as_a_whole(self) -> None:
        with pytest.raises(InvalidWorkflow, match=r"use \.set\(expires="):
            Workflow().add(show.s().expiring(5))

    def test_what_is_no_canvas(self) -> None:
        with pytest.raises(TypeError, match=r"task\.s\(1\)"):
            Workflow().add(add)  # type: ignore[arg-type]


def test_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(workflows, "start", lambda plan, **how: started.append((plan, how)) or "a workflow")
    workflow = Workflow("mine", expires=timedelta(minutes=1))
    workflow.add(show.s())
    assert workflow.start() == "a workflow"
    assert asyncio.run(workflow.astart()) == "a workflow"
    assert [(plan.name, len(plan.nodes), how) for plan, how in started] == [("mine", 1, {"expires": 60.0})] * 2


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Workflow, Any]:
    """A random graph, and what its value must be: each step worked out with the values of those it names."""
    workflow, values = Workflow(), list[Any]()
    steps: list[Step] = []
    waited_for: set[int] = set()
    for _ in range(draw(st.integers(1, 6))):
        named = draw(st.lists(st.integers(0, len(steps) - 1), max_size=3)) if steps else []
        after = draw(st.lists(st.integers(0, len(steps) - 1), max_size=2)) if steps else []
        shape = draw(st.sampled_from(SHAPES))
        values.append(expect(shape([values[number] for number in named])).value)
        canvas = shape([steps[number].result for number in named])
        steps.append(workflow.add(canvas, after=[steps[number] for number in after]))
        waited_for |= {*after, *(named if shape not in NAMELESS else ())}
    sinks = [value for number, value in enumerate(values) if number not in waited_for]
    return workflow, sinks[0] if len(sinks) == 1 else sinks


def _nothing(named: list[Any]) -> Canvas:
    return chain()


def _empty(named: list[Any]) -> Canvas:
    return group()


NAMELESS = (_nothing, _empty)
SHAPES = [
    *NAMELESS,
    lambda named: show.s(*named),
    lambda named: show.s(0) | show.s(named) | show.si(*named),
    lambda named: group(show.s(each) for each in [*named, 1]),
    lambda named: group(show.s(1), group()) | group(show.s(*named), chain(), show.si(2)),
    lambda named: chord([show.s(each) for each in named], show.s({"of": named})),
]


@given(graphs())
def test_a_graph_comes_to_what_it_means(made: tuple[Workflow, Any]) -> None:
    workflow, expected = made
    assert value_of(workflow) == expected
    for node in workflow.plan().nodes:
        parents = [each.parent.number for each in node.inputs]
        assert len(parents) == len(set(parents))
