"""The resources of a worker process: checked and opened again while it serves, told of, and closed when it stops.

What cannot be used makes the process *degraded*: runs that need it are left to others. Which these are, and why, stands
in the slot table for the supervisor to read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from django.db import connections

from django_taskq import open_resources, resources, signals
from django_taskq.exceptions import ResourceUnavailable
from django_taskq.open_resources import Resources, Trouble
from django_taskq.resources import Resource
from django_taskq.worker.table import SlotTable

logger = logging.getLogger("django_taskq")

LOOK_INTERVAL = 0.5  # seconds between looks for checks and tries that are due


class Resourcing:
    """Serves the resources that this project declares; starts no thread where there are none."""

    def __init__(self, table: SlotTable, worker_id: int, process_id: int) -> None:
        self._table = table
        self._ids = {"worker_id": worker_id, "process_id": process_id}
        self._resources = Resources(on_change=self._on_change)
        self._lock = threading.Lock()
        self._is_stopping = threading.Event()
        self._due: dict[str, float] = {}
        self._at_work: dict[str, threading.Thread] = {}

    def start(self) -> None:
        """Open what is to be open from the start, on the calling thread, and begin to check."""
        open_resources.serve(self._resources)
        declared = resources.all_resources()
        for each in declared:
            if each.at_start:
                # What fails is in trouble from now on, and told of; the process serves what does not need it.
                with suppress(ResourceUnavailable):
                    self._resources[each]
        if declared:
            pause = min(LOOK_INTERVAL, *(each.check_interval for each in declared))
            threading.Thread(target=self._watch, args=(pause,), name="taskq-resources", daemon=True).start()

    @property
    def closing(self) -> str:
        """The name of the resource that is being closed, if one is."""
        return self._resources.closing

    def stop(self) -> None:
        """Close what is open, on the calling thread."""
        self._is_stopping.set()
        self._resources.close()

    # Checks, and opening again what failed; each in a thread of its own, as any may hang.

    def _watch(self, pause: float) -> None:
        while not self._is_stopping.wait(pause):
            try:
                self._look(time.monotonic())
            except Exception:
                logger.exception("looking after the resources failed; it goes on")

    def _look(self, now: float) -> None:
        for name in self._resources.opened():
            declared = resources.find(name)
            if declared is None or declared.check is None:
                continue
            if now < self._due.setdefault(name, now + declared.check_interval):
                continue
            self._due[name] = now + declared.check_interval
            if not self._set_to_work(name, partial(self._check, declared, declared.check)):
                reason = f"the check of resource {name} has not answered for {declared.check_interval:g} s"
                self._resources.report(name, reason)
        for name, trouble in self._resources.troubles().items():
            if now >= trouble.retry_at:
                self._set_to_work(name, partial(self._open, name))

    def _set_to_work(self, name: str, work: Callable[[], None]) -> bool:
        """False when the last work on this resource is still going on."""
        before = self._at_work.get(name)
        if before is not None and before.is_alive():
            return False
        self._at_work[name] = threading.Thread(target=self._work, args=(work,), name=f"taskq-resource-{name}")
        self._at_work[name].daemon = True
        self._at_work[name].start()
        return True

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            connections.close_all()

    def _check(self, declared: Resource[..., Any], check: Callable[[Any], object]) -> None:
        reason = None
        try:
            if check(self._resources[declared]) is False:
                reason = f"the check of resource {declared.name} says no"
        except BaseException as error:
            reason = f"the check of resource {declared.name} fails: {type(error).__name__}: {error}"
        self._resources.report(declared.name, reason)

    def _open(self, name: str) -> None:
        with suppress(ResourceUnavailable):
            self._resources[name]

    # Telling of it.

    def _on_change(self, name: str, trouble: Trouble | None, lasted: float) -> None:
        with self._lock:
            troubles = self._resources.troubles()
            self._table.note({other: each.reason for other, each in troubles.items()})
        if trouble is None:
            logger.warning("resource %s is back after %.0f s", name, lasted)
            signals.send(signals.resource_recovered, None, **self._ids, resource=name, seconds=lasted)
            return
        logger.error("degraded: %s; runs that need it are left to others", trouble.reason)
        signals.send(signals.resource_degraded, None, **self._ids, resource=name, reason=trouble.reason)
