"""The options of ``taskworker`` that say in what its tasks run, how that is started, and how its log looks."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections

from django_taskq import conf
from django_taskq.conf_workers import FORKSERVER, GEVENT, POOLS, SOLO, START_METHODS
from django_taskq.logging import FORMATS
from django_taskq.management.storage import USAGE_EXIT
from django_taskq.worker.options import WorkerOptions

# What makes no sense with a pool, and what these options are without it.
SOLO_SHAPE: Mapping[str, Any] = {
    "processes": 1,
    "threads": 1,
    "coroutines": 0,
    "slots": None,
    "autoscale": None,
    "max_tasks_per_child": None,
    "max_memory_per_child": None,
    "start_method": None,
}


def add_to(parser: CommandParser) -> None:
    """Declare them."""
    group = parser.add_argument_group("pool and log")
    group.add_argument(
        "--pool",
        choices=POOLS,
        help="processes: with their threads and coroutines. solo: no process besides this one, which runs one task at "
        "a time; for debuggers. gevent: the threads are greenlets. Default: TASKQ['POOL'], or else processes.",
    )
    group.add_argument(
        "--start-method",
        choices=START_METHODS,
        help="How processes are started. Default: TASKQ['START_METHOD'], or else forkserver where that is safe.",
    )
    group.add_argument(
        "--log-format",
        choices=FORMATS,
        help="How the log looks where the project has no LOGGING of its own. "
        "Default: TASKQ['LOG_FORMAT'], or else text.",
    )


def apply(options: WorkerOptions, settings: conf.Settings, given: Mapping[str, Any]) -> WorkerOptions:
    """The other options with these. Raises ``CommandError`` for what contradicts them, or is not installed."""
    pool = given.get("pool") or settings.pool
    method = given.get("start_method") or settings.start_method
    if method == FORKSERVER and FORKSERVER not in multiprocessing.get_all_start_methods():
        raise _refusal("--start-method", "this system has no fork server; it has spawn")
    options = replace(
        options, pool=pool, start_method=method, log_format=given.get("log_format") or settings.log_format
    )
    if pool == SOLO:
        for name in SOLO_SHAPE:
            if given.get(name):
                raise _refusal(f"--{name.replace('_', '-')}", "not with the solo pool, which has no processes")
        shape = {name: value for name, value in SOLO_SHAPE.items() if name != "slots"}
        return replace(options, groups=(), **shape)
    if pool == GEVENT:
        _check_gevent(options, given)
        return replace(options, coroutines=0)
    return options


def _check_gevent(options: WorkerOptions, given: Mapping[str, Any]) -> None:
    if find_spec("gevent") is None:
        raise _refusal("--pool", "gevent is not installed: pip install 'django-kombu-taskq[gevent]'")
    engines = [str(connections[alias].settings_dict["ENGINE"]) for alias in connections]
    # Django takes psycopg 3 wherever it is installed.
    if any("postg" in engine for engine in engines) and find_spec("psycopg") is None:
        mend = "pip install 'psycopg[binary]>=3.2'"
        raise _refusal("--pool", f"each query of psycopg2 would stop all greenlets; gevent needs psycopg 3: {mend}")
    if given.get("coroutines"):
        raise _refusal("--coroutines", "not with the gevent pool: async tasks take threads there")
    if given.get("start_method") == FORKSERVER:
        raise _refusal("--start-method", "processes of the gevent pool are spawned")
    if options.threads < 2:
        raise _refusal("--pool", "say how many greenlets each process of the gevent pool has, such as --threads 50")


def _refusal(option: str, why: str) -> CommandError:
    return CommandError(f"argument {option}: {why}", returncode=USAGE_EXIT)
