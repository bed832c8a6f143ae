"""How much waits where: one look at the database (and at the depots), for everybody who asks within some seconds.

Counting what waits costs the more, the more waits. So a look is used again for twenty times as long as it took.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from django.db.models import CharField, Count, Max, Min, QuerySet, Value
from django.db.models.functions import Coalesce

from django_taskq import brokers, client, conf, scheduler
from django_taskq.brokers.depot import Depot
from django_taskq.exceptions import DepotError
from django_taskq.maintenance import records
from django_taskq.message import EXCHANGE
from django_taskq.models import Worker
from django_taskq.models.clock import database_now
from django_taskq.status import Status

SHORTEST_REUSE = 2.0  # seconds
REUSE_FACTOR = 20

DUE, RUNNING = "due", "running"


@dataclass(slots=True)
class QueueState:
    """One queue in the whole cluster.

    ``due``: runs that could start now; ``running``: those that have. ``latency`` is the age of the oldest due run in
    seconds, 0 without one: for how long it could have been running. ``workers`` are those online that serve the queue,
    ``slots`` theirs that do; queues that share slots each count them.
    """

    due: int = 0
    running: int = 0
    latency: float = 0.0
    workers: int = 0
    slots: int = 0


@dataclass(slots=True)
class Backlog:
    """What one look found. ``took`` is in seconds, ``looked_at`` on the monotonic clock.

    ``brokers`` are all by alias, and whether each answered: of a queue whose broker did not, only the rows are counted.
    ``outbox``: rows that wait to be handed to their broker. ``schedule_lag``: for how many seconds the most overdue
    due time of a schedule has been waiting for a scheduler.
    """

    queues: dict[str, QueueState] = field(default_factory=dict)
    brokers: dict[str, bool] = field(default_factory=dict)
    outbox: int = 0
    schedule_lag: float = 0.0
    looked_at: float = 0.0
    took: float = 0.0

    @property
    def is_fresh(self) -> bool:
        """Whether there is no need to look again."""
        return time.monotonic() - self.looked_at < max(SHORTEST_REUSE, REUSE_FACTOR * self.took)


def look() -> Backlog:
    """Ask now. Raises Django's database errors; a depot that is down is noted."""
    began = time.monotonic()
    found = Backlog({name: QueueState() for name in sorted(client.known_queues())})
    found.brokers = dict.fromkeys(conf.get_settings().broker_aliases(), True)
    _read_rows(found)
    _read_workers(found)
    found.schedule_lag = _schedule_lag()
    depots = brokers.get_depots()
    if depots:
        found.outbox = records().filter(status=Status.READY, publish_after__isnull=False).count()
        for name, queue in found.queues.items():
            depot = depots.get(brokers.alias_of(name))
            if depot is not None and found.brokers[depot.config.alias]:
                _read_depot(found, queue, depot, name)
    found.looked_at = time.monotonic()
    found.took = found.looked_at - began
    return found


def _read_rows(found: Backlog) -> None:
    """One statement, each part of which reads a partial index of its own: history costs it nothing."""
    now = database_now(conf.get_settings().database)
    parts = [
        _counted(DUE, status=Status.READY),
        _counted(DUE, status=Status.SCHEDULED, run_after__lte=now),
        # Claimed and not begun: in the hands of a process that may be stuck.
        _counted(DUE, status=Status.RUNNING, started_at=None),
        _counted(RUNNING, status=Status.RUNNING, started_at__isnull=False),
    ]
    for name, state, count, since, at in parts[0].union(*parts[1:], all=True):
        if name.startswith(EXCHANGE):
            continue  # no worker serves it: it waits in the outbox
        queue = found.queues.setdefault(name, QueueState())
        if state == RUNNING:
            queue.running += count
        else:
            queue.due += count
            queue.latency = max(queue.latency, (at - since).total_seconds())


def _counted(state: str, **conditions: Any) -> QuerySet[Any, Any]:
    groups = records().filter(**conditions).order_by().values("queue_name")
    return groups.annotate(
        state=Value(state, output_field=CharField()),
        count=Count("pk"),
        since=Min(Coalesce("run_after", "enqueued_at")),
        at=Max(database_now(groups.db)),
    ).values_list("queue_name", "state", "count", "since", "at")


def _read_workers(found: Backlog) -> None:
    online = Worker.objects.using(conf.get_settings().database).online()
    for worker in online.only("queues", "processes", "threads", "slots"):
        for name, slots in worker.slots_by_queue.items():
            queue = found.queues.setdefault(name, QueueState())
            queue.workers += 1
            queue.slots += slots


def _schedule_lag() -> float:
    planned = scheduler.periodic_tasks().active().filter(next_start_at__isnull=False)
    times = planned.aggregate(next=Min("next_start_at"), now=Max(database_now(planned.db)))
    return 0.0 if times["next"] is None else max(0.0, (times["now"] - times["next"]).total_seconds())


def _read_depot(found: Backlog, queue: QueueState, depot: Depot, name: str) -> None:
    """A run with a row has a message as well, so the larger number holds, and the older one."""
    try:
        queue.due = max(queue.due, depot.size(name))
        queue.latency = max(queue.latency, depot.oldest_age(name) or 0.0)
    except DepotError:
        found.brokers[depot.config.alias] = False
