"""System checks: each wrong or risky setting with an id, and a hint that says what to type.

``manage.py check --tag django_taskq`` runs them. None of them does I/O, but W004, which Django runs with the checks
of databases only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.module_loading import import_string

from django_taskq import brokers, conf, declared, registry, resources
from django_taskq.exceptions import InvalidSchedule
from django_taskq.models import TaskRecord

TAG = "django_taskq"

# Every id there is, with what it is about; docs and tests are held against this.
CHECKS: Mapping[str, str] = {
    "E001": "TASKQ is not a dict",
    "E002": "TASKQ has a key that is not a setting",
    "E003": "a setting has a value that is not usable",
    "E004": "LEASE_DURATION is shorter than two heartbeats",
    "E005": "SOFT_TIME_LIMIT is not below TIME_LIMIT",
    "E006": "DATABASE is not an alias in DATABASES",
    "E007": "DATABASE is not the default one, and no router sends the rows there",
    "E008": "the queue does not speak this kind of database",
    "E009": "the SQLite library is too old",
    "E010": "an entry of SCHEDULE cannot work",
    "E011": "BROKER_URL and BROKERS both name the default broker",
    "E012": "a queue or exchange is on a broker that BROKERS does not name",
    "E013": "an exchange is on a broker that has none",
    "E014": "a broker's library is missing, or its OPTIONS cannot be used",
    "E015": "an exchange copies to a queue that another broker keeps",
    "E016": "SLOTS and AUTOSCALE are both set",
    "E017": "AUTOSCALE_METRIC is not a function that can be imported",
    "E018": "a task or a resource needs a resource that nobody declares",
    "W001": "SQLite transactions do not begin IMMEDIATE",
    "W002": "SQLite's timeout is short",
    "W003": "SQLite connections do not ask for WAL mode",
    "W004": "the SQLite file is not in WAL mode",
    "W005": "hard time limits end no run in a process with several slots",
    "W006": "the connection pool is smaller than what a worker needs",
}

SUPPORTED = ("postgresql", "sqlite")
OLDEST_SQLITE = (3, 35, 0)
SHORTEST_TIMEOUT = 20
SQLITE_OPTIONS = (
    '"OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, '
    '"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"}'
)
# Heartbeat, doorbell, keeper, commands and scheduler; and the main thread while it starts a process.
SUPERVISOR_CONNECTIONS = 6
NAMED_TASKS = 5


@register(TAG)
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """E001 to E006, E011 to E013, E015 and E016: what ``conf`` finds wrong with ``TASKQ``."""
    return [
        Error(problem.message, hint=problem.hint, id=f"django_taskq.{problem.check_id}") for problem in conf.problems()
    ]


@register(TAG)
def check_database(**kwargs: Any) -> list[CheckMessage]:
    """E007 to E009 and W001 to W003: the database that holds the rows, from its settings alone."""
    if conf.problems():
        return []
    alias = conf.get_settings().database
    connection = connections[alias]
    found = list(_routing(alias))
    if connection.vendor not in SUPPORTED:
        message = f"TASKQ['DATABASE'] is {alias!r}, a {connection.vendor} database, which the queue does not speak."
        hint = f"Name an alias of one of these in TASKQ['DATABASE']: {', '.join(SUPPORTED)}."
        found.append(Error(message, hint=hint, id="django_taskq.E008"))
    if connection.vendor == "sqlite":
        found += _sqlite(connection)
    return found


@register(TAG)
def check_brokers(**kwargs: Any) -> list[CheckMessage]:
    """E014: each broker is made once, which connects to nothing."""
    if conf.problems():
        return []
    settings = conf.get_settings()
    found: list[CheckMessage] = []
    for alias in settings.broker_aliases():
        config = settings.broker(alias)
        if config.is_database:
            continue
        try:
            brokers.make_depot(config)
        except (ImproperlyConfigured, ImportError, ValueError) as error:
            message = str(error)
            if isinstance(error, ImportError):
                message = f"The library of the broker {alias!r} cannot be imported: {error}"
            elif isinstance(error, ValueError):  # from reading the URL, of which its text may repeat a password
                message = f"The URL of the broker {alias!r} cannot be read"
            where = f"TASKQ['BROKERS'][{alias!r}]" if alias in settings.brokers else "TASKQ['BROKER_URL']"
            hint = f"Install what is missing, or correct {where}; until then nothing is enqueued and no worker starts."
            found.append(Error(f"{message.removesuffix('.')}.", hint=hint, id="django_taskq.E014"))
    return found


@register(TAG)
def check_schedules(**kwargs: Any) -> list[CheckMessage]:
    """E010: the entries of ``SCHEDULE``, against the tasks there are."""
    if conf.problems():
        return []
    found: list[CheckMessage] = []
    for name, entry in conf.get_settings().schedule.items():
        try:
            declared.from_entry(name, entry)
        except InvalidSchedule as error:
            hint = "Correct the entry; until then no worker starts, so that nothing is left out in silence."
            found.append(Error(f"{str(error).removesuffix('.')}.", hint=hint, id="django_taskq.E010"))
    return found


@register(TAG)
def check_autoscaling(**kwargs: Any) -> list[CheckMessage]:
    """E017: the project's own metric."""
    path = None if conf.problems() else conf.get_settings().autoscale_metric
    if path is None:
        return []
    try:
        is_function = callable(import_string(path))
        message = f"TASKQ['AUTOSCALE_METRIC'] = {path!r} is no function."
    except ImportError as error:
        is_function, message = False, f"TASKQ['AUTOSCALE_METRIC'] = {path!r} cannot be imported: {error}."
    hint = "Name a function that takes a django_taskq.worker.scaling.Facts and returns a number of processes."
    return [] if is_function else [Error(message, hint=hint, id="django_taskq.E017")]


