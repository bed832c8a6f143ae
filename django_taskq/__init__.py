"""Background tasks for Django: ``@task``, and everything behind it."""

from django_taskq.arguments import injected
from django_taskq.batch_calls import Call
from django_taskq.canvas import chain, chord, group
from django_taskq.context import current_task
from django_taskq.flow_options import Breaker
from django_taskq.graph import Workflow
from django_taskq.resources import resource
from django_taskq.result import TaskResult
from django_taskq.schedules import crontab, every, once, solar
from django_taskq.signatures import Signature, signature
from django_taskq.task import Task, task
from django_taskq.unique_options import Unique

__version__ = "0.1.0"
__all__ = [
    "Breaker",
    "Call",
    "Signature",
    "Task",
    "TaskResult",
    "Unique",
    "Workflow",
    "__version__",
    "chain",
    "chord",
    "crontab",
    "current_task",
    "every",
    "group",
    "injected",
    "once",
    "resource",
    "signature",
    "solar",
    "task",
]
