"""The rows: one per run, one per failed attempt, the registry of workers and their orders, and the schedules."""

from django_taskq.models.command import Command, CommandReply
from django_taskq.models.flow import Limit, Permit, UniqueKey
from django_taskq.models.queue import Queue, TaskLimits
from django_taskq.models.schedule import PeriodicTask, SchedulerLease, ScheduleTick
from django_taskq.models.task import TaskAttempt, TaskRecord
from django_taskq.models.worker import Worker, WorkerProcess
from django_taskq.models.workflow import Workflow, WorkflowLink

__all__ = [
    "Command",
    "CommandReply",
    "Limit",
    "PeriodicTask",
    "Permit",
    "Queue",
    "ScheduleTick",
    "SchedulerLease",
    "TaskAttempt",
    "TaskLimits",
    "TaskRecord",
    "UniqueKey",
    "Worker",
    "WorkerProcess",
    "Workflow",
    "WorkflowLink",
]
