"""The rows: one per run, one per failed attempt, the registry of workers, and the schedules."""

from django_taskq.models.schedule import PeriodicTask, SchedulerLease, ScheduleTick
from django_taskq.models.task import TaskAttempt, TaskRecord
from django_taskq.models.worker import Worker, WorkerProcess

__all__ = ["PeriodicTask", "ScheduleTick", "SchedulerLease", "TaskAttempt", "TaskRecord", "Worker", "WorkerProcess"]
