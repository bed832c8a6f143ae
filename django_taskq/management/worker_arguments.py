"""The command line of ``taskworker``, and what it means over the settings."""

from __future__ import annotations

import argparse
import math
from typing import Any

from django.core.management.base import CommandParser

from django_taskq import client, conf, sizes
from django_taskq.management import development, worker_health, worker_pools, worker_shape
from django_taskq.worker.options import WorkerOptions


def add_to(parser: CommandParser) -> None:
    """Declare the options of ``taskworker``."""
    defaults = conf.Settings()
    parser.add_argument(
        "--queues",
        help="Queues to serve: 'a,b' in strict order, 'a=3,b=1' by weight. Default: all known queues in rotation.",
    )
    parser.add_argument(
        "--processes",
        type=_whole_number,
        help="Worker processes. Default: TASKQ['PROCESSES'], or else one for each processor.",
    )
    parser.add_argument(
        "--threads",
        type=_whole_number,
        help=f"Threads in each process. Default: TASKQ['THREADS'], or else {defaults.threads}.",
    )
    parser.add_argument(
        "--coroutines",
        type=_whole_number_or_zero,
        metavar="N",
        help="Async tasks that each process runs side by side on one loop, beside its threads. "
        f"Default: TASKQ['COROUTINES'], or else {defaults.coroutines}: they take threads.",
    )
    parser.add_argument(
        "--burst", action="store_true", help="Stop when nothing is left that could run now. Default: go on waiting."
    )
    parser.add_argument(
        "--max-tasks", type=_whole_number, help="Stop after so many runs. Default: there is no such limit."
    )
    _add_leak_protection(parser)
    parser.add_argument(
        "--grace",
        type=_seconds,
        help="Seconds that running tasks may take to finish when the worker is stopped. "
        f"Default: TASKQ['GRACE'], or else {defaults.grace:g}.",
    )
    parser.add_argument(
        "--no-scheduler",
        action="store_true",
        help="Leave the schedules to other workers or to taskbeat. Default: every worker can run them.",
    )
    worker_shape.add_to(parser)
    worker_health.add_to(parser)
    worker_pools.add_to(parser)
    development.add_to(parser)


def _add_leak_protection(parser: CommandParser) -> None:
    group = parser.add_argument_group("leak protection")
    group.add_argument(
        "--max-tasks-per-child",
        type=_whole_number,
        metavar="N",
        help="Replace a process after so many runs, without a gap. "
        "Default: TASKQ['MAX_TASKS_PER_CHILD'], or else never.",
    )
    group.add_argument(
        "--max-memory-per-child",
        type=_size,
        metavar="SIZE",
        help="Replace a process that has so much in memory after a run, such as 300MB. "
        "Default: TASKQ['MAX_MEMORY_PER_CHILD'], or else never.",
    )


def parse(settings: conf.Settings, given: dict[str, Any]) -> WorkerOptions:
    """The command line over the settings. Raises ``CommandError`` for what cannot be, such as unknown queues."""
    options = WorkerOptions(
        **worker_shape.parse(settings, given, client.known_queues()),
        threads=given["threads"] or settings.threads,
        coroutines=settings.coroutines if given["coroutines"] is None else given["coroutines"],
        grace=settings.grace if given["grace"] is None else given["grace"],
        burst=given["burst"],
        max_tasks=given["max_tasks"],
        max_tasks_per_child=given["max_tasks_per_child"] or settings.max_tasks_per_child,
        max_memory_per_child=given["max_memory_per_child"] or settings.max_memory_per_child,
        shows_runs=given.get("verbosity", 1) > 0,
        has_scheduler=not given.get("no_scheduler", False),
        health=worker_health.parse(settings, given),
    )
    return worker_pools.apply(options, settings, given)


def _whole_number(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not usable: it takes a whole number of at least 1")
    return value


def _whole_number_or_zero(text: str) -> int:
    return 0 if text == "0" else _whole_number(text)


def _size(text: str) -> int:
    try:
        return sizes.parse(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not usable: it takes {error}") from error


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not usable: it takes a number of seconds of at least 0")
    return value
