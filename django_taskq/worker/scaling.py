"""How many processes a worker should have: decided once a second, from what waits and what runs.

More at once when runs wait; fewer after a while in which fewer would have done. The deciding functions know no clock
and no database.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db.models import Count, Max, Min
from django.db.models.functions import Coalesce
from django.utils.module_loading import import_string

from django_taskq import conf, maintenance, registry
from django_taskq.brokers import alias_of, get_broker, get_depots
from django_taskq.exceptions import DepotError
from django_taskq.models.clock import database_now
from django_taskq.status import Status
from django_taskq.worker.child import Child
from django_taskq.worker.load import Meter, Reading
from django_taskq.worker.options import WorkerOptions
from django_taskq.worker.service import Service
from django_taskq.worker.shutter import Shutter

logger = logging.getLogger("django_taskq")

LOOK_INTERVAL = 1.0  # seconds
# A run that waits for less is soon to be fetched by somebody who is at the end of another.
TOLERATED_LATENCY = 0.5  # seconds
# Above this more processes would only take from each other; percent.
FULL = 90.0
# Rows looked at: more say nothing else about a worker's size, and counting a million takes long.
MOST_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Facts:
    """What a decision rests on, and what ``AUTOSCALE_METRIC`` is called with.

    ``processes`` there are now, with ``slots`` altogether, of which ``busy`` run something. ``due`` runs could start
    now (counted up to 1,000), and the oldest of them could for ``latency`` seconds. ``cpu`` and ``memory`` of the host
    are in percent, None where unknown. ``minimum`` and ``maximum`` are the bounds of the answer.
    """

    processes: int
    slots: int
    busy: int
    due: int
    latency: float
    cpu: float | None
    memory: float | None
    minimum: int
    maximum: int


def needed(facts: Facts) -> int:
    """How many processes the work asks for; not bounded."""
    each = max(1.0, facts.slots / max(1, facts.processes))
    at_once = math.ceil((facts.busy + facts.due) / each)
    if not facts.due or facts.latency < TOLERATED_LATENCY:
        return min(at_once, facts.processes)
    if max(facts.cpu or 0.0, facts.memory or 0.0) >= FULL:
        return facts.processes
    # Short runs are over before anybody counts them: what waits for long wants more, whatever the slots look like.
    return min(max(at_once, facts.processes + 1), 2 * facts.processes)


class Lull(NamedTuple):
    """Since when (seconds) fewer processes would have done, and how many were needed at most since then."""

    since: float
    most: int


def settle(wanted: int, facts: Facts, lull: Lull | None, now: float, down_after: float) -> tuple[int, Lull | None]:
    """How many to have, and the lull to give here next time: up at once, down by a part after each ``down_after``."""
    if facts.processes > facts.maximum:
        return facts.maximum, None
    wanted = max(facts.minimum, min(facts.maximum, wanted))
    if wanted >= facts.processes:
        return wanted, None
    lull = Lull(now, wanted) if lull is None else Lull(lull.since, max(lull.most, wanted))
    if now - lull.since < down_after:
        return facts.processes, lull
    return max(lull.most, facts.processes - 1 - facts.processes // 4), Lull(now, wanted)


class Census(NamedTuple):
    """The processes that are to stay, as their slot tables show them; from any thread."""

    is_starting: bool
    is_anyone_idle: bool
    slots: int
    busy: int

    @classmethod
    def take(cls, children: Sequence[Child]) -> Census:
        is_starting, is_anyone_idle, slots, busy = False, False, 0, 0
        for child in children:
            with suppress(ValueError):  # it has ended, and its table is closed
                if not child.is_leaving and child.successor is None:
                    is_starting |= not child.is_up
                    is_anyone_idle |= child.is_idle
                    slots += child.table.slots
                    busy += len(child.table.running())
        return cls(is_starting, is_anyone_idle, slots, busy)


class Scaling(Service):
    """Asks for more or fewer processes. While some are starting it waits: what they will do is not known yet."""

    name = "autoscale"

    def __init__(
        self,
        options: Callable[[], WorkerOptions],
        children: Callable[[], Sequence[Child]],
        shutter: Shutter,
        ask_for: Callable[[int], None],
        read: Callable[[], Reading] | None = None,
    ) -> None:
        """``options`` and ``children`` give those of the moment; ``ask_for`` is called with a number of processes."""
        super().__init__()
        self._options = options
        self._children = children
        self._shutter = shutter
        self._ask_for = ask_for
        self._read = read
        self._lull: Lull | None = None
        self._has_failed = False

    def work(self) -> float:
        options = self._options()
        census = Census.take(self._children())
        if options.autoscale is None or self._shutter.is_quiet or census.is_starting or not census.slots:
            return LOOK_INTERVAL
        facts = self._facts(options, census)
        settings = conf.get_settings()
        wanted = self._by_metric(settings.autoscale_metric, facts) if settings.autoscale_metric else needed(facts)
        number, self._lull = settle(wanted, facts, self._lull, time.monotonic(), settings.autoscale_down_after)
        if number != facts.processes:
            logger.info("%d processes instead of %d: %s", number, facts.processes, _shown(facts))
            self._ask_for(number)
        return LOOK_INTERVAL

    def _facts(self, options: WorkerOptions, census: Census) -> Facts:
        if self._read is None:
            self._read = Meter().read
        reading = self._read()
        names = [name for name in options.order.names if name not in self._shutter.closed]
        # Who is idle has just looked: nothing waits, and the database is left in peace.
        due, latency = (0, 0.0) if census.is_anyone_idle or not names else backlog(names)
        bounds = options.autoscale or (options.processes, options.processes)
        return Facts(options.processes, census.slots, census.busy, due, latency, reading.cpu, reading.memory, *bounds)

    def _by_metric(self, path: str, facts: Facts) -> int:
        """What the project's own function says; what there is when it fails."""
        try:
            answer: Any = import_string(path)(facts)
            if isinstance(answer, bool) or not isinstance(answer, (int, float)) or not math.isfinite(answer):
                raise TypeError(f"it takes a number of processes, not {answer!r}")
        except Exception:
            if not self._has_failed:
                logger.exception("AUTOSCALE_METRIC %s failed; the number of processes stays until it works", path)
            self._has_failed = True
            return facts.processes
        self._has_failed = False
        return math.ceil(answer)


def backlog(queue_names: Collection[str]) -> tuple[int, float]:
    """How many runs of these queues could start now, up to :data:`MOST_COUNTED`, and for how long the oldest could.

    With more the age is that of the oldest among those counted. One query; depots are asked only where there are
    tasks without rows.
    """
    using = conf.get_settings().database
    ready = maintenance.records(using).filter(status=Status.READY, queue_name__in=queue_names).order_by()
    seen = ready.annotate(since=Coalesce("run_after", "enqueued_at"), now=database_now(using))[:MOST_COUNTED]
    found = seen.aggregate(count=Count("pk"), oldest=Min("since"), asked=Max("now"))
    count, age = found["count"], 0.0
    if count:
        age = max(0.0, (found["asked"] - found["oldest"]).total_seconds())
    if all(task.options.track_pending for task in registry.all_tasks()):
        return count, age
    kept = [name for name in queue_names if alias_of(name) in get_depots()]
    with suppress(DepotError):
        count = max(count, min(MOST_COUNTED, sum(get_broker().size(name) for name in kept)))
        age = max([age, *(get_broker().oldest_age(name) or 0.0 for name in kept)])
    return count, age


def _shown(facts: Facts) -> str:
    return f"{facts.busy} of {facts.slots} slots busy, {facts.due} runs due, the oldest for {facts.latency:.1f} s"
