"""Workflows as ``taskq workflow`` shows them: documents for JSON, and their pieces as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db.models import Count
from django.utils import timezone

from django_taskq import conf
from django_taskq.brokers.database.feeding import errors_of
from django_taskq.models import TaskRecord, Workflow
from django_taskq.models.workflow_steps import Counts, awaited_by, count_steps, label_of, page_of_steps
from django_taskq.status import FINAL, Status

# The order in which some steps of many are shown.
FIRST = (
    Status.FAILED,
    Status.RUNNING,
    Status.READY,
    Status.SCHEDULED,
    Status.WAITING,
    Status.CANCELLED,
    Status.SUCCESSFUL,
)


def listed(status: str | None, name: str | None, limit: int) -> list[dict[str, Any]]:
    """Those that run, the newest first, and then those that have ended, the last to end first."""
    workflows: Any = Workflow.objects.using(_using())
    if name is not None:
        workflows = workflows.filter(name__icontains=name)
    found: list[Workflow] = []
    if status in (None, "running"):
        found += workflows.unfinished().order_by("-pk")[:limit]
    if status != "running":
        ended = workflows.filter(finished_at__isnull=False).order_by("-finished_at")
        ended = ended.filter(status=status.upper()) if status is not None else ended
        found += ended[: limit - len(found)]
    counts = count_steps(_using(), found)
    return [_document(row, counts[row.pk]) for row in found]


def described(workflow: Workflow, limit: int) -> dict[str, Any]:
    """One workflow with its steps: how many of each task have which status, and up to ``limit`` of them."""
    using = _using()
    steps = TaskRecord.objects.using(using).filter(workflow_id=workflow.pk).order_by()
    tasks = [
        {"name": name, "status": status, "count": count}
        for name, status, count in steps.values_list("name", "status").annotate(count=Count("*"))
    ]
    tasks.sort(key=lambda each: (FIRST.index(Status(each["status"])), each["name"]))
    counts: Counts = {}
    for each in tasks:
        counts[each["status"]] = counts.get(each["status"], 0) + each["count"]
    return _document(workflow, counts) | {
        "tasks": tasks,
        "steps": _steps(using, _chosen(using, workflow, counts, limit)),
    }


def _chosen(using: str, workflow: Workflow, counts: Counts, limit: int) -> list[TaskRecord]:
    """All in the order of the plan, or of many some: the failed ones, what runs, and so on."""
    if workflow.size <= limit:
        return page_of_steps(using, workflow, limit, counts=counts).steps
    found: list[TaskRecord] = []
    for status in FIRST:
        if len(found) < limit and counts.get(status):
            found += page_of_steps(using, workflow, limit - len(found), counts=counts, status=status).steps
    return found


def _document(workflow: Workflow, counts: Counts) -> dict[str, Any]:
    fields = ("name", "status", "size", "enqueued_at", "finished_at", "expires_at", "cancel_requested_at", "reason")
    document = {"id": str(workflow.pk)} | {field: getattr(workflow, field) for field in fields}
    return document | {"counts": {status: counts.get(status, 0) for status in Status.values}}


def _steps(using: str, records: Sequence[TaskRecord]) -> list[dict[str, Any]]:
    awaited = awaited_by(using, records)
    errors = errors_of(using, [str(row.pk) for row in records if row.status != Status.SUCCESSFUL])
    found = []
    for row in records:
        waits_for = awaited.get(row.pk)
        found.append(
            {
                "id": str(row.pk),
                "label": label_of(row) or None,
                "name": row.name,
                "status": str(row.shown_status),
                "queue_name": row.queue_name,
                "attempt": row.attempt,
                "run_after": row.run_after,
                "started_at": row.started_at,
                "finished_at": row.finished_at,
                "reason": row.reason,
                "error": ": ".join(errors[str(row.pk)]) if str(row.pk) in errors else None,
                "waits_for": str(waits_for.parent.pk) if waits_for else None,
            }
        )
    return found


def how_far(document: dict[str, Any]) -> str:
    """``7 of 10, 2 failed``."""
    return progress(document["size"], document["counts"])


def progress(size: int, counts: Counts) -> str:
    """How many steps have ended, and how many of these have failed."""
    failed = counts.get(Status.FAILED, 0)
    return f"{ended(counts):,} of {size:,}" + (f", {failed:,} failed" if failed else "")


def ended(counts: Counts) -> int:
    """How many steps have a final status."""
    return sum(counts.get(status, 0) for status in FINAL)


def times(step: dict[str, Any]) -> str:
    """The queue of a step, when it started, and how long it took."""
    parts = [f"queue {step['queue_name']}"]
    if step["started_at"] is not None:
        parts.append(f"started {moment(step['started_at'])}")
        if step["finished_at"] is not None:
            parts.append(f"took {(step['finished_at'] - step['started_at']).total_seconds():.3g} s")
    elif step["status"] == Status.SCHEDULED and step["run_after"] is not None:
        parts.append(f"due {moment(step['run_after'])}")
    return ", ".join(parts)


def moment(value: datetime) -> str:
    """A time in the project's zone, to the second."""
    return f"{timezone.localtime(value) if timezone.is_aware(value) else value:%Y-%m-%d %H:%M:%S}"


def text(value: Any) -> str:
    """A field of a workflow on a line of its own."""
    return moment(value) if isinstance(value, datetime) else str(value)


def counted(workflow: Workflow) -> Counts:
    """Its steps by status."""
    return count_steps(_using(), [workflow])[workflow.pk]


def _using() -> str:
    return conf.get_settings().database
