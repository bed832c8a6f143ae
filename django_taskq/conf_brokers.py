"""What ``TASKQ`` says about brokers and queues, parsed: where messages are kept, and which queue is kept where."""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.utils.module_loading import import_string

from django_taskq.flow_options import Rate, parse_count, parse_rate

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


class WhenFull(enum.StrEnum):
    """What becomes of a call that would take a queue past its ``max_length``."""

    REFUSE = "refuse"
    KEEP_NEWEST = "keep_newest"
    DROP_LOWEST = "drop_lowest"


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """What differs for one queue: the broker that keeps it (an alias), arguments for the server's own queue, how
    busy a host may be that fetches from it, how many of its runs may be live at once, or start in a time, and how many
    may wait."""

    broker: str = DEFAULT_BROKER
    arguments: Mapping[str, Any] = field(default_factory=dict)
    max_cpu: float | None = None
    max_memory: float | None = None
    concurrency: int | None = None
    rate_limit: Rate | None = None
    max_length: int | None = None
    when_full: WhenFull = WhenFull.REFUSE

    @property
    def is_limited(self) -> bool:
        """Whether only so much of it may run."""
        return self.concurrency is not None or self.rate_limit is not None

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


BOUND = ("max_length", "when_full")


def _queue(name: str, options: Any) -> QueueConfig:
    known = ("broker", "arguments", "max_cpu", "max_memory", "concurrency", "rate_limit", "rate_burst", *BOUND)
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
    cpu, memory = (options.get(key) for key in ("max_cpu", "max_memory"))
    max_cpu, max_memory = (None if limit is None else parse_percent(limit) for limit in (cpu, memory))
    concurrency, rate, burst = (options.get(key) for key in ("concurrency", "rate_limit", "rate_burst"))
    if burst is not None and rate is None:
        raise ValueError(f"for queue {name!r} a 'rate_burst' only with a 'rate_limit'")
    most = _own(name, "concurrency", parse_count, concurrency)
    burst = _own(name, "rate_burst", parse_count, burst)
    rate = _own(name, "rate_limit", lambda given: parse_rate(given, burst), rate)
    return QueueConfig(
        broker, arguments, max_cpu, max_memory, most, rate, *_bound(name, *(options.get(key) for key in BOUND))
    )


def _own(name: str, option: str, parse: Callable[[Any], Any], value: Any) -> Any:
    """What one option of a queue says; None where it is not given."""
    try:
        return None if value is None else parse(value)
    except ValueError as error:
        raise ValueError(f"for queue {name!r} as {option!r} {error}") from None


def _bound(name: str, max_length: Any, when_full: Any) -> tuple[int | None, WhenFull]:
    if max_length is None and when_full is not None:
        raise ValueError(f"for queue {name!r} a 'when_full' only with a 'max_length'")
    if max_length is not None and (isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1):
        raise ValueError(f"for queue {name!r} as 'max_length' a whole number of at least 1")
    if when_full is not None and when_full not in list(WhenFull):
        close = difflib.get_close_matches(str(when_full), WhenFull, n=1)
        meant = f'. Did you mean "{close[0]}"?' if close else ""
        raise ValueError(f"for queue {name!r} as 'when_full' one of {', '.join(WhenFull)}, not {when_full!r}{meant}")
    return max_length, WhenFull.REFUSE if when_full is None else WhenFull(when_full)


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
