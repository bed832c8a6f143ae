"""The executor: whatever a task does, one ``Outcome`` comes out, and nothing escapes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone, translation

from django_taskq import Task, client, current_task, signals, task
from django_taskq.exceptions import MaxRetriesExceeded, SoftTimeLimitExceeded
from django_taskq.message import Action, Headers, Outcome
from django_taskq.serializers import dumps
from django_taskq.worker import executor
from tests.unit.making import FakeGuard, execute, make_delivery, make_task


class OwnBaseException(BaseException):
    pass


class BadText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")

    __repr__ = __str__


class TextThatExits(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("not me")


def cyclic() -> Exception:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def endless() -> None:
    endless()


def raiser(error: BaseException) -> Any:
    def fails() -> None:
        raise error

    return make_task(fails)


class TestWhatATaskRaises:
    """Fault case F07."""

    @pytest.mark.parametrize(
        ("error", "class_path", "message"),
        [
            (ValueError("no"), "builtins.ValueError", "no"),
            (SystemExit(2), "builtins.SystemExit", "2"),
            (KeyboardInterrupt("stop"), "builtins.KeyboardInterrupt", "stop"),
            (GeneratorExit("gone"), "builtins.GeneratorExit", "gone"),
            (OwnBaseException("base"), f"{__name__}.OwnBaseException", "base"),
            (BadText(), f"{__name__}.BadText", "<RuntimeError in __str__>"),
            (TextThatExits(), f"{__name__}.TextThatExits", "<SystemExit in __str__>"),
            (Unpicklable("x"), f"{__name__}.Unpicklable", "x"),
            (
                ExceptionGroup("two", [ValueError("a"), OSError("b")]),
                "builtins.ExceptionGroup",
                "two (2 sub-exceptions)",
            ),
            (cyclic(), "builtins.ValueError", "first"),
            (StopIteration("end"), "builtins.StopIteration", "end"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
    )
    def test_is_a_failure_with_its_text(self, error: BaseException, class_path: str, message: str) -> None:
        outcome = execute(raiser(error))
        assert outcome.action is Action.FAILED
        assert outcome.error is not None
        assert (outcome.error.class_path, outcome.error.message) == (class_path, message)
        assert "in fails" in outcome.error.traceback

    def test_a_group_shows_its_members(self) -> None:
        outcome = execute(raiser(ExceptionGroup("two", [ValueError("inner a"), OSError("inner b")])))
        assert "inner a" in outcome.error.traceback
        assert "inner b" in outcome.error.traceback

    def test_recursion_without_end_is_a_failure_with_a_bounded_text(self) -> None:
        outcome = execute(make_task(endless))
        assert outcome.error.class_path == "builtins.RecursionError"
        assert len(outcome.error.traceback) < 20_000

    def test_megabytes_of_text_are_cut_in_the_middle(self) -> None:
        outcome = execute(raiser(ValueError("a" * 3_000_000 + "z")))
        assert len(outcome.error.message) < 70_000
        assert "left out" in outcome.error.message
        assert outcome.error.message.endswith("z")

    def test_what_no_database_stores_is_escaped(self) -> None:
        outcome = execute(raiser(ValueError("nul \x00 and surrogate \ud800")))
        assert outcome.error.message == "nul \\x00 and surrogate \\ud800"
        assert "\x00" not in outcome.error.traceback
        outcome.error.traceback.encode()

    def test_a_result_that_cannot_travel_is_a_failure(self) -> None:
        outcome = execute(make_task(lambda: object(), name="objects"))
        assert outcome.action is Action.FAILED
        assert outcome.error.class_path == "django_taskq.exceptions.SerializationError"
        assert "builtins.object" in outcome.error.message

    def test_a_result_over_the_limit_is_named_and_not_kept(self) -> None:
        """Fault case F51."""
        with override_settings(TASKQ={"MAX_PAYLOAD": 1000}):
            outcome = execute(make_task(lambda: "x" * 2000, name="large"))
        assert outcome.result is None
        assert outcome.action is Action.FAILED
        assert outcome.error.class_path == "django_taskq.exceptions.PayloadTooLarge"
        assert "1,000" in outcome.error.message

    def test_the_next_run_is_untouched(self) -> None:
        execute(raiser(SystemExit(1)))
        assert execute(make_task(lambda: 5, name="five")).result == "5"


class TestSuccess:
    def test_the_value_travels_as_json_with_its_times(self) -> None:
        before = time.time()
        outcome = execute(make_task(lambda x: (x, 1), name="pair"), "a")
        assert outcome.action is Action.SUCCESS
        assert outcome.result == '{"__taskq__":"tuple","v":["a",1]}'
        assert before <= outcome.started_at <= outcome.finished_at <= time.time()

    def test_none_and_ignored_values_store_nothing(self) -> None:
        five = make_task(lambda: 5, name="five", ignore_result=True)
        assert execute(make_task(lambda: None, name="none")).result is None
        assert execute(five).result is None
        assert execute(five, headers=Headers(ignore_result=False).dumps()).result == "5"

    def test_a_value_that_is_ignored_need_not_travel(self) -> None:
        assert execute(make_task(lambda: object(), name="objects", ignore_result=True)).action is Action.SUCCESS

    def test_a_coroutine_runs_to_its_end(self) -> None:
        async def double(x: int) -> int:
            assert current_task.name == "double"
            return 2 * x

        assert execute(make_task(double), 4).result == "8"

    def test_an_async_task_that_raises_fails(self) -> None:
        async def fails() -> None:
            raise OSError("async")

        assert execute(make_task(fails)).error.message == "async"

    def test_bind_gives_the_task_and_its_request(self) -> None:
        def bound(self: Any, x: int) -> list[Any]:
            return [self.name, self.request.attempt, self.request.retries, x]

        assert execute(make_task(bound, bind=True), 7, attempt=2).result == '["bound",2,1,7]'

    def test_takes_context_gives_the_context(self) -> None:
        def contextual(context: Any, x: int) -> list[Any]:
            return [context.id == current_task.id, context.queue_name, context.args, x]

        assert execute(make_task(contextual, takes_context=True), 7).result == '[true,"default",[7],7]'

    def test_a_class_task_runs_its_method(self) -> None:
        @task(name="send")
        class Send(Task):
            greeting = "hello"

            def run(self, who: str) -> str:
                return f"{self.greeting} {who} {self.request.attempt}"

        assert execute(Send, "you").result == '"hello you 1"'

    def test_the_started_signal_comes_in_the_task_s_context(self) -> None:
        seen: list[Any] = []

        def note(sender: str, delivery: Any, **kwargs: Any) -> None:
            seen.append((sender, delivery.id, current_task.id))

        signals.task_started.connect(note)
        try:
            outcome = execute(make_task(lambda: None, name="quiet"))
        finally:
            signals.task_started.disconnect(note)
        assert seen == [("quiet", outcome.delivery.id, outcome.delivery.id)]


class TestSurroundings:
    def test_language_and_time_zone_of_the_call_are_active_inside(self) -> None:
        def where() -> list[Any]:
            return [translation.get_language(), timezone.get_current_timezone_name()]

        headers = Headers(language="de", timezone="Asia/Tokyo").dumps()
        assert execute(make_task(where), headers=headers).result == '["de","Asia/Tokyo"]'
        assert where() == [translation.get_language(), "Europe/Riga"]

    def test_what_one_run_activates_is_gone_in_the_next(self) -> None:
        def activates() -> None:
            translation.activate("de")
            timezone.activate("Asia/Tokyo")

        def where() -> list[Any]:
            return [translation.get_language(), timezone.get_current_timezone_name()]

        with translation.override("en-us"), timezone.override("Europe/Riga"):
            execute(make_task(activates))
            assert execute(make_task(where)).result == '["en-us","Europe/Riga"]'

    def test_a_fixed_offset_is_kept(self) -> None:
        def offset() -> str:
            return str(timezone.localtime().utcoffset())

        with timezone.override(timezone.get_fixed_timezone(-90)):
            headers = client.ambient_headers()
        assert headers is not None
        assert execute(make_task(offset), headers=headers.dumps()).result == '"-1 day, 22:30:00"'

    @pytest.mark.parametrize("headers", ['{"timezone":"Mars/Olympus"}', '{"timezone":"Not/A"}', '{"language":"xx"}'])
    def test_an_unknown_zone_or_language_fails_no_run(self, headers: str) -> None:
        assert execute(make_task(lambda: 1, name="one"), headers=headers).action is Action.SUCCESS

    @pytest.mark.parametrize("error", [None, ValueError(), SystemExit()], ids=repr)
    def test_current_task_is_over_when_the_run_is(self, error: BaseException | None) -> None:
        def leaves() -> None:
            if error:
                raise error

        execute(make_task(leaves))
        assert not current_task
        with pytest.raises(RuntimeError, match=r"current_task\.id"):
            current_task.id  # noqa: B018 - the look-up is what is tested


class TestRetries:
    @pytest.fixture
    def stubborn(self) -> Any:
        def stubborn(self: Any, **how: Any) -> None:
            if "cause" in how:
                try:
                    raise OSError(how.pop("cause"))
                except OSError as error:
                    self.retry(error, **how)
            self.retry(**how)

        return make_task(stubborn, bind=True, max_retries=2, default_retry_delay=7)

    def run(self, made: Any, attempt: int = 1, **kwargs: Any) -> Outcome:
        return execute(made, attempt=attempt, payload=dumps([[], kwargs]))

    def test_plain(self, stubborn: Any) -> None:
        outcome = self.run(stubborn)
        assert (outcome.action, outcome.delay, outcome.run_after) == (Action.RETRY, 7, None)
        assert outcome.error.class_path == "django_taskq.exceptions.Retry"
        assert outcome.is_counted

    def test_in_so_many_seconds(self, stubborn: Any) -> None:
        assert self.run(stubborn, countdown=0.5).delay == 0.5

    def test_at_a_time(self, stubborn: Any) -> None:
        when = datetime(2030, 1, 1, tzinfo=UTC)
        outcome = self.run(stubborn, eta=when)
        assert (outcome.action, outcome.delay, outcome.run_after) == (Action.RETRY, None, when)

    def test_at_a_naive_time_is_the_task_s_error(self, stubborn: Any) -> None:
        outcome = self.run(stubborn, eta=datetime(2030, 1, 1))  # noqa: DTZ001 - the point
        assert outcome.action is Action.FAILED
        assert "aware" in outcome.error.message

    @pytest.mark.parametrize("countdown", [float("inf"), float("nan"), 1e15, -1])
    def test_in_a_time_nobody_can_wait_is_the_task_s_error(self, stubborn: Any, countdown: float) -> None:
        outcome = self.run(stubborn, countdown=countdown)
        assert outcome.action is Action.FAILED
        assert outcome.error.class_path == "builtins.ValueError"
        assert "countdown" in outcome.error.message

    def test_with_a_cause_shows_the_cause(self, stubborn: Any) -> None:
        outcome = self.run(stubborn, cause="full disk")
        assert outcome.error.class_path == "builtins.OSError"
        assert outcome.error.message == "full disk"

    def test_none_left_raises_the_cause(self, stubborn: Any) -> None:
        assert self.run(stubborn, attempt=3, cause="full disk").error.class_path == "builtins.OSError"

    def test_none_left_and_no_cause(self, stubborn: Any) -> None:
        outcome = self.run(stubborn, attempt=3)
        assert outcome.action is Action.FAILED
        assert outcome.error.class_path == f"{MaxRetriesExceeded.__module__}.MaxRetriesExceeded"

    def test_the_bound_may_be_changed_by_the_task_or_the_call(self, stubborn: Any) -> None:
        assert self.run(stubborn, attempt=3, max_retries=5).action is Action.RETRY
        assert self.run(stubborn, attempt=1, max_retries=0).action is Action.FAILED
        assert execute(stubborn, attempt=3, headers=Headers(max_retries=9).dumps()).action is Action.RETRY

    def test_a_bind_task_retries_outside_of_a_worker_with_a_clear_error(self, stubborn: Any) -> None:
        with pytest.raises(RuntimeError, match="no task is running"):
            stubborn()


class TestSnooze:
    @pytest.fixture(params=["sync", "async", "bind"])
    def dozing(self, request: pytest.FixtureRequest) -> Any:
        def plain(delay: Any) -> None:
            try:
                current_task.snooze(delay)
            except Exception as error:  # what is no error of the task must get through
                raise ValueError("swallowed") from error

        async def awaited(delay: Any) -> None:
            current_task.snooze(delay)

        def bound(self: Any, delay: Any) -> None:
            self.snooze(delay)

        chosen: Any = {"sync": plain, "async": awaited, "bind": bound}[request.param]
        return make_task(chosen, bind=request.param == "bind", max_retries=0)

    @pytest.mark.parametrize(("delay", "seconds"), [(60, 60.0), (0.5, 0.5), (0, 0.0)])
    def test_comes_back_uncounted_and_without_an_error(self, dozing: Any, delay: Any, seconds: float) -> None:
        outcome = execute(dozing, delay, attempt=7)
        assert (outcome.action, outcome.delay, outcome.run_after) == (Action.RETRY, seconds, None)
        assert (outcome.is_counted, outcome.error, outcome.is_snoozed) == (False, None, True)

    def test_takes_a_timedelta(self) -> None:
        made = make_task(lambda: current_task.snooze(timedelta(minutes=2)), name="dozes")
        assert execute(made).delay == 120

    @pytest.mark.parametrize("delay", [float("inf"), -1, "soon", None, True])
    def test_for_a_time_nobody_can_wait_is_the_task_s_error(self, delay: Any) -> None:
        outcome = execute(make_task(lambda: current_task.snooze(delay), name="dozes"))
        assert outcome.action is Action.FAILED
        assert outcome.error.class_path == "builtins.ValueError"
        assert f"snooze({delay!r}) is not usable: it takes a number of seconds" in outcome.error.message

    def test_is_no_retry_for_the_hooks_of_its_class(self) -> None:
        told: list[str] = []

        class Hooked(Task[..., Any]):
            def on_retry(self, context: Any, error: BaseException) -> None:
                told.append("retry")

        assert execute(make_task(lambda: current_task.snooze(1), name="dozes", base=Hooked)).is_snoozed
        assert told == []

    def test_outside_of_a_worker_is_a_clear_error(self) -> None:
        with pytest.raises(RuntimeError, match=r"current_task\.snooze was asked for where no task is running"):
            current_task.snooze(1)

    def test_the_task_sees_since_when_it_waits(self) -> None:
        made = make_task(lambda: current_task.enqueued_at.isoformat(), name="old")
        assert execute(made, enqueued_at=86400.0).result == '"1970-01-02T00:00:00+00:00"'


class TestAutoretry:
    @pytest.fixture
    def flaky(self) -> Any:
        def flaky(kind: str) -> None:
            raise {"os": OSError, "timeout": TimeoutError, "value": ValueError, "exit": SystemExit}[kind](kind)

        return make_task(
            flaky, autoretry_for=(OSError,), dont_autoretry_for=(TimeoutError,), max_retries=1, default_retry_delay=9
        )

    @pytest.mark.parametrize(
        ("kind", "attempt", "action"),
        [
            ("os", 1, Action.RETRY),
            ("os", 2, Action.FAILED),
            ("timeout", 1, Action.FAILED),
            ("value", 1, Action.FAILED),
            ("exit", 1, Action.FAILED),
        ],
    )
    def test_for_the_classes_named_while_retries_last(
        self, flaky: Any, kind: str, attempt: int, action: Action
    ) -> None:
        outcome = execute(flaky, kind, attempt=attempt)
        assert outcome.action is action
        assert outcome.delay == (9 if action is Action.RETRY else None)

    def test_the_call_s_own_bound_counts(self, flaky: Any) -> None:
        assert execute(flaky, "os", headers=Headers(max_retries=0).dumps()).action is Action.FAILED
        assert execute(flaky, "os", attempt=2, headers=Headers(max_retries=5).dumps()).action is Action.RETRY


class TestSignatureChanged:
    """Fault case F49: runs that were enqueued before a deploy changed the signature."""

    @pytest.mark.parametrize(
        "payload",
        ["[[],{}]", "[[1,2,3],{}]", '[[1],{"gone":2}]', '[[1,2],{"x":1}]'],
        ids=["missing", "extra", "renamed", "twice"],
    )
    def test_arguments_that_do_not_bind_fail_and_burn_no_retry(self, payload: str) -> None:
        calls: list[Any] = []

        def changed(x: int, y: int) -> None:
            calls.append((x, y))

        outcome = execute(make_task(changed, autoretry_for=(Exception,)), payload=payload)
        assert outcome.action is Action.FAILED
        assert "changed(x: 'int', y: 'int')" in outcome.error.message
        assert calls == []

    def test_a_type_error_of_the_task_itself_is_its_own(self) -> None:
        def adds(x: int) -> int:
            return x + "1"

        outcome = execute(make_task(adds, autoretry_for=(TypeError,)), 1)
        assert outcome.action is Action.RETRY

    def test_what_has_new_defaults_runs(self) -> None:
        assert execute(make_task(lambda x, y=5: x + y, name="more"), 1).result == "6"


class TestNotRun:
    @pytest.fixture
    def noted(self) -> Any:
        make_task(lambda: pytest.fail("must not run"), name="never")
        return FakeGuard()

    def test_expired(self, noted: FakeGuard) -> None:
        outcome = executor.execute(make_delivery("never", expires_at=time.time() - 1), noted)
        assert outcome.action is Action.CANCELLED
        assert outcome.error.summary.startswith("TaskExpired")
        assert outcome.started_at is None
        assert noted.calls == []

    def test_unknown_is_kept_for_a_worker_that_knows_it(self) -> None:
        outcome = executor.execute(make_delivery("nobody.knows"), FakeGuard())
        assert outcome.action is Action.RETRY
        assert outcome.delay == executor.FIRST_UNKNOWN_DELAY
        assert not outcome.is_counted
        assert "nobody.knows" in outcome.error.message

    def test_unknown_waits_longer_the_older_it_is(self) -> None:
        older = executor.execute(make_delivery("nobody.knows", enqueued_at=time.time() - 60), FakeGuard())
        oldest = executor.execute(make_delivery("nobody.knows", enqueued_at=time.time() - 7200), FakeGuard())
        assert older.delay == pytest.approx(60, abs=1)
        assert oldest.delay == executor.LAST_UNKNOWN_DELAY

    @pytest.mark.parametrize(("deadline", "action"), [(60, Action.FAILED), (None, Action.RETRY), (999, Action.RETRY)])
    def test_unknown_fails_after_the_deadline(self, deadline: float | None, action: Action) -> None:
        with override_settings(TASKQ={"UNKNOWN_TASK_DEADLINE": deadline}):
            assert (
                executor.execute(make_delivery("nobody.knows", enqueued_at=time.time() - 61), FakeGuard()).action
                is action
            )

    def test_a_task_is_never_imported_from_its_name(self) -> None:
        assert executor.execute(make_delivery("os.getpid"), FakeGuard()).error.summary.startswith("UnknownTask")

    def test_taken_back_before_it_began(self, noted: FakeGuard) -> None:
        noted.lets_begin = False
        assert executor.execute(make_delivery("never"), noted).action is Action.RELEASED

    @pytest.mark.parametrize(
        "payload", ["", "nonsense", "[", "5", "[1]", "[1,2]", '{"__taskq__":"set"}', "[" * 200_000]
    )
    def test_text_that_is_no_payload_fails(self, payload: str) -> None:
        make_task(lambda: None, name="quiet")
        assert executor.execute(make_delivery("quiet", payload=payload), FakeGuard()).action is Action.FAILED

    @pytest.mark.parametrize("headers", ["", "nonsense", "[]", "5", "null", '"x"'])
    def test_text_that_is_no_headers_fails(self, headers: str) -> None:
        outcome = executor.execute(make_delivery("tests.testapp.tasks.add", 1, 2, headers=headers), FakeGuard())
        assert outcome.action is Action.FAILED


class TestWithoutTimeZones:
    """``USE_TZ = False``: Django's times are naive then, a delivery's never."""

    @pytest.fixture(autouse=True)
    def naive(self) -> Iterator[None]:
        with override_settings(USE_TZ=False):
            yield

    @pytest.mark.parametrize(("seconds", "action"), [(60, Action.SUCCESS), (-60, Action.CANCELLED)])
    def test_expiry(self, seconds: float, action: Action) -> None:
        assert execute(make_task(lambda: 1, name="one"), expires_at=time.time() + seconds).action is action

    def test_unknown(self) -> None:
        outcome = executor.execute(make_delivery("nobody.knows"), FakeGuard())
        assert outcome.delay == executor.FIRST_UNKNOWN_DELAY


class TestGuard:
    """What the slot hears, and when."""

    def test_limits_come_from_the_call_then_the_task_then_the_settings(self) -> None:
        limited = make_task(lambda: None, name="limited", time_limit=20, soft_time_limit=10)
        free = make_task(lambda: None, name="free")
        with override_settings(TASKQ={"TIME_LIMIT": 200, "SOFT_TIME_LIMIT": 100}):
            for made, headers, soft, hard in (
                (limited, Headers(time_limit=2, soft_time_limit=1).dumps(), 1, 2),
                (limited, None, 10, 20),
                (free, None, 100, 200),
            ):
                guard = FakeGuard()
                execute(made, guard=guard, headers=headers)
                assert guard.calls[:3] == [("begin", hard, False), ("arm", soft), "end"]

    @pytest.mark.parametrize(("options", "changes"), [({"acks_late": False}, {}), ({}, {"is_suspect": True})])
    def test_the_start_is_committed_first_where_a_crash_must_be_seen(self, options: Any, changes: Any) -> None:
        guard = FakeGuard()
        execute(make_task(lambda: None, name="quiet", **options), guard=guard, **changes)
        assert guard.calls[0] == ("begin", None, True)

    @pytest.mark.parametrize("error", [None, ValueError("x"), SystemExit(1)], ids=repr)
    def test_the_limit_is_disarmed_however_the_call_ends(self, error: BaseException | None) -> None:
        def leaves() -> None:
            if error:
                raise error

        guard = FakeGuard()
        execute(make_task(leaves), guard=guard)
        assert guard.calls[-1] == "end"

    @pytest.mark.parametrize("strikes_at", [1, 2])
    def test_a_limit_that_strikes_while_it_is_disarmed_is_a_failure(self, strikes_at: int) -> None:
        class LateGuard(FakeGuard):
            def end(self) -> None:
                super().end()
                if self.calls.count("end") == strikes_at:
                    raise SoftTimeLimitExceeded("late")

        outcome = execute(make_task(lambda: 1, name="one"), guard=LateGuard())
        assert outcome.action in (Action.FAILED, Action.SUCCESS)

    def test_a_soft_limit_inside_the_task_is_an_error_like_any_other(self) -> None:
        outcome = execute(raiser(SoftTimeLimitExceeded("50 s passed")))
        assert outcome.error.summary == "SoftTimeLimitExceeded: 50 s passed"


@pytest.mark.parametrize("payload", ["{}", "[]", "5", "[{},[]]", "[[],{},{}]", "null"])
def test_arguments_of_another_shape_are_named_as_that(payload: str) -> None:
    outcome = execute(make_task(lambda: None, name="shaped"), payload=payload)
    assert outcome.error is not None
    assert "not a list and a dict" in outcome.error.message
