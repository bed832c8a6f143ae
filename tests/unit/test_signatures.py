"""Signatures: what they are called with, their options, how they look, and how they travel."""

from __future__ import annotations

import asyncio
import copy
import pickle
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_taskq import Signature, signature, task, workflows
from django_taskq.composing import Canvas
from django_taskq.exceptions import InvalidArguments, InvalidWorkflow, SerializationError, UnknownTask
from django_taskq.serializers import dumps, loads
from django_taskq.task import Task
from tests.testapp.tasks import add
from tests.unit.canvas_oracle import alert, fail, show
from tests.unit.making import make_task

PLAIN = {"task": add.name, "args": [2], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}


@pytest.fixture
def enqueued(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What tasks were asked to enqueue: their call options, args and kwargs."""
    calls: list[Any] = []

    def note(self: Task[Any, Any], *args: Any, **kwargs: Any) -> str:
        calls.append((self.name, self.call_options, args, kwargs))
        return "a result"

    monkeypatch.setattr(Task, "enqueue", note)
    return calls


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The plans that were started, with how."""
    calls: list[Any] = []
    monkeypatch.setattr(workflows, "start", lambda plan, **how: calls.append((plan, how)) or "a workflow")
    return calls


class TestMaking:
    def test_from_a_task(self) -> None:
        made = add.s(1, y=2)
        assert (made.task, made.args, made.kwargs, made.immutable, made.options) == (
            add.name,
            (1,),
            {"y": 2},
            False,
            {},
        )
        assert add.si(1).immutable
        assert add.signature((1,), {"y": 2}, immutable=True, priority=3) == add.si(1, y=2).set(priority=3)
        assert made.type is add

    def test_from_a_name(self) -> None:
        assert signature(add.name, (1,), {"y": 2}, countdown=5) == add.s(1, y=2).set(countdown=5)
        assert signature(add, immutable=True) == add.si()

    def test_from_another(self) -> None:
        made = add.s(2)
        copied = signature(made, (1,), priority=3)
        assert (copied, made) == (add.s(1, 2).set(priority=3), add.s(2))
        assert signature(PLAIN) == made

    @pytest.mark.parametrize("wrong", [5, None, object()])
    def test_from_what_is_no_task(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match="signature\\(\\) takes"):
            signature(wrong)

    def test_a_task_may_be_unknown_until_it_is_called(self) -> None:
        made = signature("nobody.knows")
        for use in (made, made.enqueue, (made | made).plan):
            with pytest.raises(UnknownTask, match=r"nobody\.knows"):
                use()


class TestArguments:
    def test_new_ones_come_first_and_new_keywords_win(self) -> None:
        made = show.s(3, a=1, b=1)
        copied = made.clone((1, 2), {"b": 2})
        assert (copied.args, copied.kwargs) == ((1, 2, 3), {"a": 1, "b": 2})
        assert (made.args, made.kwargs) == ((3,), {"a": 1, "b": 1})

    def test_what_is_immutable_takes_none(self) -> None:
        assert show.si(3).clone((1,), {"b": 2}, priority=4) == show.si(3).set(priority=4)

    def test_calling_it_runs_it_here(self) -> None:
        assert add.s(2)(1) == 3
        assert show.s("last")("first") == ["first", "last"]
        assert show.si("own")("other") == ["own"]


class TestOptions:
    def test_celery_s_names(self) -> None:
        when = datetime(2030, 1, 1, tzinfo=UTC)
        assert add.s().set(queue="mail", eta=when).options == {"queue_name": "mail", "run_after": when}

    def test_they_are_kept_as_plain_values(self) -> None:
        made = add.s().set(countdown=timedelta(minutes=1), memory_limit="1KB")
        assert made.options == {"countdown": 60.0, "memory_limit": 1024}

    def test_set_is_in_place_and_none_takes_back(self) -> None:
        made = add.s()
        assert made.set(priority=1, on_failure="continue") is made
        assert made.set(priority=None).options == {"on_failure": "continue"}
        assert made.set(on_failure=None) == add.s()

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"priorty": 1}, TypeError, 'Did you mean "priority"'),
            ({"priority": 1000}, ValueError, "priority=1000"),
            ({"on_failure": "explode"}, ValueError, "on_failure='explode'"),
            ({"countdown": 1, "eta": datetime(2030, 1, 1, tzinfo=UTC)}, ValueError, "not both"),
        ],
    )
    def test_wrong_ones(self, options: dict[str, Any], error: type[Exception], text: str) -> None:
        for use in (add.s().set, lambda **given: add.signature((), **given), add.s().clone):
            with pytest.raises(error, match=text):
                use(**options)

    def test_two_that_contradict_each_other(self) -> None:
        with pytest.raises(ValueError, match="not both"):
            add.s().set(countdown=1).set(eta=datetime(2030, 1, 1, tzinfo=UTC))

    def test_task_id_is_for_one_run(self) -> None:
        with pytest.raises(ValueError, match="does not go with a chain"):
            (add.s() | add.s()).set(task_id="00000000-0000-7000-8000-000000000000")


