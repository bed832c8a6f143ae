"""What the figures were measured on and with."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from importlib import import_module
from typing import Any

import django
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

import django_taskq
from django_taskq import conf
from django_taskq.bench.plan import Plan
from django_taskq.bench.raw import Access

POSTGRESQL_SETTINGS = (
    "fsync", "synchronous_commit", "full_page_writes", "wal_level", "shared_buffers", "max_wal_size",
)  # fmt: skip
SQLITE_PRAGMAS = ("journal_mode", "synchronous", "cache_size", "mmap_size", "temp_store", "wal_autocheckpoint")


def describe(plan: Plan) -> dict[str, Any]:
    """Versions, the database's settings and the plan, as they print."""
    connection = connections[conf.get_settings().database]
    connection.ensure_connection()
    is_sqlite = connection.vendor == "sqlite"
    driver = f"sqlite3 of Python {platform.python_version()}" if is_sqlite else f"psycopg {_version('psycopg')}"
    return {
        "django_taskq": django_taskq.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "django": django.get_version(),
        "broker": conf.get_settings().broker_url.partition("://")[0],
        "database": f"SQLite {sqlite3.sqlite_version}" if is_sqlite else f"PostgreSQL {_server_version(connection)}",
        "driver": driver,
        "database settings": database_settings(connection),
        "platform": f"{sys.platform} {platform.release()} {platform.machine()}",
        "cpu count": os.cpu_count(),
        "runs": plan.runs,
        "repeat": plan.repeat,
        "processes": plan.processes,
        "threads": plan.threads,
        "history": plan.history,
        "waiting": plan.waiting,
    }


def database_settings(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Those that decide how durable a commit is, and how fast."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            return {name: str(_one(cursor, f"PRAGMA {name}")) for name in SQLITE_PRAGMAS}
        return {name: str(_one(cursor, f"SHOW {name}")) for name in POSTGRESQL_SETTINGS}


def raw_access(connection: BaseDatabaseWrapper) -> Access:
    """How the bare driver connects to the same database with the same settings."""
    connection.ensure_connection()
    if connection.vendor == "sqlite":
        found = connection.settings_dict
        pragmas = [f"PRAGMA {name} = {value}" for name, value in database_settings(connection).items()]
        parameters = {"database": str(found["NAME"]), "timeout": found["OPTIONS"].get("timeout", 5.0)}
        return Access("sqlite", parameters, tuple(pragmas))
    # What Django adds for itself (a cursor class, type adapters) is not text or a number.
    given = connection.get_connection_params()
    kept = {key: value for key, value in given.items() if type(value) in (str, int, float)}
    return Access("postgresql", kept)


def _one(cursor: Any, statement: str) -> Any:
    cursor.execute(statement)
    return cursor.fetchone()[0]


def _server_version(connection: BaseDatabaseWrapper) -> str:
    with connection.cursor() as cursor:
        return str(_one(cursor, "SHOW server_version"))


def _version(module: str) -> str:
    return str(import_module(module).__version__)
