"""How workflows and their steps look on a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_taskq.admin import words
from django_taskq.models import TaskRecord, Workflow
from django_taskq.models.workflow import WorkflowStatus
from django_taskq.models.workflow_steps import Awaited, Counts, label_of
from django_taskq.status import FINAL, Status
from django_taskq.steps import LinkKind

_LOOKS = {
    WorkflowStatus.RUNNING: "running",
    WorkflowStatus.SUCCESSFUL: "successful",
    WorkflowStatus.FAILED: "failed",
    WorkflowStatus.CANCELLED: "cancelled",
}


def workflow_look(workflow: Workflow) -> words.Look:
    """How a workflow's status is shown."""
    if workflow.finished_at is None and workflow.cancel_requested_at is not None:
        return words.Look("running", _("Being cancelled"))
    status = WorkflowStatus(workflow.status)
    return words.Look(_LOOKS[status], str(status.label).capitalize())


def title(workflow: Workflow) -> str:
    """Its name on a page; many have none of their own."""
    return words.one_line(workflow.name) or _("without a name")


def took(workflow: Workflow) -> float:
    """Seconds from its start to its end, or to now."""
    return max(0.0, ((workflow.finished_at or timezone.now()) - workflow.enqueued_at).total_seconds())


def ended(counts: Counts) -> int:
    """How many steps have ended."""
    return sum(count for status, count in counts.items() if status in FINAL)


def bar(workflow: Workflow, counts: Counts) -> str:
    """How far it is, as a bar and in words. The bar is an element with a value: a width would be a style."""
    done = ended(counts)
    text = _("%(done)s of %(total)s") % {"done": f"{done:,}", "total": f"{workflow.size:,}"}
    failed = counts.get(Status.FAILED, 0)
    note = ngettext("%(n)s failed", "%(n)s failed", failed) % {"n": f"{failed:,}"} if failed else ""
    return format_html(
        '<span class="tq-progress"><progress max="{}" value="{}" aria-label="{}"></progress>'
        '<span class="tq-done">{}</span>{}</span>',
        max(workflow.size, 1),
        min(done, workflow.size) if workflow.size else 1,
        text,
        text,
        format_html('<span class="tq-failed">{}</span>', note) if note else "",
    )


def step_name(record: TaskRecord) -> str:
    """A step as others are told of it: by its label, where it has one."""
    label = words.one_line(label_of(record))
    name = words.one_line(record.name)
    return f"{label} ({name})" if label else name


def waits_for(awaited: Awaited, url_of: Callable[[UUID], str] | None = None) -> str:
    """What stands in the way of a step, as a sentence; with a link to the other where there is an address."""
    sentences = {
        LinkKind.SUCCESS: _("It waits for the success of {step} ({status})."),
        LinkKind.END: _("It waits for the end of {step} ({status}), whatever becomes of it."),
        LinkKind.FAILURE: _("It is called when {step} ({status}) fails."),
    }
    parent = awaited.parent
    step = format_html("<bdi>{}</bdi>", step_name(parent))
    if url_of is not None:
        step = format_html('<a href="{}">{}</a>', url_of(parent.pk), step)
    said = format_html(sentences[awaited.kind], step=step, status=words.status_look(parent).word)
    if not awaited.has_more:
        return said
    others = _("Or another one.") if awaited.kind is LinkKind.FAILURE else _("Others may follow.")
    return format_html("{} {}", said, others)


def reason(record: TaskRecord, *, sees_payload: bool) -> str:
    """Why a step ended as it did; an error's message only for those who may see arguments."""
    return words.one_line(record.reason) if sees_payload else words.reason_class(record.reason)


def step(record: TaskRecord, *, sees_payload: bool) -> dict[str, Any]:
    """A line of a table of steps."""
    return {
        "id": record.pk,
        "badge": words.badge(words.status_look(record)),
        "label": words.one_line(label_of(record)),
        "name": words.one_line(record.name),
        "queue": words.one_line(record.queue_name),
        "attempt": record.attempt,
        "started": words.moment(record.started_at),
        "finished": words.moment(record.finished_at),
        "ran": words.duration(words.ran(record)),
        "reason": reason(record, sees_payload=sees_payload),
        "is_final": record.is_final,
    }
