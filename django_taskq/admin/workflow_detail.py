"""What the page of one workflow shows: bounded, however many steps it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_taskq.admin import words, workflow_words
from django_taskq.models import Workflow
from django_taskq.models.workflow_steps import Counts, awaited_by, first_failures, page_of_steps
from django_taskq.status import Status

SHOWN_STEPS, SHOWN_FAILURES = 50, 10
TABS: dict[str, tuple[Any, Status]] = {
    "waiting": (gettext_lazy("Waiting"), Status.WAITING),
    "ready": (gettext_lazy("Ready"), Status.READY),
    "scheduled": (gettext_lazy("Scheduled"), Status.SCHEDULED),
    "running": (gettext_lazy("Running"), Status.RUNNING),
    "successful": (gettext_lazy("Successful"), Status.SUCCESSFUL),
    "failed": (gettext_lazy("Failed"), Status.FAILED),
    "cancelled": (gettext_lazy("Cancelled"), Status.CANCELLED),
}


def workflow_context(
    workflow: Workflow,
    counts: Counts,
    *,
    tab: str,
    after: UUID | None,
    sees_payload: bool,
    url_of: Callable[[UUID], str] | None,
) -> dict[str, Any]:
    """Everything the template needs. ``tab`` is a key of :data:`TABS`, or "" for all steps.

    ``url_of`` gives the page of a run, None to those who may not see it.
    """
    using = workflow._state.db or "default"
    status = TABS[tab][1] if tab else None
    page = page_of_steps(using, workflow, SHOWN_STEPS, counts=counts, status=status, after=after)
    awaited = awaited_by(using, page.steps)
    steps = []
    for record in page.steps:
        shown = workflow_words.step(record, sees_payload=sees_payload)
        found = awaited.get(record.pk)
        steps.append(shown | {"waits_for": workflow_words.waits_for(found, url_of) if found else ""})
    failed = counts.get(Status.FAILED, 0)
    failures = first_failures(using, workflow, SHOWN_FAILURES) if failed and tab != "failed" else []
    return {
        "original": workflow,
        "badge": words.badge(workflow_words.workflow_look(workflow)),
        "workflow_name": workflow_words.title(workflow),
        "bar": workflow_words.bar(workflow, counts),
        "reason": words.one_line(workflow.reason) if sees_payload else words.reason_class(workflow.reason),
        "facts": _facts(workflow),
        "tabs": _tabs(workflow, counts, tab),
        "tab": tab,
        "steps": steps,
        "is_first": after is None,
        "further": page.further,
        "is_cut": page.is_cut,
        "failures": [workflow_words.step(record, sees_payload=sees_payload) for record in failures],
        "more_failures": failed - len(failures) if failures else 0,
    }


def _facts(workflow: Workflow) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [
        (_("Started"), words.moment(workflow.enqueued_at)),
        (_("Finished"), words.moment(workflow.finished_at)),
        (_("Took"), words.duration(workflow_words.took(workflow))),
        (_("Steps"), f"{workflow.size:,}"),
    ]
    if workflow.expires_at is not None:
        facts.append((_("Not after"), words.moment(workflow.expires_at)))
    if workflow.cancel_requested_at is not None:
        facts.append((_("Cancellation asked for"), words.moment(workflow.cancel_requested_at)))
    return facts


def _tabs(workflow: Workflow, counts: Counts, current: str) -> list[dict[str, Any]]:
    """All, and every status that steps have or that is looked at."""
    found = [{"key": "", "word": _("All"), "count": f"{workflow.size:,}", "is_current": not current}]
    for key, (word, status) in TABS.items():
        count = counts.get(status, 0)
        if count or key == current:
            found.append({"key": key, "word": word, "count": f"{count:,}", "is_current": key == current})
    return found
