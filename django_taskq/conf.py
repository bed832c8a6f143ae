"""The ``TASKQ`` setting: read lazily, validated as a whole, one frozen object for everybody.

``get_settings()`` is the only way to a setting. It raises ``ImproperlyConfigured`` with the first problem; the system
checks show all of them (:func:`problems`). Nothing here is read at import, and ``override_settings`` works.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from django_taskq import sizes
from django_taskq.conf_brokers import (
    DATABASE,
    DEFAULT_BROKER,
    REDIS_SCHEMES,
    BrokerConfig,
    QueueConfig,
    parse_brokers,
    parse_queues,
    parse_url,
)
from django_taskq.conf_exchanges import ExchangeConfig, parse_exchanges
from django_taskq.conf_health import LOOPBACK, parse_file, parse_host, parse_port, parse_token
from django_taskq.conf_routes import Rule, parse_routes
from django_taskq.conf_workers import POOLS, START_METHODS, Autoscale, parse_autoscale, parse_slots
from django_taskq.logging import FORMATS

DEFAULT_QUEUE = "default"
# Ten years: a bound that no clock arithmetic overflows, and that nobody means to pass.
MOST_SECONDS = 3650 * 86400.0


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with ``TASKQ``: the check id's number, what is wrong, and how to mend it."""

    check_id: str
    message: str
    hint: str


