"""The slot table: what a worker process is doing, in a memory-mapped file that outlives it.

One writer (the process; ``revoke`` alone is the supervisor's), any reader: the supervisor enforces limits and, after
a crash, learns which claims had started, without asking the process, and the next supervisor still can.

Words are 8 bytes. Header: last claim that may exist, claims revoked up to, courier's last tick, runs done,
flags. Per slot: claim (negative once it is over, 0 at first), start, hard deadline. Times are
of the system's monotonic clock, which all processes of a host share.
"""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import dataclass
from pathlib import Path

LAST_CLAIM, REVOKED, TICK, DONE, READY, IDLE, DRY = range(7)
CLAIM, STARTED, DEADLINE = range(3)
_HEADER, _ENTRY = 7, 3


@dataclass(frozen=True, slots=True)
class Running:
    """A claim that has started and is not over; times on the monotonic clock."""

    claim: int
    started: float
    deadline: float | None


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
        size = 8 * (_HEADER + _ENTRY * slots)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, bytes(size))
        finally:
            os.close(descriptor)
        return cls(path, slots)

    @classmethod
    def read(cls, path: Path) -> SlotTable | None:
        """The table a process left behind, or None where there is none to trust."""
        try:
            return cls(path, cls.slots_in(path)) if path.stat().st_uid == os.getuid() else None
        except (OSError, ValueError):
            return None

    @staticmethod
    def slots_in(path: Path) -> int:
        """How many slots a file has. Raises ``ValueError`` when it is no table."""
        slots, rest = divmod(path.stat().st_size - 8 * _HEADER, 8 * _ENTRY)
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

    def start(self, slot: int, claim: int, hard: float | None) -> bool:
        """Publish a start; False when the claim has been revoked.

        Publish first, then look: the supervisor revokes first and then looks at what has started, so one of the two
        always sees the other. (When both do, the run is given back twice, and the second time changes nothing.)
        """
        at = _HEADER + _ENTRY * slot
        now = time.monotonic()
        self.times[at + STARTED] = now
        self.times[at + DEADLINE] = now + hard if hard else 0.0
        self.words[at + CLAIM] = claim
        if claim <= self.words[REVOKED]:
            self.words[at + CLAIM] = -claim
            return False
        return True

    def finish(self, slot: int) -> None:
        """The slot's run is over."""
        at = _HEADER + _ENTRY * slot + CLAIM
        self.words[at] = -abs(self.words[at])

    def running(self) -> list[Running]:
        """What has started and is not over."""
        found = []
        for slot in range(self.slots):
            at = _HEADER + _ENTRY * slot
            claim = self.words[at + CLAIM]
            if claim > 0:
                found.append(Running(claim, self.times[at + STARTED], self.times[at + DEADLINE] or None))
        return found

    def last_started(self) -> int:
        """The highest claim that has started, or 0. Deliveries start in the order of their claims."""
        return max(abs(self.words[_HEADER + _ENTRY * slot + CLAIM]) for slot in range(self.slots))

    def revoke_unstarted(self) -> tuple[int, int]:
        """Supervisor only: forbid all that may be held and has not started to start.

        Returns the last claim that may have started, and the last that is forbidden: what is claimed later is not.
        """
        revoked = self.words[REVOKED] = self.words[LAST_CLAIM]
        return self.last_started(), revoked
