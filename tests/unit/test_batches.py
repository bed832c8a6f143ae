"""Batches: what the function gets, and what becomes of each call, whatever it does."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextvars import ContextVar
from typing import Any

import pytest
from django.test import override_settings

from django_taskq import Call, Task, current_task, injected, open_resources, registry, resource, signals, task
from django_taskq.exceptions import InvalidArguments, InvalidTask, SoftTimeLimitExceeded
from django_taskq.message import Action, Delivery, Headers, Outcome
from django_taskq.serializers import dumps
from django_taskq.worker.batching import execute_batch
from tests.unit.making import FakeGuard, make_delivery, make_task


class FakeBatchGuard(FakeGuard):
    """Lets all begin but those of these claims."""

    def __init__(self, *, loses: Collection[int] = ()) -> None:
        super().__init__()
        self.loses = loses

    def begin_batch(self, deliveries: Sequence[Delivery], hard: float | None, memory: int = 0) -> Collection[int]:
        self.calls.append(("begin_batch", hard, memory))
        return [delivery.claim for delivery in deliveries if delivery.claim not in self.loses]


def make_batch(function: Any, **options: Any) -> Task[Any, Any]:
    return make_task(function, **({"name": "batch", "batch_size": 10} | options))


def run(*arguments: Any, guard: FakeBatchGuard | None = None, **changes: Any) -> list[Outcome]:
    """Run a batch with a call for each of these arguments; the outcomes in the order of the calls."""
    given = [make_delivery("batch", each, **({"claim": claim} | changes)) for claim, each in enumerate(arguments, 1)]
    return run_deliveries(given, guard)


def run_deliveries(given: list[Delivery], guard: FakeBatchGuard | None = None) -> list[Outcome]:
    outcomes = execute_batch(given, guard or FakeBatchGuard())
    assert sorted(outcome.delivery.id for outcome in outcomes) == sorted(delivery.id for delivery in given)
    return sorted(outcomes, key=lambda outcome: outcome.delivery.claim)


def ends(outcomes: list[Outcome]) -> list[str]:
    return [o.result or "" if o.action is Action.SUCCESS else o.action.value for o in outcomes]


class TestWhatTheFunctionGets:
    def test_one_list_with_every_call(self) -> None:
        seen: list[Any] = []
        make_batch(lambda calls: seen.append([(c.id, c.args, c.kwargs, c.attempt, c.enqueued_at) for c in calls]))
        first = make_delivery("batch", 1, claim=1)
        second = make_delivery("batch", claim=2, payload=dumps([[], {"x": 2}]), attempt=3, enqueued_at=0.0)
        run_deliveries([first, second])
        ((one, two),) = seen
        assert one[:4] == (first.id, [1], {}, 1)
        assert two[:4] == (second.id, [], {"x": 2}, 3)
        assert two[4].year == 1970

    def test_there_is_no_current_run_but_a_current_task(self) -> None:
        seen: list[Any] = []

        def look(calls: Any) -> None:
            seen.extend([current_task.name, current_task.queue_name, current_task.stop_requested()])
            for name in ("id", "attempt", "enqueued_at", "workflow", "max_retries"):
                with pytest.raises(RuntimeError, match="ask each call"):
                    getattr(current_task, name)
            for name in ("retry", "snooze", "replace", "lock"):
                with pytest.raises(RuntimeError, match="ask each call"):
                    getattr(current_task, name)(5)

        make_batch(look)
        assert ends(run(1, 2)) == ["", ""]
        assert seen == ["batch", "default", False]

    def test_giving_back_holds_for_what_is_not_settled(self) -> None:
        def gives_back(calls: list[Call[[int]]]) -> None:
            calls[0].done("first")
            current_task.give_back()

        make_batch(gives_back)
        assert ends(run(1, 2, 3)) == ['"first"', "released", "released"]

    def test_resources(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("django_taskq.resources._resources", {})

        @resource(name="pool")
        def pool() -> Any:
            yield "a pool"

        def uses(calls: Any, *, pool: str = injected) -> Any:
            return [f"{pool} {call.args[0]}" for call in calls]

        make_batch(uses)
        with open_resources.scope():
            assert ends(run(1, 2)) == ['"a pool 1"', '"a pool 2"']

    def test_without_their_resource_all_are_left_to_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("django_taskq.resources._resources", {})

        @resource(name="pool")
        def pool() -> Any:
            raise OSError("not there")

        make_batch(lambda calls, *, pool=injected: pytest.fail("must not be called"))
        with open_resources.scope():
            outcomes = run(1, 2)
        assert [(o.action, o.is_counted, o.delivery.claim) for o in outcomes] == [
            (Action.RETRY, False, 1), (Action.RETRY, False, 2),
        ]  # fmt: skip


class TestWhatItReturns:
    def test_nothing(self) -> None:
        make_batch(lambda calls: None)
        assert ends(run(1, 2)) == ["", ""]

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_a_result_for_each(self, kind: Any) -> None:
        make_batch(lambda calls: kind(2 * call.args[0] for call in calls))
        assert ends(run(1, 2, 3)) == ["2", "4", "6"]

    @pytest.mark.parametrize(
        ("returned", "error"),
        [
            ([1], "there were 2 calls, and 1 results"),
            ([1, 2, 3], "there were 2 calls, and 3 results"),
            (5, "this one returned a int"),
            ("ab", "this one returned a str"),
            ({1: 2, 3: 4}, "this one returned a dict"),
        ],
    )
    def test_anything_else_fails_all_without_a_retry(self, returned: Any, error: str) -> None:
        make_batch(lambda calls: returned, autoretry_for=(Exception,))
        outcomes = run(1, 2)
        assert ends(outcomes) == ["failed", "failed"]
        assert all(outcome.error and error in outcome.error.message for outcome in outcomes)

    def test_a_result_that_cannot_travel_fails_alone(self) -> None:
        make_batch(lambda calls: [1, object(), 3])
        outcomes = run(1, 2, 3)
        assert ends(outcomes) == ["1", "failed", "3"]
        assert outcomes[1].error is not None
        assert outcomes[1].error.class_path.endswith("SerializationError")

    def test_ignored_results(self) -> None:
        make_batch(lambda calls: [1, 2])
        ignoring = make_delivery("batch", 2, claim=2, headers=Headers(ignore_result=True).dumps())
        assert ends(run_deliveries([make_delivery("batch", 1, claim=1), ignoring])) == ["1", ""]


class TestOneByOne:
    def test_each_in_its_own_way(self) -> None:
        def settles(calls: list[Call[[int]]]) -> None:
            calls[0].done("well")
            calls[1].fail(ValueError("no"))
            calls[2].retry(countdown=7)
            calls[3].snooze(9)

        make_batch(settles)
        outcomes = run(1, 2, 3, 4, 5)
        assert ends(outcomes) == ['"well"', "failed", "retry", "retry", ""]
        assert outcomes[1].error is not None
        assert outcomes[1].error.summary == "ValueError: no"
        assert (outcomes[2].delay, outcomes[2].is_counted) == (7, True)
        assert (outcomes[3].delay, outcomes[3].is_snoozed) == (9, True)

    def test_what_is_settled_stays_whatever_is_returned(self) -> None:
        def settles(calls: list[Call[[int]]]) -> Any:
            calls[0].done("first")
            return [call.args[0] for call in calls]

        make_batch(settles)
        assert ends(run(1, 2)) == ['"first"', "2"]

    def test_an_error_that_escapes_is_that_of_the_others(self) -> None:
        def escapes(calls: list[Call[[int]]]) -> None:
            calls[0].done("first")
            raise OSError("disk")

        make_batch(escapes, autoretry_for=(OSError,), max_retries=1, default_retry_delay=5)
        given = [make_delivery("batch", claim=claim, attempt=attempt) for claim, attempt in ((1, 1), (2, 1), (3, 2))]
        outcomes = run_deliveries(given)
        assert ends(outcomes) == ['"first"', "retry", "failed"]
        assert {o.error.summary for o in outcomes[1:] if o.error} == {"OSError: disk"}
        assert outcomes[2].error is not None
        assert "in escapes" in outcomes[2].error.traceback

    def test_fail_is_as_if_the_task_had_raised_it(self) -> None:
        make_batch(lambda calls: calls[0].fail(OSError("x")), autoretry_for=(OSError,), default_retry_delay=5)
        (outcome,) = run(1)
        assert (outcome.action, outcome.delay) == (Action.RETRY, 5)

    def test_with_no_retries_left_retry_is_a_failure(self) -> None:
        def retries(calls: list[Call[[int]]]) -> None:
            calls[0].retry()
            calls[1].retry(OSError("disk"))

        make_batch(retries, max_retries=1)
        plain, caused = run(1, 2, attempt=2)
        assert plain.error is not None
        assert caused.error is not None
        assert (plain.action, caused.action) == (Action.FAILED, Action.FAILED)
        assert plain.error.class_path.endswith("MaxRetriesExceeded")
        assert caused.error.summary == "OSError: disk"

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            (lambda call: call.retry(countdown=-1), "ValueError: retry(countdown=-1) is not usable"),
            (lambda call: call.snooze("soon"), "ValueError: snooze('soon') is not usable"),
            (lambda call: call.fail("a text"), "TypeError: call.fail() takes an error"),
            (lambda call: call.done() or call.done(), "RuntimeError: <Call"),
        ],
    )
    def test_wrong_use_is_the_function_s_error(self, wrong: Any, error: str) -> None:
        make_batch(lambda calls: wrong(calls[0]))
        assert run(1, 2)[1].error.summary.startswith(error)  # type: ignore[union-attr]


class TestWhatIsNotCalled:
    def test_each_is_settled_alone(self) -> None:
        make_batch(lambda calls: [len(calls)] * len(calls))
        outcomes = run_deliveries([
            make_delivery("batch", claim=1),
            make_delivery("batch", claim=2, payload="nonsense"),
            make_delivery("batch", claim=3, expires_at=time.time() - 1),
            make_delivery("batch", claim=4, headers="nonsense"),
            make_delivery("batch", claim=5),
        ])  # fmt: skip
        assert ends(outcomes) == ["2", "failed", "cancelled", "failed", "2"]

    def test_nobody_left_to_call(self) -> None:
        make_batch(lambda calls: pytest.fail("must not be called"))
        guard = FakeBatchGuard()
        assert ends(run_deliveries([make_delivery("batch", payload="[")], guard)) == ["failed"]
        assert guard.calls == []

    def test_lost_claims_are_given_back(self) -> None:
        make_batch(lambda calls: [len(calls)] * len(calls))
        assert ends(run(1, 2, 3, guard=FakeBatchGuard(loses=[2]))) == ["2", "released", "2"]
        assert ends(run(1, 2, guard=FakeBatchGuard(loses=[1, 2]))) == ["released", "released"]

    def test_an_unknown_task_waits(self) -> None:
        made = make_batch(lambda calls: None)
        registry._tasks.pop(made.name)
        assert ends(run(1)) == ["retry"]


class TestGuard:
    def test_the_shortest_limits_hold_for_the_whole_call(self) -> None:
        make_batch(lambda calls: None, time_limit=20, soft_time_limit=10, memory_limit="2MB")
        guard = FakeBatchGuard()
        headers = Headers(time_limit=5, memory_limit=1 << 20).dumps()
        run_deliveries([make_delivery("batch", claim=1), make_delivery("batch", claim=2, headers=headers)], guard)
        assert guard.calls == [("begin_batch", 5, 1 << 20), ("arm", 10), "end", "end"]

    def test_without_limits(self) -> None:
        make_batch(lambda calls: None)
        guard = FakeBatchGuard()
        run(1, guard=guard)
        assert guard.calls[:2] == [("begin_batch", None, 0), ("arm", None)]

    def test_a_soft_limit_is_an_error_of_what_is_not_settled(self) -> None:
        def lasts(calls: list[Call[[int]]]) -> None:
            calls[1].done("in time")
            raise SoftTimeLimitExceeded("50 s passed")

        make_batch(lasts)
        outcomes = run(1, 2)
        assert ends(outcomes) == ["failed", '"in time"']
        assert outcomes[0].error is not None
        assert outcomes[0].error.summary == "SoftTimeLimitExceeded: 50 s passed"

    def test_a_limit_that_strikes_at_the_end_is_a_failure(self) -> None:
        class LateGuard(FakeBatchGuard):
            def end(self) -> None:
                super().end()
                if self.calls.count("end") == 1:
                    raise SoftTimeLimitExceeded("late")

        make_batch(lambda calls: None)
        assert ends(run(1, 2, guard=LateGuard())) == ["failed", "failed"]


_span: ContextVar[str] = ContextVar("span", default="")


class TestAround:
    def test_signals_are_sent_for_each_in_a_context_of_its_own(self) -> None:
        heard: list[Any] = []

        def enter(delivery: Delivery, **kwargs: Any) -> None:
            _span.set(delivery.id)

        def leave(delivery: Delivery, outcome: Outcome, **kwargs: Any) -> None:
            heard.append((_span.get() == delivery.id == current_task.id, outcome.action))

        def start(delivery: Delivery, **kwargs: Any) -> None:
            heard.append("start")

        receivers = ((signals.task_entered, enter), (signals.task_started, start), (signals.task_left, leave))
        for signal, receiver in receivers:
            signal.connect(receiver)
        try:
            make_batch(lambda calls: [heard.append("call"), 1 / 0])
            run(1, 2)
        finally:
            for signal, receiver in receivers:
                signal.disconnect(receiver)
        assert heard == ["start", "start", "call", (True, Action.FAILED), (True, Action.FAILED)]

    def test_hooks_are_called_for_each(self) -> None:
        told: list[Any] = []

        class Hooked(Task[..., Any]):
            def before_start(self, context: Any) -> None:
                told.append(("before", context.args[0]))
                if context.args[0] == 2:
                    raise ValueError("not this one")

            def on_success(self, context: Any, value: Any) -> None:
                told.append(("success", context.args[0], value))

            def on_failure(self, context: Any, error: BaseException) -> None:
                told.append(("failure", context.args[0], str(error)))

        make_batch(lambda calls: [10 * call.args[0] for call in calls], base=Hooked)
        assert ends(run(1, 2, 3)) == ["10", "failed", "30"]
        assert told == [
            ("before", 1), ("before", 2), ("before", 3),
            ("success", 1, 10), ("failure", 2, "not this one"), ("success", 3, 30),
        ]  # fmt: skip


class TestDefinition:
    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"bind": True}, "bind=True fills in one run"),
            ({"takes_context": True}, "takes_context=True fills in one run"),
            ({"transactional": True}, "transactional=True commits one run"),
            ({"track_pending": False}, "leave track_pending=True"),
        ],
        ids=str,
    )
    def test_what_does_not_go_with_batches(self, options: Any, text: str) -> None:
        with pytest.raises(InvalidTask, match=text):
            make_batch(lambda calls: None, **options)

    def test_waiting_is_for_batches(self) -> None:
        with pytest.raises(InvalidTask, match="batch_wait is for batches: give batch_size as well"):
            make_task(lambda: None, name="single", batch_wait=5)

    @pytest.mark.parametrize(
        "function", [lambda: None, lambda calls, more: None, lambda *calls: None, lambda *, calls: None]
    )
    def test_the_function_takes_the_list_and_nothing_else(self, function: Any) -> None:
        with pytest.raises(InvalidTask, match="takes one argument, the list of its calls"):
            make_batch(function)

    def test_coroutines_are_refused(self) -> None:
        async def batch(calls: Any) -> None: ...

        with pytest.raises(InvalidTask, match="batch_size needs a sync function"):
            make_batch(batch)

    def test_a_class_may_be_one(self) -> None:
        @task(name="batch", batch_size=5)
        class Doubles(Task[..., Any]):
            def run(self, calls: list[Call[[int]]]) -> list[int]:
                return [2 * call.args[0] for call in calls]

        assert ends(run(1, 2)) == ["2", "4"]

    def test_a_schedule_calls_it_without_arguments(self) -> None:
        assert make_batch(lambda calls: None, schedule="0 3 * * *").options.schedule is not None


class TestCalledHere:
    """A direct call is a batch of one."""

    def test_gives_its_result(self) -> None:
        made = make_batch(lambda calls: [sum(call.args) + call.kwargs.get("more", 0) for call in calls])
        assert made(1, 2, more=3) == 6
        assert make_batch(lambda calls: calls[0].done("done"), name="done")(1) == "done"

    def test_raises_its_error(self) -> None:
        with pytest.raises(OSError, match="disk"):
            make_batch(lambda calls: calls[0].fail(OSError("disk")))(1)
        with pytest.raises(ValueError, match="there were 1 calls, and 0 results"):
            make_batch(lambda calls: [], name="short")(1)

    def test_with_resources(self) -> None:
        def uses(calls: Any, *, pool: Any = injected) -> Any:
            return [pool] * len(calls)

        assert make_batch(uses)(1, pool="given") == "given"

    def test_a_resource_is_no_argument_of_a_call(self) -> None:
        def uses(calls: Any, *, pool: Any = injected) -> None: ...

        with pytest.raises(InvalidArguments, match="resource"):
            make_batch(uses).enqueue(pool="given")


def test_results_over_the_limit_fail_alone() -> None:
    make_batch(lambda calls: ["x" * call.args[0] for call in calls])
    with override_settings(TASKQ={"MAX_PAYLOAD": 1024}):
        assert ends(run(1, 2000))[1:] == ["failed"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_nothing_escapes(error: BaseException) -> None:
    def raises(calls: Any) -> None:
        raise error

    make_batch(raises)
    assert ends(run(1, 2)) == ["failed", "failed"]
