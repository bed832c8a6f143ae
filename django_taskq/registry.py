"""The tasks this process knows, by name. Runs are looked up here and nowhere else: a message never names an import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_taskq.exceptions import InvalidTask

if TYPE_CHECKING:
    from django_taskq.task import Task

_tasks: dict[str, Task[Any, Any]] = {}


def register(task: Task[Any, Any]) -> None:
    """Make a task known. Raises :exc:`InvalidTask` when another function has its name already."""
    known = _tasks.get(task.name)
    # The same module executed twice (a reload, __mp_main__) defines the same task again: the newer one counts.
    if known is not None and known.origin != task.origin:
        raise InvalidTask(
            f"two tasks are named {task.name!r}: {known.origin} and {task.origin}. Give one another name: "
            f"@task(name=...)."
        )
    _tasks[task.name] = task


def find(name: str) -> Task[Any, Any] | None:
    """The task of this name, or None."""
    return _tasks.get(name)


def all_tasks() -> list[Task[Any, Any]]:
    """Every registered task, by name."""
    return [_tasks[name] for name in sorted(_tasks)]


def queue_names() -> set[str]:
    """The queues that registered tasks name."""
    return {task.options.queue_name for task in _tasks.values()}
