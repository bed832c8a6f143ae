"""The supervisor's hands in the database: deaths settled, due runs promoted, other workers' dead rescued, pruning.

And on depots, where there are any: rows handed to them, and what they hold for the dead, or have lost, found.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from django.db.utils import Error

from django_taskq import client, conf, maintenance
from django_taskq.brokers import get_broker
from django_taskq.brokers.database.broker import give_back
from django_taskq.charging import Death
from django_taskq.exceptions import TaskqError
from django_taskq.worker.hygiene import drop_connections
from django_taskq.worker.service import Service
from django_taskq.worker.table import SlotTable

logger = logging.getLogger("django_taskq")

LOOK_INTERVAL = 1.0  # seconds between looks for due runs when none is known to come sooner
SHORTEST_LOOK = 0.05
RESCUE_INTERVAL = 5.0
LOST_INTERVAL = 20.0  # a run that a depot has lost is published again after one to two of these
PRUNE_INTERVAL = 60.0
PRUNED_A_ROUND = 5000
DECLARED_A_ROUND = 1000


@dataclass(slots=True)
class Duty:
    """Something to see to ``every`` so many seconds, at each look with 0; ``due_at`` is on the monotonic clock."""

    name: str
    do: Callable[[], object]
    every: float = 0.0
    due_at: float = 0.0


class Keeper(Service):
    """Everything the main loop of the supervisor must not wait for."""

    name = "keeper"

    def __init__(self, worker_id: int, is_steady: Callable[[], bool]) -> None:
        """``is_steady`` tells whether this worker's own heartbeats have been getting through for a while."""
        super().__init__()
        self.worker_id = worker_id
        self._is_steady = is_steady
        self._deaths: deque[tuple[Death, Path]] = deque()
        self._stalled: deque[tuple[int, int, int]] = deque()
        self._ended: deque[tuple[int, Mapping[int, TaskqError]]] = deque()
        self._looked_at = -math.inf
        self._until_due: float | None = None
        self._workflows = Duty("look after workflows", self._look_after_workflows, LOOK_INTERVAL)
        # Not by the first look, for which the start of the worker waits.
        self._declared = Duty("declare limits", self._declare_limits, due_at=time.monotonic() + LOOK_INTERVAL)
        self._limits = Duty("tend limits", self._tend_limits)
        self._until_open: float | None = None
        self._duties = self._make_duties()

    @property
    def is_settled(self) -> bool:
        """Whether every death it was told of is settled."""
        return not self._deaths and not self._stalled and not self._ended

    def settle(self, death: Death, table_path: Path) -> None:
        """Have a death settled; its table file goes when that is done, so that a successor could do it too."""
        self._deaths.append((death, table_path))
        self.wake()

    def give_back(self, process_id: int, after: int, up_to: int) -> None:
        """Have those claims of a stalled process given back, which must have been revoked."""
        self._stalled.append((process_id, after, up_to))
        self.wake()

    def end_runs(self, process_id: int, errors: Mapping[int, TaskqError]) -> None:
        """Have runs end with these errors, by claim, while their process lives."""
        self._ended.append((process_id, errors))
        self.wake()

    def work(self) -> float:
        # Every ring may announce something; this bounds what rings can cost.
        pause = self._looked_at + SHORTEST_LOOK - time.monotonic()
        if self.is_settled and pause > 0:
            time.sleep(pause)
        until = self.look()
        self._looked_at = time.monotonic()
        return until

    def look(self) -> float:
        """See to everything that is due; returns the seconds until there may be more.

        A duty that fails unexpectedly is logged, done again by the next look, and keeps no other from being done.
        Without the database there is none to do: its errors end the look.
        """
        now = time.monotonic()
        for duty in self._duties:
            if now < duty.due_at:
                continue
            try:
                duty.do()
                duty.due_at = now + duty.every
            except Error:
                raise
            except Exception as error:
                logger.error("%s failed to %s; it goes on", self.name, duty.name, exc_info=error)
                drop_connections()
        known = [until for until in (self._until_due, self._until_open) if until is not None]
        return min(LOOK_INTERVAL, *(max(0.0, until - SHORTEST_LOOK) for until in known)) if known else LOOK_INTERVAL

    def _make_duties(self) -> list[Duty]:
        """In the order in which they are done: a depot can be slow, so what needs only the rows comes first."""
        now = time.monotonic()
        # A project with shorter leases wants its dead found sooner.
        rescue_interval = min(RESCUE_INTERVAL, conf.get_settings().heartbeat_interval)
        # Supervisors that were started together are not to prune together.
        prune_interval = PRUNE_INTERVAL * random.uniform(0.8, 1.2)
        return [
            Duty("settle deaths", self.settle_now),
            Duty("promote due runs", self._promote),
            self._declared,
            # Where all queues are on servers nobody else hears of them.
            Duty("let arrivals pass", maintenance.admit_arrivals),
            self._limits,
            self._workflows,
            Duty("rescue the dead", self._rescue, rescue_interval),
            Duty("prune", self._prune, prune_interval, now + prune_interval * random.random()),
            Duty("relay to brokers", lambda: get_broker().relay()),
            Duty("sweep brokers", self._sweep, rescue_interval),
            Duty("find what brokers lost", self._find_lost, LOST_INTERVAL, now + LOST_INTERVAL),
        ]

    def _promote(self) -> None:
        self._until_due = None
        while (until_due := maintenance.seconds_until_due()) == 0.0:
            maintenance.promote_due()
        self._until_due = until_due

    def _declare_limits(self) -> None:
        # Once: what the code of this worker says. Many that wait already pass by and by.
        is_over = maintenance.declare_limits(DECLARED_A_ROUND) < DECLARED_A_ROUND
        self._declared.every = math.inf if is_over else 0.0

    def _tend_limits(self) -> None:
        # With very many of them this is a long look; it takes a hundredth of the time, if nothing is to open. But what
        # the dead held at limits is not kept for longer than they are.
        began = time.monotonic()
        self._until_open = maintenance.tend_limits()
        every = min(100 * (time.monotonic() - began), RESCUE_INTERVAL)
        self._limits.every = every if self._until_open is None else min(every, self._until_open)

    def _rescue(self) -> None:
        # After an outage of the database every lease has ended: who comes back first must wait for the others.
        rescued = maintenance.rescue_dead_workers(self.worker_id, started_claims, include_remote=self._is_steady())
        rescued += maintenance.rescue_strays()
        if rescued:
            logger.warning("took over from %d dead worker(s)", rescued)

    def _look_after_workflows(self) -> None:
        # With very many of them this is a long look; it takes a hundredth of the time at most.
        began = time.monotonic()
        maintenance.look_after_workflows()
        self._workflows.every = max(LOOK_INTERVAL, 100 * (time.monotonic() - began))

    def _prune(self) -> None:
        maintenance.prune(at_most=PRUNED_A_ROUND)

    def _sweep(self) -> None:
        get_broker().sweep(conf.get_settings().lease_duration)

    def _find_lost(self) -> None:
        get_broker().find_lost(sorted(client.known_queues()))

    def settle_now(self) -> None:
        """Settle what is to be settled, on the calling thread's connection."""
        if self._deaths or self._ended:
            # They may have held places that others wait for.
            self._limits.due_at = 0.0
        while self._deaths:
            death, table_path = self._deaths[0]
            maintenance.settle_death(death)
            table_path.unlink(missing_ok=True)
            self._deaths.popleft()
        while self._ended:
            for outcome in maintenance.end_runs(*self._ended[0]):
                run, error = outcome.delivery, outcome.error
                logger.error("run %s of %s has ended: %s", run.id, run.name, error.summary if error else "")
            self._ended.popleft()
        while self._stalled:
            process_id, after, up_to = self._stalled[0]
            using = conf.get_settings().database
            # Not what it claimed since: by the time this is written it may run again, and what it runs is its own.
            give_back(using, process_id, is_suspect=False, after=after, up_to=up_to)
            get_broker().rescue_messages(process_id, is_suspect=False, after=after, up_to=up_to)
            self._stalled.popleft()


def started_claims(path: Path) -> Collection[int] | None:
    """What a dead process had started and not ended, from its table; None when there is no table to trust."""
    table = SlotTable.read(path)
    if table is None:
        return None
    claims = [running.claim for running in table.running()]
    table.close()
    return claims