def suggest(word: str, known: Iterable[str]) -> str:
    """``' Did you mean "x"?'`` for the nearest known word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{close[0]}"?' if close else ""


def _seconds(value: Any) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MOST_SECONDS:
        raise ValueError("a number of seconds above 0, or a timedelta, of at most ten years")
    return float(value)


def _seconds_or_none(value: Any) -> float | None:
    return None if value is None else _seconds(value)


def _retention(value: Any) -> timedelta | None:
    return None if value is None else timedelta(seconds=_seconds(value))


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number of at least 1")
    return value


def _count_or_zero(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a whole number of at least 0")
    return value


def _count_or_none(value: Any) -> int | None:
    return None if value is None else _count(value)


def _grace(value: Any) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else _seconds(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a non-empty string")
    return value


def _one_of(*known: str | None) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if value not in known:
            raise ValueError(f"one of {', '.join(map(repr, known))}")
        return value

    return parse


def _path(value: Any) -> str | None:
    is_path = isinstance(value, str) and all(part.isidentifier() for part in value.split(".")) and "." in value
    if value is not None and not is_path:
        raise ValueError("None, or the dotted path of a function")
    return None if value is None else str(value)


def _fallback(value: Any) -> str | None:
    if value not in (None, "outbox"):
        raise ValueError('None (the call fails) or "outbox" (the run is stored, and relayed once the broker is back)')
    return str(value) if value else None


SCHEDULE_CALL = ("task", "schedule", "args", "kwargs", "queue_name", "priority", "expires")
SCHEDULE_TIMING = ("timezone", "start", "end", "jitter", "catch_up", "catch_up_limit", "overlap", "max_lateness")


def _schedule(value: Any) -> dict[str, Mapping[str, Any]]:
    """The shape alone; what the entries say is checked where the tasks are known."""
    if not isinstance(value, Mapping):
        raise ValueError("a dict from names to entries such as {'task': 'app.tasks.report', 'schedule': '0 3 * * *'}")
    for name, entry in value.items():
        if not isinstance(name, str) or not 0 < len(name) <= 200:
            raise ValueError(f"names of 1 to 200 characters, not {name!r}")
        if not isinstance(entry, Mapping) or not {"task", "schedule"} <= set(entry):
            raise ValueError(f"entries with at least 'task' and 'schedule', which {name!r} is not")
        known = (*SCHEDULE_CALL, *SCHEDULE_TIMING)
        for key in entry:
            if key not in known:
                raise ValueError(f"entries of {', '.join(known)}; {name!r} has {key!r}.{suggest(str(key), known)}")
    return dict(value)


def _setting(parse: Callable[[Any], Any], default: Any = MISSING, *, factory: Any = MISSING) -> Any:
    return field(default=default, default_factory=factory, metadata={"parse": parse})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every key of ``TASKQ`` in lower case, parsed. Durations are seconds unless they are timedeltas."""

    broker_url: str = _setting(parse_url, "database://")
    brokers: Mapping[str, BrokerConfig] = _setting(parse_brokers, factory=dict)
    database: str = _setting(_text, "default")
    queues: Mapping[str, QueueConfig] = _setting(parse_queues, factory=dict)
    exchanges: Mapping[str, ExchangeConfig] = _setting(parse_exchanges, factory=dict)
    routes: tuple[Rule, ...] = _setting(parse_routes, ())
    enqueue_timeout: float = _setting(_seconds, 2.0)
    enqueue_fallback: str | None = _setting(_fallback, None)
    eager: bool = _setting(_flag, False)
    max_payload: int = _setting(_count, 1 << 20)
    max_workflow_size: int = _setting(_count, 250_000)
    time_limit: float | None = _setting(_seconds_or_none, None)
    soft_time_limit: float | None = _setting(_seconds_or_none, None)
    max_tasks_per_child: int | None = _setting(_count_or_none, None)
    max_memory_per_child: int | None = _setting(sizes.parse_or_none, None)
    result_expires: timedelta | None = _setting(_retention, timedelta(days=7))
    failure_expires: timedelta | None = _setting(_retention, timedelta(days=30))
    unknown_task_deadline: timedelta | None = _setting(_retention, timedelta(days=1))
    heartbeat_interval: float = _setting(_seconds, 5.0)
    lease_duration: float = _setting(_seconds, 30.0)
    processes: int = _setting(_count, factory=lambda: os.cpu_count() or 1)
    threads: int = _setting(_count, 1)
    coroutines: int = _setting(_count_or_zero, 0)
    coroutine_connections: int = _setting(_count, 10)
    slots: Mapping[str, int] = _setting(parse_slots, factory=dict)
    autoscale: Autoscale | None = _setting(parse_autoscale, None)
    autoscale_metric: str | None = _setting(_path, None)
    autoscale_down_after: float = _setting(_seconds, 30.0)
    pool: str = _setting(_one_of(*POOLS), POOLS[0])
    start_method: str | None = _setting(_one_of(None, *START_METHODS), None)
    log_format: str = _setting(_one_of(*FORMATS), FORMATS[0])
    grace: float = _setting(_grace, 30.0)
    health_port: int | None = _setting(parse_port, None)
    health_host: str = _setting(parse_host, LOOPBACK)
    health_token: str | None = _setting(parse_token, None)
    health_file: Path | None = _setting(parse_file, None)
    health_timeout: float = _setting(_seconds, 20.0)
    schedule: Mapping[str, Mapping[str, Any]] = _setting(_schedule, factory=dict)

    @property
    def has_limited_queues(self) -> bool:
        """Whether any queue lets only so much of it run."""
        return any(queue.is_limited for queue in self.queues.values())

    def broker_of(self, queue_name: str) -> BrokerConfig:
        """The broker that keeps this queue."""
        return self.broker(self.queues[queue_name].broker if queue_name in self.queues else DEFAULT_BROKER)

    def broker(self, alias: str) -> BrokerConfig:
        """The broker of this alias; ``default`` is the one of ``BROKER_URL``."""
        config = self.brokers.get(alias, BrokerConfig(DEFAULT_BROKER, ""))
        return config if config.url else replace(config, url=self.broker_url)

    def broker_aliases(self) -> list[str]:
        """Every broker, the default one first."""
        return [DEFAULT_BROKER, *(alias for alias in self.brokers if alias != DEFAULT_BROKER)]


def setting_names() -> list[str]:
    """The known keys of ``TASKQ``, in their order of declaration."""
    return [f.name.upper() for f in fields(Settings)]


def _load(raw: Any) -> tuple[dict[str, Any], list[Problem]]:
    if not isinstance(raw, Mapping):
        problem = Problem("E001", f"TASKQ is a {type(raw).__name__}.", 'Make it a dict, such as {"THREADS": 4}.')
        return {}, [problem]
    parsers = {f.name.upper(): f.metadata["parse"] for f in fields(Settings)}
    values: dict[str, Any] = {}
    found: list[Problem] = []
    for key, value in raw.items():
        if key not in parsers:
            hint = f"Remove it or correct its name.{suggest(str(key).upper(), parsers)}"
            found.append(Problem("E002", f"TASKQ[{key!r}] is not a setting.", hint))
            continue
        try:
            values[key.lower()] = parsers[key](value)
        except ValueError as error:
            # A URL may hold a password, and a token is one: their values are never repeated.
            shown = "" if key in ("BROKER_URL", "BROKERS", "HEALTH_TOKEN") else f" = {value!r}"
            found.append(Problem("E003", f"TASKQ[{key!r}]{shown} is not usable.", f"It takes {error}."))
    return values, found


