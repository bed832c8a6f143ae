"""The rows in Django's admin: runs and workflows to look at and act on, workers to look at, periodic tasks to set up.

Registered with the default site on autodiscovery; a site of one's own takes :func:`register`.
"""

from __future__ import annotations

from django.contrib import admin
from django.contrib.admin import AdminSite

from django_taskq.admin.flow_limits import LimitAdmin
from django_taskq.admin.limits import TaskLimitsAdmin
from django_taskq.admin.queues import QueueAdmin
from django_taskq.admin.schedules import PeriodicTaskAdmin
from django_taskq.admin.tasks import TaskRecordAdmin
from django_taskq.admin.workers import WorkerAdmin
from django_taskq.admin.workflows import WorkflowAdmin
from django_taskq.models import Limit, PeriodicTask, Queue, TaskLimits, TaskRecord, Worker, Workflow

__all__ = [
    "LimitAdmin",
    "PeriodicTaskAdmin",
    "QueueAdmin",
    "TaskLimitsAdmin",
    "TaskRecordAdmin",
    "WorkerAdmin",
    "WorkflowAdmin",
    "register",
]


def register(site: AdminSite) -> None:
    """Show all of these rows on ``site``; what it shows already stays as it is."""
    if not site.is_registered(TaskRecord):
        site.register(TaskRecord, TaskRecordAdmin)
    if not site.is_registered(Workflow):
        site.register(Workflow, WorkflowAdmin)
    if not site.is_registered(Worker):
        site.register(Worker, WorkerAdmin)
    if not site.is_registered(Queue):
        site.register(Queue, QueueAdmin)
    if not site.is_registered(Limit):
        site.register(Limit, LimitAdmin)
    if not site.is_registered(TaskLimits):
        site.register(TaskLimits, TaskLimitsAdmin)
    if not site.is_registered(PeriodicTask):
        site.register(PeriodicTask, PeriodicTaskAdmin)


register(admin.site)
