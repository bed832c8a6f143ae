"""Counting runs that leave no row: each thread of a worker writes down how many it ran, and when.

A file in memory for each, because it has to cost next to nothing: what is measured is the queue.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

# The directory for the files.
VARIABLE = "TASKQ_BENCH_TALLY"
_LAYOUT = struct.Struct("Qdd")  # how many, the times of the first and the last


class Tallied(NamedTuple):
    """How many runs there were, and the seconds from the first to the last."""

    runs: int
    seconds: float


class Tally:
    """What one thread has run."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._count, self._first = 0, 0.0

    def note(self) -> None:
        """A run is under way."""
        now = time.time()
        self._first = self._first or now
        self._count += 1
        _LAYOUT.pack_into(self._memory, 0, self._count, self._first, now)


def note() -> None:
    """A run of this thread is under way."""
    _own(os.getpid(), threading.get_ident()).note()


@cache
def _own(pid: int, thread: int) -> Tally:
    return Tally(Path(os.environ[VARIABLE]) / f"{pid}-{thread}")


def read(directory: Path) -> Tallied:
    """What all of them have run."""
    found = [_LAYOUT.unpack(path.read_bytes()) for path in directory.iterdir()]
    begun = [entry for entry in found if entry[0]]
    if not begun:
        return Tallied(0, 0.0)
    seconds = max(last for _, _, last in begun) - min(first for _, first, _ in begun)
    return Tallied(sum(count for count, _, _ in begun), seconds)
