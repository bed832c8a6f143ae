"""What a run must pass before it may start: limits, locks and breakers, as they travel with it.

A run with gates is WAITING until it has passed them one after the other, from the narrowest to the widest. It holds a
permit of each gate behind it; so what queues at a wide gate is only what its own narrow one lets through, and none that
wait for each other can hold each other up.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from django_taskq import serializers
from django_taskq.exceptions import SerializationError


class Kind(enum.StrEnum):
    """The kinds of gates, in the order in which a run passes them."""

    BREAKER = "breaker"  # of a task: open while it works
    LOCK = "lock"  # one at a time
    TASK = "task"  # so many at once, of a task or of one of its keys
    RATE = "rate"  # so many in a time, of a task or of one of its keys
    GROUP = "group"  # so many at once, of the members of a group
    QUEUE = "queue"  # so many at once, of a queue
    QUEUE_RATE = "queue-rate"  # so many in a time, of a queue

    @property
    def rank(self) -> int:
        """Its place in that order."""
        return _RANKS[self]


_RANKS = {kind: rank for rank, kind in enumerate(Kind)}
MOST_IN_KEY = 200  # characters of what makes one key of a limit out of many


class Gate(NamedTuple):
    """One gate of a run: what it is the gate of, and what it was declared to let through.

    ``sub`` tells the keys of one limit apart. ``most`` is how many may be past it at once; ``rate`` how many may start
    in a second, and ``burst`` how many of them at once. Of a breaker, ``most`` is how many failures open it, and
    ``rest`` for how many seconds.
    """

    kind: str
    name: str
    sub: str = ""
    most: int | None = None
    rate: float | None = None
    burst: int | None = None
    rest: float | None = None

    @property
    def base(self) -> str:
        """The key of the limit as a whole."""
        return f"{self.kind}:{self.name}"

    @property
    def key(self) -> str:
        """What names the gate among all."""
        return f"{self.kind}:{self.name}:{self.sub}" if self.sub else self.base

    @property
    def rank(self) -> int:
        """Its place on the way of a run."""
        return Kind(self.kind).rank


def bounded(sub: str) -> str:
    """A text that is short enough for a key, and that every database takes, and still a different one for each."""
    found = sub.encode(errors="replace").decode().replace("\0", "?")
    if found == sub and len(sub) <= MOST_IN_KEY:
        return sub
    digest = hashlib.sha1(sub.encode(errors="surrogatepass"), usedforsecurity=False).hexdigest()
    return f"{found[: MOST_IN_KEY - 41]}~{digest}"


# In the headers, as text, of a run with gates.
GATED = '"gates":'
# In the column of the link that a step waits for: it waits for a gate, and for no step any more.
AT_GATE = -2


def written(gates: Sequence[Gate]) -> list[list[Any]] | None:
    """Gates as they stand in headers; None where there are none."""
    return [_trimmed(gate) for gate in gates] or None


def _trimmed(gate: Gate) -> list[Any]:
    values = list(gate)
    while values[-1] is None:
        values.pop()
    return values


def dumps(gates: Sequence[Gate]) -> str:
    """Gates as one text, the same for the same gates."""
    return serializers.dumps([_trimmed(gate) for gate in gates])


@lru_cache(maxsize=4096)
def loads(text: str) -> tuple[Gate, ...]:
    """The inverse of :func:`dumps`."""
    return tuple(Gate(*values) for values in serializers.loads(text))


def is_gated(headers: str | None) -> bool:
    """Whether a run with these headers has gates."""
    return headers is not None and GATED in headers


def gates_of(headers: str | None) -> tuple[Gate, ...]:
    """The gates of a run with these headers, in their order."""
    return _read(headers) if headers is not None and GATED in headers else ()


@lru_cache(maxsize=1024)
def _read(headers: str) -> tuple[Gate, ...]:
    """None where they are spoilt: such a run fails alone, and holds up nobody who records others with it."""
    try:
        gates = tuple(Gate(*values) for values in serializers.loads(headers)["gates"])
        return gates if all(gate.kind in _RANKS for gate in gates) else ()
    except (SerializationError, TypeError, KeyError, ValueError):
        return ()
