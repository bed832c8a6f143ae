"""``TaskRecord``, the one row of a run, and ``TaskAttempt``, the errors of its failed attempts.

The row is the result store, the schedule of delayed work and, on the database broker, the queue itself. Partial
indexes keep history from costing the queue anything; every index here costs each run a write, so a new one wants a
measurement. The hot statements (insert, claim, finish, release) stand in ``brokers/database``; the verbs here are the
rare ones, in plain ORM.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, ClassVar

from django.db import models
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Coalesce
from django.utils.translation import gettext_lazy as _

from django_taskq import serializers
from django_taskq.conflicts import persist
from django_taskq.gates import AT_GATE, GATED
from django_taskq.message import Headers
from django_taskq.models.clock import database_now
from django_taskq.models.outbox import publication
from django_taskq.models.payload import WithPayload
from django_taskq.status import FINAL, PENDING, Status


class TaskQuerySet(models.QuerySet["TaskRecord"]):
    """What may be asked of, and done to, recorded runs."""

    def finished(self) -> TaskQuerySet:
        """Runs with a final status."""
        return self.filter(finished_at__isnull=False)

    def due(self) -> TaskQuerySet:
        """Delayed runs whose time has come, by the database's clock."""
        return self.filter(status=Status.SCHEDULED, run_after__lte=database_now(self.db))

    def held_by(self, process_ids: list[int]) -> TaskQuerySet:
        """Runs that these worker processes have claimed."""
        return self.filter(status=Status.RUNNING, worker_id__in=process_ids)

    def cancel(self, reason: str = "TaskCancelled") -> int:
        """Cancel what waits, and mark what is claimed; returns how many runs that reached.

        A marked run honours it when it is given back or wants a retry. One statement, so that a run which is
        claimed or given back at this moment is either cancelled or marked, never missed.
        """
        now = database_now(self.db)
        waits = Q(status__in=PENDING)
        chosen = self.filter(waits | Q(status=Status.RUNNING), cancel_requested_at=None)
        changes = {
            "cancel_requested_at": now,
            "status": Case(When(waits, then=Value(Status.CANCELLED, models.CharField())), default=F("status")),
            "finished_at": Case(When(waits, then=now), default=F("finished_at")),
            "reason": Case(When(waits, then=Value(reason, models.TextField())), default=F("reason")),
        }
        return persist(self.db, lambda: chosen.update(**changes))

    def retry(self) -> int:
        """Give FAILED and CANCELLED runs another attempt, at once; their history stays. Returns how many.

        Those with gates wait there: the caller puts them at these.
        """
        again: dict[str, Any] = {
            "status": _gated_or(Status.WAITING, Status.READY, models.CharField()),
            "waits_at": _gated_or(AT_GATE, None, models.IntegerField()),
            **publication(self.db, unless=Q(headers__contains=GATED)),
            "attempt": Case(When(status=Status.FAILED, then=F("attempt") + 1), default=F("attempt")),
            "crashes": 0,
            "is_suspect": False,
            "reason": "",
        }
        fields = ("worker", "claim", "run_after", "expires_at", "started_at", "finished_at", "cancel_requested_at")
        again |= dict.fromkeys((*fields, "result"))
        ended = self.filter(status__in=(Status.FAILED, Status.CANCELLED))
        return persist(self.db, lambda: ended.update(**again))

    def prunable(self, results_before: datetime | None, failures_before: datetime | None) -> TaskQuerySet:
        """Finished runs past their retention; None keeps that kind for ever. Steps go with their workflows."""
        old = Q(pk__in=[])
        if results_before is not None:
            old |= Q(finished_at__lt=results_before) & ~Q(status=Status.FAILED)
        if failures_before is not None:
            old |= Q(finished_at__lt=failures_before, status=Status.FAILED)
        return self.filter(old, finished_at__isnull=False, workflow__isnull=True)


def _gated_or(gated: Any, other: Any, field: models.Field[Any, Any]) -> Case:
    """One value for runs with gates, another for all others."""
    return Case(When(headers__contains=GATED, then=Value(gated, field)), default=Value(other, field))


