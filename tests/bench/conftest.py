"""``taskq bench`` as a user runs it: a process of its own, on the session's database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.waiting import wait_for

# Inherited by everything the benchmark starts.
TOKEN = "TASKQ_TEST_BENCH"


class BenchProcess:
    """One ``python -m django taskq bench ...`` and all it started."""

    def __init__(self, arguments: tuple[str, ...], env: dict[str, str], directory: Path) -> None:
        self._token = uuid.uuid4().hex
        self.log_path = directory / "bench.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "django", "taskq", "bench", *arguments],
                env={**env, TOKEN: self._token},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def tree(self) -> list[int]:
        """Everything of it that lives."""
        mark = f"{TOKEN}={self._token}".encode()
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if mark in _environ(pid).split(b"\0")]

    def output(self, timeout: float = 120) -> str:
        """Its standard output, once it has ended well."""
        out, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, self.log()
        return out.decode()

    def kill(self) -> None:
        for pid in self.tree():
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def bench(worker_env: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., BenchProcess]]:
    started: list[BenchProcess] = []

    def start(*arguments: str, taskq: dict[str, Any] | None = None) -> BenchProcess:
        env = worker_env | {"TASKQ_TEST_SETTINGS": json.dumps(taskq or {})}
        started.append(BenchProcess(arguments, env, tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        wait_for(lambda process=process: not process.tree(), 10, "the end of the benchmark's processes")


def scratch_databases() -> set[str]:
    """The names of the benchmarks' databases that exist next to ours."""
    if connection.vendor == "sqlite":
        return {path.name for path in Path(connection.settings_dict["NAME"]).parent.glob(".taskq_bench_*")}
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'taskq_bench_%%'")
        return {name for (name,) in cursor.fetchall()}


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has ended, or is somebody else's
        return b""
