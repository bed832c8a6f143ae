"""What a task class may do around its runs; a class that overrides none of it pays nothing."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from django_taskq.exceptions import InvalidHook

if TYPE_CHECKING:
    from django_taskq.context import TaskContext
    from django_taskq.status import Status


class TaskHooks:
    """Called in the slot, with ``current_task``, the language and the time zone of the run.

    An error in ``before_start`` is the run's own, as if the task had raised it. An error in another hook is logged and
    changes nothing: the outcome is decided by then, though not recorded yet.
    """

    def before_start(self, context: TaskContext) -> None:
        """Right before the call, at each attempt."""

    def on_success(self, context: TaskContext, value: Any) -> None:
        """The task has returned ``value``."""

    def on_retry(self, context: TaskContext, error: BaseException) -> None:
        """Another attempt follows, because of ``error``."""

    def on_failure(self, context: TaskContext, error: BaseException) -> None:
        """The run ends FAILED with ``error``."""

    def after_return(self, context: TaskContext, status: Status, result: Any) -> None:
        """After ``on_success`` or ``on_failure``: ``result`` is the value or the error. Not before another attempt."""


NAMES = [name for name in vars(TaskHooks) if not name.startswith("_")]


def overridden(cls: type) -> frozenset[str]:
    """The hooks that a task class has of its own. Raises :exc:`InvalidHook` for one that could not be called."""
    found = frozenset(name for name in NAMES if getattr(cls, name) is not getattr(TaskHooks, name))
    for name in found:
        hook = getattr(cls, name)
        if inspect.iscoroutinefunction(hook):
            where = f"{cls.__module__}.{cls.__qualname__}.{name}"
            raise InvalidHook(f"{where} is a coroutine function, and hooks are called plainly: make it a plain one.")
    return found
