"""How busy the host is, and which queues a worker leaves to others for it.

A host is what the worker may use of it: in a container with limits (cgroup v2) percents are of those, elsewhere of the
whole machine. Linux; where nothing can be read, nothing is closed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from django_taskq.conf_brokers import LoadLimit
from django_taskq.worker.service import Service
from django_taskq.worker.shutter import Shutter

logger = logging.getLogger("django_taskq")

LOAD = "load"  # the shutter's reason
SAMPLE_INTERVAL = 1.0  # seconds
SMOOTHING = 0.5  # how much of its mean a new sample of the CPU makes up: a peak of a second is no load
REOPEN = 0.9  # of the limit: what has just fallen below it would be above it again with the next run


@dataclass(frozen=True, slots=True)
class Reading:
    """In percent; None where the system does not tell."""

    cpu: float | None = None
    memory: float | None = None


class Meter:
    """Reads both. CPU is the mean since the last reading, so a meter is for one reader."""

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        """``root`` is where ``proc`` and ``sys`` are."""
        self._root = root
        self._clock = clock
        self._spent: dict[Path, tuple[float, float]] = {}
        self.read()

    def read(self) -> Reading:
        """How it is now."""
        groups = list(self._groups())
        return Reading(self._cpu(groups), self._memory(groups))

    def _groups(self) -> Iterator[Path]:
        """The control groups this process is in, the innermost first; each may have limits."""
        with suppress(OSError):
            lines = (self._root / "proc/self/cgroup").read_text().splitlines()
            (name,) = [line.removeprefix("0::") for line in lines if line.startswith("0::")] or [""]
            top = self._root / "sys/fs/cgroup"
            group = top / name.lstrip("/")
            yield from (each for each in (group, *group.parents) if each.is_relative_to(top))

    def _cpu(self, groups: list[Path]) -> float | None:
        found = []
        for group in groups:
            with suppress(OSError, ValueError, KeyError):
                quota, period = (group / "cpu.max").read_text().split()
                if quota != "max":
                    seconds = _table(group / "cpu.stat")["usage_usec"] / 1e6
                    found.append(self._rate(group, seconds, self._clock() * int(quota) / int(period)))
        if not found:
            with suppress(OSError, ValueError):
                stat = self._root / "proc/stat"
                # user nice system idle iowait irq softirq steal; the guests' are part of the first two (proc(5)).
                ticks = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:9]]
                found.append(self._rate(stat, sum(ticks) - sum(ticks[3:5]), sum(ticks)))
        known = [rate for rate in found if rate is not None]
        return max(known) if known else None

    def _rate(self, key: Path, spent: float, available: float) -> float | None:
        """How much of what was available since the last time was spent, in percent."""
        before = self._spent.get(key)
        if before is not None and available <= before[1]:
            return None
        self._spent[key] = spent, available
        if before is None:
            return None
        return max(0.0, min(100.0, 100 * (spent - before[0]) / (available - before[1])))

    def _memory(self, groups: list[Path]) -> float | None:
        found = []
        for group in groups:
            with suppress(OSError, ValueError, KeyError):
                most = (group / "memory.max").read_text().strip()
                if most != "max":
                    # What the kernel would give up first is no load: the page cache grows until the limit.
                    cache = _table(group / "memory.stat")["inactive_file"]
                    used = int((group / "memory.current").read_text()) - cache
                    found.append(100 * max(0, used) / int(most))
        if not found:
            with suppress(OSError, ValueError, KeyError):
                sizes = _table(self._root / "proc/meminfo")
                found.append(100 * (1 - sizes["MemAvailable:"] / sizes["MemTotal:"]))
        return max(found) if found else None


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}


def closed_by(limits: Mapping[str, LoadLimit], reading: Reading, closed: frozenset[str]) -> frozenset[str]:
    """The queues to close; ``closed`` are those that are, which open again a good bit below their limit."""

    def is_above(limit: float | None, value: float | None, name: str) -> bool:
        if limit is None or value is None:
            return False
        return value >= limit * REOPEN if name in closed else value >= limit

    return frozenset(
        name
        for name, limit in limits.items()
        if is_above(limit.cpu, reading.cpu, name) or is_above(limit.memory, reading.memory, name)
    )


class LoadWatch(Service):
    """Closes and opens the shutter of queues that have limits."""

    name = "load watch"

    def __init__(
        self, shutter: Shutter, limits: Callable[[], Mapping[str, LoadLimit]], read: Callable[[], Reading] | None = None
    ) -> None:
        """``limits`` are asked for each time, because they may be changed; ``read`` is a meter's unless it is given."""
        super().__init__()
        self._shutter = shutter
        self._limits = limits
        self._read = read or Meter().read
        self._cpu: float | None = None
        self._closed: frozenset[str] = frozenset()

    def work(self) -> float:
        sample = self._read()
        if sample.cpu is not None:
            self._cpu = sample.cpu if self._cpu is None else self._cpu + SMOOTHING * (sample.cpu - self._cpu)
        reading = Reading(self._cpu, sample.memory)
        closed = closed_by(self._limits(), reading, self._closed)
        for names, what in ((closed - self._closed, "left to others"), (self._closed - closed, "fetched again")):
            if names:
                logger.info("%s: %s (%s)", ", ".join(sorted(names)), what, _shown(reading))
        self._closed = closed
        self._shutter.set(LOAD, closed)
        return SAMPLE_INTERVAL


def _shown(reading: Reading) -> str:
    cpu, memory = ("unknown" if value is None else f"{value:.0f} %" for value in (reading.cpu, reading.memory))
    return f"CPU {cpu}, memory {memory}"