@register(TAG)
def check_resources(**kwargs: Any) -> list[CheckMessage]:
    """E018: what tasks and resources need, against the resources there are."""
    needs = {f"The task {task.name}": task.needs for task in registry.all_tasks()}
    needs |= {f"The resource {each.name}": each.needs for each in resources.all_resources()}
    return [
        Error(
            f"{who} needs {name!r}, and {resources.unknown(name)}.",
            hint="Declare it with @resource in a module that tasks.py imports, or correct the parameter's name.",
            id="django_taskq.E018",
        )
        for who, names in needs.items()
        for name in names
        if resources.find(name) is None
    ]


@register(TAG)
def check_workers(**kwargs: Any) -> list[CheckMessage]:
    """W005 and W006: what a worker with the configured numbers would run into."""
    if conf.problems():
        return []
    settings = conf.get_settings()
    found: list[CheckMessage] = []
    message = weak_limits(settings.threads + settings.coroutines)
    if message:
        hint = "Use THREADS = 1, no COROUTINES and more PROCESSES where a run that hangs must be ended."
        found.append(Warning(message, hint=hint, id="django_taskq.W005"))
    found += _pool(connections[settings.database], settings)
    return found


@register(Tags.database)
def check_journal_mode(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """W004: reads the header of the SQLite file, so it runs where Django allows checks to touch databases."""
    if conf.problems() or conf.get_settings().database not in (databases or ()):
        return []
    connection = connections[conf.get_settings().database]
    path = Path(str(connection.settings_dict["NAME"]))
    if connection.vendor != "sqlite" or not path.is_file():
        return []
    connection.ensure_connection()  # runs init_command, which may be what makes it so
    if _is_in_wal_mode(path):
        return []
    message = f"The SQLite file of the database {connection.alias!r} is not in WAL mode, so readers and writers wait."
    return [Warning(message, hint=f"In DATABASES[{connection.alias!r}]: {SQLITE_OPTIONS}.", id="django_taskq.W004")]


def weak_limits(slots: int) -> str:
    """Which hard limits do less in processes with so many slots, as a sentence; empty when none."""
    if slots <= 1:
        return ""
    what = "a run past it is not killed where a process has several slots: the process is replaced without it"
    if conf.get_settings().time_limit is not None:
        return f"TASKQ['TIME_LIMIT'] is set, but {what}."
    names = limited_tasks()
    return f"time_limit is set, but {what}: {_listed(names)}." if names else ""


def limited_tasks() -> list[str]:
    """The registered tasks with a hard time limit of their own."""
    return [task.name for task in registry.all_tasks() if task.options.time_limit]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_TASKS} more" if len(names) > NAMED_TASKS else ""
    return ", ".join(names[:NAMED_TASKS]) + more


