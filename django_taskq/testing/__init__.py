"""Helpers for a project's own tests of its tasks. They run through the real rows, serialisation and state machine.

The names are loaded when they are used: the settings of a test's worker lie in this package too, and are read before
there are any models.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_taskq.testing.capturing import Captured, CapturedRun, assert_enqueued, captured_tasks
    from django_taskq.testing.faults import BrokerDown, broker_down, worker_dies_in
    from django_taskq.testing.real import RealWorker, worker
    from django_taskq.testing.running import TestClock, advance, clock, drain, resources

_MODULES = {
    "capturing": ("Captured", "CapturedRun", "assert_enqueued", "captured_tasks"),
    "faults": ("BrokerDown", "broker_down", "worker_dies_in"),
    "real": ("RealWorker", "worker"),
    "running": ("TestClock", "advance", "clock", "drain", "resources"),
}
__all__ = [
    "BrokerDown",
    "Captured",
    "CapturedRun",
    "RealWorker",
    "TestClock",
    "advance",
    "assert_enqueued",
    "broker_down",
    "captured_tasks",
    "clock",
    "drain",
    "resources",
    "worker",
    "worker_dies_in",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
