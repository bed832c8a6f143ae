"""The tasks this process knows, by name. Runs are looked up here and nowhere else: a message never names an import."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

from django_taskq.exceptions import InvalidTask
from django_taskq.message import Message, Outcome

if TYPE_CHECKING:
    from django_taskq.task import Task

_tasks: dict[str, Task[Any, Any]] = {}


class Watcher(Protocol):
    """Told of a task's runs as they go: how the tasks of another framework send that framework's signals."""

    def enqueued(self, message: Message) -> None:
        """The row is written."""

    def concluded(self, outcome: Outcome) -> None:
        """The outcome of an attempt is written."""


class Source(Protocol):
    """Where else tasks may come from: a framework of its own, such as ``django.tasks``."""

    def find(self, name: str) -> Task[Any, Any] | None:
        """A loaded task that is not registered, or None."""

    def queue_names(self) -> Collection[str]:
        """The queues that the framework's own settings declare."""


_sources: list[Source] = []
# So that runs of a project without such tasks are not asked one by one.
_is_watched = False
_is_limited = False
_is_unique = False


def is_watched() -> bool:
    """Whether any task has a watcher."""
    return _is_watched


def is_limited() -> bool:
    """Whether anything holds back the runs of any task."""
    return _is_limited


def is_unique() -> bool:
    """Whether any task has calls of which one run is enough."""
    return _is_unique


def add_source(source: Source) -> None:
    """Ask this one as well from now on."""
    _sources.append(source)


def register(task: Task[Any, Any]) -> None:
    """Make a task known. Raises :exc:`InvalidTask` when another function has its name already."""
    global _is_watched, _is_limited, _is_unique
    _is_watched = _is_watched or task.watcher is not None
    uniqueness = task.uniqueness
    _is_unique = _is_unique or uniqueness is not None
    _is_limited = _is_limited or task.flow is not None or (uniqueness is not None and uniqueness.rule.wants_latest)
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
    task = _tasks.get(name)
    if task is None:
        for source in _sources:
            task = task or source.find(name)
    return task


def is_batch(name: str) -> bool:
    """Whether the calls of this task come in batches; False for one that is not known here."""
    task = _tasks.get(name)
    return task is not None and task.options.batch_size is not None


def batch_names() -> list[str]:
    """The tasks whose calls come in batches."""
    return [name for name, task in _tasks.items() if task.options.batch_size is not None]


def all_tasks() -> list[Task[Any, Any]]:
    """Every registered task, by name."""
    return [_tasks[name] for name in sorted(_tasks)]


def queue_names() -> set[str]:
    """The queues that registered tasks name, and those that other sources of tasks declare."""
    names = {task.options.queue_name for task in _tasks.values()}
    return names.union(*(source.queue_names() for source in _sources))
