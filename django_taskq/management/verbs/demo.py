"""``taskq demo``: a first look that needs nothing running."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib import import_module
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_taskq import conf
from django_taskq.management.demo import settings as demo_settings
from django_taskq.management.storage import RUNTIME_EXIT, USAGE_EXIT, check_migrated
from django_taskq.management.text import one_line, several_lines
from django_taskq.management.verbs.base import Verb
from django_taskq.result import TaskResult
from django_taskq.status import Status


class Demo(Verb):
    """Enqueues three built-in tasks, has a worker of its own run them, and shows what became of them."""

    help = "Enqueue three built-in tasks, run them with a worker of its own, show the results."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--timeout", type=float, default=60, help="Seconds to wait for the worker. Default: 60.")

    def run(self, **options: Any) -> None:
        module = os.environ.get("DJANGO_SETTINGS_MODULE")
        if not module:
            raise CommandError("the demonstration needs a settings module", returncode=USAGE_EXIT)
        check_migrated(conf.get_settings().database)
        results = _enqueue()
        for call, result in results.items():
            self.write(f"enqueued  {call:<36} {result.id}")
        self.write("A worker starts, runs them and stops (manage.py taskworker --burst) ...")
        try:
            _run_worker(module, options["timeout"])
        except CommandError:
            for result in results.values():
                result.cancel()
            raise
        for call, result in results.items():
            self._show(call, result)
        first = next(iter(results.values()))
        self.write(f"\nEach run is a row: python manage.py taskq show {first.id}\n")
        self.write("Next: put a function with @task into an app's tasks.py, and start python manage.py taskworker.")

    def _show(self, call: str, result: TaskResult[Any]) -> None:
        result.refresh()
        if result.status == Status.SUCCESSFUL:
            outcome, style = repr(result.return_value), self.style.SUCCESS
        else:
            outcome, style = result.errors[-1].message if result.errors else "", self.style.ERROR
        attempts = f"attempt {result.attempts}"
        self.write(style(one_line(f"{result.status.lower():<11}{call:<36}{attempts:<11}{outcome}")))


def _enqueue() -> dict[str, TaskResult[Any]]:
    # Loaded only here: that registers the tasks, and no other process of the project should know them.
    tasks: Any = import_module("django_taskq.management.demo.tasks")
    return {
        "add.enqueue(2, 3)": tasks.add.enqueue(2, 3),
        "succeed_at_the_third_try.enqueue()": tasks.succeed_at_the_third_try.enqueue(),
        "fail.enqueue()": tasks.fail.enqueue(),
    }


def _run_worker(module: str, timeout: float) -> None:
    command = [sys.executable, "-m", "django", "taskworker", "--burst", "--processes", "1", "--queues", "taskq-demo"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
        "DJANGO_SETTINGS_MODULE": demo_settings.__name__,
        demo_settings.PROJECT_VARIABLE: module,
    }
    # A file and no pipe: what the worker leaves behind could hold a pipe open.
    with tempfile.TemporaryFile() as log:
        worker = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            worker.wait(timeout)
        except subprocess.TimeoutExpired:
            raise CommandError(f"the worker did not end within {timeout:g} s", returncode=RUNTIME_EXIT) from None
        finally:
            if worker.poll() is None:
                worker.terminate()
                worker.wait()
        if worker.returncode:
            log.seek(0)
            said = several_lines(log.read().decode(errors="replace"))
            raise CommandError(f"the worker ended with {worker.returncode}:\n{said}", returncode=RUNTIME_EXIT)
