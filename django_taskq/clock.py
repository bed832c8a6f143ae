"""The time as this package sees it: the host's, and in tests moved on by :func:`django_taskq.testing.clock`."""

from __future__ import annotations

import time as host
from datetime import UTC, datetime, timedelta

_moved = timedelta(0)
_moved_seconds = 0.0


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC) + _moved


def time() -> float:
    """The current time in POSIX seconds."""
    return host.time() + _moved_seconds


def moved() -> timedelta:
    """How far tests have moved the time; nothing outside of them."""
    return _moved


def move(by: timedelta) -> None:
    """Set how far the time is ahead of the host's."""
    global _moved, _moved_seconds
    _moved, _moved_seconds = by, by.total_seconds()
