"""Background tasks for Django: ``@task``, and everything behind it."""

from django_taskq.arguments import injected
from django_taskq.context import current_task
from django_taskq.resources import resource
from django_taskq.result import TaskResult
from django_taskq.schedules import crontab, every, once, solar
from django_taskq.task import Task, task

__version__ = "0.1.0"
__all__ = [
    "Task",
    "TaskResult",
    "__version__",
    "crontab",
    "current_task",
    "every",
    "injected",
    "once",
    "resource",
    "solar",
    "task",
]
