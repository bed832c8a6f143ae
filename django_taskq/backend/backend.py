"""``TaskqBackend``: the framework's tasks, kept as rows and run by our workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning

from django_taskq import client, conf, options, registry
from django_taskq.backend import aliases, framework, results, tasks, twins
from django_taskq.backend.sending import Sender, held
from django_taskq.backend.values import plain
from django_taskq.conf_brokers import parse_queue_name
from django_taskq.exceptions import UnknownQueue

# One for all instances: the framework makes one for each alias in every thread.
SENDER = Sender()


class TaskqBackend(framework.BaseTaskBackend):
    """A backend for ``TASKS``. Runs of its tasks are ``TaskRecord`` rows like all others.

    ``OPTIONS`` are defaults for the tasks of the alias: ``max_retries``, ``time_limit``, ``autoretry_for`` and so on.
    """

    task_class = tasks.TaskqTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True
    # How aliases of this class and its subclasses are told from others.
    keeps_runs_as_rows = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        """Raises ``InvalidTaskBackend`` naming the alias and what is wrong with its settings."""
        aliases.parse(alias, params)
        super().__init__(alias, params)

    def validate_task(self, task: Any) -> None:
        """Raise ``InvalidTask`` for what the framework or our workers cannot run; make the others known to them."""
        try:
            super().validate_task(task)
            parse_queue_name(task.queue_name)
            options.parse_run_after(task.run_after)
        except (TypeError, ValueError, OverflowError) as error:
            raise framework.InvalidTask(f"{task.module_path}: {error}.") from error
        twins.twin_of(task, SENDER)

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Enqueue a run. ``TypeError`` and ``ValueError`` for arguments that the framework's JSON rule refuses.

        The result of a duplicate is that of the run which has its key.
        """
        self.validate_task(task)
        if not tasks.is_importable(task):
            path = task.module_path
            raise framework.InvalidTask(f"{path} does not lead to a task, so no worker would find it.")
        twin = twins.twin_of(task, SENDER)
        message = twin.message_for(task, plain(list(args)), plain(dict(kwargs)))
        try:
            duplicates = client.enqueue((message,))
        except UnknownQueue as error:
            raise framework.InvalidTask(str(error)) from error
        if duplicates:
            return self.get_result(duplicates[message.id].id)
        if conf.get_settings().eager:
            return self.get_result(message.id)
        # Receivers of the signal had an object of their own.
        return results.of_message(message, task)

    async def aenqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Async :meth:`enqueue`; ``task_enqueued`` is sent on the caller's loop."""
        enqueue = sync_to_async(self.enqueue, thread_sensitive=True)
        if conf.get_settings().eager:
            return await enqueue(task, args, kwargs)
        with held() as messages:
            result = await enqueue(task, args, kwargs)
        for message in messages:
            await SENDER.aenqueued(message)
        return result

    def get_result(self, result_id: str) -> Any:
        """The result of a run, whatever alias of ours took it. Raises ``TaskResultDoesNotExist``."""
        return results.read(result_id)

    async def aget_result(self, result_id: str) -> Any:
        """Async :meth:`get_result`."""
        return await sync_to_async(self.get_result, thread_sensitive=True)(result_id)

    def check(self, **kwargs: Any) -> Iterable[CheckMessage]:  # type: ignore[override]  # a list in the stubs only
        """What the settings of the alias lack. No I/O: the framework calls this in every command."""
        if not apps.is_installed("django_taskq"):
            message = f"TASKS[{self.alias!r}] uses django_taskq, which is not an installed app."
            yield Error(message, hint='Add "django_taskq" to INSTALLED_APPS.', id="django_taskq.backend.E001")
        if not framework.IS_DJANGO_S_OWN and not apps.is_installed("django_tasks"):
            message = "django_tasks is not an installed app, so its checks do not run and its log stays empty."
            yield Warning(message, hint='Add "django_tasks" to INSTALLED_APPS.', id="django_taskq.backend.W001")
        try:
            aliases.parse(self.alias, {"OPTIONS": self.options}).defaults()
        except framework.InvalidTaskBackend as error:
            hint = "Correct the path; until then no task of the alias can run."
            yield Error(str(error), hint=hint, id="django_taskq.backend.E002")


registry.add_source(twins.Source(SENDER))
