"""Interrupting the greenlets of the gevent pool, which stand for threads and are none to the interpreter."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_taskq.worker.shielding import Shield

# What is on its way, by the greenlet.
_sent: dict[int, Any] = {}


def are_threads() -> bool:
    """Whether this process's threads are greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def throw(ident: int, error: BaseException, shield: Shield | None = None) -> None:
    """Raise this in a greenlet that lives, where it waits, or at the end of what the shield covers then.

    ``ident`` is that of its thread.
    """
    greenlet: Any = ctypes.cast(ident, ctypes.py_object).value  # which is what gevent makes idents of

    def strike() -> None:
        if shield is not None and shield.depth:
            shield.held += (error,)
            sys.modules["gevent"].spawn(shield.hurry)  # which may wait, as nothing may here
        else:
            greenlet.throw(error)

    _sent[ident] = sys.modules["gevent"].get_hub().loop.run_callback(strike)


def forget(ident: int) -> None:
    """Take back what has not been raised yet."""
    callback = _sent.pop(ident, None)
    if callback is not None:
        callback.stop()
