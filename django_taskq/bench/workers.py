"""``taskworker`` as a subprocess of the measuring process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from django_taskq.bench import processes


class WorkerFailed(RuntimeError):
    """The worker ended badly or not in time; the text ends with what it logged."""


class BenchWorker:
    """One worker on the scratch database; the end of the ``with`` stops it."""

    def __init__(
        self, worker_processes: int, threads: int, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        descriptor, path = tempfile.mkstemp(prefix="worker-", suffix=".log")
        self._log = Path(path)
        command = [sys.executable, "-m", "django", "taskworker", "--queues", "default"]
        sizes = ["--processes", str(worker_processes), "--threads", str(threads)]
        self.spawned_at = time.time()
        with open(descriptor, "wb") as log:
            self._process = subprocess.Popen(
                [*command, *sizes, *arguments],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def tree(self) -> list[int]:
        """The pids of supervisor, fork server and worker processes."""
        return processes.tree(self._process.pid)

    def check(self) -> None:
        """Raise :exc:`WorkerFailed` when it has ended."""
        if self._process.poll() is not None:
            raise WorkerFailed(self._failure(f"ended with {self._process.returncode}"))

    def wait(self, timeout: float) -> float:
        """Wait for a burst's end; returns the seconds since the start. Raises :exc:`WorkerFailed`."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise WorkerFailed(self._failure(f"has not finished after {timeout:.0f} s")) from None
        if code != 0:
            raise WorkerFailed(self._failure(f"ended with {code}"))
        return time.time() - self.spawned_at

    def _failure(self, what: str) -> str:
        return f"the worker {what}; its log:\n{self._log.read_text(errors='replace')[-4000:]}"