class TestStarting:
    def test_alone_it_is_a_call_of_its_task(self, enqueued: list[Any], started: list[Any]) -> None:
        made = add.s(y=2).set(priority=3, on_failure="continue")
        assert made.enqueue(1) == "a result"
        assert made.delay(1) == "a result"
        assert made.apply_async((1,), countdown=4) == "a result"
        assert asyncio.run(made.aenqueue(1)) == "a result"
        assert [(name, args, kwargs) for name, _, args, kwargs in enqueued] == [(add.name, (1,), {"y": 2})] * 4
        assert [(call.priority, call.countdown) for _, call, *_ in enqueued] == [
            (3, None),
            (3, None),
            (3, 4),
            (3, None),
        ]
        assert started == []

    @pytest.mark.parametrize(
        "furnish",
        [
            lambda made: made.link(show.s()),
            lambda made: made.link_error(alert.s()),
            lambda made: made.named("mine"),
            lambda made: made.expiring(60),
        ],
        ids=["link", "link_error", "named", "expiring"],
    )
    def test_with_more_it_is_a_workflow(self, furnish: Any, enqueued: list[Any], started: list[Any]) -> None:
        made = add.s(2)
        furnish(made)
        assert made.enqueue(1) == "a workflow"
        ((plan, how),) = started
        assert plan.nodes[0].signature.args == (1, 2)
        assert how["as_group"] is False
        assert enqueued == []

    def test_name_and_expiry_go_with_it(self, started: list[Any]) -> None:
        when = datetime(2030, 1, 1, tzinfo=UTC)
        add.s(1, 2).named("orders").expiring(when).enqueue()
        add.s(1, 2).expiring(timedelta(minutes=1)).enqueue()
        assert [(plan.name, how["expires"]) for plan, how in started] == [("orders", when), ("", 60.0)]

    @pytest.mark.parametrize("name", ["", "x" * 256, 5])
    def test_a_name_that_is_none(self, name: Any) -> None:
        with pytest.raises(ValueError, match="1 to 255 characters"):
            add.s().named(name)


class TestCallbacks:
    def test_they_return_what_celery_returns(self) -> None:
        made, callback = add.s(), show.s()
        assert made.link(callback) is callback
        assert made.link_error(callback) is callback
        assert made.on_error(callback) is made
        assert (made.links, made.error_links) == ((callback,), (callback,))

    def test_each_is_there_once(self) -> None:
        made = add.s()
        for _ in range(2):
            made.link(show.s(1))
            made.link_error(alert.s())
        assert (made.links, made.error_links) == ((show.s(1),), (alert.s(),))

    def test_a_clone_has_them_and_shares_none(self) -> None:
        made = add.s(2)
        made.link(show.s(1))
        copied = made.clone((1,))
        copied.link(show.s(2))
        assert (copied.links, made.links) == ((show.s(1), show.s(2)), (show.s(1),))

    @pytest.mark.parametrize("wrong", [5, None, add, "add"])
    def test_what_is_no_canvas(self, wrong: Any) -> None:
        for use in (add.s().link, add.s().link_error, add.s().then, add.s().__or__):
            with pytest.raises(TypeError, match=r"task\.s\(1\)"):
                use(wrong)


class TestLooks:
    def test_repr(self) -> None:
        assert repr(add.s(2, y="a")) == "tests.testapp.tasks.add(2, y='a')"
        assert (
            repr(show.s() | add.s(1) | add.s(2))
            == "oracle.show() | tests.testapp.tasks.add(1) | tests.testapp.tasks.add(2)"
        )
        assert repr(add.s(1, 2) | add.s(4)) == "tests.testapp.tasks.add(1, 2) | add(4)"

    def test_equality(self) -> None:
        assert add.s(1) == add.s(1)
        others = [add.s(2), add.si(1), add.s(1, y=2), show.s(1), add.s(1).set(priority=1), add.s(1).on_error(alert.s())]
        assert all(add.s(1) != other for other in [*others, "add", add.s(1) | add.s(1)])

    def test_it_is_no_key(self) -> None:
        with pytest.raises(TypeError, match="unhashable"):
            hash(add.s())

    def test_it_is_small(self) -> None:
        made = add.s(1, 2)
        assert not hasattr(made, "__dict__")
        assert sys.getsizeof(made) <= 88


