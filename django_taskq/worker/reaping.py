"""Ending what a worker process leaves behind: its session, and what descends from it. On Linux; elsewhere it stays.

Each worker process leads a session of its own. What a task starts belongs to it, also after a double fork, unless it
makes itself a session: then only the line of parents tells, as long as nobody in it has died.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from django_taskq.worker import identity

# Whoever is killed may have forked a moment before, so there is another look, for so many seconds at most.
LONGEST, PAUSE = 1.0, 0.005


class Member(NamedTuple):
    """A living process: its pid, when it started (ticks since boot), its parent and its session."""

    pid: int
    started: int
    parent: int
    session: int


def lead_session() -> None:
    """Make this process the leader of a new session; harmless where it leads one already."""
    if hasattr(os, "setsid"):
        with suppress(PermissionError):
            os.setsid()


def living() -> list[Member]:
    """Every process that can be seen and is no zombie; nothing where the system does not tell."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    return [member for pid in pids if (member := _read(pid)) is not None]


def _read(pid: int) -> Member | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # See identity.start_time() for the bracket.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else Member(pid, int(fields[19]), int(fields[1]), int(fields[3]))


def family(pid: int, among: Iterable[Member] | None = None) -> list[Member]:
    """What descends from this process or is in the session that it leads, without the process itself."""
    members = list(living() if among is None else among)
    related = {pid}
    while more := {m.pid for m in members if m.pid not in related and (m.parent in related or m.session == pid)}:
        related |= more
    return [member for member in members if member.pid in related - {pid}]


def end(members: Collection[Member]) -> None:
    """Kill these very processes."""
    for member in members:
        if identity.is_alive(member.pid, member.started) and not _tidies_up(member.pid):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(member.pid, signal.SIGKILL)


def end_session(leader: int) -> int:
    """Kill whoever is in the session of this process, living or dead, but the process itself; returns how many."""
    ended: set[int] = set()
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        members = living()
        # The number of a dead leader is free again once nobody is in its session.
        is_reused = leader != os.getpid() and any(member.pid == leader for member in members)
        found = [m for m in members if m.session == leader != m.pid and not _tidies_up(m.pid)]
        if is_reused or not found:
            break
        end(found)
        ended |= {member.pid for member in found}
        time.sleep(PAUSE)
    return len(ended)


def _tidies_up(pid: int) -> bool:
    """Whether it is there to remove what others leave in shared memory, and ends by itself once they are gone."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def leave(code: int) -> NoReturn:
    """End this worker process at once, and what its tasks have left with it."""
    end_session(os.getpid())
    os._exit(code)