class TaskRecord(WithPayload, models.Model):
    """One run, from the moment it is enqueued."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(_("task"), max_length=255)
    queue_name = models.CharField(_("queue"), max_length=100)
    priority = models.SmallIntegerField(_("priority"), db_default=0)
    status = models.CharField(_("status"), max_length=10, choices=Status.choices)
    payload = models.TextField(_("arguments"))
    headers = models.TextField(null=True, editable=False)  # noqa: DJ001 - NULL costs a hot row nothing
    run_after = models.DateTimeField(_("not before"), null=True)
    expires_at = models.DateTimeField(_("not after"), null=True)
    enqueued_at = models.DateTimeField(_("enqueued at"))
    started_at = models.DateTimeField(_("started at"), null=True)
    finished_at = models.DateTimeField(_("finished at"), null=True)
    cancel_requested_at = models.DateTimeField(_("cancellation requested at"), null=True)
    # Plain integers: "positive" ones are a check constraint more on every write.
    attempt = models.IntegerField(_("attempt"), db_default=1)
    crashes = models.SmallIntegerField(_("crashes"), db_default=0)
    is_suspect = models.BooleanField(editable=False, db_default=False)
    # No constraint: a foreign key check on every claim, and a lock on the process's row, would buy nothing.
    worker = models.ForeignKey(
        "django_taskq.WorkerProcess",
        verbose_name=_("worker"),
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        null=True,
        related_name="+",
    )
    claim = models.BigIntegerField(null=True, editable=False)
    # Waits to be handed to its queue's depot, and may be from then on; see models/outbox.py.
    publish_after = models.DateTimeField(null=True, editable=False)
    parent_id = models.UUIDField(_("copied from"), null=True, editable=False)
    # No constraint, for the same reason as the worker's. Of a WAITING step: the link it waits for, all before it hold.
    workflow = models.ForeignKey(
        "django_taskq.Workflow",
        verbose_name=_("workflow"),
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        null=True,
        related_name="steps",
    )
    waits_at = models.IntegerField(null=True, editable=False)
    # Its place in the line where that is not its id's: of a run that had to wait for a limit, since it need not.
    place = models.UUIDField(null=True, editable=False)
    result = models.TextField(_("result"), null=True)  # noqa: DJ001 - NULL is "none stored"
    reason = models.TextField(_("reason"), db_default="")

    objects: ClassVar = TaskQuerySet.as_manager()

    class Meta:
        db_table = "taskq_task"
        verbose_name = _("task record")
        verbose_name_plural = _("task records")
        permissions = [
            ("retry_taskrecord", "Can retry task records"),
            ("run_taskrecord", "Can run tasks again"),
            ("cancel_taskrecord", "Can cancel task records"),
            ("view_payload", "Can view arguments, results and tracebacks"),
            ("replay_deadletter", "Can replay dead letters"),
            ("discard_deadletter", "Can discard dead letters"),
        ]
        indexes = [
            models.Index(
                F("queue_name"),
                F("priority").desc(),
                Coalesce("place", "id"),
                name="taskq_line",
                condition=Q(status="READY"),
            ),
            models.Index(
                F("queue_name"),
                F("priority").desc(),
                Coalesce("place", "id"),
                name="taskq_at_gate",
                condition=Q(status="WAITING", waits_at=AT_GATE),
            ),
            models.Index(fields=["run_after"], name="taskq_due", condition=Q(status="SCHEDULED")),
            models.Index(fields=["worker", "claim"], name="taskq_claimed", condition=Q(status="RUNNING")),
            models.Index(fields=["finished_at"], name="taskq_finished", condition=Q(finished_at__isnull=False)),
            models.Index(fields=["name", "id"], name="taskq_failed", condition=Q(status="FAILED")),
            models.Index(
                fields=["publish_after"],
                name="taskq_outbox",
                condition=Q(status="READY", publish_after__isnull=False),
            ),
            models.Index(fields=["parent_id"], name="taskq_copies", condition=Q(parent_id__isnull=False)),
            models.Index(fields=["workflow", "status"], name="taskq_steps", condition=Q(workflow__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.id}"

    @property
    def return_value(self) -> Any:
        """What the task returned; None when nothing was stored."""
        return None if self.result is None else serializers.loads(self.result)

    @property
    def shown_status(self) -> Status:
        """The status as users know it: a claimed run that has not begun is still READY."""
        if self.status == Status.RUNNING and self.started_at is None:
            return Status.READY
        return Status(self.status)

    @property
    def is_final(self) -> bool:
        """Whether the run has ended for good."""
        return self.status in FINAL

    @property
    def headers_read(self) -> Headers:
        """What this call changed."""
        return Headers.loads(self.headers)


class AttemptKind(models.TextChoices):
    """How an attempt ended badly."""

    RETRIED = "RETRIED", _("retried")
    FAILED = "FAILED", _("failed")
    CRASHED = "CRASHED", _("crashed")


class TaskAttempt(models.Model):
    """An attempt that did not succeed, with its error; kept apart so that long texts stay out of the hot row."""

    task = models.ForeignKey(TaskRecord, on_delete=models.CASCADE, related_name="attempt_set", verbose_name=_("task"))
    attempt = models.PositiveIntegerField(_("attempt"))
    kind = models.CharField(_("kind"), max_length=10, choices=AttemptKind.choices)
    worker = models.CharField(_("worker"), max_length=300, blank=True)
    started_at = models.DateTimeField(_("started at"), null=True)
    finished_at = models.DateTimeField(_("finished at"))
    class_path = models.CharField(_("error class"), max_length=255)
    message = models.TextField(_("message"), blank=True)
    traceback = models.TextField(_("traceback"), blank=True)

    class Meta:
        db_table = "taskq_attempt"
        ordering = ["id"]
        verbose_name = _("failed attempt")
        verbose_name_plural = _("failed attempts")

    def __str__(self) -> str:
        return f"{self.class_path} ({self.get_kind_display()})"
