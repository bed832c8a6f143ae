"""Steps added to a workflow that runs: by one of its runs, and from outside."""

from __future__ import annotations

import pytest

from django_taskq import Workflow, chain, current_task, group, task
from django_taskq.exceptions import InvalidWorkflow
from django_taskq.models import TaskRecord, WorkflowLink
from django_taskq.models import Workflow as WorkflowRow
from django_taskq.status import Status
from django_taskq.testing import advance, clock, drain
from tests.testapp.canvas_tasks import add, echo, fail, total

pytestmark = pytest.mark.django_db(transaction=True)


@task(name="adding.spread")
def spread_out(count: int) -> int:
    """Adds a step for each, and one that sums them up."""
    more = current_task.workflow
    members = [more.add(add.s(number, 1)) for number in range(count)]
    more.add(total.s([member.result for member in members]), name="sum")
    return count


@task(name="adding.grow", max_retries=1, default_retry_delay=5)
def grow_once() -> str:
    current_task.workflow.add(echo.s("grown"))
    if current_task.attempt == 1:
        raise current_task.retry()
    return "grew"


@task(name="adding.deeper")
def deeper(level: int) -> None:
    if level:
        current_task.workflow.add(group(deeper.s(level - 1) for _ in range(3)))


@task(name="adding.wrongly")
def add_wrongly() -> None:
    current_task.workflow.add(add.s(1))


@task(name="adding.behind")
def add_behind(first: str) -> None:
    more = current_task.workflow
    more.add(add.s(more.step(first).result, 10), name="behind")


def test_a_run_adds_steps_with_its_success() -> None:
    result = chain(spread_out.s(4), echo.s()).enqueue()
    drain()
    assert result.get(1) == 4  # what was added is no part of the value
    assert result.step("sum").get(1) == 1 + 2 + 3 + 4
    result.refresh()
    assert (result.status, result.size) == ("SUCCESSFUL", 7)


def test_an_attempt_that_fails_adds_nothing() -> None:
    with clock():
        result = chain(grow_once.si(), echo.si(1)).enqueue()
        drain()
        assert not TaskRecord.objects.filter(payload__contains="grown").exists()
        advance(seconds=6)
    assert TaskRecord.objects.filter(payload__contains="grown", status=Status.SUCCESSFUL).count() == 1
    assert result.progress().successful == 3


def test_added_steps_may_add_further_ones() -> None:
    workflow = Workflow("tree")
    workflow.add(deeper.s(3))
    result = workflow.start()
    drain()
    result.refresh()
    assert result.size == 1 + 3 + 9 + 27
    assert result.status == "SUCCESSFUL"


def test_a_workflow_is_not_over_before_what_was_added() -> None:
    workflow = Workflow("open")
    workflow.add(spread_out.s(2))
    result = workflow.start()
    (first,) = drain(limit=4)[:1]
    assert first.name == "adding.spread"
    assert result.progress().total == 4
    assert result.is_finished


def test_a_step_that_was_added_and_fails_fails_the_workflow() -> None:
    result = chain(echo.s(1), echo.s()).enqueue()
    with result.adding() as more:
        more.add(fail.si("added"))
    drain()
    assert result.get(1) == 1
    result.refresh()
    assert result.status == "FAILED"


def test_steps_added_from_outside_wait_for_what_runs() -> None:
    result = chain(add.s(1, 2), add.s(3)).enqueue()
    last = result.steps().last()
    with result.adding() as more:
        more.add(add.s(more.step(str(last.pk)).result, 100), name="more")
        more.add(echo.si("later"), after=str(last.pk))
    assert WorkflowRow.objects.get().size == 4
    drain()
    assert result.step("more").get(1) == 106
    result.refresh()
    assert result.status == "SUCCESSFUL"


def test_steps_added_behind_what_has_ended_start_at_once() -> None:
    result = chain(add.s(1, 2), add_behind.si("x")).enqueue()
    first, second = result.steps()
    TaskRecord.objects.filter(pk=second.pk).update(payload=f'[["{first.pk}"],{{}}]')
    drain()
    assert result.step("behind").get(1) == 13


def test_steps_added_behind_what_has_failed_do_not_start() -> None:
    result = group(fail.si("first"), echo.s(1).set(countdown=60)).enqueue()
    drain()
    failed = result.steps().first()
    with result.adding() as more:
        more.add(echo.si("never"), after=str(failed.pk), name="never")
    assert result.step("never").status == Status.CANCELLED


def test_nothing_is_added_to_a_workflow_that_has_ended() -> None:
    result = chain(echo.s(1), echo.s()).enqueue()
    drain()
    with pytest.raises(InvalidWorkflow, match="has ended"), result.adding() as more:
        more.add(echo.s(2))
    assert TaskRecord.objects.count() == 2
    assert WorkflowLink.objects.count() == 2


def test_what_is_added_to_a_cancelled_workflow_does_not_start() -> None:
    result = chain(spread_out.s(3), echo.s()).enqueue()
    result.steps().first()
    WorkflowRow.objects.update(cancel_requested_at="2026-01-01T00:00Z")
    drain()
    added = TaskRecord.objects.filter(headers__contains="grown")
    assert set(added.values_list("status", flat=True)) == {Status.CANCELLED}


def test_what_cannot_be_added_fails_the_run() -> None:
    result = chain(add_wrongly.si(), echo.s()).enqueue()
    drain()
    with pytest.raises(Exception, match=r"adding\.wrongly|canvas\.add"):
        result.get(1)
    assert result.progress().failed == 1


def test_a_run_that_is_no_step_has_no_workflow() -> None:
    result = spread_out.enqueue(2)
    drain()
    with pytest.raises(RuntimeError, match="no step of a workflow"):
        result.get(1)


@task(name="adding.bound", bind=True)
def bound(self: object, number: int) -> None:
    self.replace(add.s(number, 1))  # type: ignore[attr-defined]


def test_a_bound_task_is_replaced_by_celery_s_spelling() -> None:
    result = bound.enqueue(4)
    drain()
    assert result.get(1) == 5
