"""What ``TASKQ`` says about brokers and queues, parsed: where messages are kept, and which queue is kept where."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.utils.module_loading import import_string

DATABASE = "database"
DEFAULT_BROKER = "default"
# Depots of our own; every other scheme is kombu's.
REDIS_SCHEMES = ("redis", "rediss", "unix")


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """One broker. ``prefix`` begins the name of everything kept there, so that projects can share a server.

    ``url`` may hold a password: it is never shown as it is. Several URLs (for failover) are joined by ``;``.
    """

    alias: str
    url: str = field(repr=False)
    prefix: str = "taskq"
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def scheme(self) -> str:
        """What stands before ``://``."""
        return self.url.partition("://")[0]

    @property
    def is_database(self) -> bool:
        """Whether it is the project's own database, not a depot."""
        return self.scheme == DATABASE


@dataclass(frozen=True, slots=True)
class LoadLimit:
    """How busy a worker's host may be for it to fetch a queue, in percent; None is no limit."""

    cpu: float | None = None
    memory: float | None = None


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """What differs for one queue: the broker that keeps it (an alias), arguments for the server's own queue, and how
    busy a host may be that fetches from it."""

    broker: str = DEFAULT_BROKER
    arguments: Mapping[str, Any] = field(default_factory=dict)
    max_cpu: float | None = None
    max_memory: float | None = None

    @property
    def load_limit(self) -> LoadLimit:
        """Both limits of load."""
        return LoadLimit(self.max_cpu, self.max_memory)


def known_schemes() -> list[str]:
    """Every scheme a URL may have."""
    aliases: Mapping[str, str] = import_string("kombu.transport.TRANSPORT_ALIASES")
    return [DATABASE, *REDIS_SCHEMES, *sorted({*aliases, "kombu+redis"} - {*REDIS_SCHEMES, "redis"})]


def parse_url(value: Any) -> str:
    """A broker URL, or several as a list, as one text; ``ValueError`` otherwise, which never repeats the value."""
    urls = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else []
    if not urls or not all(isinstance(url, str) and url for url in urls):
        raise ValueError("a URL, or a list of URLs to try in turn")
    for url in ";".join(urls).split(";"):
        scheme = url.partition("://")[0]
        if "://" not in url or scheme not in known_schemes():
            known = ", ".join(f"{name}://" for name in (DATABASE, "redis", "rediss", "amqp", "amqps"))
            raise ValueError(f"a URL whose scheme a broker speaks ({known} and what else kombu knows)")
    return ";".join(urls)


def parse_queue_name(value: Any) -> str:
    """A valid queue name, or ``ValueError``. The narrow alphabet is safe in every broker, URL and channel name."""
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z0-9._-]{1,100}", value) is None:
        raise ValueError("queue names of 1 to 100 letters, digits or ._-")
    return value


def parse_queues(value: Any) -> dict[str, QueueConfig]:
    """``QUEUES``: a list of names, or a dict from names to their options."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError("a list of queue names, or a dict from queue names to their options")
    given = value.items() if isinstance(value, Mapping) else [(name, None) for name in value]
    return {parse_queue_name(name): _queue(name, options) for name, options in given}


def _queue(name: str, options: Any) -> QueueConfig:
    known = ("broker", "arguments", "max_cpu", "max_memory")
    if options is None:
        return QueueConfig()
    if not isinstance(options, Mapping):
        raise ValueError(f"for queue {name!r} a dict of {', '.join(known)}")
    for key in options:
        if key not in known:
            raise ValueError(f"for queue {name!r} the options {', '.join(known)}; {key!r} is not known to this version")
    broker, arguments = options.get("broker", DEFAULT_BROKER), options.get("arguments", {})
    if not isinstance(broker, str) or not isinstance(arguments, Mapping):
        raise ValueError(f"for queue {name!r} as 'broker' an alias in BROKERS, and as 'arguments' a dict")
    limits = [options.get(key) for key in ("max_cpu", "max_memory")]
    return QueueConfig(broker, arguments, *(None if limit is None else parse_percent(limit) for limit in limits))


def parse_percent(value: Any) -> float:
    """How busy something may be; ``ValueError`` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= 100:
        raise ValueError("loads from 1 to 100 percent")
    return float(value)


def parse_brokers(value: Any) -> dict[str, BrokerConfig]:
    """``BROKERS``: a dict from aliases to ``{"URL": ..., "PREFIX": ..., "OPTIONS": {...}}``."""
    if not isinstance(value, Mapping):
        raise ValueError("a dict from aliases to {'URL': ...}")
    return {parse_queue_name(alias): _broker(alias, entry) for alias, entry in value.items()}


def _broker(alias: str, entry: Any) -> BrokerConfig:
    known = ("URL", "PREFIX", "OPTIONS")
    if not isinstance(entry, Mapping) or (alias != DEFAULT_BROKER and "URL" not in entry):
        raise ValueError(f"for {alias!r} a dict with 'URL', and perhaps 'PREFIX' and 'OPTIONS'")
    for key in entry:
        if key not in known:
            raise ValueError(f"for {alias!r} the keys {', '.join(known)}, not {key!r}")
    options = entry.get("OPTIONS", {})
    if not isinstance(options, Mapping):
        raise ValueError(f"for {alias!r} as 'OPTIONS' a dict")
    url = parse_url(entry["URL"]) if "URL" in entry else ""
    return BrokerConfig(alias, url, parse_queue_name(entry.get("PREFIX", "taskq")), options)
