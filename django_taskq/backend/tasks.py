"""The framework's task with options of ours: what the framework's ``@task`` makes on an alias of ours."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from django.utils.module_loading import import_string

from django_taskq.backend import framework

# What the framework gives its tasks itself; Django 6.0 has no defaults for it.
_OWN = tuple(f.name for f in fields(framework.Task))
_DEFAULTS = {"priority": 0, "backend": "default", "queue_name": "default", "run_after": None, "takes_context": False}


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class TaskqTask(framework.Task):  # type: ignore[type-arg]  # generic in the stubs only
    """``@task(max_retries=5, time_limit=60)``: whatever the framework does not know itself is an option of ours.

    Django 6.0's own decorator takes nothing more; there ``TASKS[alias]["OPTIONS"]`` holds options for a whole alias.
    """

    taskq_options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __init__(self, *, taskq_options: Mapping[str, Any] | None = None, **given: Any) -> None:
        own: dict[str, Any] = _DEFAULTS | {name: given.pop(name) for name in _OWN if name in given}
        object.__setattr__(self, "taskq_options", {**(taskq_options or {}), **given})
        framework.Task.__init__(self, **own)

    def __copy__(self) -> TaskqTask:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskqTask:
        return self  # nothing in it changes, and a copy would be held against the settings of today

    def __reduce__(self) -> Any:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return _unpickle, (values | {"func": self.module_path},)


def _unpickle(values: dict[str, Any]) -> TaskqTask:
    path = values["func"]
    try:
        return TaskqTask(**(values | {"func": import_string(path).func}))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"Expected {path!r} to point to a Task instance.") from error


def restored(task: Any, **changes: Any) -> Any:
    """``task`` as a run has it, validated against nothing: what was enqueued stays readable under any settings."""
    if all(getattr(task, name) == value for name, value in changes.items()):
        return task
    made = object.__new__(type(task))
    for name in (f.name for f in fields(task)):
        object.__setattr__(made, name, changes.get(name, getattr(task, name)))
    return made


def lost(name: str, **values: Any) -> TaskqTask:
    """A task that is no longer there, for the results of its runs."""

    def function(*args: Any, **kwargs: Any) -> Any:
        raise LookupError(f"no task is named {name!r} here")

    function.__module__, _, function.__qualname__ = name.rpartition(".")
    function.__name__ = function.__qualname__
    made = object.__new__(TaskqTask)
    for key, value in (_DEFAULTS | values | {"func": function, "taskq_options": {}}).items():
        object.__setattr__(made, key, value)
    return made


def loaded(path: str) -> Any:
    """What stands under a dotted path in the modules that are loaded, or None. Nothing is imported or called."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:length]))
        if found is None:
            continue
        for name in parts[length:]:
            found = vars(found).get(name) if isinstance(found, (type, type(sys))) else None
        return found.__func__ if isinstance(found, staticmethod) else found
    return None


def is_importable(task: Any) -> bool:
    """Whether a worker that imports the same modules finds this task: its path leads to it, or to its function."""
    found = loaded(task.module_path)
    return found is task.func or isinstance(found, framework.Task)
