"""``Workflow``, a plan that runs, and ``WorkflowLink``, which step waits for which.

The steps are ordinary :class:`~django_taskq.models.task.TaskRecord` rows. A link's child is a step, or the workflow
itself: what the workflow's own links name are its results.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from django_taskq.steps import LinkKind


class WorkflowStatus(models.TextChoices):
    """How far a workflow is."""

    RUNNING = "RUNNING", _("running")
    SUCCESSFUL = "SUCCESSFUL", _("successful")
    FAILED = "FAILED", _("failed")
    CANCELLED = "CANCELLED", _("cancelled")


class WorkflowQuerySet(models.QuerySet["Workflow"]):
    """What may be asked of workflows."""

    def unfinished(self) -> WorkflowQuerySet:
        """Those with steps that have not ended."""
        return self.filter(finished_at=None)

    def prunable(self, results_before: datetime | None, failures_before: datetime | None) -> WorkflowQuerySet:
        """Finished ones past their retention; None keeps that kind for ever."""
        old = Q(pk__in=[])
        if results_before is not None:
            old |= Q(finished_at__lt=results_before) & ~Q(status=WorkflowStatus.FAILED)
        if failures_before is not None:
            old |= Q(finished_at__lt=failures_before, status=WorkflowStatus.FAILED)
        return self.filter(old, finished_at__isnull=False)


class Workflow(models.Model):
    """One plan, from its start to the end of its last step."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(_("workflow"), max_length=255)
    status = models.CharField(_("status"), max_length=10, choices=WorkflowStatus.choices, default="RUNNING")
    size = models.IntegerField(_("steps"))
    # What it yields while it has no links of its own: JSON text.
    constant = models.TextField(null=True, editable=False)  # noqa: DJ001 - NULL is "it has links"
    enqueued_at = models.DateTimeField(_("enqueued at"))
    expires_at = models.DateTimeField(_("not after"), null=True)
    finished_at = models.DateTimeField(_("finished at"), null=True)
    cancel_requested_at = models.DateTimeField(_("cancellation requested at"), null=True)
    reason = models.TextField(_("reason"), blank=True, default="")

    objects: ClassVar = WorkflowQuerySet.as_manager()

    class Meta:
        db_table = "taskq_workflow"
        verbose_name = _("workflow")
        verbose_name_plural = _("workflows")
        default_permissions = ("view",)
        permissions = [("cancel_workflow", "Can cancel workflows"), ("resume_workflow", "Can resume workflows")]
        indexes = [
            models.Index(fields=["id"], name="taskq_workflow_running", condition=Q(finished_at__isnull=True)),
            models.Index(fields=["finished_at"], name="taskq_workflow_finished"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.id}"


class WorkflowLink(models.Model):
    """One child waits for one parent; see :class:`~django_taskq.steps.Link`."""

    # A row of its own number would be an index more on every link.
    pk = models.CompositePrimaryKey("child_id", "position")
    child_id = models.UUIDField()
    position = models.IntegerField()
    parent_id = models.UUIDField(db_index=True)
    kind = models.SmallIntegerField(choices=[(kind.value, kind.name) for kind in LinkKind])
    opens = models.SmallIntegerField()
    closes = models.SmallIntegerField()
    carries = models.BooleanField()

    class Meta:
        db_table = "taskq_link"
        default_permissions = ()
        verbose_name = _("link of a workflow")
        verbose_name_plural = _("links of workflows")

    def __str__(self) -> str:
        return f"{self.child_id} waits for {self.parent_id}"
