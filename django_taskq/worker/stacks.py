"""What every thread of this process is doing, as text for a log."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback

logger = logging.getLogger("django_taskq")

MOST_TEXT = 1 << 16


def dump() -> str:
    """The stacks of all threads, the newest call last; values of variables are not among it."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        parts.append(f"thread {names.get(ident, ident)}:\n{stack}")
    return "\n".join(parts)[:MOST_TEXT]


def log() -> None:
    """Log them, as one record."""
    logger.warning("stacks of process %d:\n%s", os.getpid(), dump())
