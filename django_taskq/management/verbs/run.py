"""``taskq run NAME``: enqueue one run from the shell."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_taskq import client, conf
from django_taskq.exceptions import EnqueueError
from django_taskq.management.storage import USAGE_EXIT
from django_taskq.management.text import one_line
from django_taskq.management.verbs.base import Verb
from django_taskq.management.verbs.lookup import find_task
from django_taskq.models import Worker
from django_taskq.result import TaskResult


class Run(Verb):
    """Prints the id; with ``--wait`` also the return value, as JSON where it can be."""

    help = "Enqueue a task and print the run's id."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("task", metavar="NAME", help="The task's name, such as shop.tasks.send.")
        parser.add_argument(
            "--args", dest="task_args", default="[]", metavar="JSON", help="Its arguments: '[1, \"a\"]'."
        )
        parser.add_argument("--kwargs", dest="task_kwargs", default="{}", metavar="JSON", help="By name: '{\"x\": 1}'.")
        parser.add_argument("--queue", help="The queue to use. Default: the task's own.")
        parser.add_argument("--wait", action="store_true", help="Wait for the end and print what it returned.")

    def run(self, **options: Any) -> None:
        task = find_task(options["task"])
        args = _parse("--args", options["task_args"], list)
        kwargs = _parse("--kwargs", options["task_kwargs"], dict)
        try:
            if options["queue"] is not None:
                client.check_queue(options["queue"])
                task = task.using(queue_name=options["queue"])
            result = task.enqueue(*args, **kwargs)
        except EnqueueError as error:
            raise CommandError(one_line(str(error)), returncode=USAGE_EXIT) from error
        self.write(result.id)
        if options["wait"]:
            self._wait(result)

    def _wait(self, result: TaskResult[Any]) -> None:
        workers: Any = Worker.objects.using(conf.get_settings().database)
        if not workers.online().exists() and not conf.get_settings().eager:
            self.say("No worker is online, so this waits for one: python manage.py taskworker (Ctrl+C: stop waiting)")
        try:
            self.write_json(result.get())
        except KeyboardInterrupt:
            raise CommandError(f"stopped waiting; run {result.id} goes on") from None
        except Exception as error:
            name = type(error).__name__
            raise CommandError(
                f"{one_line(f'{name}: {error}')} (see python manage.py taskq show {result.id})"
            ) from error


def _parse(option: str, text: str, kind: type[Any]) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CommandError(f"argument {option}: {text!r} is not JSON: {error}", returncode=USAGE_EXIT) from error
    if not isinstance(value, kind):
        wanted = "an array, such as '[2, 3]'" if kind is list else "an object, such as '{\"x\": 2}'"
        raise CommandError(f"argument {option}: {text!r} is not usable: it takes {wanted}", returncode=USAGE_EXIT)
    return value
