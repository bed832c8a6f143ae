"""What is stored about queues and tasks besides their runs: what is paused, and limits set while workers run."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_taskq.models.clock import database_now


class QueueQuerySet(models.QuerySet["Queue"]):
    """What may be asked of queues."""

    def paused(self) -> QueueQuerySet:
        """Those of which nothing is to be started."""
        return self.filter(paused_at__isnull=False)

    def pause(self, name: str, *, by: str, reason: str) -> None:
        """Have nothing of it started from now on; what it said before about a pause is replaced."""
        paused = Queue(name=name, paused_at=database_now(self.db), paused_by=by[:300], reason=reason[:500])
        changed = ["paused_at", "paused_by", "reason"]
        self.bulk_create([paused], update_conflicts=True, unique_fields=["name"], update_fields=changed)

    def resume(self, name: str) -> bool:
        """Have it served again; whether it was paused."""
        return bool(self.paused().filter(name=name).update(paused_at=None, paused_by="", reason=""))


class TaskLimitsQuerySet(models.QuerySet["TaskLimits"]):
    """What may be done to limits."""

    def put(self, task_name: str, soft: float | None, hard: float | None, *, by: str) -> None:
        """Set both limits of a task, in seconds; with neither, its options hold again."""
        if soft is None and hard is None:
            self.filter(task_name=task_name).delete()
            return
        limits = TaskLimits(
            task_name=task_name,
            soft_time_limit=soft,
            time_limit=hard,
            set_by=by[:300],
            set_at=database_now(self.db),
        )
        changed = ["soft_time_limit", "time_limit", "set_by", "set_at"]
        self.bulk_create([limits], update_conflicts=True, unique_fields=["task_name"], update_fields=changed)


class Queue(models.Model):
    """A queue about which there is something to remember; one without a row is not paused.

    Claims of database queues look here themselves, in the statement that claims.
    """

    name = models.CharField(_("queue"), max_length=100, unique=True)
    paused_at = models.DateTimeField(_("paused at"), null=True)
    paused_by = models.CharField(_("paused by"), max_length=300, blank=True)
    reason = models.CharField(_("reason"), max_length=500, blank=True)

    objects: ClassVar = QueueQuerySet.as_manager()

    class Meta:
        db_table = "taskq_queue"
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        default_permissions = ("view",)
        permissions = [("pause_queue", "Can pause and resume queues")]

    def __str__(self) -> str:
        return self.name


class TaskLimits(models.Model):
    """Time limits of a task, in seconds, that hold instead of those of its options; NULL leaves it to the options."""

    task_name = models.CharField(_("task"), max_length=255, unique=True)
    soft_time_limit = models.FloatField(_("soft time limit"), null=True)
    time_limit = models.FloatField(_("time limit"), null=True)
    set_by = models.CharField(_("set by"), max_length=300, blank=True)
    set_at = models.DateTimeField(_("set at"))

    objects: ClassVar = TaskLimitsQuerySet.as_manager()

    class Meta:
        db_table = "taskq_task_limits"
        verbose_name = _("limits of a task")
        verbose_name_plural = _("limits of tasks")
        default_permissions = ("view",)
        permissions = [("set_limits", "Can set the time limits of tasks")]

    def __str__(self) -> str:
        return self.task_name
