"""The twin of a framework's task: a task of ours with the same name, which is what workers know and run.

It is made when the framework's task is defined, in pure Python, so that processes that import the ``tasks`` modules
know it like any other task: the admin, schedules and every command work on it. ``using()`` makes more of the
framework's tasks of one function; the twin is one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

from django.core.signals import setting_changed

from django_taskq import context, registry
from django_taskq.backend import aliases, framework, tasks
from django_taskq.backend.values import plain
from django_taskq.exceptions import InvalidArguments, InvalidTask
from django_taskq.message import Headers, Message
from django_taskq.options import TaskOptions
from django_taskq.retry import RetryPolicy
from django_taskq.task import Task


class Sender(registry.Watcher, Protocol):
    """Sends the framework's signals of a twin's runs."""

    def started(self, twin: Twin, run: context.TaskContext) -> Any:
        """An attempt begins; returns the framework's result for it."""


class Twin(Task[Any, Any]):
    """What runs a framework's task here."""

    watcher: Sender

    def __init__(self, framework_task: Any, sender: Sender) -> None:
        self.framework_task = framework_task
        self.watcher = sender
        alias = aliases.get(framework_task.backend)
        super().__init__(framework_task.func, self._given(alias.options))
        # A task of ours with this function would be another one, with other options: two of one name.
        self.origin = f"{self.name} (of the tasks framework)"
        # The classes that options of the alias name are loaded when somebody asks: models are not there yet.
        self.forget_options()

    @cached_property
    def options(self) -> TaskOptions:  # type: ignore[override]
        """The task's own options on top of those of its alias."""
        return TaskOptions.parse(self.name, self._given(aliases.get(self.framework_task.backend).defaults()))

    @cached_property
    def retry_policy(self) -> RetryPolicy:  # type: ignore[override]
        """What its options say about retries."""
        return self.options.retry_policy()

    def forget_options(self) -> None:
        """Work the options out again when they are next asked for."""
        for name in ("options", "retry_policy"):
            self.__dict__.pop(name, None)

    def _given(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        task = self.framework_task
        chosen = getattr(task, "taskq_options", {})
        for name in ("name", "bind"):
            if name in chosen:
                raise InvalidTask(f"{task.module_path}: {name} is an option of django_taskq's own @task only.")
        filled = {"queue_name": task.queue_name, "priority": int(task.priority), "takes_context": task.takes_context}
        return {**defaults, **chosen, **filled}

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        run = context.current_context()
        assert run is not None
        result = self.watcher.started(self, run)
        leading: tuple[Any, ...] = (framework.TaskContext(task_result=result),) if self.options.takes_context else ()
        return plain(self.framework_task.call(*leading, *args, **kwargs))

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        super().check_arguments(args, kwargs)
        try:
            framework.normalize_json([list(args), dict(kwargs)])
        except (TypeError, ValueError) as error:
            raise InvalidArguments(f"{self.name}: the tasks framework passes plain JSON only: {error}") from error

    def message_for(self, task: Any, args: list[Any], kwargs: dict[str, Any]) -> Message:
        """One run of ``task``, which is the framework's task of this twin, perhaps changed by ``using()``."""
        changes = {"queue_name": task.queue_name, "priority": int(task.priority), "run_after": task.run_after}
        usual = {"queue_name": self.options.queue_name, "priority": self.options.priority, "run_after": None}
        changes = {name: value for name, value in changes.items() if value != usual[name]}
        caller = self.using(**changes) if changes else self
        message = caller._message(args, kwargs)
        if task.backend == self.framework_task.backend:
            return message
        headers = Headers.loads(message.headers)._replace(backend=task.backend)
        return replace(message, headers=headers.dumps())


def twin_of(task: Any, sender: Sender) -> Twin:
    """The twin of a framework's task, made and registered where there is none yet.

    Raises the framework's ``InvalidTask`` for an option that is not usable, or a name that is taken.
    """
    known = registry.find(task.module_path)
    if isinstance(known, Twin) and known.function is task.func:
        return known
    try:
        made = Twin(task, sender)
        registry.register(made)
    except InvalidTask as error:
        raise framework.InvalidTask(str(error)) from error
    return made


class Source:
    """The framework's tasks for our registry: those made for another backend, and sent to ours by ``using()``."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def find(self, name: str) -> Twin | None:
        """The twin of a task that a loaded module defines under this name."""
        found = tasks.loaded(name)
        if not isinstance(found, framework.Task) or found.module_path != name:
            return None
        try:
            made = Twin(found, self._sender)
        except InvalidTask:
            return None  # its own backend may run it; ours refuses it when it is sent there
        registry.register(made)
        return made

    def queue_names(self) -> Collection[str]:
        """The queues that the aliases of ours declare."""
        return aliases.queue_names()


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "TASKS":
        for task in registry.all_tasks():
            if isinstance(task, Twin):
                task.forget_options()


setting_changed.connect(_forget, dispatch_uid="django_taskq.backend.twins")
