"""What a task class may do around its runs: which hooks are called, in which order, with what."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.utils import translation

from django_taskq import Task, class_hooks, current_task, task
from django_taskq.exceptions import InvalidHook, InvalidTask
from django_taskq.message import Action, Headers, Outcome
from django_taskq.status import Status
from tests.unit.making import FakeGuard, execute, make_task

CALLS: list[Any] = []


class Noted(Task[..., Any]):
    """Notes every hook with what it gets; each says that it has the run."""

    def _note(self, name: str, context: Any, *more: Any) -> None:
        assert current_task.id == context.id
        assert context.task is self
        CALLS.append((name, *more))

    def before_start(self, context: Any) -> None:
        self._note("before_start", context)

    def on_success(self, context: Any, value: Any) -> None:
        self._note("on_success", context, value)

    def on_retry(self, context: Any, error: BaseException) -> None:
        self._note("on_retry", context, repr(error))

    def on_failure(self, context: Any, error: BaseException) -> None:
        self._note("on_failure", context, repr(error))

    def after_return(self, context: Any, status: Status, result: Any) -> None:
        self._note("after_return", context, status, result if status == Status.SUCCESSFUL else repr(result))


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def run(*values: Any, base: Any = Noted, is_async: bool = False, **options: Any) -> Outcome:
    """The outcome of a task that returns this, or raises it."""
    value = values[0] if values else None

    def body() -> Any:
        CALLS.append("run")
        if isinstance(value, BaseException):
            raise value
        return value

    async def coroutine() -> Any:
        return body()

    return execute(make_task(coroutine if is_async else body, base=base, **options))


@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine"])
class TestOrder:
    def test_success(self, is_async: bool) -> None:
        assert run({"a": 1}, is_async=is_async).action is Action.SUCCESS
        after = ("after_return", Status.SUCCESSFUL, {"a": 1})
        assert [("before_start",), "run", ("on_success", {"a": 1}), after] == CALLS

    def test_failure(self, is_async: bool) -> None:
        assert run(ValueError("no"), is_async=is_async).action is Action.FAILED
        error = "ValueError('no')"
        assert [("before_start",), "run", ("on_failure", error), ("after_return", Status.FAILED, error)] == CALLS

    def test_retry(self, is_async: bool) -> None:
        assert run(OSError("again"), is_async=is_async, autoretry_for=OSError).action is Action.RETRY
        assert CALLS == [("before_start",), "run", ("on_retry", "OSError('again')")]

    def test_the_last_attempt(self, is_async: bool) -> None:
        run(OSError("again"), is_async=is_async, autoretry_for=OSError, max_retries=0)
        assert [call[0] for call in CALLS if call != "run"] == ["before_start", "on_failure", "after_return"]


def test_a_retry_by_hand_tells_its_cause() -> None:
    def asks(self: Any) -> None:
        self.retry(OSError("cause"))

    def asks_plainly(self: Any) -> None:
        self.retry()

    for body in (asks, asks_plainly):
        execute(make_task(body, base=Noted, bind=True))
    assert [call for call in CALLS if call[0] == "on_retry"] == [
        ("on_retry", "OSError('cause')"),
        ("on_retry", "Retry('the task asked for another attempt')"),
    ]


def test_a_result_that_cannot_travel_is_a_failure_and_no_success() -> None:
    run(object())
    assert [call[0] for call in CALLS if call != "run"] == ["before_start", "on_failure", "after_return"]


def test_language_of_the_run() -> None:
    class Speaks(Task[..., Any]):
        def on_success(self, context: Any, value: Any) -> None:
            CALLS.append(translation.get_language())

        before_start = lambda self, context: CALLS.append(translation.get_language())  # noqa: E731

    made = make_task(lambda: None, name="speaks", base=Speaks)
    execute(made, headers=Headers(language="de").dumps())
    assert CALLS == ["de", "de"]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()], ids=repr)
class TestErrors:
    def test_in_before_start_is_the_run_s(self, error: BaseException) -> None:
        class Refuses(Noted):
            def before_start(self, context: Any) -> None:
                raise error

        outcome = run(5, base=Refuses)
        assert outcome.action is Action.FAILED
        assert (outcome.error and outcome.error.class_path) == f"builtins.{type(error).__name__}"
        assert [("on_failure", repr(error)), ("after_return", Status.FAILED, repr(error))] == CALLS

    @pytest.mark.parametrize("value", [5, ValueError("of the task")], ids=["success", "failure"])
    def test_in_another_is_logged_and_changes_nothing(
        self, error: BaseException, value: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Stumbles(Noted):
            def on_success(self, context: Any, value: Any) -> None:
                raise error

            def on_failure(self, context: Any, _error: BaseException) -> None:
                raise error

        with caplog.at_level(logging.ERROR):
            outcome = run(value, base=Stumbles)
        assert outcome.action is (Action.SUCCESS if value == 5 else Action.FAILED)
        assert CALLS[-1][0] == "after_return", "the others are called"
        hook = "on_success" if value == 5 else "on_failure"
        assert f"{hook} of task body failed; the outcome of run {outcome.delivery.id} stands" in caplog.text


def test_before_start_may_be_tried_again() -> None:
    class Busy(Noted):
        def before_start(self, context: Any) -> None:
            raise OSError("busy")

    assert run(5, base=Busy, autoretry_for=OSError).action is Action.RETRY


def test_hooks_are_charged_and_limited_like_the_call_but_not_interrupted() -> None:
    guard = FakeGuard()
    execute(make_task(lambda: 5, name="five", base=Noted, time_limit=20, soft_time_limit=10), guard=guard)
    assert guard.calls == [("begin", 20, False), ("arm", 10), "end", "end", ("begin", 20, False), "end"]


def test_who_overrides_nothing_is_not_asked() -> None:
    class Plain(Task[..., Any]):
        pass

    guard = FakeGuard()
    outcome = execute(make_task(lambda: 5, name="five", base=Plain), guard=guard)
    assert make_task(lambda: 5, name="six").hooks == frozenset()
    assert [call for call in guard.calls if call != "end"] == [("begin", None, False), ("arm", None)]
    assert (outcome.value, outcome.exception) == (None, None)


def test_a_class_task_has_hooks_of_its_own() -> None:
    @task(name="send")
    class Send(Noted):
        def run(self, who: str) -> str:
            return who

    execute(Send, "you")  # type: ignore[arg-type]
    assert [call[0] for call in CALLS] == ["before_start", "on_success", "after_return"]


def test_before_a_task_function_that_is_called_directly_no_hook_runs() -> None:
    assert make_task(lambda: 5, name="five", base=Noted)() == 5
    assert CALLS == []


class TestDefining:
    def test_a_coroutine_hook(self) -> None:
        class Waits(Task[..., Any]):
            async def on_success(self, context: Any, value: Any) -> None: ...  # type: ignore[override]

        with pytest.raises(InvalidHook, match=r"Waits\.on_success is a coroutine function"):
            run(base=Waits)

    @pytest.mark.parametrize("base", [5, int, "Task"], ids=repr)
    def test_a_base_that_is_none(self, base: Any) -> None:
        with pytest.raises(InvalidTask, match="base="):
            run(base=base)

    def test_a_base_with_a_body(self) -> None:
        class Runs(Task[[], None]):
            def run(self) -> None: ...

        with pytest.raises(InvalidTask, match=r"without a run\(\)"):
            run(base=Runs)

    def test_a_base_for_a_class(self) -> None:
        class Runs(Task[[], None]):
            def run(self) -> None: ...

        with pytest.raises(InvalidTask, match="base is for functions"):
            task(name="runs", base=Noted)(Runs)

    def test_the_base_of_a_copy(self) -> None:
        made = make_task(lambda: 5, name="five", base=Noted)
        assert type(made.using(countdown=5)) is Noted

    def test_the_names(self) -> None:
        assert class_hooks.NAMES == ["before_start", "on_success", "on_retry", "on_failure", "after_return"]
