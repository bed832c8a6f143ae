"""The slot table: what a worker process is doing, in a memory-mapped file that outlives it.

One writer (the process; REVOKED and LOST alone are the supervisor's), any reader: the supervisor enforces limits and,
after a crash, learns which claims had started, without asking the process, and the next supervisor still can.

Words are 8 bytes. Per slot: claim (negative once it is over, 0 at first), start, hard deadline, how many bytes the
process may take while this runs, and the highest claim that it has started. A batch has the claim of its last call,
whose row was started in the same moment as those of the others (``maintenance``). Times are of the system's monotonic
clock, which all processes of a host share.

Header: LAST_CLAIM that may exist, claims REVOKED up to, the courier's last TICK (a time), runs DONE, READY once it has
started, IDLE and DRY when it finds nothing, WORN when it is to be replaced (WORN_OUT or GROWN), slots LOST to runs past
their limit, resources DEGRADED, claims HELD, SOUND while its bookkeeping works, the last PULSE (a time) of a thread
that only needs the interpreter, and the FORMAT of the table.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LAST_CLAIM, REVOKED, TICK, DONE, READY, IDLE, DRY, WORN, LOST, DEGRADED, HELD, SOUND, PULSE, FORMAT = range(14)
CLAIM, STARTED, DEADLINE, MEMORY, HIGHEST = range(5)
_HEADER, _ENTRY = 14, 5
_NOTE = 1024  # bytes at the end, for which resources are DEGRADED and why
# No claim will ever have this number, so a table of another version, found after an upgrade, does not pass for ours.
_OURS = 0x7461736B71_0002

# Values of WORN: it has run its number of tasks, or taken its amount of memory.
WORN_OUT, GROWN = 1, 2


@dataclass(frozen=True, slots=True)
class Running:
    """A claim that has started and is not over; times on the monotonic clock, ``memory`` in bytes (0: no limit)."""

    claim: int
    started: float
    deadline: float | None
    memory: int = 0


class SlotTable:
    """One process's table. ``slots`` is the number of its slots."""

    def __init__(self, path: Path, slots: int) -> None:
        """Map an existing file of :meth:`create`'s making."""
        self.path = path
        self.slots = slots
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.words = memoryview(self._map).cast("q")
        self.times = memoryview(self._map).cast("d")

    @classmethod
    def create(cls, path: Path, slots: int) -> SlotTable:
        """Make a new file, private to this user."""
        size = 8 * (_HEADER + _ENTRY * slots) + _NOTE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, bytes(size))
        finally:
            os.close(descriptor)
        table = cls(path, slots)
        table.words[FORMAT] = _OURS
        return table

    @classmethod
    def read(cls, path: Path) -> SlotTable | None:
        """The table a process left behind, or None where there is none to trust."""
        try:
            table = cls(path, cls.slots_in(path)) if path.stat().st_uid == os.getuid() else None
        except (OSError, ValueError):
            return None
        if table is not None and table.words[FORMAT] != _OURS:
            table.close()
            return None
        return table

    @staticmethod
    def slots_in(path: Path) -> int:
        """How many slots a file has. Raises ``ValueError`` when it is no table."""
        slots, rest = divmod(path.stat().st_size - 8 * _HEADER - _NOTE, 8 * _ENTRY)
        if slots < 1 or rest:
            raise ValueError(f"{path} is not a slot table")
        return slots

    def close(self, *, remove: bool = False) -> None:
        """Unmap; with ``remove`` the file goes too."""
        self.words.release()
        self.times.release()
        self._map.close()
        if remove:
            self.path.unlink(missing_ok=True)

    def start(self, slot: int, claim: int, hard: float | None, memory: int = 0, *, lowest: int | None = None) -> bool:
        """Publish a start, with its limits (seconds, bytes); False when the claim has been revoked.

        ``claim`` is the highest of a batch, and ``lowest`` its lowest.

        Publish first, then look: the supervisor revokes first and then looks at what has started, so one of the two
        always sees the other. (When both do, the run is given back twice, and the second time changes nothing.)
        """
        at = _HEADER + _ENTRY * slot
        now = time.monotonic()
        self.times[at + STARTED] = now
        self.times[at + DEADLINE] = now + hard if hard else 0.0
        self.words[at + MEMORY] = memory
        if claim > self.words[at + HIGHEST]:
            self.words[at + HIGHEST] = claim
        self.words[at + CLAIM] = claim
        if (claim if lowest is None else lowest) <= self.words[REVOKED]:
            self.words[at + CLAIM] = -claim
            return False
        return True

    def finish(self, slot: int) -> None:
        """The slot's run is over."""
        at = _HEADER + _ENTRY * slot + CLAIM
        self.words[at] = -abs(self.words[at])

    def note(self, degraded: Mapping[str, str]) -> None:
        """Leave word of the resources that cannot be used, and why; what does not fit is cut."""
        lines = "".join(f"{name} {' '.join(reason.split())[:200]}\n" for name, reason in degraded.items())
        self._map[-_NOTE:] = lines.encode()[:_NOTE].ljust(_NOTE, b"\0")
        self.words[DEGRADED] = len(degraded)

    def degraded(self) -> dict[str, str]:
        """What :meth:`note` left: why each resource cannot be used."""
        if not self.words[DEGRADED]:
            return {}
        text = self._map[-_NOTE:].rstrip(b"\0").decode(errors="ignore")
        return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)

    def running(self) -> list[Running]:
        """What has started and is not over."""
        found = []
        for slot in range(self.slots):
            at = _HEADER + _ENTRY * slot
            claim = self.words[at + CLAIM]
            if claim > 0:
                deadline = self.times[at + DEADLINE] or None
                found.append(Running(claim, self.times[at + STARTED], deadline, self.words[at + MEMORY]))
        return found

    def last_started(self) -> int:
        """The highest claim that has started, or 0.

        Deliveries start in the order of their claims, but for those that wait for a batch: they may come later.
        """
        return max(self.words[_HEADER + _ENTRY * slot + HIGHEST] for slot in range(self.slots))

    def revoke_unstarted(self) -> tuple[int, int]:
        """Supervisor only: forbid all that may be held and has not started to start.

        Returns the last claim that may have started, and the last that is forbidden: what is claimed later is not.
        """
        revoked = self.words[REVOKED] = self.words[LAST_CLAIM]
        return self.last_started(), revoked
