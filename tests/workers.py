"""Real ``taskworker`` processes for tests (Linux: what belongs to a worker is found through /proc)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.waiting import wait_for

# Put into the environment of every worker and inherited by all it starts. This is how its processes are found again
# after their parent was killed and nothing else connects them to it.
TOKEN = "TASKQ_TEST_WORKER"


class WorkerProcess:
    """One ``python -m django taskworker ...`` with everything it started."""

    def __init__(self, arguments: tuple[str, ...], env: Mapping[str, str], log_path: Path) -> None:
        self.log_path = log_path
        self._token = uuid.uuid4().hex
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "django", "taskworker", *arguments],
                env={**env, TOKEN: self._token},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.pid} log={self.log_path}>"

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    def wait_ready(self, timeout: float = 20) -> None:
        """Return once it has said so; fail with its log when it ends first or the time is up."""

        def ready() -> bool:
            if re.search(r"\bready\b", self.log()):
                return True
            assert self.returncode is None, f"the worker ended with {self.returncode}:\n{self.log()}"
            return False

        wait_for(ready, timeout, lambda: f"a ready worker; its log:\n{self.log()}", interval=0.01)

    def tree(self) -> list[int]:
        """The pids of everything that belongs to it and lives, orphans included, the supervisor first."""
        mark = f"{TOKEN}={self._token}".encode()
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        living = [pid for pid in pids if mark in _read(pid, "environ").split(b"\0") and is_alive(pid)]
        return sorted(living, key=lambda pid: (pid != self.pid, pid))

    def children(self) -> list[int]:
        """The pids of its worker processes: neither the supervisor nor multiprocessing's own helpers.

        A forked child keeps the command line of the forkserver it came from, so it is known by its parent.
        """
        lines = {pid: _read(pid, "cmdline") for pid in self.tree()}
        forkservers = {pid for pid, line in lines.items() if b"forkserver" in line and _parent(pid) == self.pid}
        spawned = {pid for pid, line in lines.items() if b"spawn_main" in line}
        return sorted(spawned | {pid for pid in lines if _parent(pid) in forkservers})

    def terminate(self) -> None:
        """Ask the supervisor to stop, as a process manager does."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9 the supervisor alone."""
        self._process.kill()
        self._process.wait()

    def kill_tree(self) -> None:
        """kill -9 everything, as a machine that loses its power does; nothing of it lives on return."""
        while pids := self.tree():
            for pid in pids:  # the supervisor first, so that it replaces nobody
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            wait_for(partial(self._are_gone, pids), 10, f"the end of {pids}")
        self._process.wait()

    def _are_gone(self, pids: list[int]) -> bool:
        return not set(pids) & set(self.tree())

    def wait(self, timeout: float = 30) -> int:
        """Wait for the supervisor to end and return its exit code."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker did not end within {timeout} s; its log:\n{self.log()}") from None

    def log(self) -> str:
        """Everything it has printed and logged so far."""
        return self.log_path.read_text(errors="replace")


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended, or is somebody else's
        return b""


def _stat(pid: int) -> list[str]:
    # The second field is the program's name in brackets and may itself hold blanks and brackets.
    return _read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()


def is_alive(pid: int) -> bool:
    """Whether the process exists and is more than an entry that its parent has not collected yet."""
    return (_stat(pid) or ["Z"])[0] != "Z"


def _parent(pid: int) -> int:
    return int((_stat(pid) or ["", "0"])[1])
