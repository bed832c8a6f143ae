"""The metrics in a project's own ``prometheus_client`` registry (the ``[prometheus]`` extra).

For processes that are scraped already, such as web processes. What happens in this very process is counted by
receivers of the signals, and the queues are looked at when somebody scrapes. A worker needs none of this: it serves
its own metrics (``--health-port``), of all its processes.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from django.db import connections
from django.db.utils import Error
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

from django_taskq import conf, signals
from django_taskq.message import Message, Outcome
from django_taskq.worker.health import backlog, families
from django_taskq.worker.health.backlog import Backlog
from django_taskq.worker.health.counts import MOST_SERIES, OTHER, Counts
from django_taskq.worker.health.families import Family, Sample

UID = "django_taskq.contrib.prometheus"


class TaskqCollector(Collector):
    """Counts what this process enqueues and ends, and reads the queues. Make one with :func:`connect`."""

    def __init__(self, *, with_queues: bool = True) -> None:
        """``with_queues``: look at the queues too, at most every other second, on the thread that scrapes."""
        self._with_queues = with_queues
        self._lock = threading.Lock()
        self._counts = Counts()
        self._enqueued: Counter[tuple[str, str]] = Counter()
        self._look_lock = threading.Lock()
        self._backlog: Backlog | None = None

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry asks so that it need not collect, and look at the database, when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            found = list(families.of_counts(self._counts))
            samples = [Sample((("task", task), ("queue", queue)), n) for (task, queue), n in self._enqueued.items()]
        found.append(Family("taskq_tasks_enqueued_total", "counter", "Runs that this process enqueued.", samples))
        if self._with_queues:
            found += families.of_backlog(self._look())
        yield from map(_metric, found)

    def _look(self) -> Backlog | None:
        with self._look_lock:
            if self._backlog is None or not self._backlog.is_fresh:
                try:
                    self._backlog = backlog.look()
                except Error:
                    self._backlog = None
                finally:
                    # Not a request's thread, so nobody else closes what it opened. Inside a block it is not ours.
                    connection = connections[conf.get_settings().database]
                    if not connection.in_atomic_block:
                        connection.close_if_unusable_or_obsolete()
            return self._backlog

    # Receivers.

    def on_enqueued(self, message: Message, **kwargs: Any) -> None:
        """Of ``task_enqueued``."""
        with self._lock:
            key = (message.name, message.queue_name)
            self._enqueued[key if key in self._enqueued or len(self._enqueued) < MOST_SERIES else (OTHER, OTHER)] += 1

    def on_ended(self, outcome: Outcome, **kwargs: Any) -> None:
        """Of ``task_finished`` and ``task_retried``."""
        with self._lock:
            self._counts.note([outcome])


def connect(registry: CollectorRegistry = REGISTRY, *, with_queues: bool = True) -> TaskqCollector:
    """Count from now on, and register that. For ``AppConfig.ready()``; a second call replaces the first one's."""
    disconnect()
    collector = TaskqCollector(with_queues=with_queues)
    registry.register(collector)
    _connected.append((registry, collector))
    # Strongly: nobody else may hold it.
    signals.task_enqueued.connect(collector.on_enqueued, weak=False, dispatch_uid=UID)
    for signal in (signals.task_finished, signals.task_retried):
        signal.connect(collector.on_ended, weak=False, dispatch_uid=UID)
    return collector


def disconnect() -> None:
    """The reverse of :func:`connect`."""
    for signal in (signals.task_enqueued, signals.task_finished, signals.task_retried):
        signal.disconnect(dispatch_uid=UID)
    while _connected:
        registry, collector = _connected.pop()
        registry.unregister(collector)


_connected: list[tuple[CollectorRegistry, TaskqCollector]] = []


def _metric(family: Family) -> Metric:
    made: Metric
    if family.kind == "counter":
        made = CounterMetricFamily(family.name, family.help)
    elif family.kind == "gauge":
        made = GaugeMetricFamily(family.name, family.help)
    else:
        made = HistogramMetricFamily(family.name, family.help)
    for sample in family.samples:
        name = family.name + sample.suffix
        made.add_sample(name, dict(sample.labels), sample.value)
    return made
