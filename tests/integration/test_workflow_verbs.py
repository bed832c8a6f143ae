"""What is done to workflows besides running them: cancelled, run again, looked after, pruned."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_taskq import TaskResult, chain, charging, chord, control, group, maintenance, testing
from django_taskq.brokers import get_broker
from django_taskq.exceptions import ResultNotFound, TaskCancelled
from django_taskq.graph import Workflow as Graph
from django_taskq.models import TaskAttempt, TaskRecord, Workflow, WorkflowLink
from django_taskq.models.clock import database_now
from django_taskq.testing import drain
from django_taskq.worker import executor
from django_taskq.workflow_result import WorkflowResult
from tests.integration import step_tasks
from tests.integration.step_tasks import (
    became,
    become,
    broken,
    calls,
    canvases,
    counts,
    extend,
    show,
    status_of,
    told,
    work,
)
from tests.unit.making import FakeGuard

pytestmark = pytest.mark.django_db(transaction=True)
SUCCESS, FAILED, CANCELLED = "SUCCESSFUL", "FAILED ValueError", "CANCELLED UpstreamFailed"
NOT_NEEDED, STOPPED = "CANCELLED NotNeeded", "CANCELLED TaskCancelled"


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


def line(*names: str) -> WorkflowResult:
    """A graph of steps with these names, one after the other, started."""
    graph, before = Graph("line"), []
    for name in names:
        before = [graph.add(work.s(name), after=before, name=name)]
    return graph.start()


def claimed(count: int = 1) -> Any:
    """What a worker has in its hands."""
    return get_broker().claim("default", count, 0, 1)


def settle(deliveries: Any) -> None:
    assert not get_broker().settle(0, [executor.execute(each, FakeGuard()) for each in deliveries])


class TestCancel:
    def test_what_waits(self) -> None:
        result = chord([work.s("a"), work.s("b").set(countdown=60)], show.s()).on_error(told.s()).enqueue()
        assert result.cancel() == 4
        drain()
        assert became(result) == [STOPPED] * 4
        assert calls == []
        assert status_of(result) == "CANCELLED"
        assert result.is_finished
        with pytest.raises(TaskCancelled):
            result.get(5)
        assert result.cancel() == 0

    def test_with_a_reason(self) -> None:
        result = chain(work.s("a"), work.s("b")).enqueue()
        result.cancel("not wanted any more")
        assert set(result.steps().values_list("reason", flat=True)) == {"not wanted any more"}
        assert Workflow.objects.get().reason == "not wanted any more"

    def test_what_runs_is_marked_and_nothing_starts_after_it(self) -> None:
        result = chain(work.s("a"), work.s("b")).enqueue()
        running = claimed()
        assert result.cancel() == 2
        assert status_of(result) == "RUNNING"
        settle(running)
        drain()
        # It had ended before it heard of it.
        assert became(result) == [SUCCESS, STOPPED]
        assert calls == ["a"]
        assert status_of(result) == "CANCELLED"

    def test_what_a_cancelled_run_puts_in_its_place_does_not_start(self) -> None:
        canvases["more"] = lambda: chain(work.s("x"), work.s("y"))
        result = (become.s("more") | extend.si()).enqueue()
        running = claimed()
        result.cancel()
        settle(running)
        drain()
        assert calls == ["become more"]
        assert set(counts(result)) == {"CANCELLED"}
        assert status_of(result) == "CANCELLED"

    def test_nested(self) -> None:
        canvases["inner"] = lambda: group(become.s("innermost"), work.s("c").set(countdown=60)) | show.s()
        canvases["innermost"] = lambda: work.s("d").set(countdown=60)
        result = ran(become.s("inner") | show.s())
        result.cancel()
        assert set(became(result)) == {STOPPED}
        assert status_of(result) == "CANCELLED"

    def test_one_step_moves_the_others_on_within_a_look(self) -> None:
        result = (work.s("a").set(countdown=60) | work.s("b") | work.s("c")).on_error(told.s()).enqueue()
        assert control.cancel(str(result.steps()[0].pk)) == "CANCELLED"
        maintenance.look_after_workflows()
        assert became(result) == [STOPPED, CANCELLED, CANCELLED, NOT_NEEDED]
        assert status_of(result) == "CANCELLED"

    def test_one_step_beside_others_that_run(self) -> None:
        """Those who need its end alone hear of it as well, though the workflow goes on."""
        graph = Graph("g")
        first = graph.add(work.s("a").set(countdown=60, on_failure="continue"))
        graph.add(show.s(first.result))
        graph.add(work.s("long").set(countdown=60))
        result = graph.start()
        control.cancel(str(result.steps()[0].pk))
        maintenance.look_after_workflows()
        drain()
        assert calls == ["show"]

    def test_a_waiting_step(self) -> None:
        result = (work.s("a") | work.s("b") | work.s("c")).enqueue()
        control.cancel(str(result.steps()[1].pk))
        drain()
        maintenance.look_after_workflows()
        assert became(result) == [SUCCESS, STOPPED, CANCELLED]
        assert calls == ["a"]

    def test_coroutines(self) -> None:
        result = chain(work.s("a"), work.s("b")).enqueue()
        assert async_to_sync(result.acancel)() == 2
        assert async_to_sync(result.aresume)() == 2
        drain()
        assert result.get(5) == "b"


class TestRetryFailed:
    def test_goes_on_from_where_it_failed(self) -> None:
        broken.add("b")
        result = ran(chain(work.s("a"), work.s("b"), work.s("c")).on_error(told.s()))
        assert became(result) == [SUCCESS, FAILED, CANCELLED, SUCCESS]
        broken.clear()
        calls.clear()
        assert result.retry_failed() == 1
        assert status_of(result) == "RUNNING"
        drain()
        assert result.get(5) == "c"
        assert calls == ["b", "c"]
        assert status_of(result) == "SUCCESSFUL"
        step = result.steps()[1]
        assert step.attempt == 2
        assert [error.message for error in TaskResult(step.pk).errors] == ["b is broken"]
        assert result.retry_failed() == 0

    def test_that_fails_again(self) -> None:
        broken.add("b")
        result = ran(work.s("b").on_error(told.s()) | work.s("c"))
        result.retry_failed()
        drain()
        assert became(result) == [FAILED, SUCCESS, CANCELLED]
        assert status_of(result) == "FAILED"
        assert calls.count(("told", "steps.work", "b is broken")) == 1, "it has been called already"

    def test_a_callback_that_was_not_needed_is_called_when_it_is(self) -> None:
        broken.add("a")
        result = ran(group(work.s("a"), work.s("b").on_error(told.s())) | show.s())
        assert became(result) == [FAILED, SUCCESS, NOT_NEEDED, CANCELLED]
        broken.clear()
        result.retry_failed()
        drain()
        assert became(result) == [SUCCESS, SUCCESS, NOT_NEEDED, SUCCESS]

    def test_while_others_still_run(self) -> None:
        """What waits for the end of a step waits for its new end."""
        broken.add("a")
        result = group(work.s("a"), work.s("b").set(countdown=0.001), on_failure="continue").then(show.s()).enqueue()
        settle(claimed())
        assert counts(result)["FAILED"] == 1
        broken.clear()
        assert result.retry_failed() == 1
        TaskRecord.objects.filter(status="READY").update(run_after=None, status="SCHEDULED")
        TaskRecord.objects.filter(status="SCHEDULED", run_after=None).update(priority=-1)
        maintenance.promote_due()
        TaskRecord.objects.filter(status="SCHEDULED").update(status="READY")
        drain()
        assert result.get(5) == [["a", "b"]]

    def test_what_failed_in_the_place_of_another_is_what_is_run_again(self) -> None:
        broken.add("b")
        canvases["ab"] = lambda: work.s("a") | work.s("b")
        result = ran((become.s("ab") | work.s("c")).on_error(told.s()))
        assert status_of(result) == "FAILED"
        broken.clear()
        calls.clear()
        result.retry_failed()
        drain()
        assert result.get(5) == "c"
        assert calls == ["b", "c"]
        assert status_of(result) == "SUCCESSFUL"

    def test_a_plain_run_that_was_replaced(self) -> None:
        broken.add("b")
        canvases["ab"] = lambda: work.s("a") | work.s("b")
        run = ran(become.s("ab"))
        assert Workflow.objects.get().status == "FAILED"
        broken.clear()
        WorkflowResult(Workflow.objects.get().pk).retry_failed()
        drain()
        assert run.get(5) == "b"
        assert Workflow.objects.get().status == "SUCCESSFUL"
        assert WorkflowResult(Workflow.objects.get().pk).get(5) == "b"

    def test_one_step_as_the_admin_does(self) -> None:
        broken.update(["a", "b"])
        result = ran(group(work.s("a") | work.s("a2"), work.s("b") | work.s("b2")) | show.s())
        assert became(result) == [FAILED, CANCELLED, FAILED, CANCELLED, CANCELLED]
        broken.discard("a")
        assert control.retry(result.steps().filter(pk=result.steps()[0].pk)) == 1
        drain()
        assert became(result) == [SUCCESS, SUCCESS, FAILED, CANCELLED, CANCELLED]
        broken.clear()
        assert control.retry(TaskRecord.objects.filter(status="FAILED")) == 1
        drain()
        assert result.get(5) == [["a2", "b2"]]
        assert status_of(result) == "SUCCESSFUL"

    def test_one_step_in_the_place_of_another(self) -> None:
        broken.add("b")
        canvases["ab"] = lambda: work.s("a") | work.s("b")
        result = ran(become.s("ab") | work.s("c"))
        broken.clear()
        control.retry(TaskRecord.objects.filter(status="FAILED", name=work.name))
        drain()
        assert result.get(5) == "c"


class TestResume:
    def test_a_cancelled_workflow_goes_on(self) -> None:
        result = line("a", "b", "c")
        drain_one()
        result.cancel()
        assert became(result) == [SUCCESS, STOPPED, STOPPED]
        assert result.resume() == 2
        drain()
        assert calls == ["a", "b", "c"]
        assert status_of(result) == "SUCCESSFUL"

    @pytest.mark.parametrize("by", ["name", "id", "handle"])
    def test_from_a_step_in_the_middle(self, by: str) -> None:
        result = line("a", "b", "c")
        drain()
        calls.clear()
        step = result.step("b")
        assert result.resume_from({"name": "b", "id": step.id, "handle": step}[by]) == 2
        drain()
        assert calls == ["b", "c"]
        assert status_of(result) == "SUCCESSFUL"

    def test_results_of_later_steps_are_new_ones(self) -> None:
        graph = Graph("numbers")
        first = graph.add(counting.s(), name="first")
        second = graph.add(show.s(first.result, 1), name="second")
        graph.add(show.s(second.result, 2))
        step_tasks.TASKS[counting.name] = counting
        step_tasks.begin()
        result = graph.start()
        drain()
        assert result.get(5) == [[1, 1], 2]
        result.resume_from("first")
        drain()
        assert result.get(5) == [[2, 1], 2]

    def test_a_step_that_has_been_replaced_runs_itself(self) -> None:
        canvases["ab"] = lambda: work.s("a") | work.s("b")
        result = ran(work.s("first") | become.s("ab") | work.s("c"))
        calls.clear()
        canvases["ab"] = lambda: work.s("other")
        result.resume_from(str(result.steps().get(name=become.name).pk))
        drain()
        assert calls == ["become ab", "other", "c"]
        assert status_of(result) == "SUCCESSFUL"

    def test_a_callback_is_called_again(self) -> None:
        broken.add("a")
        result = ran(work.s("a").on_error(told.s()))
        result.resume_from(str(result.steps().get(name=told.name).pk))
        drain()
        assert calls.count(("told", "steps.work", "a is broken")) == 2
        assert became(result) == [FAILED, SUCCESS]

    def test_where_the_rest_of_the_workflow_has_failed(self) -> None:
        broken.add("a")
        result = ran(group(work.s("a"), work.s("b")).on_error(told.s()) | show.s())
        result.resume_from(str(result.steps()[1].pk))
        drain()
        assert became(result) == [FAILED, SUCCESS, SUCCESS, CANCELLED]
        assert status_of(result) == "FAILED"

    def test_what_is_not_there(self) -> None:
        result = line("a")
        for step in ("none", "0" * 32):
            with pytest.raises(ResultNotFound, match="has no step"):
                result.resume_from(step)
        for verb in ("resume", "rerun", "retry_failed"):
            gone = WorkflowResult("0" * 32)
            if verb == "retry_failed":
                assert gone.retry_failed() == 0
                continue
            with pytest.raises(ResultNotFound, match="no workflow"):
                getattr(gone, verb)()

    def test_a_step_of_another_workflow(self) -> None:
        one, other = line("a"), line("b")
        with pytest.raises(ResultNotFound, match="has no step"):
            one.resume_from(other.step("b"))


def drain_one() -> None:
    settle(claimed())


@step_tasks.task(name="steps.counting")
def counting() -> int:
    calls.append("counting")
    return calls.count("counting")


step_tasks.registry._tasks.pop(counting.name)


class TestRerun:
    def test_runs_the_plan_anew(self) -> None:
        result = ran(chord([work.s("a"), work.s("b")], show.s()).on_error(told.s()).named("again"))
        again = result.rerun()
        assert again.id != result.id
        assert (again.name, again.size) == ("again", 4)
        drain()
        assert again.get(5) == result.get(5) == [["a", "b"]]
        assert status_of(again) == "SUCCESSFUL"
        assert sorted(calls) == ["a", "a", "b", "b", "show", "show"]

    def test_without_what_was_added(self) -> None:
        canvases["ab"] = lambda: work.s("a") | work.s("b")
        result = ran(extend.s() | become.s("ab") | show.s())
        assert result.progress().total == 7
        again = result.rerun()
        assert again.size == 3
        drain()
        assert again.get(5) == ["b"]
        assert status_of(again) == "SUCCESSFUL"
        assert again.progress().total == 7

    def test_of_nothing(self) -> None:
        assert ran(group()).rerun().get(5) == []

    def test_names_and_types(self) -> None:
        again = ran(group(work.s("a"), work.s("b"))).rerun()
        drain()
        assert again.join(5) == ["a", "b"]
        result = line("x", "y")
        drain()
        again = result.rerun()
        drain()
        assert again.step("x").get(5) == "x"


class TestExpiry:
    def test_what_has_not_ended_is_cancelled(self) -> None:
        with testing.clock() as clock:
            result = (work.s("a") | work.s("b").set(countdown=100)).expiring(50).enqueue()
            clock.advance(seconds=10)
            maintenance.look_after_workflows()
            assert became(result) == [SUCCESS, "SCHEDULED"]
            clock.advance(seconds=60)
            maintenance.look_after_workflows()
            assert became(result) == [SUCCESS, "CANCELLED TaskExpired"]
            assert status_of(result) == "CANCELLED"


class TestPrune:
    @pytest.fixture(autouse=True)
    def _soon(self) -> Iterator[None]:
        with override_settings(TASKQ={"RESULT_EXPIRES": timedelta(hours=1), "FAILURE_EXPIRES": timedelta(days=1)}):
            yield

    def test_goes_by_wholes(self) -> None:
        broken.add("bad")
        with testing.clock() as clock:
            good = ran(work.s("a") | work.s("b"))
            bad = ran(work.s("c") | work.s("bad") | work.s("d"))
            going = ran(work.s("e") | work.s("f").set(countdown=10**6))
            plain = ran(work.s("g"))
            clock.advance(minutes=59)
            assert maintenance.prune() == 0
            clock.advance(minutes=2)
            assert maintenance.prune() == 3
            assert not TaskRecord.objects.filter(pk=plain.id).exists()
            left = set(map(str, Workflow.objects.values_list("pk", flat=True)))
            assert left == {bad.id, going.id}
            assert not good.steps().exists()
            clock.advance(days=1)
            assert maintenance.prune() == 3
            assert not TaskAttempt.objects.exists()
            assert became(going) == [SUCCESS, "SCHEDULED"]
            # A link of the one that goes on, and its result.
            assert WorkflowLink.objects.count() == 2

    def test_no_more_than_asked_for_at_once(self) -> None:
        with testing.clock() as clock:
            for _ in range(3):
                ran(work.s("a") | work.s("b"))
            clock.advance(hours=2)
            assert maintenance.prune(at_most=3) == 4
            assert Workflow.objects.count() == 1


class TestOtherEnds:
    @override_settings(TASKQ={"QUEUES": ["default", "mail"]})
    def test_a_purged_queue(self) -> None:
        result = (work.s("a").set(queue="mail") | work.s("b")).enqueue()
        work.using(queue_name="mail").enqueue("plain")
        assert get_broker().purge("mail") == 2
        assert TaskRecord.objects.count() == 2
        maintenance.look_after_workflows()
        assert became(result) == [STOPPED, CANCELLED]
        assert status_of(result) == "CANCELLED"

    @pytest.mark.parametrize("on_failure", ["stop", "continue"])
    def test_a_parent_that_was_deleted(self, on_failure: str) -> None:
        header = group(work.s("a").set(countdown=60), work.s("b"), on_failure=on_failure)
        result = (header | show.s() | show.s()).on_error(told.s()).enqueue()
        result.steps()[0].delete()
        drain()
        maintenance.look_after_workflows()
        drain()
        assert became(result) == [SUCCESS, CANCELLED, CANCELLED, NOT_NEEDED]
        assert status_of(result) == "CANCELLED"
        with pytest.raises(TaskCancelled):
            result.get(5)

    def test_a_sink_that_was_deleted(self) -> None:
        result = ran(group(work.s("a"), work.s("b")))
        result.steps()[0].delete()
        with pytest.raises(ResultNotFound):
            result.get(0.2)

    def test_a_worker_that_died_with_a_step(self) -> None:
        result = chain(work.s("a"), show.s()).on_error(told.s()).enqueue()
        for _ in range(charging.MAX_CRASHES):
            (delivery,) = claimed()
            maintenance.settle_death(maintenance.Death(0, "killed", [delivery.claim]))
        maintenance.look_after_workflows()
        drain()
        assert became(result) == ["FAILED PoisonTask", CANCELLED, SUCCESS]

    def test_looking_costs_one_query_where_there_is_nothing(self) -> None:
        ran(work.s("a") | work.s("b"))
        with CaptureQueriesContext(connection) as queries:
            assert maintenance.look_after_workflows() == 0
        assert len(queries) == 1

    def test_looking_leaves_what_goes_on_alone(self) -> None:
        result = (work.s("a").set(countdown=60) | show.s()).on_error(told.s()).enqueue()
        before = list(TaskRecord.objects.order_by("pk").values())
        assert maintenance.look_after_workflows() == 0
        assert list(TaskRecord.objects.order_by("pk").values()) == before
        assert result.progress().waiting == 3


def test_the_database_has_a_clock() -> None:
    """The times of these tests are those of the package's clock."""
    with testing.clock() as clock:
        clock.advance(hours=1)
        ran(work.s("a"))
        ended = TaskRecord.objects.annotate(now=database_now("default")).get()
        assert abs((ended.now - ended.finished_at).total_seconds()) < 5
