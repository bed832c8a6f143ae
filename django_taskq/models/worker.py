"""Who is working: the registry in which leases live.

A lease belongs to a worker. Its heartbeat keeps everything its processes hold; when the heartbeat stops for longer
than the lease, other workers give that back (:mod:`django_taskq.maintenance`).
"""

from __future__ import annotations

import re
from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_taskq.models.clock import database_now


class WorkerQuerySet(models.QuerySet["Worker"]):
    """Questions asked of the registry. All times are compared by the database's clock."""

    def online(self) -> WorkerQuerySet:
        """Workers that hold a lease now."""
        return self.filter(stopped_at=None, lease_expires_at__gte=database_now(self.db))

    def lapsed(self) -> WorkerQuerySet:
        """Workers that neither stopped in order nor kept their lease."""
        return self.filter(stopped_at=None, lease_expires_at__lt=database_now(self.db))


class Worker(models.Model):
    """One ``taskworker``: its supervisor's identity and lease.

    (boot id, PID namespace, pid, start time of the process) tell whether it still lives when asked on its own host.
    """

    hostname = models.CharField(_("host name"), max_length=255)
    boot_id = models.CharField(max_length=64, editable=False)
    pid_namespace = models.CharField(max_length=64, editable=False)
    pid = models.PositiveIntegerField(_("process id"))
    pid_started = models.BigIntegerField(editable=False)
    table_path = models.CharField(max_length=255, editable=False)
    queues = models.CharField(_("queues"), max_length=1000, blank=True)
    processes = models.PositiveSmallIntegerField(_("processes"))
    threads = models.PositiveSmallIntegerField(_("threads"))
    # By queue, of all its processes; those that share some name the same ones. NULL from code that did not count them.
    slots = models.JSONField(_("slots"), null=True, editable=False)
    version = models.CharField(_("version"), max_length=32)
    started_at = models.DateTimeField(_("started at"), default=timezone.now)
    heartbeat_at = models.DateTimeField(_("last heartbeat"), default=timezone.now)
    lease_expires_at = models.DateTimeField(_("lease ends at"), db_index=True)
    stopped_at = models.DateTimeField(_("stopped at"), null=True)

    objects: ClassVar = WorkerQuerySet.as_manager()

    class Meta:
        db_table = "taskq_worker"
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return f"{self.hostname}:{self.pid}"

    @property
    def slots_by_queue(self) -> dict[str, int]:
        """How many slots each of its queues has; queues that share slots have the same ones."""
        if self.slots is not None:
            return dict(self.slots)
        # Names with weights (a=3), or with slots of their own (a+b=2), of which processes times threads is the sum.
        names = re.split(r"[,+]", re.sub(r"=\d+", "", self.queues))
        return {name.strip(): self.processes * self.threads for name in names if name.strip()}


class WorkerProcess(models.Model):
    """One child of a worker. Its id is what claims are made under, so it is never used twice."""

    worker = models.ForeignKey(Worker, on_delete=models.CASCADE, related_name="process_set", verbose_name=_("worker"))
    pid = models.PositiveIntegerField(_("process id"), null=True)
    pid_started = models.BigIntegerField(editable=False, null=True)
    started_at = models.DateTimeField(_("started at"), default=timezone.now)
    stopped_at = models.DateTimeField(_("stopped at"), null=True)

    class Meta:
        db_table = "taskq_process"
        verbose_name = _("worker process")
        verbose_name_plural = _("worker processes")

    def __str__(self) -> str:
        return f"{self.worker.hostname}:{self.pid}" if self.pid else f"{self.worker.hostname}#{self.pk}"
