"""Schedules from text, as settings, the admin and rows hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django_taskq.conf import suggest
from django_taskq.exceptions import InvalidSchedule
from django_taskq.schedules.base import Schedule
from django_taskq.schedules.crontab import MOST_CHARACTERS, crontab
from django_taskq.schedules.every import parse_every
from django_taskq.schedules.once import parse_once
from django_taskq.schedules.solar import parse_solar

FORMS = (
    "30 1 * * *",
    "@daily",
    "every 5 minutes",
    "once 2026-12-01T10:00:00+02:00",
    "solar sunset 56.95 24.1",
)
_PARSERS: dict[str, Callable[..., Schedule]] = {"every": parse_every, "once": parse_once, "solar": parse_solar}


def parse(text: str, **common: Any) -> Schedule:
    """The schedule that ``text`` says; ``common`` are the fields all schedules share. Raises :exc:`InvalidSchedule`."""
    first, *rest = _words(text)
    if first in _PARSERS:
        return _PARSERS[first](text, **common)
    if first[0] in "@*0123456789" or len(rest) == 4:
        return crontab(text, **common)
    raise InvalidSchedule(f"{text!r} is no schedule; {_forms()}{suggest(first, _PARSERS)}")


def _words(text: Any) -> list[str]:
    if not isinstance(text, str) or not text.strip():
        raise InvalidSchedule(f"{text!r} is no schedule; {_forms()}")
    if len(text) > MOST_CHARACTERS:
        raise InvalidSchedule(f"A schedule has at most {MOST_CHARACTERS} characters; this one has {len(text)}.")
    return text.lower().split()


def _forms() -> str:
    return f"the forms are: {'; '.join(FORMS)}."
