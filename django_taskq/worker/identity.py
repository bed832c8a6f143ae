"""Who this process is, so that the living can be told from the dead on one host. Linux; elsewhere leases decide."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """A process, unmistakably: pids are reused, a pid with its start time and boot is not."""

    boot_id: str
    pid_namespace: str
    pid: int
    pid_started: int

    def shares_processes_with(self, boot_id: str, pid_namespace: str) -> bool:
        """Whether processes of that boot and namespace can be seen from here."""
        return bool(self.boot_id) and (self.boot_id, self.pid_namespace) == (boot_id, pid_namespace)


def current() -> Identity:
    """This process. Empty ids where the system does not tell, which makes every other worker a remote one."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot_id = namespace = ""
    return Identity(boot_id, namespace, os.getpid(), start_time(os.getpid()) or 0)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such process, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field, the name, may hold spaces and brackets: what follows its last ")" is fixed (proc(5)).
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether this very process still runs."""
    return start_time(pid) == started


def wait_until_gone(pid: int, started: int, *, seconds: float) -> bool:
    """Wait until a killed process is gone; False when it is not after ``seconds``."""
    deadline = time.monotonic() + seconds
    while is_alive(pid, started):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
