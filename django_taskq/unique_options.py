"""``@task(unique=...)``, parsed: what makes two calls the same, and what becomes of the second one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django_taskq import conf

RETURN, REPLACE, LATEST = "return", "replace", "latest"
POLICIES = (RETURN, REPLACE, LATEST)


@dataclass(frozen=True, slots=True)
class Unique:
    """One run for a key at a time: until it has ended, or also for ``period`` seconds after it was enqueued.

    ``by`` is what the key is made of: True for all arguments, a list of their names, a template such as
    ``"report:{report_id}"``, or a function of the arguments that returns a text. ``on_duplicate`` says what a second
    call does: ``"return"`` the first's handle; ``"replace"`` the arguments of the first while it has not started;
    or have the ``"latest"`` arguments run: one runs, and one waits with what the last call gave. ``debounce`` has a
    run start so many seconds after the last call, with the arguments of that.
    """

    by: bool | str | Sequence[str] | Callable[..., str] = True
    period: float | timedelta | None = None
    debounce: float | timedelta | None = None
    on_duplicate: str = RETURN

    def __post_init__(self) -> None:
        for name, parse in (("by", _by), ("period", _seconds), ("debounce", _seconds), ("on_duplicate", _policy)):
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, parse(value))
            except ValueError as error:
                raise ValueError(f"Unique({name}={value!r}) is not usable: it takes {error}") from None
        if self.debounce is not None and self.period is not None:
            raise ValueError("Unique takes either period or debounce: one starts the first call's run, one the last's")
        if self.debounce is not None and self.on_duplicate != RETURN:
            raise ValueError("Unique(debounce=...) replaces the arguments by itself: leave on_duplicate out")
        if self.period is not None and self.on_duplicate == LATEST:
            raise ValueError('Unique(on_duplicate="latest") runs the last call, and period drops it: leave one out')

    @property
    def wants_latest(self) -> bool:
        """Whether a call while one runs has another run follow: such runs never go on side by side."""
        return self.debounce is not None or self.on_duplicate == LATEST


def parse_unique(value: Any) -> Unique | None:
    """A :class:`Unique`, or what its ``by`` takes; or ``ValueError``."""
    if value is None or value is False or isinstance(value, Unique):
        return value or None
    return Unique(by=_by(value))


def _by(value: Any) -> Any:
    if value is True or callable(value) or (isinstance(value, str) and value):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(name, str) and name for name in value):
        return tuple(value)
    raise ValueError('a key: True, names of arguments in a list, a template such as "order:{order_id}", or a function')


def _seconds(value: Any) -> float | None:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= conf.MOST_SECONDS:
        raise ValueError("a number of seconds above 0, or a timedelta, of at most ten years")
    return float(value)


def _policy(value: Any) -> str:
    if value in POLICIES:
        return str(value)
    named = ", ".join(f'"{policy}"' for policy in POLICIES)
    raise ValueError(f"one of {named}.{conf.suggest(value, POLICIES) if isinstance(value, str) else ''}")
