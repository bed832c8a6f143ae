"""The same store without Django: what the hardware, the database and the table's indexes allow.

:func:`connect` gives the store of a database. ``bare.py`` is run as a script of its own, so that it loads nothing else.
"""

from __future__ import annotations

from importlib import import_module

from django_taskq.bench.raw.store import Access, RawStore

__all__ = ["Access", "RawStore", "connect"]


def connect(access: Access) -> RawStore:
    """A new connection. The module is chosen by name, because its driver need not be installed."""
    store: RawStore = import_module(f"django_taskq.bench.raw.{access.vendor}").Store(access)
    return store
