"""A real ``taskworker`` on the test's database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.db import connections

from django_taskq import conf
from django_taskq.testing.worker_settings import DATABASES_VARIABLE, MODULE_VARIABLE

START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0


class RealWorker:
    """A running worker; made by :func:`worker`."""

    def __init__(self, arguments: tuple[str, ...], log: Path) -> None:
        self._log = log
        module = settings.SETTINGS_MODULE
        environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "django_taskq.testing.worker_settings",
            MODULE_VARIABLE: module,
            DATABASES_VARIABLE: json.dumps(
                {alias: str(connections[alias].settings_dict["NAME"]) for alias in connections}
            ),
            "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
        }
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "django", "taskworker", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has printed and logged so far."""
        return self._log.read_text(errors="replace")

    def wait_until_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Return once it serves. Raises ``RuntimeError`` with its log when it does not."""
        deadline = time.monotonic() + timeout
        while "taskworker ready" not in self.log:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the worker did not start:\n{self.log}")
            time.sleep(0.02)

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """Stop it in order and return its exit code; what does not stop in time is killed."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def kill(self) -> None:
        """kill -9 everything of it, as a machine that loses its power does."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()


@contextmanager
def worker(*arguments: str) -> Iterator[RealWorker]:
    """Serve the test's database with a real worker inside the block: ``with worker("--processes", "1"):``.

    ``arguments`` are those of ``manage.py taskworker``. The worker loads the project's settings module, with the names
    of the test databases; ``override_settings`` does not reach it. It sees only what is committed, so the test is a
    ``TransactionTestCase``. Raises ``RuntimeError`` where that cannot work.
    """
    using = conf.get_settings().database
    connection = connections[using]
    if connection.in_atomic_block:
        raise RuntimeError(
            "a worker sees only what is committed: use TransactionTestCase, or django_db(transaction=True)"
        )
    if connection.vendor == "sqlite" and "mode=memory" in str(connection.settings_dict["NAME"]):
        raise RuntimeError(
            f"a worker cannot open a test database in memory: give DATABASES[{using!r}] a file, "
            f'"TEST": {{"NAME": "test.sqlite3"}}'
        )
    with tempfile.TemporaryDirectory(prefix="taskq-testing-") as directory:
        running = RealWorker(arguments, Path(directory) / "log")
        try:
            running.wait_until_ready()
            yield running
        finally:
            running.stop()
            running.kill()
