"""``@task`` and ``Task``: definitions, options of a call, and what a call becomes."""

from __future__ import annotations

import asyncio
import copy
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from django_taskq import Task, current_task, registry, task
from django_taskq.exceptions import InvalidArguments, InvalidTask
from tests.testapp.tasks import add
from tests.unit.making import make_task

NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 - the point


class TestDefinition:
    def test_the_name_is_the_path_or_the_one_given(self) -> None:
        assert add.name == "tests.testapp.tasks.add"
        assert make_task(lambda: None, name="mine").name == "mine"
        assert registry.find("mine") is not None

    def test_it_looks_like_its_function(self) -> None:
        def documented() -> None:
            """What it does."""

        made = make_task(documented)
        assert (made.__doc__, made.__wrapped__, repr(made)) == ("What it does.", documented, "<Task documented>")

    def test_calling_it_runs_it_here(self) -> None:
        assert add(1, y=2) == 3
        assert not current_task

    def test_an_unknown_option(self) -> None:
        with pytest.raises(InvalidTask, match='Did you mean "max_retries"'):
            make_task(lambda: None, name="x", max_retry=1)

    def test_two_tasks_of_one_name(self) -> None:
        make_task(lambda: 1, name="same")

        def other() -> None: ...

        with pytest.raises(InvalidTask, match="two tasks are named 'same'.*other"):
            make_task(other, name="same")

    def test_the_same_definition_twice_is_a_reload(self) -> None:
        def again() -> None: ...

        make_task(again)
        newer = make_task(again)
        assert registry.find("again") is newer

    @pytest.mark.parametrize("target", [print, 5, "name", int, object(), len], ids=lambda value: type(value).__name__)
    def test_what_is_no_function_or_task_class(self, target: Any) -> None:
        with pytest.raises(InvalidTask):
            task(target)

    def test_a_local_function_needs_a_name(self) -> None:
        def local() -> None: ...

        with pytest.raises(InvalidTask, match="move it to module level"):
            task(local)

    @pytest.mark.parametrize("option", ["bind", "takes_context"])
    def test_an_option_that_fills_a_parameter_needs_one(self, option: str) -> None:
        with pytest.raises(InvalidTask, match=f"{option}=True fills the first parameter"):
            make_task(lambda: None, name="none", **{option: True})

    def test_a_coroutine_has_no_transaction(self) -> None:
        async def coroutine() -> None: ...

        with pytest.raises(InvalidTask, match="sync function"):
            make_task(coroutine, transactional=True)


class TestClasses:
    def test_the_name_stands_for_the_one_instance(self) -> None:
        class Base(Task):
            def greet(self, who: str) -> str:
                return f"hello {who}"

        @task(name="send", queue_name="mail")
        class Send(Base):
            def run(self, who: str) -> str:
                return self.greet(who)

        assert isinstance(Send, Base)
        assert Send("you") == "hello you"
        assert Send.options.queue_name == "mail"
        assert Send.using(priority=1)("you") == "hello you"
        with pytest.raises(InvalidArguments):
            Send._message((), {})

    @pytest.mark.parametrize("bases", [(), (Task,)])
    def test_what_lacks_a_part(self, bases: Any) -> None:
        with pytest.raises(InvalidTask, match=r"subclass of Task with a run\(\) method"):
            task(type("Half", bases, {}))

    @pytest.mark.parametrize("option", ["bind", "takes_context"])
    def test_options_for_functions(self, option: str) -> None:
        with pytest.raises(InvalidTask, match="is for functions"):
            task(name="x", **{option: True})(type("Whole", (Task,), {"run": lambda self: None}))


