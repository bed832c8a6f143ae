"""Interrupting the greenlets of the gevent pool, which stand for threads and are none to the interpreter."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

# What is on its way, by the greenlet.
_sent: dict[int, Any] = {}


def are_threads() -> bool:
    """Whether this process's threads are greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def throw(ident: int, error: BaseException) -> None:
    """Raise this in a greenlet that lives, where it waits. ``ident`` is that of its thread."""
    greenlet: Any = ctypes.cast(ident, ctypes.py_object).value  # which is what gevent makes idents of
    _sent[ident] = sys.modules["gevent"].get_hub().loop.run_callback(greenlet.throw, error)


def forget(ident: int) -> None:
    """Take back what has not been raised yet."""
    callback = _sent.pop(ident, None)
    if callback is not None:
        callback.stop()
