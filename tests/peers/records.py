"""What the task bodies wrote (``adapters/peer_recorder.py``), read back; and the arithmetic."""

from __future__ import annotations

import statistics
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

RECORD = struct.Struct("<qq")
ENOUGH = 1_000  # a queue that drains this many a second gets all the tasks that were asked for
SECONDS_OF_DRAIN = 10  # and a slower one about as many as it drains in this time
FEWEST = 1_000

Record = tuple[int, int]


@dataclass
class Figures:
    """What was measured of one case; with a ``problem`` the rest may be missing."""

    tasks: int = 0
    drains: list[float] = field(default_factory=list)
    enqueues: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    problem: str = ""

    def value(self, metric: str) -> float | None:
        """The median of the repeats, or a percentile of the latencies of all repeats together."""
        if metric in ("p50", "p99"):
            return percentile(self.latencies, int(metric[1:])) if self.latencies else None
        rates = self.drains if metric == "drain" else self.enqueues
        return statistics.median(rates) if rates else None


def count(directory: Path) -> int:
    """How many bodies have run so far: cheap enough to be asked often while they run."""
    return sum(path.stat().st_size for path in directory.glob("*.records")) // RECORD.size


def read(directory: Path) -> list[Record]:
    """(number, nanoseconds) of every body, in no order. A record cut short by a kill is left out."""
    found: list[Record] = []
    for path in directory.glob("*.records"):
        data = path.read_bytes()
        found += RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size])
    return found


def drain_rate(records: Iterable[Record]) -> float:
    """Bodies per second between the first start and the last. A task that ran twice counts once, where it ran first."""
    starts: dict[int, int] = {}
    for number, moment in records:
        starts[number] = min(moment, starts.get(number, moment))
    if len(starts) < 2 or (taken := max(starts.values()) - min(starts.values())) <= 0:
        raise ValueError("a rate wants two tasks that started at different times")
    return (len(starts) - 1) * 1e9 / taken


def latencies(sent: Mapping[int, int], records: Iterable[Record]) -> list[float]:
    """Milliseconds from before the call that enqueued to the start of the body, of every task that started."""
    starts: dict[int, int] = {}
    for number, moment in records:
        if number in sent:
            starts[number] = min(moment, starts.get(number, moment))
    return [(starts[number] - sent[number]) / 1e6 for number in sorted(starts)]


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: always a value that was measured."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def sensible_count(probed_rate: float, wanted: int) -> int:
    """How many tasks to measure with, when a short probe drained at this rate."""
    if probed_rate >= ENOUGH:
        return wanted
    return min(wanted, max(FEWEST, int(probed_rate * SECONDS_OF_DRAIN) // 500 * 500))
