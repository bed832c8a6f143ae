"""The options of a task, each declared once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from django_taskq import conf, sizes
from django_taskq.conf_brokers import parse_queue_name
from django_taskq.exceptions import InvalidSchedule, InvalidTask
from django_taskq.flow_options import Breaker, Rate, parse_breaker, parse_count, parse_key, parse_rate
from django_taskq.retry import RetryPolicy
from django_taskq.schedules import Schedule, parse
from django_taskq.unique_options import Unique, parse_unique

MIN_PRIORITY, MAX_PRIORITY = -100, 100
MOST_CALLS = 10_000  # of a batch
BATCH_WAIT = 1.0  # seconds
LONGEST_BATCH_WAIT = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What ``@task(...)`` accepts. Durations are seconds or timedeltas.

    ``None`` for a time limit means the project's setting. ``memory_limit`` is in bytes, or a text such as ``200MB``:
    the worker process that takes more is killed, and the run with it. ``expires`` is how long after being enqueued a
    run may still start. ``acks_late=False`` makes a run at-most-once; ``transactional`` commits the task's writes and
    its success in one transaction. ``schedule`` has it run periodically, without arguments. ``track_pending=False``
    spares its runs on a depot the row until they last or end; with ``ignore_result`` those that succeed leave none at
    all.
    ``base`` is the subclass of ``Task`` that a function's task is an instance of.

    With ``batch_size`` the function is called with a list of up to so many calls at once, as soon as they are there or
    the first has waited ``batch_wait`` seconds in a worker process.

    ``concurrency`` is how many of its runs may be live at once in all workers together, and ``rate_limit`` how many may
    start in a time (``"100/m"``), ``rate_burst`` of them at once; for each key, with ``concurrency_key`` and
    ``rate_key``. ``lock`` names a lock that a run holds. Keys are templates such as ``"tenant:{tenant_id}"``, or
    functions of the arguments. ``breaker`` stops starting it after failures in a row. ``unique`` says which of
    its calls are the same, and what becomes of the second one.
    """

    name: str | None = None
    queue_name: str = conf.DEFAULT_QUEUE
    priority: int = 0
    bind: bool = False
    takes_context: bool = False
    max_retries: int | None = 3
    default_retry_delay: float = 180
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600
    retry_jitter: bool = True
    time_limit: float | None = None
    soft_time_limit: float | None = None
    memory_limit: int | None = None
    expires: float | None = None
    ignore_result: bool = False
    acks_late: bool = True
    transactional: bool = False
    schedule: Schedule | None = None
    track_pending: bool = True
    concurrency: int | None = None
    concurrency_key: str | Callable[..., str] | None = None
    rate_limit: Rate | None = None
    rate_burst: int | None = None
    rate_key: str | Callable[..., str] | None = None
    lock: str | Callable[..., str] | None = None
    breaker: Breaker | None = None
    unique: Unique | None = None
    batch_size: int | None = None
    batch_wait: float = BATCH_WAIT
    base: type | None = None

    @classmethod
    def parse(cls, task: str, given: Mapping[str, Any]) -> TaskOptions:
        """Validated options of the task named ``task``. Raises :exc:`InvalidTask` naming the option and the mend."""
        known = option_names()
        values: dict[str, Any] = {}
        for key, value in given.items():
            if key not in known:
                raise InvalidTask(f"{task}: @task has no option {key!r}.{conf.suggest(key, known)}")
            try:
                values[key] = _PARSERS[key](value)
            except InvalidSchedule as error:
                raise InvalidTask(f"{task}: @task({key}={value!r}) is not usable: {error}") from error
            except (ValueError, TypeError) as error:
                raise InvalidTask(f"{task}: @task({key}={value!r}) is not usable: it takes {error}.") from error
        options = cls(**values)
        options._check(task)
        return options

    def _check(self, task: str) -> None:
        if self.soft_time_limit and self.time_limit and self.soft_time_limit >= self.time_limit:
            raise InvalidTask(f"{task}: soft_time_limit must be below time_limit, or it could never act.")
        if self.bind and self.takes_context:
            raise InvalidTask(f"{task}: choose one of bind and takes_context; both fill the first argument.")
        if self.transactional and not self.acks_late:
            raise InvalidTask(f"{task}: transactional=True promises exactly once, acks_late=False at most once.")
        if not self.track_pending and (self.transactional or not self.acks_late):
            what = "transactional=True" if self.transactional else "acks_late=False"
            raise InvalidTask(f"{task}: {what} needs a row before the run starts, and track_pending=False spares it.")
        self._check_batch(task)

    def _check_batch(self, task: str) -> None:
        if self.batch_size is None:
            if self.batch_wait != BATCH_WAIT:
                raise InvalidTask(f"{task}: batch_wait is for batches: give batch_size as well.")
            return
        for name in ("bind", "takes_context"):
            if getattr(self, name):
                raise InvalidTask(f"{task}: {name}=True fills in one run, and a batch has many: ask each call instead.")
        if self.transactional:
            raise InvalidTask(f"{task}: transactional=True commits one run with its writes, and batch_size makes many.")
        if not self.track_pending:
            raise InvalidTask(f"{task}: the calls of a batch have rows before it starts: leave track_pending=True.")

    def retry_policy(self) -> RetryPolicy:
        """The options that decide about retries."""
        return RetryPolicy(**{f.name: getattr(self, f.name) for f in fields(RetryPolicy)})


