"""What a worker says of itself when it is ready, and what it warns of."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence

from django.conf import settings as django_settings

from django_taskq import __version__, checks, conf, registry
from django_taskq.conf_brokers import DEFAULT_BROKER
from django_taskq.conf_workers import GEVENT, PROCESSES, SOLO
from django_taskq.management import storage
from django_taskq.management.brokers import Report
from django_taskq.management.text import shortened
from django_taskq.models import Worker
from django_taskq.worker.options import WorkerOptions

WIDTH = 79


def for_terminal(worker: Worker, options: WorkerOptions, brokers: Sequence[Report] = ()) -> str:
    """Six lines for a person, and some for each broker besides the database."""
    settings = conf.get_settings()
    count = len(registry.all_tasks())
    is_queue = " (broker database://)" if settings.broker(DEFAULT_BROKER).is_database else ""
    lines = [
        f"django_taskq {__version__}, worker {worker}",
        f"  database   {storage.describe(settings.database)}{is_queue}",
        *(line for report in brokers for line in _broker(report)),
        f"  queues     {_order(options)}",
        f"  runs       {_size(options)}",
        f"  tasks      {count} found",
        "Ctrl+C to stop.",
    ]
    return "\n".join(shortened(line, WIDTH) for line in lines)


def for_log(worker: Worker, options: WorkerOptions, brokers: Sequence[Report] = ()) -> str:
    """One line for a log."""
    named = ",".join(f"{report.alias}={report.url}" for report in brokers)
    return (
        f"taskworker ready: {worker} version={__version__} queues={options.served} processes={len(options.posts())} "
        f"threads={options.threads}{f' coroutines={options.coroutines}' if options.coroutines else ''}"
        f"{f' autoscale={options.autoscale}' if options.autoscale else ''}"
        f"{f' pool={options.pool}' if options.pool != PROCESSES else ''} "
        f"tasks={len(registry.all_tasks())}{f' brokers={named}' if named else ''}"
    )


def warnings(options: WorkerOptions) -> Iterator[str]:
    """What works now and may hurt later."""
    if django_settings.DEBUG:
        yield "DEBUG is on: fine while you develop, slow and talkative in production."
    if not registry.all_tasks():
        yield "no tasks found: put functions with @task into the tasks.py of an app in INSTALLED_APPS."
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        yield "running as root: so do all tasks. Use an ordinary user."
    if options.pool == SOLO:
        yield "solo: for debugging. Hard time limits and memory limits are not enforced."
    if options.health.is_open:
        yield "anybody who reaches the health port may read the metrics: set TASKQ['HEALTH_TOKEN'], or --health-host."
    limits = checks.weak_limits(options.threads + options.coroutines)
    if limits:
        yield f"{limits} Use --threads 1 and more --processes where a run that hangs must be ended."


def _broker(report: Report) -> Iterator[str]:
    """Where it is, and below what it says of itself: what a crash of it may cost is worth more than one line."""
    texts = report.texts("info")
    yield f"  broker     {report.url} ({report.alias}){':' if texts else ''}"
    for text in texts:
        yield from textwrap.wrap(text, WIDTH, initial_indent=" " * 13, subsequent_indent=" " * 13)


def _size(options: WorkerOptions) -> str:
    if options.pool == SOLO:
        return "one at a time in this process (solo)"
    posts = options.posts()
    if options.groups:
        return f"{len(posts)} process(es), {sum(post.threads for post in posts)} slot(s)"
    count = f"{options.autoscale.minimum} to {options.autoscale.maximum}" if options.autoscale else len(posts)
    kind = "greenlet" if options.pool == GEVENT else "thread"
    coroutines = f" and {options.coroutines} coroutine(s)" if options.coroutines else ""
    return f"{count} process(es) x {options.threads} {kind}(s){coroutines}"


def _order(options: WorkerOptions) -> str:
    order = options.order
    if options.groups:
        return f"{', '.join(map(str, options.groups))} (slots of their own)"
    if order.rotate:
        return f"{', '.join(order.names)} (in rotation)"
    return f"{order} ({'strict order' if order.weights is None else 'weighted'})"
