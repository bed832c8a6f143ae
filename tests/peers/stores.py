"""PostgreSQL, Redis and RabbitMQ for the run: private ones where the tests can start them, or those a URL names.

What a case needs is emptied before and after it. A store that cannot be had is a reason for its cases to be skipped,
not for the run to end.
"""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from tests import servers
from tests.peers.cases import AMQP, POSTGRES, REDIS, Case

DATABASE = "taskq_peers"
# Those that outlive a case which was broken off. dramatiq has two more for each; ours begin with its default prefix.
AMQP_QUEUES = ("taskq-peers", "taskq-peers.DQ", "taskq-peers.XQ", "taskq.default", "taskq.dead")
KINDS = {POSTGRES: "PostgresServer", REDIS: "RedisServer", AMQP: "RabbitMQServer"}
# Where a server usually is, for kinds that cannot be started privately here.
LOCAL = {
    POSTGRES: "postgresql://127.0.0.1:5432/postgres",
    REDIS: "redis://127.0.0.1:6379/9",
    AMQP: "amqp://guest:guest@127.0.0.1:5672//",
}
POSTGRES_SETTINGS = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")


class StoreMissing(Exception):
    """A store is needed and cannot be had; the text is the reason that the report gives."""


class Stores:
    """The servers of a run, started when first needed. Use it as a context manager."""

    def __init__(self, given: dict[str, str | None], scratch: Path) -> None:
        """``given``: the URLs of servers to use, by store; without one a private server is started."""
        self._given = given
        self._scratch = scratch
        self._found: dict[str, str | StoreMissing] = {}
        self._are_private: dict[str, bool] = {}
        self._servers = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._servers.close()

    def url(self, store: str) -> str:
        """Where the store is. Raises :exc:`StoreMissing`."""
        if store not in self._found:
            try:
                self._found[store] = self._open(store)
            except StoreMissing as error:
                self._found[store] = error
        found = self._found[store]
        if isinstance(found, StoreMissing):
            raise found
        return found

    def environ(self, case: Case) -> dict[str, str]:
        """What tells an adapter where its stores are."""
        database = f"sqlite://{self._scratch / 'peers.sqlite3'}"
        if case.database == POSTGRES:
            database = urlunsplit(urlsplit(self.url(POSTGRES))._replace(path=f"/{DATABASE}"))
        return {"PEER_DATABASE": database, "PEER_BROKER": self.url(case.broker) if case.broker else ""}

    def clean(self, case: Case, remake: bool = True) -> None:
        """Empty what the case uses; without ``remake`` its database is not made again."""
        if POSTGRES in case.stores:
            with psycopg.connect(self.url(POSTGRES), autocommit=True) as connection:
                name = sql.Identifier(DATABASE)
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
                if remake:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        if REDIS in case.stores:
            _redis(self.url(REDIS)).flushdb()
        if AMQP in case.stores:
            with _amqp(self.url(AMQP)) as connection:
                for queue in AMQP_QUEUES:
                    connection.default_channel.queue_delete(queue)
        for path in self._scratch.glob("peers.sqlite3*"):
            path.unlink()

    def describe(self) -> dict[str, str]:
        """Each store that was used: what it is, whose it is, and its settings."""
        described = {}
        for store, found in self._found.items():
            if isinstance(found, StoreMissing):
                described[store] = f"missing: {found}"
            else:
                owner = "private, started for this run" if self._are_private[store] else "already running"
                described[store] = f"{DESCRIBERS[store](found)} ({owner})"
        return described

    def _open(self, store: str) -> str:
        kind = getattr(servers, KINDS[store], None)
        private = None if self._given[store] or kind is None else self._start(kind)
        url = private or self._given[store] or LOCAL[store]
        try:
            DESCRIBERS[store](url)
        except Exception as error:  # every client has errors of its own
            raise StoreMissing(f"no {store} to be had: {_first_line(error)}") from error
        if store == REDIS and not private and (keys := _redis(url).dbsize()):
            raise StoreMissing(f"that Redis database holds {keys} keys and would be emptied; name another number")
        self._are_private[store] = private is not None
        return url

    def _start(self, kind: Any) -> str | None:
        try:
            return str(self._servers.enter_context(kind()).url)
        except servers.ServerMissing:
            return None
        except (servers.ServerFailed, OSError, subprocess.SubprocessError) as error:
            raise StoreMissing(_first_line(error)) from error


def _redis(url: str) -> Any:
    import redis

    return redis.Redis.from_url(url, socket_connect_timeout=5)


def _amqp(url: str) -> Any:
    from kombu import Connection

    return Connection(url, connect_timeout=5)


def _describe_postgres(url: str) -> str:
    with psycopg.connect(url, connect_timeout=5) as connection:
        shown = {name: connection.execute(f"SHOW {name}").fetchone() for name in POSTGRES_SETTINGS}
    values = {name: row[0] for name, row in shown.items() if row}
    return f"PostgreSQL {values.pop('server_version')}; " + ", ".join(f"{key}={value}" for key, value in values.items())


def _describe_redis(url: str) -> str:
    client = _redis(url)
    settings = {name: client.config_get(name)[name] for name in ("save", "appendonly")}
    return f"Redis {client.info()['redis_version']}; save='{settings['save']}', appendonly={settings['appendonly']}"


def _describe_amqp(url: str) -> str:
    with _amqp(url) as connection:
        connection.connect()
        return f"RabbitMQ {connection.connection.server_properties['version']}; durable queues, persistent messages"


DESCRIBERS = {POSTGRES: _describe_postgres, REDIS: _describe_redis, AMQP: _describe_amqp}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
