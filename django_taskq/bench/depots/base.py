"""A depot's server without this package: what it can do with the same messages, and what it says about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from django_taskq.conf_brokers import REDIS_SCHEMES, BrokerConfig
from django_taskq.envelope import dumps
from django_taskq.message import Message, new_ids

# As many as the raw table's, so that all limits are those of the same batches.
TAKEN = 100
PUBLISHED = 1_000


class RawServer(ABC):
    """One process's connection to a queue beside the measured ones, through the client as it comes."""

    titles: dict[str, str]
    """What the report calls its ways to publish (``one``, ``many``), to ``take`` and to ``idle``."""
    access: dict[str, Any]
    """All that ``bare.py`` needs, as JSON knows it."""

    @abstractmethod
    def publish_one(self, text: bytes) -> None:
        """One message, kept when this returns."""

    @abstractmethod
    def publish_many(self, texts: Sequence[bytes]) -> None:
        """Many, all kept when this returns."""

    @abstractmethod
    def drain(self, process: int) -> tuple[int, float, float]:
        """Take, decode and drop until nothing is left; returns how many, and the times of begin and end."""

    @abstractmethod
    def empty(self) -> None:
        """Leave no message."""

    @abstractmethod
    def wipe(self) -> None:
        """Leave nothing at all of what begins with the broker's prefix, whoever made it."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """The versions of server and client, and the settings that decide how durable a message is."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect."""


def connect(config: BrokerConfig) -> RawServer:
    """A new connection. The module is chosen by name, because its client need not be installed."""
    name = "on_redis" if config.scheme in REDIS_SCHEMES else "on_kombu"
    server: RawServer = import_module(f"django_taskq.bench.depots.{name}").Server(config)
    return server


def envelopes(count: int) -> list[bytes]:
    """Messages like those of the no-op, made before the clock starts."""
    now = datetime.now(UTC)
    ids = enumerate(new_ids(count))
    return [
        dumps(Message(id, "django_taskq.bench.noop", "default", 0, f"[[{number}],{{}}]", None, now)).encode()
        for number, id in ids
    ]