class TestUsing:
    def test_returns_a_copy_and_leaves_the_task_alone(self) -> None:
        changed = add.using(priority=5)
        assert changed is not add
        assert changed._message((1, 2), {}).priority == 5
        assert add._message((1, 2), {}).priority == 0
        assert changed.using(queue_name="mail")._message((1, 2), {}).priority == 5

    def test_copies_and_pickles(self) -> None:
        assert copy.copy(add).name == copy.deepcopy(add).name == add.name
        assert pickle.loads(pickle.dumps(add)) is add

    @pytest.mark.parametrize(
        ("option", "meant"), [("queue", "queue_name"), ("prioritie", "priority"), ("expire", "expires")]
    )
    def test_an_unknown_option_gets_a_suggestion(self, option: str, meant: str) -> None:
        with pytest.raises(TypeError, match=f"no option '{option}'.*\"{meant}\""):
            add.using(**{option: 1})

    @pytest.mark.parametrize(
        ("option", "value"),
        [("priority", 101), ("priority", "1"), ("queue_name", "a b"), ("run_after", "soon"), ("run_after", NAIVE),
         ("countdown", -1), ("countdown", float("inf")), ("countdown", float("nan")), ("countdown", 1e300),
         ("expires", 0), ("expires", float("inf")), ("expires", NAIVE), ("time_limit", 0), ("soft_time_limit", -1),
         ("max_retries", -1), ("ignore_result", 1), ("task_id", "x"), ("task_id", 5)],
    )  # fmt: skip
    def test_a_bad_value_names_its_option(self, option: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"{option}="):
            add.using(**{option: value})

    def test_a_time_and_a_countdown_contradict(self) -> None:
        with pytest.raises(ValueError, match="either run_after or countdown"):
            add.using(countdown=5).using(run_after=datetime(2030, 1, 1, tzinfo=UTC))

    def test_none_leaves_the_task_s_own(self) -> None:
        assert add.using(priority=None, queue_name=None, countdown=None)._message((1, 2), {}).priority == 0

    def test_one_id_is_for_one_run(self) -> None:
        with pytest.raises(ValueError, match="enqueue_many"):
            add.using(task_id=uuid4()).enqueue_many([((1, 2), {}), ((3, 4), {})])

    def test_durations(self) -> None:
        message = add.using(countdown=timedelta(minutes=1), expires=timedelta(minutes=2))._message((1, 2), {})
        assert message.run_after is not None
        assert message.expires_at is not None
        assert message.run_after - message.enqueued_at == timedelta(minutes=1)
        assert message.expires_at - message.enqueued_at == timedelta(minutes=2)


def plain(x: int, y: int = 2) -> None: ...
def variadic(*args: int, key: int = 1) -> None: ...
def keyword(x: int, *, key: int) -> None: ...
def positional(x: int, /, **rest: int) -> None: ...


class TestBinding:
    @pytest.mark.parametrize(
        ("function", "args", "kwargs", "binds"),
        [
            (plain, (1,), {}, True), (plain, (1, 2), {}, True), (plain, (), {"x": 1}, True), (plain, (), {}, False),
            (plain, (1, 2, 3), {}, False), (plain, (1,), {"x": 1}, False), (plain, (1,), {"z": 1}, False),
            (variadic, (), {}, True), (variadic, (1,) * 50, {}, True), (variadic, (1,), {"key": 5}, True),
            (keyword, (1,), {}, False), (keyword, (1,), {"key": 1}, True), (keyword, (1, 2), {}, False),
            (positional, (1,), {"any": 1}, True), (positional, (), {"x": 1}, False), (positional, (), {}, False),
        ],
    )  # fmt: skip
    def test_as_a_call_would(self, function: Any, args: Any, kwargs: Any, binds: bool) -> None:
        made = make_task(function)
        if binds:
            made._message(args, kwargs)
        else:
            with pytest.raises(InvalidArguments, match=function.__name__):
                made._message(args, kwargs)

    @pytest.mark.parametrize("option", ["bind", "takes_context"])
    def test_the_filled_parameter_is_not_the_caller_s(self, option: str) -> None:
        made = make_task(lambda filled, x: x, name="filled", **{option: True})
        assert made._message((1,), {}).payload == "[[1],{}]"
        with pytest.raises(InvalidArguments):
            made._message((1, 2), {})


class TestContext:
    def test_a_plain_call_of_a_context_task_has_one_of_its_own(self) -> None:
        made = make_task(lambda context, x: (context.attempt, context.name, x), name="contextual", takes_context=True)
        assert made(5) == (1, "contextual", 5)
        assert not current_task

    def test_there_is_no_request_outside_of_a_run(self) -> None:
        with pytest.raises(RuntimeError, match="not running in a worker"):
            add.request  # noqa: B018 - the look-up is what is tested
        assert repr(current_task) == "<current_task: none>"

    def test_an_async_task_is_awaited_by_its_caller(self) -> None:
        async def double(x: int) -> int:
            return 2 * x

        assert asyncio.run(make_task(double)(4)) == 8
