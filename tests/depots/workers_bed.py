"""Real workers on real depots: one server of each kind for a session, and settings that keep tests apart on it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.test import override_settings

from django_taskq.brokers import get_broker, get_depots
from django_taskq.brokers.depot import Depot
from tests.conftest import find
from tests.depots.proxy import Proxy
from tests.servers import RabbitMQServer, RedisServer
from tests.workers import WorkerProcess

Start = Callable[..., WorkerProcess]
SERVERS = ("redis", "rabbitmq")
RABBITMQ = pytest.StashKey[RabbitMQServer]()


def shared_rabbitmq(config: pytest.Config) -> RabbitMQServer:
    """The session's RabbitMQ: it takes seconds to start, and is the same one wherever it is asked for.

    Tests may kill it, since it keeps what it confirmed, and runs again for whoever asks next.
    """
    if RABBITMQ not in config.stash:
        find(RabbitMQServer, config)
        config.stash[RABBITMQ] = server = RabbitMQServer()
        config.add_cleanup(server.close)
    return config.stash[RABBITMQ].start()


def shared_server(request: pytest.FixtureRequest, name: str) -> RedisServer | RabbitMQServer:
    """The session's server of this kind."""
    if name == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return server
    return shared_rabbitmq(request.config)


def on_url(url: str, **settings: Any) -> dict[str, Any]:
    """A TASKQ dict for this server, under a prefix of its own."""
    return {"BROKERS": {"default": {"URL": url, "PREFIX": f"t{uuid4().hex[:12]}"}}} | settings


@dataclass(slots=True)
class Place:
    """Where a test's runs are queued. ``worker`` and the test itself have the same TASKQ dict, but for ``start``'s."""

    worker: Start
    taskq: dict[str, Any]
    processes: list[WorkerProcess] = field(default_factory=list)

    def start(
        self, *arguments: str, ready: bool = True, env: dict[str, str] | None = None, **settings: Any
    ) -> WorkerProcess:
        """A worker with the tasks of ``tests.depots`` besides; one process, unless said otherwise."""
        arguments = arguments or ("--processes", "1")
        env = {"DJANGO_SETTINGS_MODULE": "tests.depots.worker_settings"} | (env or {})
        self.processes.append(self.worker(*arguments, taskq=self.taskq | settings, env=env, ready=ready))
        return self.processes[-1]

    @property
    def depot(self) -> Depot:
        """The test's own way to the default broker's server."""
        return get_depots()["default"]

    @property
    def prefix(self) -> str:
        return str(self.taskq["BROKERS"]["default"]["PREFIX"])


@contextmanager
def at(worker: Start, taskq: dict[str, Any]) -> Iterator[Place]:
    """This process and the workers it starts use these settings."""
    with override_settings(TASKQ=taskq):
        place = Place(worker, taskq)
        try:
            yield place
        finally:
            for process in place.processes:
                process.kill_tree()
            get_broker().close()


class BlackHole(Proxy):
    """While it is held nothing passes in either direction, ends of connections included; afterwards all of it does."""

    def _forward(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._may_send.wait()
                target.sendall(data)
        self._may_send.wait()
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def memory(process: WorkerProcess) -> int:
    """Bytes that a worker's processes take, what they share counted once.

    Without the files they map: whoever else maps the same, such as another test's worker, changes their share.
    """
    total = 0
    for pid in process.tree():
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended since
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss_Anon:"))
    return total
