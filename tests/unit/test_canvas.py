"""Chains, groups and chords as objects: how they are put together, called, shown and started."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_taskq import chain, chord, group, registry, signature, workflows
from django_taskq.composing import Canvas
from django_taskq.serializers import dumps, loads
from tests.testapp.tasks import add
from tests.unit import running_plans
from tests.unit.canvas_oracle import alert, show, weigh


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the workflows that were started came to, and how they were started."""
    calls: list[Any] = []

    def note(plan: Any, *, expires: Any, as_group: bool) -> str:
        calls.append((running_plans.run(plan).value, expires, as_group))
        return "a workflow"

    monkeypatch.setattr(workflows, "start", note)
    return calls


class TestChain:
    def test_the_ways_to_one(self) -> None:
        one, two, three = show.s(1), show.s(2), show.s(3)
        made = chain(one, two, three)
        others = [chain([one, two, three]), chain(each for each in (one, two, three)), one | two | three]
        others += [one | (two | three), one.then(two).then(three), chain(chain(one, two), chain(), three)]
        assert all(other == made for other in others)
        assert made.tasks == (one, two, three)

    def test_operands_stay_as_they_are(self) -> None:
        first = show.s(1) | show.s(2)
        one, other = first | show.s(3), first | show.s(4)
        assert (len(first.tasks), one.tasks[2], other.tasks[2]) == (2, show.s(3), show.s(4))

    def test_one_with_something_of_its_own_stays_together(self) -> None:
        inner = (show.s(1) | show.s(2)).on_error(alert.s())
        assert (inner | show.s(3)).tasks == (inner, show.s(3))

    def test_what_is_set_later_does_not_reach_what_was_made_before(self) -> None:
        inner = show.s(1) | show.s(2)
        outer = inner | show.s(3)
        inner.set(priority=5)
        assert outer == chain(show.s(1), show.s(2), show.s(3))

    def test_of_one(self) -> None:
        assert running_plans.run(chain(show.s(1)).plan()).value == [1]

    @pytest.mark.parametrize("wrong", [add, 5, "add", [add]])
    def test_of_what_is_no_signature(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match=r"task\.s\(1\)"):
            chain(show.s(), wrong)

    def test_arguments_go_to_the_first(self) -> None:
        made = show.s(1) | show.s(2)
        assert made.clone((0,)).tasks == (show.s(0, 1), show.s(2))
        assert chain().clone((0,)) == chain()

    def test_calling_starts_it(self, started: list[Any]) -> None:
        assert (show.s(1) | show.s(2))(0) == "a workflow"
        assert started == [([[0, 1], 2], None, False)]


class TestGroup:
    def test_the_ways_to_one(self) -> None:
        made = group(show.s(0), show.s(1))
        assert made == group([show.s(0), show.s(1)]) == group(show.s(i) for i in range(2))
        assert made == group(group(show.s(0)), group(group(), show.s(1)))
        assert len(made) == 2
        assert group(show.s(0)) == group([show.s(0)])
        assert group(show.s(0).to_dict()) == group(show.s(0))

    def test_an_empty_one_is_there_all_the_same(self) -> None:
        assert bool(group())

    def test_spread_and_policy_make_a_difference(self) -> None:
        assert group(show.s(), spread=5) != group(show.s())
        assert group(show.s(), on_failure="continue") != group(show.s())
        assert group(show.s(), spread=5).clone((1,)) == group(show.s(1), spread=5)

    def test_an_unknown_policy(self) -> None:
        with pytest.raises(ValueError, match="on_failure='maybe'"):
            group(show.s(), on_failure="maybe")

    def test_arguments_go_to_each(self, started: list[Any]) -> None:
        assert group(show.s(1), show.si(2))(0) == "a workflow"
        assert started == [([[0, 1], [2]], None, True)]

    def test_it_starts_as_a_group_and_others_do_not(self, started: list[Any]) -> None:
        one = group(show.s(1))
        one.delay()
        one.apply_async(priority=3)
        asyncio.run(one.aenqueue())
        (one | show.s()).enqueue()
        (show.s(1) | one).enqueue()
        assert [as_group for _, _, as_group in started] == [True, True, True, False, False]


