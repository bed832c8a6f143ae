"""How the processes of ``taskworker --reload`` and ``--runserver`` end with the one that started them, however it ends.

They are told their role and the end of a pipe in the environment. Nobody ever writes to it; it is closed with the
other process.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import NamedTuple

VARIABLE = "TASKQ_LEASH"
WORKER, SERVER = "worker", "web"


class Leash(NamedTuple):
    """What this process is, to the one that holds the other end."""

    role: str
    fileno: int

    def __str__(self) -> str:
        return f"{self.role}:{self.fileno}"

    def follow(self) -> None:
        """From now on, stop by SIGTERM when the other end is let go. It starts a thread."""
        threading.Thread(target=self._wait, name="taskq-leash", daemon=True).start()

    def _wait(self) -> None:
        os.read(self.fileno, 1)
        os.kill(os.getpid(), signal.SIGTERM)


def taken() -> Leash | None:
    """This process's own, or None; nothing that it starts will find it."""
    role, _, fileno = os.environ.pop(VARIABLE, "").partition(":")
    if not fileno:
        return None
    os.set_inheritable(int(fileno), False)
    return Leash(role, int(fileno))