def _routing(alias: str) -> Iterator[CheckMessage]:
    if alias == "default":
        return
    # Asked instead of looked up, so that a router of the project's own that does the same is as good.
    used = {router.db_for_read(TaskRecord), router.db_for_write(TaskRecord)}
    if used != {alias} or not router.allow_migrate_model(alias, TaskRecord):
        message = f"TASKQ['DATABASE'] is {alias!r}, but no router sends the rows of django_taskq there."
        hint = 'Add it: DATABASE_ROUTERS = ["django_taskq.router.TaskqRouter"].'
        yield Error(message, hint=hint, id="django_taskq.E007")


def _sqlite(connection: Any) -> Iterable[CheckMessage]:
    version = connection.Database.sqlite_version_info
    if version < OLDEST_SQLITE:
        message = f"The SQLite library is version {connection.Database.sqlite_version}; the queue needs 3.35 or newer."
        yield Error(message, hint="Use a newer Python or SQLite, or PostgreSQL.", id="django_taskq.E009")
    options = connection.settings_dict.get("OPTIONS", {})
    where = f"the SQLite database {connection.alias!r}"
    hint = f"In DATABASES[{connection.alias!r}]: {SQLITE_OPTIONS}."
    if str(options.get("transaction_mode", "")).upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        message = f"Transactions on {where} do not begin IMMEDIATE, so some fail at once with 'database is locked'."
        yield Warning(message, hint=hint, id="django_taskq.W001")
    if options.get("timeout", 5) < SHORTEST_TIMEOUT:
        message = f"The timeout of {where} is below {SHORTEST_TIMEOUT} s: writers that wait their turn may give up."
        yield Warning(message, hint=hint, id="django_taskq.W002")
    asked = "".join(str(options.get("init_command", "")).lower().split())
    if "journal_mode=wal" not in asked and not connection.is_in_memory_db():
        message = f"Connections to {where} do not ask for WAL mode, without which readers and writers wait."
        yield Warning(message, hint=hint, id="django_taskq.W003")


def _is_in_wal_mode(path: Path) -> bool:
    """Bytes 18 and 19 of the header are 2 in WAL mode (sqlite.org/fileformat2.html); an empty file has none yet."""
    with path.open("rb") as file:
        header = file.read(20)
    return len(header) < 20 or header[18:20] == b"\x02\x02"


def _pool(connection: BaseDatabaseWrapper, settings: conf.Settings) -> Iterator[CheckMessage]:
    configured = connection.settings_dict.get("OPTIONS", {}).get("pool")
    if not configured:
        return
    options = configured if isinstance(configured, Mapping) else {}
    size = options.get("max_size") or options.get("min_size", 4)  # psycopg_pool's defaults
    threads = settings.threads + min(settings.coroutines, settings.coroutine_connections)
    extra = (settings.health_port is not None) + (settings.autoscale is not None)
    needed = max(threads + 1, SUPERVISOR_CONNECTIONS + extra)
    if size < needed:
        message = (
            f"The connection pool of the database {connection.alias!r} holds {size} connections a process; "
            f"a worker with so many threads and coroutines uses up to {needed}."
        )
        hint = f"Set OPTIONS['pool']['max_size'] of DATABASES[{connection.alias!r}] to {needed} or more."
        yield Warning(message, hint=hint, id="django_taskq.W006")
