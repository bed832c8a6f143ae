"""Workflows on the database: how failures spread, what takes a run's place, and what the handles say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from django_taskq import TaskResult, chain, chord, group, maintenance, signals, testing
from django_taskq.brokers import get_broker
from django_taskq.exceptions import (
    InvalidArguments,
    ResultNotFound,
    ResultUnavailable,
    TaskCancelled,
    WorkflowTooLarge,
)
from django_taskq.graph import Workflow as Graph
from django_taskq.message import Action
from django_taskq.models import TaskRecord, Workflow, WorkflowLink
from django_taskq.steps import FailedStep, StepError
from django_taskq.testing import drain
from django_taskq.worker import executor
from django_taskq.workflow_result import GroupResult, WorkflowResult
from tests.integration import step_tasks
from tests.integration.step_tasks import (
    became,
    become,
    become_async,
    become_exactly_once,
    broken,
    calls,
    canvases,
    counts,
    extend,
    patient,
    show,
    status_of,
    surroundings,
    told,
    untracked,
    work,
)
from tests.testapp.canvas_tasks import count, echo, silent, total
from tests.unit.making import FakeGuard

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]
SUCCESS, FAILED, CANCELLED = "SUCCESSFUL", "FAILED ValueError", "CANCELLED UpstreamFailed"
NOT_NEEDED = "CANCELLED NotNeeded"


@pytest.fixture(autouse=True)
def _tasks() -> Iterator[None]:
    step_tasks.begin()
    yield
    step_tasks.end()


def ran(canvas: Any) -> Any:
    """Its handle, once all of it has run."""
    result = canvas.enqueue()
    drain()
    return result


class TestStop:
    def test_what_needs_the_failed_is_cancelled_and_the_rest_goes_on(self) -> None:
        broken.add("b")
        graph = Graph("g")
        a, b = graph.add(work.s("a")), graph.add(work.s("b"))
        graph.add(work.s(a.result, "c"))
        d = graph.add(work.s("d"), after=[b])
        graph.add(work.s(a.result, d.result, "e"))
        result = graph.start()
        drain()
        assert became(result) == [SUCCESS, FAILED, SUCCESS, CANCELLED, CANCELLED]
        assert calls == ["a", "b", "c"]
        assert status_of(result) == "FAILED"
        with pytest.raises(ValueError, match="b is broken"):
            result.get(5)

    def test_a_long_chain_is_cancelled_in_a_bounded_number_of_queries(self) -> None:
        def cost(length: int) -> int:
            broken.add("first")
            result = chain(work.s("first"), *(echo.s() for _ in range(length))).enqueue()
            with CaptureQueriesContext(
                connection,
            ) as queries:
                drain()
            assert became(result) == [FAILED, *[CANCELLED] * length]
            assert status_of(result) == "FAILED"
            return len(queries)

        short, long = cost(10), cost(1000)
        assert long <= short + 20

    def test_a_join_with_several_failures_is_cancelled_once(self) -> None:
        broken.update(["a", "b"])
        result = ran(chord([work.s("a"), work.s("b"), work.s("c")], show.s()) | show.s())
        assert became(result) == [FAILED, FAILED, SUCCESS, CANCELLED, CANCELLED]
        assert [run.errors[0].message for run in result.failed_steps()] == ["a is broken", "b is broken"]


class TestContinue:
    def test_of_one_step(self) -> None:
        broken.add("a")
        result = ran(work.s("a").set(on_failure="continue") | show.s())
        (error,) = result.get(5)
        assert isinstance(error, StepError)
        assert (error.message, error.name) == ("a is broken", "steps.work")
        assert error.id == result.failed_steps()[0].id
        assert became(result) == [FAILED, SUCCESS]

    def test_of_a_group(self) -> None:
        broken.update(["b"])
        members = (work.s("a"), work.s("b") | show.s(), work.s("c"))
        result = ran(group(*members, on_failure="continue") | show.s())
        ((first, error, third),) = result.get(5)
        assert (first, third) == ("a", "c")
        # The value of the member would have been that of its last step, which never ran.
        assert (error.class_path, error.message) == ("UpstreamFailed", "a step before it did not succeed")

    def test_of_a_whole_graph(self) -> None:
        broken.add("a")
        graph = Graph("g", on_failure="continue")
        a = graph.add(work.s("a"))
        graph.add(show.s(a.result, 2))
        result = graph.start()
        drain()
        error, two = result.get(5)
        assert (error.message, two) == ("a is broken", 2)

    def test_of_the_last_step(self) -> None:
        broken.add("a")
        result = ran(chain(work.s("a")).set(on_failure="continue"))
        assert result.get(5).message == "a is broken"
        assert status_of(result) == "SUCCESSFUL"

    def test_a_cancelled_member_is_an_error_as_well(self) -> None:
        result = group(work.s("a"), work.s("b"), on_failure="continue").then(show.s()).enqueue()
        TaskResult(result.steps()[0].pk).cancel()
        drain()
        ((error, b),) = result.get(5)
        assert (error.class_path, b) == ("TaskCancelled", "b")


class TestErrorCallbacks:
    @pytest.mark.parametrize("bad", [[], ["b"], ["a", "b", "c"]], ids=len)
    def test_once_or_not_at_all(self, bad: list[str]) -> None:
        broken.update(bad)
        canvas = chord([work.s("a"), work.s("b"), work.s("c")], show.s()).on_error(told.s("extra"))
        result = ran(canvas)
        assert [call for call in calls if call[0] == "told"] == [
            ("told", "steps.work", f"{each} is broken") for each in bad[:1]
        ]
        row = result.steps().get(name=told.name)
        if not bad:
            assert (row.status, row.reason) == ("CANCELLED", "NotNeeded")
            assert status_of(result) == "SUCCESSFUL"
            return
        run, error, extra = TaskResult(row.pk).get(5)
        assert isinstance(run, FailedStep)
        assert (run.workflow_id, run.id) == (result.id, error.id)
        assert extra == "extra"

    def test_a_step_that_succeeds_at_last_calls_nobody(self) -> None:
        result = ran(patient.s(3).on_error(told.s()) | show.s())
        assert result.get(5) == [3]
        assert calls == ["patient 1", "patient 2", "patient 3", "show"]
        assert became(result) == [SUCCESS, NOT_NEEDED, SUCCESS]

    def test_a_step_whose_retries_are_used_up_calls_once(self) -> None:
        result = ran((patient.s(9) | show.s()).on_error(told.s()))
        assert calls[-1] == ("told", "steps.patient", "not yet")
        assert became(result) == [FAILED, CANCELLED, SUCCESS]
        assert len(TaskResult(result.steps()[0].pk).errors) == 4

    def test_what_follows_a_callback_that_is_not_needed(self) -> None:
        result = ran(work.s("a").on_error(told.s() | show.s()))
        assert result.get(5) == "a"
        assert became(result) == [SUCCESS, NOT_NEEDED, CANCELLED]
        assert status_of(result) == "SUCCESSFUL"

    def test_a_callback_that_fails(self) -> None:
        broken.update(["a", "b"])
        result = ran(work.s("a").on_error(work.si("b")))
        assert became(result) == [FAILED, FAILED]
        with pytest.raises(ValueError, match="a is broken"):
            result.get(5)

    def test_a_callback_that_puts_others_in_its_place(self) -> None:
        # They run once everything else has ended.
        canvases["alarm"] = lambda: (work.s("alarm") | show.s()).set(priority=-50)
        broken.update(["a", "c"])
        header = group(work.s("a"), work.s("b"), work.s("c").set(priority=-1), work.s("d").set(priority=-2))
        result = ran(header.on_error(become.s("alarm")))
        assert calls[-4:] == ["c", "d", "alarm", "show"]
        assert calls.count("become alarm") == 1
        row = result.steps().get(name=become.name)
        assert row.status == "SUCCESSFUL"
        assert TaskResult(row.pk).get(5) == ["alarm"]

    def test_on_a_worker_that_is_gone(self) -> None:
        """Nobody settles such a run: the look after workflows finds it."""
        result = (work.s("a").set(max_retries=0) | show.s()).on_error(told.s()).enqueue()
        first = result.steps()[0]
        TaskRecord.objects.filter(pk=first.pk).update(
            status="FAILED", finished_at=timezone.now(), reason="PoisonTask: it took its worker down"
        )
        maintenance.look_after_workflows()
        drain()
        assert became(result) == ["FAILED PoisonTask", CANCELLED, SUCCESS]
        assert calls == [("told", "steps.work", "it took its worker down")]
        assert status_of(result) == "FAILED"


class TestCallbacks:
    def test_after_a_success_alone(self) -> None:
        broken.add("b")
        one, other = work.s("a"), work.s("b")
        one.link(show.s("linked"))
        other.link(show.s("never"))
        result = ran(group(one, other))
        assert became(result) == [SUCCESS, SUCCESS, FAILED, CANCELLED]

    def test_a_link_is_no_part_of_the_value(self) -> None:
        canvas = work.s("a")
        canvas.link(work.si("b"))
        broken.add("b")
        result = ran(canvas)
        assert result.get(5) == "a"
        assert status_of(result) == "SUCCESSFUL"
        assert became(result) == [SUCCESS, FAILED]


class TestTimes:
    def test_countdown_and_expiry_of_later_steps_count_from_readiness(self) -> None:
        with testing.clock() as clock:
            canvas = chain(
                work.s("a").set(countdown=100),
                work.s("b").set(countdown=50),
                work.s("c").set(expires=10),
                work.s("d").set(countdown=20, expires=10),
                work.s("e"),
            )
            result = canvas.enqueue()
            drain()
            assert calls == []
            clock.advance(seconds=99)
            assert calls == []
            clock.advance(seconds=2)
            assert calls == ["a"]
            clock.advance(seconds=47)
            assert calls == ["a"]
            clock.advance(seconds=3)
            assert calls == ["a", "b", "c"]
            clock.advance(seconds=30)
            assert became(result) == [SUCCESS] * 3 + ["CANCELLED TaskExpired", CANCELLED]
            with pytest.raises(TaskCancelled, match="UpstreamFailed"):
                result.get(5)

    def test_a_time_of_its_own(self) -> None:
        with testing.clock() as clock:
            at = clock.now + timedelta(seconds=60)
            result = (work.s("a") | work.s("b").set(eta=at) | work.s("c").set(expires=at)).enqueue()
            clock.advance(seconds=50)
            assert calls == ["a"]
            clock.advance(seconds=20)
            assert calls == ["a", "b"]
            assert became(result)[2] == "CANCELLED TaskExpired"

    def test_a_retried_step_keeps_its_place(self) -> None:
        result = ran(chord([patient.s(2), patient.s(1), patient.s(3)], show.s()))
        assert result.get(5) == [[2, 1, 3]]


class TestResults:
    def test_an_ignored_result_that_is_needed_is_kept(self) -> None:
        assert ran(silent.s(1, 2) | show.s()).get(5) == [3]

    def test_get_of_many_shapes(self) -> None:
        assert ran(group(work.s(1), group(work.s(2), work.s(3)))).get(5) == [1, 2, 3]
        assert ran(chain()).get(5) is None
        assert ran(group()).join(5) == []
        graph = Graph()
        assert graph.start().get(5) is None

    def test_a_group_is_read_as_it_comes(self) -> None:
        canvas = group(work.s("a"), work.s("b") | group(work.s("c"), work.s("d")), work.s("e"))
        result = canvas.enqueue()
        assert isinstance(result, GroupResult)
        with pytest.raises(TimeoutError):
            next(result.iter_results(0.05))
        drain(limit=100)
        assert list(result.iter_results(5)) == ["a", ["c", "d"], "e"]
        assert (len(result), result.completed_count(), len(result.results)) == (3, 4, 4)
        assert [run.get(1) for run in result.results] == ["a", "c", "d", "e"]

    def test_a_group_that_fails_is_read_up_to_there(self) -> None:
        broken.add("b")
        found = ran(group(work.s("a"), work.s("b"), work.s("c"))).iter_results(5)
        assert next(found) == "a"
        with pytest.raises(ValueError, match="b is broken"):
            next(found)

    def test_errors_in_their_places(self) -> None:
        broken.add("b")
        result = ran(group(work.s("a"), work.s("b"), on_failure="continue"))
        assert [getattr(value, "message", value) for value in result.iter_results(5)] == ["a", "b is broken"]
        assert [getattr(value, "message", value) for value in result.join(5)] == ["a", "b is broken"]

    def test_progress(self) -> None:
        broken.add("b")
        result = chord([work.s("a"), work.s("b"), work.s("c").set(countdown=60)], show.s()).enqueue()
        assert result.progress() == (4, 0, 0, 0, 0, 4)
        assert result.progress().fraction == 0.0
        drain()
        found = result.progress()
        assert (found.successful, found.failed, found.cancelled, found.waiting) == (1, 1, 1, 1)
        assert (found.ended, found.fraction) == (3, 0.75)
        assert result.completed_count() == 1

    def test_steps_by_name(self) -> None:
        graph = Graph("names")
        graph.add(work.s("small"), name="load")
        graph.add(work.s("capital"), name="Load")
        graph.add(work.s("odd"), name='50% "off" \\ _')
        result = graph.start()
        drain()
        assert [result.step(name).get(5) for name in ("load", "Load", '50% "off" \\ _')] == ["small", "capital", "odd"]
        assert result.step(str(result.steps()[0].pk)).get(5) == "small"
        for name in ("LOAD", "none", "oad", str(new := TaskResult("0" * 32).id)):
            with pytest.raises(ResultNotFound, match="has no step"):
                result.step(name)
        assert new

    def test_waiting_times_out(self) -> None:
        result = chain(work.s("a"), work.s("b")).enqueue()
        for wait in (result.get, result.wait, async_to_sync(result.aget), async_to_sync(result.await_end)):
            with pytest.raises(TimeoutError, match=result.id):
                wait(timeout=0.05)

    def test_get_does_not_wait_for_callbacks_and_wait_does(self) -> None:
        first = work.s("a")
        first.link(work.si("b").set(countdown=60))
        result = ran(first)
        assert result.get(0.1) == "a"
        with pytest.raises(TimeoutError):
            result.wait(0.05)

    def test_get_ends_as_soon_as_it_can_not_succeed(self) -> None:
        broken.add("a")
        result = ran(group(work.s("a"), work.s("b").set(countdown=60)))
        with pytest.raises(ValueError, match="a is broken"):
            result.get(0.1)

    def test_coroutines(self) -> None:
        async def scene() -> Any:
            result = await chain(work.s("a"), work.s("b")).aenqueue()
            waiting = asyncio.create_task(result.aget(5))
            await asyncio.sleep(0)
            await asyncio.to_thread(drain_in_thread)
            await result.arefresh()
            return await waiting, (await result.aprogress()).fraction, result.is_finished

        assert async_to_sync(scene)() == ("b", 1.0, True)

    def test_inside_the_transaction_that_started_it(self) -> None:
        with transaction.atomic():
            result = chain(work.s("a"), work.s("b")).enqueue()
            with pytest.raises(ResultUnavailable, match="after the atomic block"):
                result.get(5)
        drain()
        assert result.get(5) == "b"

    def test_one_that_is_not_there(self) -> None:
        for id in ("0" * 32, "nonsense"):
            with pytest.raises(ResultNotFound, match=id[:8]):
                WorkflowResult(id).get(1)


def drain_in_thread() -> None:
    drain()
    connection.close()


class TestReplace:
    @pytest.fixture(autouse=True)
    def _canvases(self) -> None:
        canvases.update(
            {
                "one": lambda: work.s("new"),
                "chain": lambda: work.s("x") | show.s("y"),
                "group": lambda: group(work.s(1), work.s(2)),
                "empty": lambda: group(),
                "nothing": lambda: chain(),
                "itself": lambda: become.s("one"),
                "twice": lambda: group(become.s("group"), become.s("itself")),
                "bad": lambda: work.s("fine") | work.s("bad") | show.s(),
                "wrong": lambda: total.s(1, 2, 3),
                "nonsense": lambda: "nonsense",  # type: ignore[dict-item, return-value]
            }
        )

    VALUES = [
        ("one", "new"),
        ("chain", ["x", "y"]),
        ("group", [1, 2]),
        ("empty", []),
        ("nothing", None),
        ("itself", "new"),
        ("twice", [[1, 2], "new"]),
    ]

    @pytest.mark.parametrize(("name", "value"), VALUES)
    @pytest.mark.parametrize("task", [become, become_exactly_once, become_async], ids=lambda task: task.name)
    def test_of_a_plain_run(self, task: Any, name: str, value: Any) -> None:
        run = ran(task.s(name))
        assert isinstance(run, TaskResult)
        assert run.get(5) == value
        run.refresh()
        assert run.status == "SUCCESSFUL"
        for row in Workflow.objects.all():
            assert (row.status, row.size) == ("SUCCESSFUL", TaskRecord.objects.filter(workflow=row).count())

    @pytest.mark.parametrize(("name", "value"), VALUES)
    def test_of_a_step(self, name: str, value: Any) -> None:
        result = ran(chord([work.s("a"), become.s(name)], show.s()) | show.s(9))
        assert result.get(5) == [[["a", value]], 9]
        assert status_of(result) == "SUCCESSFUL"
        assert result.size == result.steps().count()
        assert Workflow.objects.count() == 1

    def test_what_a_transactional_task_has_written_is_undone(self) -> None:
        Workflow.objects.create(name="before", size=0, enqueued_at=timezone.now(), finished_at=timezone.now())
        assert ran(become_exactly_once.s("one")).get(5) == "new"
        assert Workflow.objects.filter(name="before").exists()

    @pytest.mark.parametrize("outer", ["bad", "nested"])
    def test_by_one_that_fails(self, outer: str) -> None:
        broken.add("bad")
        canvases["nested"] = lambda: group(become.s("bad"), work.s("aside"))
        result = ran((work.s("a") | become.s(outer) | show.s()).on_error(told.s()))
        with pytest.raises(ValueError, match="bad is broken"):
            result.get(5)
        assert calls.count(("told", "steps.become", "bad is broken")) == 1
        step = TaskResult[Any](result.steps().filter(name=become.name).first().pk)
        with pytest.raises(ValueError, match="bad is broken"):
            step.get(5)
        assert step.errors[-1].message == "bad is broken"
        assert status_of(result) == "FAILED"

    def test_each_fails_with_its_own_error(self) -> None:
        """Though both failures are recorded in one go."""
        broken.update(["bad", "worse"])
        canvases["worse"] = lambda: work.s("fine") | work.s("worse") | show.s()
        result = group(become.s("bad"), become.s("worse"), on_failure="continue").enqueue()
        settled_together(result)
        assert [error.message for error in result.get(5)] == ["bad is broken", "worse is broken"]

    def test_of_a_plain_run_by_one_that_fails(self) -> None:
        broken.add("bad")
        run = ran(become.s("bad"))
        with pytest.raises(ValueError, match="bad is broken"):
            run.get(5)
        assert Workflow.objects.get().status == "FAILED"

    @pytest.mark.parametrize(("name", "error"), [("wrong", InvalidArguments), ("nonsense", TypeError)])
    def test_by_what_cannot_be_started(self, name: str, error: type[Exception]) -> None:
        run = ran(become.s(name))
        with pytest.raises(error):
            run.get(5)
        assert not Workflow.objects.exists()

    def test_cancelled_replacements_cancel_what_they_replaced(self) -> None:
        canvases["slow"] = lambda: work.s("x").set(countdown=60)
        result = ran(become.s("slow") | show.s())
        assert result.cancel() == 3
        assert counts(result) == {"CANCELLED": 3}
        assert status_of(result) == "CANCELLED"


def settled_together(result: WorkflowResult) -> None:
    """Run everything, and record what was claimed at once in one go, as a busy worker does."""
    broker, claim = get_broker(), 1
    while deliveries := broker.claim("default", 100, 0, claim):
        claim += len(deliveries)
        assert not broker.settle(0, [executor.execute(delivery, FakeGuard()) for delivery in deliveries])


class TestAdded:
    def test_in_a_batch_with_others(self) -> None:
        result = group(extend.s(), extend.s(), work.s("a")).enqueue()
        settled_together(result)
        assert result.get(5) == ["extended", "extended", "a"]
        assert sorted(calls) == ["a", *["added first"] * 2, *["added second"] * 2]
        assert status_of(result) == "SUCCESSFUL"
        assert result.size == 7

    def test_nothing_of_an_attempt_that_failed(self) -> None:
        result = ran(extend.s().set(max_retries=0) | work.s("b"))
        assert result.progress().total == 4


class TestStart:
    def test_rolled_back_leaves_nothing(self) -> None:
        with transaction.atomic():
            chord([work.s("a"), work.s("b")], show.s()).enqueue()
            transaction.set_rollback(True)
        assert not TaskRecord.objects.exists()
        assert not Workflow.objects.exists()
        assert not WorkflowLink.objects.exists()

    def test_in_a_transaction_it_is_there_at_commit(self) -> None:
        with transaction.atomic():
            result = chain(work.s("a"), work.s("b")).enqueue()
        drain()
        assert result.get(5) == "b"

    @override_settings(TASKQ={"MAX_WORKFLOW_SIZE": 3})
    def test_too_large(self) -> None:
        assert ran(group(work.s(i) for i in range(3))).get(5) == [0, 1, 2]
        with pytest.raises(WorkflowTooLarge, match="MAX_WORKFLOW_SIZE"):
            group(work.s(i) for i in range(4)).enqueue()
        assert TaskRecord.objects.count() == 3

    def test_no_row_knows_more_than_its_own_step(self) -> None:
        def largest(size: int) -> int:
            result = chord([echo.s(1) for _ in range(size)], count.s()).enqueue()
            rows = result.steps().values_list("payload", "headers")
            return max(len(payload) + len(headers or "") for payload, headers in rows)

        assert largest(500) == largest(2)

    def test_surroundings_travel(self) -> None:
        with translation.override("de"), timezone.override("Asia/Tokyo"):
            result = (surroundings.s() | group(surroundings.s(), surroundings.s())).enqueue()
        drain()
        assert result.get(5) == [["de", "Asia/Tokyo"]] * 2

    def test_tasks_without_pending_rows(self) -> None:
        assert ran(chord([untracked.s(1), untracked.s(2)], show.s()) | untracked.s(3)).get(5) == 3

    def test_signals(self) -> None:
        seen: list[Any] = []

        def note_end(sender: Any, outcome: Any, **rest: Any) -> None:
            seen.append((sender, outcome.action))

        signals.task_finished.connect(note_end)
        try:
            broken.add("b")
            ran(work.s("a") | work.s("b") | show.s())
        finally:
            signals.task_finished.disconnect(note_end)
        assert seen == [(work.name, Action.SUCCESS), (work.name, Action.FAILED)]

    def test_helpers_see_steps(self) -> None:
        with testing.captured_tasks() as captured:
            chain(work.s("a"), show.s("b")).enqueue()
        assert [(run.task_name, run.args) for run in captured] == [(work.name, ["a"]), (show.name, ["b"])]
        testing.assert_enqueued(show, args=["b"], count=1)


class TestEager:
    @pytest.fixture(autouse=True)
    def _eager(self) -> Iterator[None]:
        with override_settings(TASKQ={"EAGER": True}):
            yield

    def test_all_of_it_runs_in_the_call(self) -> None:
        result = chord([work.s("a"), work.s("b") | patient.si(2)], show.s()).on_error(told.s()).enqueue()
        assert result.get() == [["a", 2]]
        assert status_of(result) == "SUCCESSFUL"

    def test_failures_and_replacements(self) -> None:
        canvases["one"] = lambda: work.s("new")
        broken.add("b")
        result = (become.s("one") | work.s("b") | show.s()).on_error(told.s()).enqueue()
        assert calls == ["become one", "new", "b", ("told", "steps.work", "b is broken")]
        with pytest.raises(ValueError, match="b is broken"):
            result.get()

    def test_a_plain_run_that_is_replaced(self) -> None:
        canvases["one"] = lambda: group(work.s(1), work.s(2)) | show.s()
        assert become.enqueue("one").get() == [[1, 2]]

    def test_inside_a_transaction(self) -> None:
        broken.add("b")
        with transaction.atomic():
            result = chain(work.s("a"), work.s("b"), work.s("c")).enqueue()
        assert became(result) == [SUCCESS, FAILED, CANCELLED]


class TestSize:
    @pytest.mark.one_database  # it is the same on any, and long
    def test_a_long_chain(self) -> None:
        assert ran(chain(echo.s(1), *(echo.s() for _ in range(299)))).get(5) == 1

    @pytest.mark.one_database
    def test_a_large_chord(self) -> None:
        assert ran(chord([echo.s(number) for number in range(700)], count.s())).get(5) == 700

    def test_json_of_a_result_stays_what_it_was(self) -> None:
        odd = {'ä " \\ ,[]': [None, True, 1.5, "[[,]]"]}
        assert json.dumps(ran(echo.s(odd) | echo.s()).get(5)) == json.dumps(odd)
