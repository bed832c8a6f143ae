"""How much memory processes take. On Linux; elsewhere only the own peak is known, and no run's limit is enforced."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from django_taskq.worker import table

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
WEAR_INTERVAL = 0.1  # seconds between looks at the own memory
CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def resident(pid: int) -> int | None:
    """The bytes of a process that are in memory now; None when nobody tells."""
    pages = _statm(pid)
    return None if pages is None else pages[1] * PAGE


def proportional(pid: int) -> int | None:
    """As :func:`resident`, but what several processes share counts in parts. It takes longer to find out."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def peak(pid: int) -> int | None:
    """The most bytes that a process has ever had in memory; None when nobody tells."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:")


def own_peak() -> int | None:
    """The same of this process, wherever there is a ``getrusage``."""
    if resource is None:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def taken_by(pid: int, others: Iterable[int], limit: int) -> int:
    """Bytes of a process and of those it has started; exact only from ``limit`` on, because that is slower."""
    own = _statm(pid)
    # One of exactly its size has just been forked and is about to run a program: what it has is the other's.
    others = [each for each in others if (pages := _statm(each)) is not None and own is not None and pages[0] != own[0]]
    taken = sum(resident(each) or 0 for each in (pid, *others))
    if taken < limit or not others:
        return taken
    return sum(proportional(each) or resident(each) or 0 for each in (pid, *others))


def kills_in_control_group() -> int | None:
    """How many processes of this one's control group the kernel has killed for memory; None when nobody tells."""
    for path in _memory_files():
        with suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return None


def _memory_files() -> list[Path]:
    found = []
    with suppress(OSError):
        for line in OWN_GROUP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                found.append(CONTROL_GROUPS / path.lstrip("/") / "memory.events")
            elif "memory" in controllers.split(","):
                # In a container the path may be that of the host, and what is seen here is the container's own.
                top = CONTROL_GROUPS / "memory"
                found += [top / path.lstrip("/") / "memory.oom_control", top / "memory.oom_control"]
    return [*found, CONTROL_GROUPS / "memory.events"]


def _statm(pid: int) -> tuple[int, int] | None:
    """Pages of address space, and pages in memory."""
    try:
        size, resident = Path(f"/proc/{pid}/statm").read_text().split()[:2]
    except (OSError, ValueError):
        return None
    return int(size), int(resident)


def _kilobytes(path: Path, name: str) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return None


class Wear:
    """Asks, through the slot table, that this process be replaced: after so many runs, or with so much memory."""

    def __init__(self, slot_table: table.SlotTable, most_runs: int | None, most_memory: int | None) -> None:
        self._words = slot_table.words
        self._most_runs = most_runs
        self._most_memory = most_memory
        self._look_at = 0.0

    def look(self) -> None:
        """Between runs, as often as you like."""
        if self._words[table.WORN]:
            return
        if self._most_runs is not None and self._words[table.DONE] >= self._most_runs:
            self._words[table.WORN] = table.WORN_OUT
        elif self._most_memory is not None and (now := time.monotonic()) >= self._look_at:
            self._look_at = now + WEAR_INTERVAL
            # Where only the peak is known it has to do.
            if (resident(os.getpid()) or own_peak() or 0) >= self._most_memory:
                self._words[table.WORN] = table.GROWN
