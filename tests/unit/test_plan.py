"""Compiling: random canvases come to what their meaning says, and plans keep their promises."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings

from django_taskq import serializers
from django_taskq.canvas import chain, chord, group
from django_taskq.composing import Canvas
from django_taskq.exceptions import InvalidArguments, InvalidWorkflow, UnknownTask, WorkflowTooLarge
from django_taskq.plan import Input, Plan
from django_taskq.signatures import signature
from tests.testapp.tasks import add
from tests.unit import running_plans
from tests.unit.canvas_oracle import FUNCTIONS, alert, canvases, expect, fail, show, weigh


def shown(inputs: Iterable[Input]) -> list[tuple[Any, ...]]:
    """Each by number, kind, brackets, and whether the value goes along."""
    return [(each.parent.number, each.kind.name, each.opens, each.closes, each.carries) for each in inputs]


def links(plan: Plan) -> list[list[tuple[Any, ...]]]:
    """For each node its inputs."""
    return [shown(node.inputs) for node in plan.nodes]


@settings(max_examples=300)
@given(canvases())
def test_a_plan_comes_to_what_its_canvas_means(canvas: Canvas) -> None:
    expected = expect(canvas)
    ran = running_plans.run(canvas.plan(), FUNCTIONS)
    assert (ran.value, ran.errors, ran.calls) == (expected.value, expected.errors, expected.calls)


@settings(max_examples=300)
@given(canvases())
def test_parents_come_first_and_no_parent_twice(canvas: Canvas) -> None:
    plan = canvas.plan()
    for number, node in enumerate(plan.nodes):
        assert node.number == number
        parents = [each.parent.number for each in node.inputs]
        assert all(parent < number for parent in parents)
        assert len(parents) == len(set(parents))
    sinks = [each.parent.number for each in plan.sinks]
    assert len(sinks) == len(set(sinks))
    assert (plan.constant is None) == bool(sinks)


@settings(max_examples=100)
@given(canvases())
def test_a_canvas_travels(canvas: Canvas) -> None:
    assert serializers.loads(serializers.dumps(canvas)) == canvas


class TestLinks:
    def test_a_chain_has_no_brackets(self) -> None:
        plan = (show.s(1) | show.s(2) | show.si(3)).plan()
        assert links(plan) == [[], [(0, "SUCCESS", 0, 0, True)], [(1, "SUCCESS", 0, 0, False)]]
        assert [node.front for node in plan.nodes] == [0, 1, 0]
        assert shown(plan.sinks) == [(2, "SUCCESS", 0, 0, True)]

    def test_a_chord_has_brackets_around_its_header(self) -> None:
        plan = chord([show.s(1), show.s(2), show.s(3)], weigh.s()).plan()
        assert links(plan)[3] == [
            (0, "SUCCESS", 1, 0, True),
            (1, "SUCCESS", 0, 0, True),
            (2, "SUCCESS", 0, 1, True),
        ]
        assert links(chord([show.s(1)], weigh.s()).plan())[1] == [(0, "SUCCESS", 1, 1, True)]

    def test_a_chain_that_ends_in_a_group_keeps_its_own(self) -> None:
        plan = group(show.s(1) | group(show.s(2), show.s(3)), show.s(4)).plan()
        assert shown(plan.sinks) == [
            (1, "SUCCESS", 2, 0, True),
            (2, "SUCCESS", 0, 1, True),
            (3, "SUCCESS", 0, 1, True),
        ]

    def test_groups_dissolve_in_groups(self) -> None:
        inner = group(show.s(1), show.s(2), on_failure="continue")
        plan = group(group(inner), show.s(3)).plan()
        assert shown(plan.sinks) == [(0, "END", 1, 0, True), (1, "END", 0, 0, True), (2, "SUCCESS", 0, 1, True)]

    def test_many_to_many_go_through_one(self) -> None:
        plan = (group(show.s(1), show.s(2)) | group(show.s(3), show.si(4))).plan()
        assert [node.signature.task for node in plan.nodes][2] == "django_taskq.gather"
        assert links(plan)[2:] == [
            [(0, "SUCCESS", 1, 0, True), (1, "SUCCESS", 0, 1, True)],
            [(2, "SUCCESS", 0, 0, True)],
            [(2, "SUCCESS", 0, 0, False)],
        ]

    def test_values_that_nobody_wants_stay_where_they_are(self) -> None:
        plan = (group(show.s(1), show.s(2)) | group(show.si(3), show.si(4))).plan()
        assert links(plan)[2] == [(0, "SUCCESS", 0, 0, False), (1, "SUCCESS", 0, 0, False)]
        assert plan.nodes[2].front == 0

    def test_what_hands_on_wants_the_value(self) -> None:
        ran = running_plans.run((group(show.s(1), show.s(2)) | group(chain(), chain())).plan())
        assert ran.value == [[[1], [2]], [[1], [2]]]

    def test_a_group_of_one_needs_nothing_between(self) -> None:
        plan = (group(show.s(1), show.s(2)) | group(show.s(3))).plan()
        assert len(plan.nodes) == 3

    def test_an_empty_group_behind_others_is_an_empty_list(self) -> None:
        plan = chain(group(show.s(1), show.s(2)), group(), show.s(3)).plan()
        assert links(plan)[2] == [(0, "SUCCESS", 1, 1, False), (1, "SUCCESS", 0, 0, False)]
        assert running_plans.run(plan).value == [[], 3]

    def test_members_share_their_inputs(self) -> None:
        for member in (show.s(1), show.si(1)):
            plan = (show.s(0) | group(member for _ in range(5))).plan()
            assert len({id(node.inputs) for node in plan.nodes[1:]}) == 1

    def test_what_is_between_runs_where_its_parents_run(self) -> None:
        first = show.s(1).set(queue="bulk", priority=7)
        options = dict((group(first, first) | group(show.s(), show.s())).plan().nodes[2].signature.options)
        assert options == {"queue_name": "bulk", "priority": 7}

    def test_what_is_between_follows_routes(self, settings: Any) -> None:
        settings.TASKQ = {**settings.TASKQ, "ROUTES": {"oracle.*": {"queue_name": "routed", "priority": 3}}}
        plan = (group(show.s(1), show.s(2)) | group(show.s(), show.s())).plan()
        assert dict(plan.nodes[2].signature.options) == {"queue_name": "routed", "priority": 3}


class TestConstants:
    @pytest.mark.parametrize(
        ("canvas", "text"),
        [(group(), "[]"), (chain(), "null"), (chain(group(), chain()), "[]"), (group(group(), group()), "[]")],
        ids=repr,
    )
    def test_nothing_to_run(self, canvas: Canvas, text: str) -> None:
        plan = canvas.plan()
        assert (plan.nodes, plan.sinks, plan.constant) == ([], [], text)

    def test_an_empty_header(self) -> None:
        plan = chord([], show.s(1)).plan()
        (node,) = plan.nodes
        assert (node.signature.args, node.front, node.inputs) == (([], 1), 0, [])

    def test_among_others_it_is_a_step(self) -> None:
        plan = group(show.s(1), chain(group()), chain()).plan()
        assert running_plans.run(plan).value == [[1], [], None]


class TestPolicies:
    def test_a_signature_that_continues(self) -> None:
        plan = (fail.s("no").set(on_failure="continue") | show.s()).plan()
        assert [node.continues for node in plan.nodes] == [True, False]
        assert running_plans.run(plan).value == [("error", "no")]

    def test_a_group_that_continues(self) -> None:
        header = group(fail.s("no") | show.s(), show.s(1), on_failure="continue")
        ran = running_plans.run(chord(header, show.s()).plan())
        assert ran.value == [[("error", "UpstreamFailed"), [1]]]

    def test_a_chord_and_a_chain_that_continue(self) -> None:
        for made in (chord([fail.s("no")], show.s()), fail.s("no") | show.s()):
            ran = running_plans.run((made.set(on_failure="continue") | show.s()).plan())
            assert ran.value == [("error", "UpstreamFailed")]

    def test_it_is_not_about_what_comes_in(self) -> None:
        ran = running_plans.run(chain(fail.s("no"), group(on_failure="continue")).plan())
        assert ran.errors == {"no"}


class TestCallbacks:
    def test_a_link_of_a_signature_is_no_result(self) -> None:
        made = show.s(1)
        made.link(show.s("cb"))
        plan = made.plan()
        assert links(plan)[1] == [(0, "SUCCESS", 0, 0, True)]
        assert shown(plan.sinks) == [(0, "SUCCESS", 0, 0, True)]

    def test_a_link_of_a_chain_and_a_chord_is_behind_their_last(self) -> None:
        for made in (show.s(1) | show.s(2), chord([show.s(1)], show.s(2))):
            made.link(show.s("cb"))
            assert links(made.plan())[2] == [(1, "SUCCESS", 0, 0, True)]

    def test_a_link_of_a_group_is_behind_each_member(self) -> None:
        made = group(group(show.s(1)).set(priority=1), show.s(2) | show.s(3))
        made.link(show.s("cb"))
        plan = made.plan()
        callbacks = [links(plan)[n.number] for n in plan.nodes if "cb" in n.signature.args]
        assert callbacks == [[(0, "SUCCESS", 0, 0, True)], [(3, "SUCCESS", 0, 0, True)]]

    def test_a_link_needs_a_success_whatever_others_need(self) -> None:
        made = fail.s("no").set(on_failure="continue")
        made.link(show.s("cb"))
        assert links(made.plan())[1] == [(0, "SUCCESS", 0, 0, True)]

    def test_an_error_callback_hears_of_every_node_inside(self) -> None:
        plan = chord([show.s(1), show.s(2)], show.s(3)).on_error(alert.s()).plan()
        assert links(plan)[3] == [(number, "FAILURE", 0, 0, True) for number in range(3)]
        assert plan.nodes[3].front == 2

    def test_an_immutable_one_gets_nothing(self) -> None:
        plan = show.s(1).on_error(show.si("alarm")).plan()
        assert links(plan)[1] == [(0, "FAILURE", 0, 0, False)]
        assert plan.nodes[1].front == 0

    def test_it_does_not_hear_of_other_error_callbacks(self) -> None:
        inner = show.s(1).on_error(alert.s() | show.s())
        plan = chain(inner, show.s(2)).on_error(alert.s()).plan()
        assert [each[0] for each in links(plan)[-1]] == [0, 3]

    def test_it_runs_once_for_many_failures(self) -> None:
        ran = running_plans.run(group(fail.s("one"), fail.s("two")).on_error(alert.s()).plan())
        assert ran.calls["oracle.alert['run', 'error']"] == 1

    def test_a_group_inside_a_group_keeps_its_own(self) -> None:
        inner = group(fail.s("no"), show.s(1)).on_error(alert.s())
        plan = group(inner, show.s(2)).plan()
        assert links(plan)[2] == [(0, "FAILURE", 0, 0, True), (1, "FAILURE", 0, 0, True)]
        assert [each[0] for each in shown(plan.sinks)] == [0, 1, 3]

    def test_a_link_of_an_empty_chain_gets_what_the_chain_hands_on(self) -> None:
        made = chain()
        made.link(show.s("cb"))
        assert running_plans.run(made.plan()).calls == {"oracle.show[None, 'cb']": 1}
        assert running_plans.run((show.s(1) | made).plan()).calls["oracle.show[[1], 'cb']"] == 1

    def test_a_group_is_no_error_callback(self) -> None:
        for callback in (group(alert.s()), chord([alert.s()], show.s()), chain(), group(alert.s()) | show.s()):
            with pytest.raises(InvalidWorkflow, match="error callback is a signature"):
                show.s().link_error(callback)

    def test_nothing_inside_nothing_to_fail(self) -> None:
        assert chain().on_error(alert.s()).plan().nodes == []


class TestOptions:
    def test_those_of_a_canvas_hold_where_a_signature_says_nothing(self) -> None:
        inner = group(show.s().set(priority=9), show.s()).set(queue="inner")
        plan = (show.s() | inner).set(queue="outer", priority=1).plan()
        found = [(node.signature.options["queue_name"], node.signature.options["priority"]) for node in plan.nodes]
        assert found == [("outer", 1), ("inner", 9), ("inner", 1)]

    def test_a_time_is_for_the_first_steps(self) -> None:
        inner = chord([show.s(), show.s().set(countdown=1)], show.s())
        plan = (inner | show.s()).set(countdown=2).plan()
        assert [node.signature.options.get("countdown") for node in plan.nodes] == [2.0, 1.0, None, None]

    def test_a_time_of_its_own_replaces_the_other_kind(self) -> None:
        when = datetime(2030, 1, 1, tzinfo=UTC)
        plan = group(show.s().set(countdown=5), show.s()).set(eta=when).plan()
        assert [dict(node.signature.options) for node in plan.nodes] == [{"countdown": 5.0}, {"run_after": when}]

    def test_spread_is_on_top_of_the_time_a_first_step_has(self) -> None:
        when = datetime(2030, 1, 1, tzinfo=UTC)
        members = [show.s() | show.s(), show.s().set(countdown=1), show.s().set(eta=when), group(show.s(), spread=4)]
        plan = group(members, spread=timedelta(seconds=40)).plan()
        assert [dict(node.signature.options) for node in plan.nodes] == [
            {},
            {},
            {"countdown": 11.0},
            {"run_after": when + timedelta(seconds=20)},
            {"countdown": 30.0},
        ]

    def test_spread_reaches_through_chains_and_chords(self) -> None:
        member = chord([show.s(), show.s()], show.s())
        plan = group(member, member, spread=10).plan()
        assert [node.signature.options.get("countdown") for node in plan.nodes] == [None, None, None, 5.0, 5.0, None]

    @pytest.mark.parametrize("spread", [-1, "soon", True])
    def test_a_spread_that_is_no_time(self, spread: Any) -> None:
        with pytest.raises(ValueError, match="spread="):
            group(spread=spread)

    def test_a_signature_keeps_its_options_object_where_nothing_changes(self) -> None:
        made = show.s().set(priority=3)
        plan = group(made, made).plan()
        assert all(node.signature is made for node in plan.nodes)


class TestRefusals:
    def test_a_task_nobody_knows(self) -> None:
        with pytest.raises(UnknownTask, match=r"'oracle.shov'.* Did you mean \"oracle.show\""):
            (show.s() | signature("oracle.shov")).plan()

    def test_arguments_that_do_not_bind_behind_a_result(self) -> None:
        assert (add.s(1, 2) | add.s(3)).plan()
        with pytest.raises(InvalidArguments, match=r"add\(x: .*the result of the step before it comes"):
            (add.s(1, 2) | add.s(3, 4)).plan()
        with pytest.raises(InvalidArguments, match="the failed run and its error come"):
            show.s().on_error(add.s(1)).plan()

    def test_arguments_that_do_not_bind_anyway(self) -> None:
        with pytest.raises(InvalidArguments) as caught:
            group(add.s(1)).plan()
        assert "workflow" not in str(caught.value)

    def test_an_exchange(self) -> None:
        with pytest.raises(InvalidWorkflow, match="a step is one run"):
            (show.s() | show.s().set(exchange="news")).plan()

    def test_too_many_steps(self, settings: Any) -> None:
        settings.TASKQ = {**settings.TASKQ, "MAX_WORKFLOW_SIZE": 3}
        assert len(group(show.s() for _ in range(3)).plan().nodes) == 3
        with pytest.raises(WorkflowTooLarge, match=r"more than 3 steps.*MAX_WORKFLOW_SIZE"):
            group(show.s() for _ in range(4)).plan()

    def test_a_chord_without_a_body(self) -> None:
        with pytest.raises(InvalidWorkflow, match="chord without body"):
            (show.s() | chord([show.s()])).plan()

    def test_a_part_that_expires_as_a_whole(self) -> None:
        part = (show.s() | show.s()).expiring(60)
        assert part.plan()
        for whole in (part.clone().on_error(show.si()) | show.s(), group(group(show.s()).expiring(60))):
            with pytest.raises(InvalidWorkflow, match=r"use \.set\(expires="):
                whole.plan()


class TestSize:
    def test_a_long_chain_takes_no_stack(self) -> None:
        made: Canvas = show.s()
        for _ in range(100_000):
            made = made | SHARED
        assert len(made.plan().nodes) == 100_001

    def test_deep_nesting_takes_no_stack(self) -> None:
        made: Canvas = show.s()
        for _ in range(5_000):
            made = group(made | SHARED)
        assert len(made.plan().nodes) == 5_001

    def test_a_large_group_is_small(self) -> None:
        tracemalloc.start()
        made = group(add.s(number, number) for number in range(1000, 21_000))
        per_member = tracemalloc.get_traced_memory()[0] / 20_000
        plan = made.plan()
        gc.collect()
        per_step = tracemalloc.get_traced_memory()[0] / 20_000
        tracemalloc.stop()
        assert len(plan.nodes) == 20_000
        assert (per_member < 400, per_step < 800) == (True, True), (per_member, per_step)


SHARED = show.si(1)
