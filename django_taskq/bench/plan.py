"""What to measure, and what came out: both travel between the command and the measuring process as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

PARTS = ("enqueue", "drain", "limits", "latency", "idle", "memory", "startup")


@dataclass(frozen=True, slots=True)
class Plan:
    """One benchmark. ``only`` names parts; ``history`` and ``waiting`` are rows put beside the measured ones."""

    runs: int = 20_000
    repeat: int = 3
    only: tuple[str, ...] = PARTS
    history: int = 0
    waiting: int = 0
    processes: int = 2
    threads: int = 1
    idle_seconds: float = 10.0
    is_quiet: bool = False

    @property
    def single_runs(self) -> int:
        """How many runs are enqueued one by one, each time."""
        return max(50, self.runs // 4)

    @property
    def latency_runs(self) -> int:
        """How many runs the latency is taken from."""
        return min(200, max(20, self.runs // 100))

    def wants(self, *parts: str) -> bool:
        """Whether any of these parts is asked for."""
        return any(part in self.only for part in parts)

    def to_json(self) -> dict[str, Any]:
        """For :meth:`from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Plan:
        """The inverse of :meth:`to_json`."""
        return cls(**{**values, "only": tuple(values["only"])})


@dataclass(slots=True)
class Figure:
    """One line of the report: what each repetition gave, here and with the bare store; the value is the median.

    ``beside`` names what stands beside it, where that is not the same for all lines.
    """

    title: str
    unit: str
    all: list[float] = field(default_factory=list)
    raw_all: list[float] = field(default_factory=list)
    beside: str = ""

    @property
    def value(self) -> float | None:
        """The median of the repetitions."""
        return median(self.all) if self.all else None

    @property
    def raw(self) -> float | None:
        """The median of the bare store's."""
        return median(self.raw_all) if self.raw_all else None

    def to_json(self) -> dict[str, Any]:
        """With the medians and their ratio."""
        ratio = self.value / self.raw if self.value is not None and self.raw else None
        return {**asdict(self), "value": self.value, "raw": self.raw, "ratio": ratio}
