"""Calling the hooks of task classes (``class_hooks``) around a run, in the slot, in the context of the run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django_taskq.context import TaskContext
from django_taskq.exceptions import Retry
from django_taskq.message import Action, Outcome
from django_taskq.status import Status

logger = logging.getLogger("django_taskq")

STARTING = "before_start"


def have_after(run: TaskContext) -> bool:
    """Whether the task has hooks that come after the call."""
    return bool(run.task.hooks - {STARTING})


def before(run: TaskContext) -> None:
    """``before_start``; what it raises is the run's error."""
    if STARTING in run.task.hooks:
        run.task.before_start(run)


def after(run: TaskContext, outcome: Outcome) -> None:
    """The hooks that this outcome calls for. They are told of the live value or error."""
    task, value, error = run.task, outcome.value, outcome.exception
    match outcome.action:
        case Action.SUCCESS:
            _call(run, task.on_success, value)
            _call(run, task.after_return, Status.SUCCESSFUL, value)
        case Action.FAILED:
            _call(run, task.on_failure, error)
            _call(run, task.after_return, Status.FAILED, error)
        case Action.RETRY if not outcome.is_snoozed:
            _call(run, task.on_retry, error.cause or error if isinstance(error, Retry) else error)


def _call(run: TaskContext, hook: Callable[..., None], *arguments: Any) -> None:
    if hook.__name__ in run.task.hooks:
        try:
            hook(run, *arguments)
        except BaseException:
            # Also what ends a program: the outcome is decided, and the slot goes on.
            logger.exception("%s of task %s failed; the outcome of run %s stands", hook.__name__, run.name, run.id)
