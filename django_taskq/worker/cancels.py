"""Cancelling what runs: the supervisor sees the marks on rows, tells the process, and ends what does not listen."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial, reduce
from operator import or_
from typing import Protocol

from django.db.models import Q

from django_taskq import maintenance, registry
from django_taskq.status import Status
from django_taskq.worker.child import Child
from django_taskq.worker.crew import Crew
from django_taskq.worker.orders import CANCEL, Order

logger = logging.getLogger("django_taskq")

LASTING = 0.1  # seconds: what is over sooner need not be asked about
PATIENCE = 1.0  # seconds that a run has to end after it was told

Held = tuple[int, int]  # process id, claim


class Boss(Protocol):
    """What is asked of the supervisor."""

    crew: Crew

    def call(self, function: Callable[[], object]) -> None: ...


class Cancels:
    """The runs of one worker that are being cancelled. For one thread, which is not the main loop's."""

    def __init__(self, boss: Boss) -> None:
        self._boss = boss
        self._told: dict[Held, float] = {}
        self._given_up: set[Held] = set()

    def look(self) -> float | None:
        """Tell and end what is to be; seconds until somebody's patience ends, None when nobody was told."""
        now = time.monotonic()
        running = {
            (child.process_id, claim): child
            for child in list(self._boss.crew.children)
            for claim in lasting(child, now)
        }
        self._told = {held: since for held, since in self._told.items() if held in running}
        self._given_up &= set(running)
        for held in marked([held for held in running if held not in self._told]):
            running[held].order(Order(CANCEL, str(held[1])))
            self._told[held] = now
        waiting = {held: since for held, since in self._told.items() if held not in self._given_up}
        for held in [held for held, since in waiting.items() if now - since >= PATIENCE]:
            self._given_up.add(held)
            del waiting[held]
            self._boss.call(partial(self._boss.crew.end_cancelled, *held))
        return max(0.0, min(waiting.values()) + PATIENCE - now) if waiting else None


def lasting(child: Child, now: float) -> list[int]:
    """The claims that a process has been running for a while; none of one that was buried meanwhile."""
    try:
        return [entry.claim for entry in child.table.running() if now - entry.started >= LASTING]
    except ValueError:
        return []


def marked(held: list[Held]) -> list[Held]:
    """Those whose rows somebody has asked to cancel. Not a batch, which goes on for the sake of its other calls."""
    if not held:
        return []
    by_process = defaultdict(list)
    for process_id, claim in held:
        by_process[process_id].append(claim)
    mine = reduce(or_, (Q(worker_id=process_id, claim__in=claims) for process_id, claims in by_process.items()))
    rows = maintenance.records().filter(mine, status=Status.RUNNING, cancel_requested_at__isnull=False)
    found = set(rows.exclude(name__in=registry.batch_names()).order_by().values_list("worker_id", "claim"))
    return [each for each in held if each in found]
