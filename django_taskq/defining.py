"""What ``@task`` makes of what it decorates: an instance of ``Task``, or of a subclass of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from django_taskq.exceptions import InvalidTask


def make(task_class: Any, target: Any, given: Mapping[str, Any]) -> Any:
    """The task of a function or of a class. ``task_class`` is ``Task``. Raises :exc:`InvalidTask`."""
    if isinstance(target, type):
        return _from_class(task_class, target, given)
    return _from_function(_base(task_class, given.get("base")), target, given)


def _base(task_class: Any, base: Any) -> Any:
    if base is None:
        return task_class
    if not isinstance(base, type) or not issubclass(base, task_class) or hasattr(base, "run"):
        raise InvalidTask(f"@task(base={base!r}) is not usable: it takes a subclass of Task without a run() method.")
    return base


def _from_function(base: Any, function: Any, given: Mapping[str, Any]) -> Any:
    if not inspect.isfunction(function):
        raise InvalidTask(f"@task decorates functions and Task subclasses, not {function!r}.")
    if "<locals>" in function.__qualname__ and not given.get("name"):
        raise InvalidTask(
            f"{function.__module__}.{function.__qualname__} is defined inside a function, where no worker finds it: "
            f"move it to module level, or give it a name with @task(name=...)."
        )
    return base(function, given)


def _from_class(task_class: Any, cls: Any, given: Mapping[str, Any]) -> Any:
    if not issubclass(cls, task_class) or not callable(getattr(cls, "run", None)):
        raise InvalidTask(f"{cls.__qualname__}: a task class is a subclass of Task with a run() method.")
    for option in ("bind", "takes_context"):
        if given.get(option):
            raise InvalidTask(f"{cls.__qualname__}: {option} is for functions; run() has self, and self.request.")
    if given.get("base"):
        raise InvalidTask(f"{cls.__qualname__}: base is for functions; a class has its own.")
    made = cls.__new__(cls)
    task_class.__init__(made, made.run, given, defined_by=cls)
    return made