def _contradictions(values: Settings) -> list[Problem]:
    found = []
    if values.lease_duration < 2 * values.heartbeat_interval:
        message = "TASKQ['LEASE_DURATION'] is shorter than two heartbeats, so one late heartbeat loses all claims."
        found.append(Problem("E004", message, "Make LEASE_DURATION at least twice HEARTBEAT_INTERVAL."))
    if values.time_limit and values.soft_time_limit and values.soft_time_limit >= values.time_limit:
        message = "TASKQ['SOFT_TIME_LIMIT'] is not below TASKQ['TIME_LIMIT'], so it could never act."
        found.append(Problem("E005", message, "Make SOFT_TIME_LIMIT the smaller of the two."))
    if values.brokers.get(DEFAULT_BROKER, BrokerConfig("", "")).url and "BROKER_URL" in configured_names():
        message = "TASKQ['BROKER_URL'] and TASKQ['BROKERS']['default']['URL'] both name the default broker."
        found.append(Problem("E011", message, "Keep one of them; the other may go."))
    for name, queue in values.queues.items():
        if queue.broker not in values.broker_aliases():
            message = f"TASKQ['QUEUES'][{name!r}] names the unknown broker {queue.broker!r}."
            hint = f"Add it to TASKQ['BROKERS'].{suggest(queue.broker, values.broker_aliases())}"
            found.append(Problem("E012", message, hint))
    for name, exchange in values.exchanges.items():
        if exchange.broker not in values.broker_aliases():
            message = f"TASKQ['EXCHANGES'][{name!r}] names the unknown broker {exchange.broker!r}."
            hint = f"Add it to TASKQ['BROKERS'].{suggest(exchange.broker, values.broker_aliases())}"
            found.append(Problem("E012", message, hint))
        elif values.broker(exchange.broker).scheme in (DATABASE, *REDIS_SCHEMES):
            message = f"TASKQ['EXCHANGES'][{name!r}] is on broker {exchange.broker!r}, which has no exchanges."
            found.append(Problem("E013", message, "Name a broker with an amqp:// URL, such as RabbitMQ."))
        for queue_name in [binding.queue_name for binding in exchange.bindings]:
            if values.broker_of(queue_name).alias != exchange.broker:
                message = f"TASKQ['EXCHANGES'][{name!r}] copies to queue {queue_name!r}, which another broker keeps."
                kept = {queue_name: {"broker": exchange.broker}}
                hint = f"No worker would take the copies. In TASKQ['QUEUES']: {kept}."
                found.append(Problem("E015", message, hint))
    if values.slots and values.autoscale:
        message = "TASKQ['SLOTS'] and TASKQ['AUTOSCALE'] both say how many processes a worker has."
        found.append(Problem("E016", message, "Keep one of them, or give the other to a single worker by its option."))
    if values.database not in django_settings.DATABASES:
        hint = f"Name one of the aliases in DATABASES.{suggest(values.database, django_settings.DATABASES)}"
        found.append(Problem("E006", f"TASKQ['DATABASE'] names the unknown alias {values.database!r}.", hint))
    return found


def problems() -> list[Problem]:
    """Everything wrong with ``TASKQ``; empty when it is sound."""
    values, found = _load(getattr(django_settings, "TASKQ", {}))
    return found or _contradictions(Settings(**values))


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The parsed settings. Raises ``ImproperlyConfigured`` naming the setting, the value and the mend."""
    values, found = _load(getattr(django_settings, "TASKQ", {}))
    found = found or _contradictions(Settings(**values))
    if found:
        raise ImproperlyConfigured(f"{found[0].message} {found[0].hint} (django_taskq.{found[0].check_id})")
    return Settings(**values)


def configured_names() -> frozenset[str]:
    """The keys the project sets itself; every other one is at its default."""
    return frozenset(getattr(django_settings, "TASKQ", {}))


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("TASKQ", "DATABASES"):
        get_settings.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_taskq.conf")
