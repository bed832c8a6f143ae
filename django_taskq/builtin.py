"""The package's own tasks, of which workflows are built. Every process knows them; lists show the project's alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from asgiref.sync import async_to_sync

from django_taskq import defining, registry
from django_taskq.compiling import find_task
from django_taskq.composing import GATHER
from django_taskq.task import Task
from django_taskq.task_signatures import MAP, STARMAP


def gather(value: Any = None) -> Any:
    """Hand on what came in: one step between the many that end and the many that begin."""
    return value


def map_items(name: str, items: Sequence[Any]) -> list[Any]:
    """Call the task of this name for each item."""
    call = _calling(name)
    return [call(item) for item in items]


def starmap_items(name: str, items: Sequence[Sequence[Any]]) -> list[Any]:
    """Call the task of this name with the arguments in each item."""
    call = _calling(name)
    return [call(*item) for item in items]


def _calling(name: str) -> Callable[..., Any]:
    task = find_task(name)
    if not task.is_async:
        return task

    async def call(*args: Any) -> Any:
        return await task(*args)

    return async_to_sync(call)


class Builtin:
    """A source of tasks beside the registry, so that ``all_tasks()`` is what the project has."""

    def __init__(self, functions: dict[str, Callable[..., Any]]) -> None:
        self._tasks: dict[str, Task[Any, Any]] = {
            name: defining.make(Task, function, {"name": name}) for name, function in functions.items()
        }

    def find(self, name: str) -> Task[Any, Any] | None:
        """The builtin task of this name, or None."""
        return self._tasks.get(name)

    def queue_names(self) -> Collection[str]:
        """None but the default queue, which is known anyway."""
        return ()


registry.add_source(Builtin({GATHER: gather, MAP: map_items, STARMAP: starmap_items}))
