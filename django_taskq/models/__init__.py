"""The rows: one per run, one per failed attempt, and the registry of workers."""

from django_taskq.models.task import TaskAttempt, TaskRecord
from django_taskq.models.worker import Worker, WorkerProcess

__all__ = ["TaskAttempt", "TaskRecord", "Worker", "WorkerProcess"]
