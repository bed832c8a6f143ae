"""Transactions that a database ends because of others (SQLSTATE 40001, 40P01), and that it asks to have tried again.

With ``READ COMMITTED`` there are hardly any. A project may have chosen a higher level, for its connections or on the
server, and then any statement may be struck.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import connections
from django.db.utils import Error

Value = TypeVar("Value")

STATES = ("40001", "40P01")  # SQLSTATE: serialization_failure, deadlock_detected
TRIES = 10
FIRST_PAUSE, MOST_PAUSE = 0.002, 0.2  # seconds


def is_conflict(error: BaseException) -> bool:
    """Whether the same again may well succeed."""
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)  # psycopg, psycopg2
    return state in STATES


def persist(using: str, work: Callable[[], Value]) -> Value:
    """Call ``work``, and again after a conflict, ten times at most (about a second); then its error is raised.

    Inside a transaction on ``using`` it is called once: the conflict has ended that as a whole.
    """
    pause = FIRST_PAUSE
    for _ in range(TRIES - 1):
        if connections[using].in_atomic_block:
            break
        try:
            return work()
        except Error as error:
            if not is_conflict(error):
                raise
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, MOST_PAUSE)
    return work()