class TestChord:
    def test_the_ways_to_one(self) -> None:
        made = chord([show.s(1), show.s(2)], weigh.s())
        assert made == chord(group(show.s(1), show.s(2)), weigh.s())
        assert made == chord((show.s(i) for i in (1, 2)), weigh.s())
        assert chord(show.s(1), weigh.s()) == chord([show.s(1)], weigh.s())
        assert made.tasks == (show.s(1), show.s(2))

    def test_calling_starts_it(self, started: list[Any]) -> None:
        half = chord([show.s(1), show.s(2)])
        assert half(show.s("body")) == "a workflow"
        assert half.body is None
        chord([show.s(1)], show.s())()
        half(show.s("body"), 0)
        assert [value for value, *_ in started] == [
            [[[1], [2]], "body"],
            [[[1]]],
            [[[0, 1], [0, 2]], "body"],
        ]

    def test_what_it_has_goes_with_the_body(self, started: list[Any]) -> None:
        chord([show.s(1)]).named("mine").expiring(60)(show.s())
        assert started == [([[[1]]], 60.0, False)]

    def test_the_same_as_a_group_and_a_step(self) -> None:
        header, body = group(show.s(1), show.s(2)), show.s(3)
        one, other = running_plans.run(chord(header, body).plan()), running_plans.run((header | body).plan())
        assert one == other

    def test_arguments_go_to_the_header(self) -> None:
        assert chord([show.s(1)], weigh.s()).clone((0,)) == chord([show.s(0, 1)], weigh.s())


@pytest.mark.parametrize(
    ("canvas", "shown"),
    [
        (chain(), "chain()"),
        (group(), "group(<empty>)"),
        (group(add.s(1, 2), add.s(3, 4)), "group((tests.testapp.tasks.add(1, 2), add(3, 4)))"),
        (chord([add.s(1, 2)], show.s(5)), "%oracle.show([tests.testapp.tasks.add(1, 2)], 5)"),
        (chord([add.s(1, 2)], add.s(3) | add.s(4)), "%(group((tests.testapp.tasks.add(1, 2),)) | add(3) | add(4))"),
        (chord([add.s(1, 2)]), "<chord without body: [tests.testapp.tasks.add(1, 2)]>"),
        (show.s() | group(show.s(1), show.s(2)), "oracle.show() | group((show(1), show(2)))"),
        (group(group().set(priority=1)), "group((group(<empty>),))"),
    ],
)
def test_repr(canvas: Canvas, shown: str) -> None:
    assert repr(canvas) == shown


@pytest.mark.parametrize(
    "canvas",
    [
        chain(),
        show.s() | add.s(1),
        group(show.s(), show.s() | show.s(), spread=3, on_failure="continue"),
        chord([show.s(1)], weigh.s() | show.s()).set(queue="mail").named("mine").expiring(5),
        chord(group(show.s(1), spread=2)),
    ],
)
def test_travelling(canvas: Canvas) -> None:
    assert loads(dumps(canvas)) == canvas
    assert signature(canvas.to_dict()) == canvas
    assert canvas.to_dict()["subtask_type"] == canvas.kind


def test_the_dict_of_a_chord() -> None:
    found = chord([show.s()], weigh.s()).to_dict()
    assert found["task"] == "django_taskq.chord"
    assert found["kwargs"]["body"] == weigh.s().to_dict()
    assert found["kwargs"]["header"]["kwargs"]["tasks"] == [show.s().to_dict()]


class TestBuiltinTasks:
    def test_every_process_knows_them(self) -> None:
        for name in ("gather", "map", "starmap"):
            found = registry.find(f"django_taskq.{name}")
            assert found is not None
            assert found.name == f"django_taskq.{name}"

    def test_they_are_not_among_the_project_s(self) -> None:
        assert not [task.name for task in registry.all_tasks() if task.name.startswith("django_taskq.")]

    def test_gather_hands_on(self) -> None:
        found = registry.find("django_taskq.gather")
        assert found is not None
        assert (found(), found([1])) == (None, [1])
