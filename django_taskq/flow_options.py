"""The options of a task that hold its runs back, parsed: rates, keys, breakers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

_PERIODS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Whoever lets runs pass looks at least this often while some wait, in seconds: what a rate allows in that time may
# come at once, or it could not be reached.
SHORTEST_LOOK = 0.1
MOST_AT_ONCE = 1_000_000
MOST_REST = 365 * 86400.0


class Rate(NamedTuple):
    """So many starts in a second, and so many of them at once."""

    per_second: float
    burst: int

    @property
    def text(self) -> str:
        """As it is written: ``100/m``."""
        for unit, seconds in _PERIODS.items():
            count = self.per_second * seconds
            if count >= 1 and abs(count - round(count)) < 1e-6 * count:
                return f"{round(count)}/{unit}"
        return f"{self.per_second:g}/s"


def parse_rate(value: Any, burst: Any = None) -> Rate:
    """``"100/m"`` (``s``, ``m``, ``h`` or ``d``; Celery's spelling), or a number a second; or ``ValueError``."""
    if isinstance(value, Rate):
        return value
    count, seconds = value, 1
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*([smhd])\s*", value)
        if match is None:
            raise ValueError('a rate such as "100/m" (so many per s, m, h or d), or a number a second')
        count, seconds = float(match[1]), _PERIODS[match[2]]
    if isinstance(count, bool) or not isinstance(count, (int, float)) or not 1e-6 <= count / seconds <= MOST_AT_ONCE:
        raise ValueError('a rate above 0 such as "100/m" (so many per s, m, h or d), or a number a second')
    per_second = count / seconds
    return Rate(per_second, parse_count(burst) if burst is not None else max(1, int(per_second * SHORTEST_LOOK)))


def parse_count(value: Any) -> int:
    """How many at once, or ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_AT_ONCE:
        raise ValueError(f"a whole number from 1 to {MOST_AT_ONCE:,}")
    return value


def parse_key(value: Any) -> str | Callable[..., str] | None:
    """A template or a function, or ``ValueError``; a template is held against the task's arguments by :mod:`.keys`."""
    if value is None or (isinstance(value, str) and value):
        return value
    if callable(value):
        function: Callable[..., str] = value
        return function
    raise ValueError('a template such as "tenant:{tenant_id}", or a function of the arguments')


@dataclass(frozen=True, slots=True, init=False)
class Breaker:
    """Stop starting a task after ``failures`` failures of one kind in a row, for ``rest`` seconds; then try one run.

    ``on`` are the classes of errors that count. While the breaker is open runs wait. When the one that is tried
    succeeds all may go on; when it fails the rest begins anew.
    """

    failures: int
    rest: float
    on: tuple[type[BaseException], ...]

    def __init__(
        self,
        failures: int = 5,
        rest: float | timedelta = 60.0,
        on: type[BaseException] | tuple[type[BaseException], ...] = (Exception,),
    ) -> None:
        seconds: Any = rest.total_seconds() if isinstance(rest, timedelta) else rest
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= MOST_REST:
            raise ValueError(f"Breaker(rest={rest!r}) is not usable: it takes seconds above 0, or a timedelta")
        classes: tuple[Any, ...] = on if isinstance(on, tuple) else (on,)
        if not classes or not all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
            raise ValueError(f"Breaker(on={on!r}) is not usable: it takes exception classes")
        object.__setattr__(self, "failures", parse_count(failures))
        object.__setattr__(self, "rest", float(seconds))
        object.__setattr__(self, "on", classes)


def parse_breaker(value: Any) -> Breaker | None:
    """A :class:`Breaker`, or a number of failures; or ``ValueError``."""
    if value is None or isinstance(value, Breaker):
        return value
    if isinstance(value, int):
        return Breaker(parse_count(value))
    raise ValueError("a Breaker(failures=..., rest=...), or how many failures open it")
