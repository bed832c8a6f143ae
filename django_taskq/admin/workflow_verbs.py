"""What a person may do to a workflow, in words. Who may is not decided here (:mod:`django_taskq.admin.workflows`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy, ngettext

from django_taskq.models import Workflow
from django_taskq.models.workflow_steps import Counts
from django_taskq.status import Status
from django_taskq.workflow_result import WorkflowResult

FROM_STEP = "resume-from"


@dataclass(frozen=True, slots=True)
class WorkflowVerb:
    """A verb with its words. ``perform`` takes the workflow's handle and the id of a step, which most do not need."""

    name: str
    permission: str
    label: Any
    help: Any
    perform: Callable[[WorkflowResult, str], int]
    done: Callable[[int], str]
    allows: Callable[[Workflow, Counts], bool]


def _may_cancel(workflow: Workflow, counts: Counts) -> bool:
    return workflow.finished_at is None and workflow.cancel_requested_at is None


def _may_resume(workflow: Workflow, counts: Counts) -> bool:
    # What was not needed is CANCELLED too, so that alone says nothing about a workflow that was successful.
    return workflow.status in ("FAILED", "CANCELLED") or counts.get(Status.FAILED, 0) > 0


def _may_retry(workflow: Workflow, counts: Counts) -> bool:
    return counts.get(Status.FAILED, 0) > 0


def _again(n: int) -> str:
    return ngettext("%(n)s step is to run again.", "%(n)s steps are to run again.", n) % {"n": f"{n:,}"}


def _cancelled(n: int) -> str:
    text = ngettext(
        "%(n)s step was cancelled, or is being stopped where it runs.",
        "%(n)s steps were cancelled, or are being stopped where they run.",
        n,
    )
    return text % {"n": f"{n:,}"}


def _verbs() -> Iterable[WorkflowVerb]:
    yield WorkflowVerb(
        "cancel",
        "cancel_workflow",
        gettext_lazy("Cancel"),
        gettext_lazy("What has not started will not run. What runs is stopped. What has ended stays as it is."),
        lambda result, step: result.cancel(),
        _cancelled,
        _may_cancel,
    )
    yield WorkflowVerb(
        "retry",
        "resume_workflow",
        gettext_lazy("Retry failed"),
        gettext_lazy("What failed runs again, and then what was cancelled because of it."),
        lambda result, step: result.retry_failed(),
        _again,
        _may_retry,
    )
    yield WorkflowVerb(
        "resume",
        "resume_workflow",
        gettext_lazy("Resume"),
        gettext_lazy("All that failed or was cancelled runs again, in its order. What was successful stays."),
        lambda result, step: result.resume(),
        _again,
        _may_resume,
    )
    yield WorkflowVerb(
        FROM_STEP,
        "resume_workflow",
        gettext_lazy("Resume from here"),
        gettext_lazy("This step and all that comes after it run again, whatever became of them."),
        lambda result, step: result.resume_from(step),
        _again,
        lambda workflow, counts: True,
    )


WORKFLOW_VERBS = {verb.name: verb for verb in _verbs()}
