"""Workflows whose rows were spoilt, or whose cancelling was cut short: nothing else suffers, and nothing is silent."""

from __future__ import annotations

import pytest
from django.utils import timezone

from django_taskq import chain, group
from django_taskq.maintenance import look_after_workflows
from django_taskq.models import TaskRecord, Workflow
from django_taskq.status import Status
from django_taskq.testing import drain
from tests.testapp.canvas_tasks import add, echo

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ('{{"workflow":"{id}","feed":"front"', "SerializationError"),
        ('["workflow":"{id}","feed":"front"]', "SerializationError"),
        ('{{"workflow":"{id}"}}', "does not accept these arguments"),
    ],
)
def test_spoilt_headers_fail_their_step_alone(spoilt: str, said: str) -> None:
    result = chain(add.s(1, 2), add.s(3), echo.s()).enqueue()
    second = list(result.steps())[1]
    TaskRecord.objects.filter(pk=second.pk).update(headers=spoilt.format(id=result.id))
    other = chain(add.s(1, 2), echo.s()).enqueue()
    drain()
    assert other.get(1) == 3
    second.refresh_from_db()
    assert (second.status, said in second.reason) == (Status.FAILED, True), second.reason
    look_after_workflows()
    result.refresh()
    assert result.status == "FAILED"


@pytest.mark.parametrize("payload", ["[[", "", "null", "[[3],{}", '{"a":1}'])
def test_spoilt_arguments_fail_their_step_alone(payload: str) -> None:
    result = chain(add.s(1, 2), add.s(3), echo.s()).enqueue()
    second = list(result.steps())[1]
    TaskRecord.objects.filter(pk=second.pk).update(payload=payload)
    drain()
    second.refresh_from_db()
    assert second.status == Status.FAILED
    assert second.attempt == 1
    result.refresh()
    assert result.status == "FAILED"


def test_a_spoilt_result_fails_who_needs_it() -> None:
    result = chain(add.s(1, 2), add.s(3)).enqueue()
    first, second = result.steps()
    drain(limit=5)
    TaskRecord.objects.filter(pk=first.pk).update(result="{[")
    assert result.resume_from(str(second.pk)) == 1
    drain()
    second.refresh_from_db()
    assert second.status == Status.FAILED
    assert "SerializationError" in second.reason


def test_a_cancelling_that_was_cut_short_is_gone_on_with() -> None:
    result = group(echo.s(number).set(countdown=3600) for number in range(5)).enqueue()
    ids = list(result.steps().values_list("pk", flat=True))
    # As after the death of who was at it.
    Workflow.objects.update(cancel_requested_at=timezone.now(), reason="enough of it")
    TaskRecord.objects.filter(pk=ids[0]).cancel("enough of it")
    look_after_workflows()
    assert set(result.steps().values_list("status", "reason")) == {(Status.CANCELLED, "enough of it")}
    result.refresh()
    assert result.status == "CANCELLED"