def option_names() -> list[str]:
    """The options of ``@task``, in their order of declaration."""
    return [f.name for f in fields(TaskOptions)]


def parse_priority(value: Any) -> int:
    """A priority, or ``ValueError`` saying what is accepted."""
    if isinstance(value, bool) or not isinstance(value, int) or not MIN_PRIORITY <= value <= MAX_PRIORITY:
        raise ValueError(f"a whole number from {MIN_PRIORITY} to {MAX_PRIORITY}, higher first")
    return value


def parse_seconds(value: Any) -> float | None:
    """Seconds from a number or a timedelta, None stays None; ``ValueError`` otherwise."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= conf.MOST_SECONDS:
        raise ValueError("a number of seconds above 0, or a timedelta, of at most ten years")
    return float(value)


def parse_retries(value: Any) -> int | None:
    """A bound on retries (None: no bound), or ``ValueError``."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError("a whole number of at least 0, or None for no bound")
    return value


def parse_run_after(value: Any) -> datetime | None:
    """The earliest start as an aware datetime, or ``ValueError``. Naive times are only taken without ``USE_TZ``."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise ValueError("a datetime")
    if value.tzinfo is not None:
        return value
    if settings.USE_TZ:
        raise ValueError("an aware datetime, as USE_TZ is on: use django.utils.timezone")
    return timezone.make_aware(value)


def _batch_size(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= MOST_CALLS):
        raise ValueError(f"a whole number from 2 to {MOST_CALLS:,}, or None for one call at a time")
    return value


def _batch_wait(value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= LONGEST_BATCH_WAIT:
        raise ValueError("a number of seconds of at least 0, or a timedelta, of at most an hour")
    return float(seconds)


def parse_delay(value: Any) -> float:
    """Seconds of at least 0 from a number or a timedelta, or ``ValueError``."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= conf.MOST_SECONDS:
        raise ValueError("a number of seconds of at least 0, or a timedelta, of at most ten years")
    return float(value)


def _backoff(value: Any) -> bool | float:
    return value if isinstance(value, bool) else parse_delay(value)


def parse_flag(value: Any) -> bool:
    """A bool, or ``ValueError``."""
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def _errors(value: Any) -> tuple[type[BaseException], ...]:
    if not isinstance(value, (type, Iterable)):
        raise ValueError("exception classes")
    found = (value,) if isinstance(value, type) else tuple(value)
    if not all(isinstance(item, type) and issubclass(item, BaseException) for item in found):
        raise ValueError("exception classes")
    return found


def _schedule(value: Any) -> Schedule | None:
    if value is None or isinstance(value, Schedule):
        return value
    if not isinstance(value, str):
        raise ValueError("a schedule such as crontab(hour=3), every(minutes=5), or their text")
    return parse(value)


