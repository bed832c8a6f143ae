"""What a worker says of itself when it is ready, and what it warns of."""

from __future__ import annotations

import os
from collections.abc import Iterator

from django.conf import settings as django_settings

from django_taskq import __version__, checks, conf, registry
from django_taskq.management import storage
from django_taskq.management.text import mask, shortened
from django_taskq.models import Worker
from django_taskq.worker.supervisor import WorkerOptions

WIDTH = 79


def for_terminal(worker: Worker, options: WorkerOptions) -> str:
    """Six lines for a person."""
    settings = conf.get_settings()
    count = len(registry.all_tasks())
    lines = [
        f"django_taskq {__version__}, worker {worker}",
        f"  database   {storage.describe(settings.database)} (broker {mask(settings.broker_url)})",
        f"  queues     {_order(options)}",
        f"  runs       {options.processes} process(es) x {options.threads} thread(s)",
        f"  tasks      {count} found",
        "Ctrl+C to stop.",
    ]
    return "\n".join(shortened(line, WIDTH) for line in lines)


def for_log(worker: Worker, options: WorkerOptions) -> str:
    """One line for a log."""
    return (
        f"taskworker ready: {worker} version={__version__} queues={options.order} processes={options.processes} "
        f"threads={options.threads} tasks={len(registry.all_tasks())}"
    )


def warnings(options: WorkerOptions) -> Iterator[str]:
    """What works now and may hurt later."""
    if django_settings.DEBUG:
        yield "DEBUG is on: fine while you develop, slow and talkative in production."
    if not registry.all_tasks():
        yield "no tasks found: put functions with @task into the tasks.py of an app in INSTALLED_APPS."
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        yield "running as root: so do all tasks. Use an ordinary user."
    limits = checks.unenforced_limits(options.threads)
    if limits:
        yield f"{limits} Use --threads 1 and more --processes."


def _order(options: WorkerOptions) -> str:
    order = options.order
    if order.rotate:
        return f"{', '.join(order.names)} (in rotation)"
    return f"{order} ({'strict order' if order.weights is None else 'weighted'})"
