"""Waiting for what another process or thread will do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_for(
    predicate: Callable[[], Value],
    timeout: float = 10,
    message: str | Callable[[], str] = "",
    interval: float = 0.02,
) -> Value:
    """Call ``predicate`` until it returns something true, and return that; fail the test when the time is up.

    ``message`` says what was waited for; give a function to show the state at the end.
    """
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > deadline:
            text = message() if callable(message) else message
            raise AssertionError(f"not within {timeout} s: {text or getattr(predicate, '__name__', predicate)}")
        time.sleep(interval)
    return value
