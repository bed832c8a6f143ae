"""What the supervisor makes of a worker process over time: from its slot table and the system, asking nobody.

Ages are counted from look to look, not from the times in the table: after a pause of the whole host, or of the
supervisor, everything would seem to have stood still.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connections

from django_taskq import conf
from django_taskq.worker import memory, reaping, table

STALLED_AFTER = 0.25  # seconds
PROGRESS_TIMEOUT = 20.0  # seconds in which a process that could do something has to do something
LOCK_MARGIN = 5.0  # seconds beyond those for which SQLite itself waits
LATE_PULSE = 3.0  # seconds; it comes each second (worker/process.py)
LONGEST_GAP = 2.0  # seconds between two looks
SAMPLE_INTERVAL = 1.0


def patience() -> float:
    """Seconds without progress after which a process is given up; longer where it may be waiting for SQLite's lock."""
    connection = connections[conf.get_settings().database]
    if connection.vendor != "sqlite":
        return PROGRESS_TIMEOUT
    waits = float(connection.settings_dict.get("OPTIONS", {}).get("timeout", 5))
    return max(PROGRESS_TIMEOUT, waits + LOCK_MARGIN)


class Progress:
    """Whether a process that is alive also gets on."""

    def __init__(self, slot_table: table.SlotTable, patience: float) -> None:
        self._table = slot_table
        self._patience = patience
        self._looked_at = 0.0
        self._seen: dict[str, tuple[object, float]] = {}

    def is_stalled(self, running: Sequence[table.Running], now: float) -> bool:
        """Whether all its slots run, with more behind them, and not even its bookkeeping gets to: a GIL is held."""
        words, times = self._table.words, self._table.times
        # By the highest number it may hold, not by what it says it holds: that is written a moment after it is true,
        # and a task that seizes the GIL leaves no such moment. At worst one query in vain for each stall.
        has_unstarted = words[table.LAST_CLAIM] > max(words[table.REVOKED], self._table.last_started())
        if not has_unstarted or now - times[table.TICK] < STALLED_AFTER or len(running) < self._table.slots:
            return False
        return all(now - entry.started > STALLED_AFTER for entry in running)

    def missing(self, running: Sequence[table.Running], now: float) -> str:
        """What has not happened for too long, in words; '' while it gets on, or a run keeps the interpreter."""
        words, times = self._table.words, self._table.times
        if now - self._looked_at > LONGEST_GAP:
            self._seen.clear()
        self._looked_at = now
        if not words[table.READY]:
            return ""
        pulse = self._unchanged("pulse", times[table.PULSE], now)
        if running and pulse > LATE_PULSE:
            # Nothing but the run gets anywhere, which is its right until its time limit.
            self._seen.clear()
            return ""
        tick = self._unchanged("tick", times[table.TICK], now)
        deeds = (words[table.LAST_CLAIM], words[table.DONE], words[table.HELD], self._table.last_started())
        idle = self._unchanged("deeds", (*deeds, bool(running)), now)
        if tick >= self._patience:
            whole = "nothing in it has run" if pulse >= self._patience else "its bookkeeping has stood still"
            return f"{whole} for {tick:.0f} s, with {words[table.HELD]} run(s) held"
        if not running and words[table.HELD] and words[table.SOUND] and idle >= self._patience:
            return f"it holds {words[table.HELD]} run(s) and has started none for {idle:.0f} s"
        return ""

    def _unchanged(self, name: str, value: object, now: float) -> float:
        before, since = self._seen.get(name, (value, now))
        if value != before:
            since = now
        self._seen[name] = (value, since)
        return now - since


class MemoryWatch:
    """How much memory a process takes while it runs something."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._sample_at = 0.0
        self._started: list[int] = []
        self.peak = 0
        """The most bytes that were seen; 0 when nobody looked, or nobody tells."""

    def look(self, running: Sequence[table.Running], now: float) -> tuple[table.Running, int] | None:
        """The run whose limit is passed, with the bytes taken; None when none is.

        What the runs of a process take cannot be told apart. So it is the one with the least limit, and of those
        with the same the last to start.
        """
        if not running:
            return None
        limited = [entry for entry in running if entry.memory]
        if now >= self._sample_at:
            self._sample_at = now + SAMPLE_INTERVAL
            self._note(memory.peak(self._pid))
            # Too slow for every look: all processes of the host are gone through.
            self._started = [member.pid for member in reaping.family(self._pid)] if limited else []
        if not limited:
            return None
        entry = min(limited, key=lambda each: (each.memory, -each.started))
        taken = memory.taken_by(self._pid, self._started, entry.memory)
        if taken < entry.memory:
            return None
        self._note(memory.peak(self._pid))
        self._note(taken)
        return entry, taken

    def _note(self, size: int | None) -> None:
        self.peak = max(self.peak, size or 0)
