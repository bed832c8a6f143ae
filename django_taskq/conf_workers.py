"""What ``TASKQ`` and the command line say about a worker's size, parsed: slots by queue, autoscaling, load limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django_taskq.conf_brokers import LoadLimit, parse_percent, parse_queue_name

MOST_SLOTS = 10_000
PROCESSES, SOLO, GEVENT = "processes", "solo", "gevent"
POOLS = (PROCESSES, SOLO, GEVENT)
FORKSERVER, SPAWN = "forkserver", "spawn"
START_METHODS = (FORKSERVER, SPAWN)


@dataclass(frozen=True, slots=True)
class SlotGroup:
    """Queues with slots of their own."""

    names: tuple[str, ...]
    slots: int

    def __str__(self) -> str:
        return f"{'+'.join(self.names)}={self.slots}"


class Autoscale(NamedTuple):
    """How few and how many processes a worker may have."""

    minimum: int
    maximum: int

    def __str__(self) -> str:
        return f"{self.minimum},{self.maximum}"

    def clamp(self, processes: int) -> int:
        """The nearest number that is allowed."""
        return max(self.minimum, min(self.maximum, processes))


def parse_slots(value: Any) -> dict[str, int]:
    """``SLOTS``: a dict such as ``{"mail": 2, "default+bulk": 6}``. Raises ``ValueError``."""
    if not isinstance(value, Mapping):
        raise ValueError('a dict such as {"mail": 2, "default+bulk": 6}: slots by queue, or by queues joined with +')
    everybody: list[str] = []
    for key, slots in value.items():
        everybody += [parse_queue_name(name) for name in str(key).split("+")]
        if isinstance(slots, bool) or not isinstance(slots, int) or not 1 <= slots <= MOST_SLOTS:
            raise ValueError(f"numbers of slots from 1 to {MOST_SLOTS}, which that of {key!r} is not")
    twice = sorted({name for name in everybody if everybody.count(name) > 1})
    if twice:
        raise ValueError(f"each queue once; {twice[0]!r} is there twice")
    return dict(value)


def slot_groups(slots: Mapping[str, int]) -> tuple[SlotGroup, ...]:
    """What :func:`parse_slots` has found to be sound, taken apart."""
    return tuple(SlotGroup(tuple(key.split("+")), count) for key, count in slots.items())


def parse_autoscale(value: Any) -> Autoscale | None:
    """``AUTOSCALE``: a pair of whole numbers, or None. Raises ``ValueError``."""
    if value is None:
        return None
    is_pair = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    if not is_pair or not all(isinstance(each, int) and not isinstance(each, bool) for each in value):
        raise ValueError("None, or the fewest and the most processes, such as (2, 8)")
    if not 1 <= value[0] <= value[1]:
        raise ValueError("two numbers of at least 1, the smaller one first")
    return Autoscale(*value)


def parse_slots_text(text: str) -> dict[str, int]:
    """The same from the command line: ``mail=2,default+bulk=6``."""
    slots: dict[str, int] = {}
    for part in _parts(text):
        names, equals, count = part.rpartition("=")
        if not equals or re.fullmatch(r"[0-9]{1,6}", count) is None:
            raise ValueError(f"parts such as mail=2 or default+bulk=6, which {part!r} is not")
        if names in slots:
            raise ValueError(f"each queue once; {names!r} is there twice")
        slots[names] = int(count)
    if not slots:
        raise ValueError("at least one queue, such as mail=2")
    return parse_slots(slots)


def parse_autoscale_text(text: str) -> Autoscale | None:
    """The same from the command line: ``2,8``."""
    parts = _parts(text)
    if len(parts) != 2 or not all(re.fullmatch(r"[0-9]{1,6}", part) for part in parts):
        raise ValueError("the fewest and the most processes, such as 2,8")
    return parse_autoscale([int(part) for part in parts])


def parse_load_text(text: str) -> tuple[str, LoadLimit]:
    """One queue's limits from the command line: ``bulk=cpu:80,memory:90``."""
    name, equals, limits = text.partition("=")
    found: dict[str, float] = {}
    for part in _parts(limits):
        what, _, percent = part.partition(":")
        if what not in ("cpu", "memory") or what in found or not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,2})?", percent):
            raise ValueError(f"limits such as cpu:80 or memory:90, each once, which {part!r} is not")
        found[what] = parse_percent(float(percent))
    if not equals or not found:
        raise ValueError("a queue and its limits, such as bulk=cpu:80,memory:90")
    return parse_queue_name(name), LoadLimit(found.get("cpu"), found.get("memory"))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
