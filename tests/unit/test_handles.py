"""Handles on calls that need not have a row: what they know, and where waiting would never end."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.utils import timezone

from django_taskq.exceptions import ResultNotFound, ResultUnavailable
from django_taskq.models import TaskRecord
from django_taskq.result import Kind, TaskResult
from django_taskq.status import Status

pytestmark = pytest.mark.django_db


def record(**changes: object) -> TaskRecord:
    fields = {
        "name": "a",
        "queue_name": "q",
        "status": Status.SUCCESSFUL,
        "payload": "[[],{}]",
        "enqueued_at": timezone.now(),
    }
    return TaskRecord.objects.create(**(fields | changes))


@pytest.mark.parametrize("kind", [Kind.LATE, Kind.SILENT, Kind.COPIED])
def test_no_row_yet_is_no_error(kind: Kind) -> None:
    result: TaskResult[int] = TaskResult(uuid4(), "a", kind=kind)
    result.refresh()
    assert result.status == Status.READY


def test_no_row_of_a_run_that_has_one_is() -> None:
    with pytest.raises(ResultNotFound):
        TaskResult(uuid4(), "a").refresh()


def test_a_late_row_is_found() -> None:
    row = record(result="5")
    result: TaskResult[int] = TaskResult(row.pk, "a", kind=Kind.LATE)
    assert result.get(timeout=1) == 5


@pytest.mark.parametrize(("kind", "text"), [(Kind.SILENT, "leave no row"), (Kind.COPIED, "see copies")])
def test_waiting_for_what_never_comes_is_refused(kind: Kind, text: str) -> None:
    with pytest.raises(ResultUnavailable, match=text):
        TaskResult(uuid4(), "a", kind=kind).get(timeout=10)


def test_copies() -> None:
    parent = uuid4()
    rows = [record(parent_id=parent, queue_name=name) for name in ("b", "a")]
    record()
    result: TaskResult[int] = TaskResult(parent, "a", kind=Kind.COPIED)
    assert [copy.id for copy in result.copies()] == [str(row.pk) for row in rows]
    assert {copy.status for copy in result.copies()} == {Status.SUCCESSFUL}
