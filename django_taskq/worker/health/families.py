"""The metrics by name. Who collects decides how they are written: see :mod:`.exposition` and ``contrib/prometheus``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from django_taskq import __version__
from django_taskq.worker.health.backlog import Backlog
from django_taskq.worker.health.counts import BUCKETS, REFUSED, Counts, Histogram

Labels = tuple[tuple[str, str], ...]


class Sample(NamedTuple):
    """One value; ``suffix`` is added to the family's name (``_bucket``, ``_sum``, ``_count``)."""

    labels: Labels
    value: float
    suffix: str = ""


class Family(NamedTuple):
    """One metric. A counter's name ends in ``_total``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: list[Sample]


def of_counts(counts: Counts) -> Iterator[Family]:
    """What has been counted of runs, by task and queue."""
    ended: list[Sample] = []
    runtime: list[Sample] = []
    wait: list[Sample] = []
    refused = 0
    for (task, queue), series in sorted(counts.series.items()):
        labels = (("task", task), ("queue", queue))
        states = {state: count for state, count in sorted(series.states.items()) if state != REFUSED}
        ended += [Sample((*labels, ("state", state)), count) for state, count in states.items()]
        runtime += _histogram(labels, series.runtime)
        wait += _histogram(labels, series.wait)
        refused += series.states.get(REFUSED, 0)
    yield Family("taskq_tasks_total", "counter", "Attempts that ended, by how they ended.", ended)
    yield Family("taskq_task_runtime_seconds", "histogram", "How long attempts ran.", runtime)
    yield Family("taskq_task_wait_seconds", "histogram", "From the due time to the start.", wait)
    help = "Outcomes that were refused because somebody else had taken the run over."
    yield Family("taskq_outcomes_refused_total", "counter", help, [Sample((), refused)])


def of_backlog(backlog: Backlog | None) -> Iterator[Family]:
    """What waits in the whole cluster; of None, that it is not known, only that."""
    help = "Whether the numbers of queues could be read."
    yield Family("taskq_queues_up", "gauge", help, [Sample((), float(backlog is not None))])
    if backlog is None:
        return
    length, latency, workers, slots = [], [], [], []
    for name, queue in sorted(backlog.queues.items()):
        labels = (("queue", name),)
        length += [
            Sample((*labels, ("state", "due")), queue.due),
            Sample((*labels, ("state", "running")), queue.running),
        ]
        latency.append(Sample(labels, queue.latency))
        workers.append(Sample(labels, queue.workers))
        slots.append(Sample(labels, queue.slots))
    yield Family("taskq_queue_length", "gauge", "Runs that could start now, and runs that have.", length)
    yield Family("taskq_queue_latency_seconds", "gauge", "The age of the oldest due run.", latency)
    yield Family("taskq_workers", "gauge", "Workers online that serve the queue.", workers)
    yield Family("taskq_queue_slots", "gauge", "Slots of the workers online that serve the queue.", slots)
    up = [Sample((("broker", alias),), float(is_up)) for alias, is_up in sorted(backlog.brokers.items())]
    yield Family("taskq_broker_up", "gauge", "Whether the broker answered.", up)
    yield _one("taskq_outbox_backlog", "Runs that wait to be handed to their broker.", backlog.outbox)
    help = "For how long the most overdue due time of a schedule has been waiting."
    yield _one("taskq_schedule_lag_seconds", help, backlog.schedule_lag)


def of_worker(state: dict[str, Any], verdicts: dict[str, bool], leases_lost: int) -> Iterator[Family]:
    """This worker alone: ``state`` is of :func:`django_taskq.worker.state.snapshot`, ``verdicts`` by probe."""
    version = Sample((("version", __version__),), 1)
    yield Family("taskq_worker_info", "gauge", "The version of the package.", [version])
    healthy = [Sample((("probe", probe),), float(verdict)) for probe, verdict in verdicts.items()]
    yield Family("taskq_worker_healthy", "gauge", "What the probes say.", healthy)
    yield _one("taskq_worker_processes", "Worker processes that are up.", sum(p["up"] for p in state["processes"]))
    yield _one("taskq_worker_slots", "Units of concurrency.", state["slots"])
    yield _one("taskq_worker_busy", "Slots with a run.", state["busy"])
    yield _one("taskq_worker_lost_slots", "Slots lost to threads that are overdue.", state["lost_slots"])
    yield _one("taskq_worker_degraded", "Resources whose health check fails.", len(state["degraded"]))
    yield _one("taskq_worker_resident_bytes", "Memory of the worker processes, shared pages in each.", state["rss"])
    lost = [Sample((), leases_lost)]
    yield Family("taskq_leases_lost_total", "counter", "How often other workers took this one for dead.", lost)


def _one(name: str, help: str, value: float) -> Family:
    return Family(name, "gauge", help, [Sample((), value)])


def _histogram(labels: Labels, histogram: Histogram) -> Iterator[Sample]:
    bounds = [*map(str, BUCKETS), "+Inf"]
    for bound, count in zip(bounds, accumulate(histogram.counts), strict=True):
        yield Sample((*labels, ("le", bound)), count, "_bucket")
    yield Sample(labels, histogram.sum, "_sum")
    yield Sample(labels, sum(histogram.counts), "_count")