def _name(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not 0 < len(value) <= 255):
        raise ValueError("a text of 1 to 255 characters")
    return value


def _base(value: Any) -> type | None:
    if value is not None and not isinstance(value, type):
        raise ValueError("a subclass of Task")
    return value


def _or_none(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else parse(value)


_PARSERS = {
    "name": _name,
    "queue_name": parse_queue_name,
    "priority": parse_priority,
    "bind": parse_flag,
    "takes_context": parse_flag,
    "max_retries": parse_retries,
    "default_retry_delay": parse_delay,
    "autoretry_for": _errors,
    "dont_autoretry_for": _errors,
    "retry_backoff": _backoff,
    "retry_backoff_max": parse_delay,
    "retry_jitter": parse_flag,
    "time_limit": parse_seconds,
    "soft_time_limit": parse_seconds,
    "memory_limit": sizes.parse_or_none,
    "expires": parse_seconds,
    "ignore_result": parse_flag,
    "acks_late": parse_flag,
    "transactional": parse_flag,
    "schedule": _schedule,
    "track_pending": parse_flag,
    "base": _base,
    "batch_size": _batch_size,
    "batch_wait": _batch_wait,
    "concurrency": _or_none(parse_count),
    "concurrency_key": parse_key,
    "rate_limit": _or_none(parse_rate),
    "rate_burst": _or_none(parse_count),
    "rate_key": parse_key,
    "lock": parse_key,
    "breaker": parse_breaker,
    "unique": parse_unique,
}


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What ``Task.using`` changes for the calls made through it; None leaves the task's own option."""

    queue_name: str | None = None
    priority: int | None = None
    run_after: datetime | None = None
    countdown: float | None = None
    expires: float | datetime | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    memory_limit: int | None = None
    max_retries: int | None = None
    ignore_result: bool | None = None
    task_id: str | None = None
    rerun_of: str | None = None
    exchange: str | None = None
    routing_key: str | None = None

    def changed(self, given: Mapping[str, Any]) -> CallOptions:
        """These with ``given`` on top. ``TypeError`` for an unknown option, ``ValueError`` for an unusable value."""
        options = replace(self, **{name: _parse_call_option(name, value) for name, value in given.items()})
        if options.run_after is not None and options.countdown is not None:
            raise ValueError("give either run_after or countdown, not both")
        if options.exchange is not None and options.queue_name is not None:
            raise ValueError("give either queue_name or exchange, not both: an exchange chooses the queues")
        return options


PLAIN_CALL = CallOptions()


def _parse_call_option(name: str, value: Any) -> Any:
    parse = _CALL_PARSERS.get(name)
    if parse is None:
        raise TypeError(f"a call has no option {name!r}.{conf.suggest(name, _CALL_PARSERS)}")
    try:
        return None if value is None else parse(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}={value!r} is not usable: it takes {error}") from error


def _parse_expires(value: Any) -> float | datetime | None:
    return parse_run_after(value) if isinstance(value, datetime) else parse_seconds(value)


def _parse_id(value: Any) -> str:
    try:
        return str(value if isinstance(value, UUID) else UUID(value))
    except (ValueError, AttributeError, TypeError):
        raise ValueError("a UUID") from None


def _parse_routing_key(value: Any) -> str:
    if not isinstance(value, str) or len(value.encode()) > 255:
        raise ValueError("a text of at most 255 bytes")
    return value


_CALL_PARSERS: dict[str, Callable[[Any], Any]] = {
    "queue_name": parse_queue_name,
    "priority": parse_priority,
    "run_after": parse_run_after,
    "countdown": parse_delay,
    "expires": _parse_expires,
    "time_limit": parse_seconds,
    "soft_time_limit": parse_seconds,
    "memory_limit": sizes.parse,
    "max_retries": parse_retries,
    "ignore_result": parse_flag,
    "task_id": _parse_id,
    "rerun_of": _parse_id,
    "exchange": parse_queue_name,
    "routing_key": _parse_routing_key,
}