class TestTravelling:
    def test_the_dict_has_celery_s_keys(self) -> None:
        assert add.s(2).to_dict() == PLAIN
        made = add.si(2).set(priority=1)
        made.link(show.s())
        made.link_error(fail.si("x"))
        found = made.to_dict()
        assert found["immutable"] is True
        assert found["options"] == {"priority": 1, "link": [show.s().to_dict()], "link_error": [fail.si("x").to_dict()]}

    def test_as_an_argument(self) -> None:
        when = datetime(2030, 1, 1, tzinfo=UTC)
        made = add.s(when, [show.s()]).set(eta=when).named("mine").expiring(60).on_error(alert.s())
        (found,) = loads(dumps([made]))
        assert type(found) is Signature
        assert found == made
        assert found.plan().name == "mine"

    def test_copies_and_pickles(self) -> None:
        made = add.s(2).on_error(alert.s())
        assert made == copy.deepcopy(made) == pickle.loads(pickle.dumps(made))

    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"task": 5},
            {**PLAIN, "args": 5},
            {**PLAIN, "options": {"nonsense": 1}},
            {**PLAIN, "options": {"link": [5]}},
            {**PLAIN, "subtask_type": "spiral"},
            {**PLAIN, "subtask_type": "chain"},
            {**PLAIN, "subtask_type": "chord", "kwargs": {"header": 5}},
        ],
        ids=str,
    )
    def test_a_dict_that_is_none(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(InvalidWorkflow, match="no signature"):
            signature(wrong)
        text = dumps(add.s(2)).replace(dumps(PLAIN), dumps(wrong))
        with pytest.raises(SerializationError, match="no signature"):
            loads(text)

    def test_celery_s_own_option_names(self) -> None:
        assert signature({**PLAIN, "options": {"queue": "mail"}}) == add.s(2).set(queue="mail")


class TestManyInOneRun:
    def run(self, made: Canvas) -> Any:
        assert isinstance(made, Signature)
        return made()

    def test_map(self) -> None:
        assert self.run(show.map(range(3))) == [[0], [1], [2]]
        assert self.run(show.map([])) == []

    def test_starmap(self) -> None:
        assert self.run(add.starmap(zip(range(3), range(3), strict=True))) == [0, 2, 4]

    def test_chunks(self) -> None:
        made = add.chunks(((i, i) for i in range(5)), 2, spread=30)
        assert [self.run(member) for member in made.tasks] == [[0, 2], [4, 6], [8]]
        assert made.spread == 30

    def test_they_take_nothing_from_what_is_before(self) -> None:
        assert show.map([1]).immutable
        assert add.starmap([(1, 2)]).immutable

    def test_they_run_where_the_task_runs(self, settings: Any) -> None:
        made = make_task(lambda value: value, name="placed", queue_name="bulk", priority=4)
        assert made.map([1]).options == {"queue_name": "bulk", "priority": 4}
        settings.TASKQ = {**settings.TASKQ, "ROUTES": {"placed": {"queue_name": "routed"}}}
        assert made.starmap([[1]]).options == {"queue_name": "routed", "priority": 4}

    def test_with_a_coroutine(self) -> None:
        async def double(value: int) -> int:
            return value * 2

        assert self.run(make_task(double).map([1, 2])) == [2, 4]

    def test_with_a_bound_task(self) -> None:
        made = task(name="bound", bind=True)(bound)
        assert self.run(made.map([1, 2])) == [("bound", 1), ("bound", 2)]

    def test_arguments_that_cannot_bind(self) -> None:
        with pytest.raises(InvalidArguments, match="missing a required argument"):
            add.map([1])
        with pytest.raises(InvalidArguments, match="too many positional"):
            add.chunks([(1, 2), (1, 2, 3)], 1)

    @pytest.mark.parametrize("n", [0, -1, 1.5, True])
    def test_chunks_of_no_size(self, n: Any) -> None:
        with pytest.raises(ValueError, match="chunks: n="):
            add.chunks([(1, 2)], n)


def bound(self: Any, value: int) -> tuple[str, int]:
    return self.name, value
