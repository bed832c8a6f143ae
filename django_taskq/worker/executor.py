"""Running one delivery: a straight pipeline that ends in an ``Outcome``, with no I/O to broker or rows.

The one exception is a ``transactional`` task: its success is recorded through the guard inside the task's own atomic
block, so that both commit or neither.
"""

from __future__ import annotations

import os
import traceback
from contextvars import copy_context
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.db import transaction
from django.utils import timezone, translation

from django_taskq import clock, conf, context, registry, serializers, signals
from django_taskq.context import TaskContext
from django_taskq.exceptions import (
    InvalidArguments,
    LeaseLost,
    PayloadTooLarge,
    Retry,
    SerializationError,
    TaskExpired,
    UnknownTask,
)
from django_taskq.message import NO_HEADERS, Action, Delivery, ErrorText, Headers, Outcome
from django_taskq.task import Task

# Texts of errors are bounded: a traceback of recursion or a message of megabytes would hurt every page that shows it.
MAX_TEXT = 1 << 16
MAX_FRAMES = 50

_PACKAGE = str(Path(__file__).parents[1]) + os.sep

FIRST_UNKNOWN_DELAY, LAST_UNKNOWN_DELAY = 5.0, 300.0  # seconds


class Guard(Protocol):
    """What the slot does around a call."""

    def begin(self, delivery: Delivery, hard: float | None, *, commit_first: bool) -> bool:
        """Publish the start, with its hard limit in seconds. False: the delivery was taken back, do not run it."""

    def arm(self, soft: float | None) -> None:
        """Have ``SoftTimeLimitExceeded`` raised in this thread after so many seconds, until :meth:`end`."""

    def end(self) -> None:
        """The call is over: no limit may strike any more. May be called again."""

    def commit(self, outcome: Outcome) -> bool:
        """Record a success on this thread's connection, inside its transaction. False: the claim was lost."""


def execute(delivery: Delivery, guard: Guard) -> Outcome:
    """Run one delivery and say what became of it. Never raises for anything the task does.

    Each run has a context of its own (:mod:`contextvars`): a language, time zone or variable that it activates is
    gone with it.
    """
    return copy_context().run(_execute, delivery, guard)


def _execute(delivery: Delivery, guard: Guard) -> Outcome:
    task = registry.find(delivery.name)
    if task is None:
        return _unknown(delivery)
    if delivery.expires_at is not None and clock.time() > delivery.expires_at:
        latest = datetime.fromtimestamp(delivery.expires_at, UTC)
        error = ErrorText(_path(TaskExpired), f"not started before {latest:%Y-%m-%d %H:%M:%S} UTC")
        return Outcome(delivery, Action.CANCELLED, error=error)
    try:
        headers = NO_HEADERS if delivery.headers is None else Headers.loads(delivery.headers)
        args, kwargs = _arguments(delivery.payload)
        # The signature may have changed since; no retry would help, so this is not left to the call.
        task.check_arguments(args, kwargs)
    except (SerializationError, InvalidArguments, ValueError, TypeError) as error:
        now = clock.time()
        return Outcome(delivery, Action.FAILED, now, now, error=describe(error))
    options = task.options
    soft, hard = _limits(task, headers)
    commit_first = delivery.is_suspect or not options.acks_late
    if not guard.begin(delivery, hard, commit_first=commit_first):
        return Outcome(delivery, Action.RELEASED)
    started_at = clock.time()
    run = TaskContext(task, delivery, headers, args, kwargs)
    context.activate(run)
    try:
        try:
            if signals.task_started.receivers:
                signals.send(signals.task_started, delivery.name, delivery=delivery)
            guard.arm(soft)
            return _call(run, started_at, guard)
        finally:
            guard.end()
    except BaseException as error:
        # The limit may have struck inside end() itself; it strikes once, so this time it gets through.
        guard.end()
        return _failure(task, delivery, headers, started_at, error)


def _arguments(payload: str) -> tuple[list[Any], dict[str, Any]]:
    match serializers.loads(payload):
        case [list() as args, dict() as kwargs]:
            return args, kwargs
    raise SerializationError("the stored arguments are not a list and a dict, so they were not written by an enqueue")


def _call(run: TaskContext, started_at: float, guard: Guard) -> Outcome:
    if run.task.options.transactional:
        return _call_in_transaction(run, started_at, guard)
    value = _invoke(run)
    guard.end()
    return _success(run, started_at, value)


def _call_in_transaction(run: TaskContext, started_at: float, guard: Guard) -> Outcome:
    with transaction.atomic(using=conf.get_settings().database):
        value = _invoke(run)
        guard.end()
        outcome = _success(run, started_at, value)
        if not guard.commit(outcome):
            raise LeaseLost(f"the claim on run {run.id} of {run.name} was lost while it ran")
    outcome.is_recorded = True
    return outcome


def _success(run: TaskContext, started_at: float, value: Any) -> Outcome:
    finished_at = clock.time()
    return Outcome(run.delivery, Action.SUCCESS, started_at, finished_at, _result_text(run.task, run.headers, value))


def _invoke(run: TaskContext) -> Any:
    headers = run.headers
    if headers.language is None and headers.timezone is None:
        return run.task.call(run.args, run.kwargs)
    language = headers.language or translation.get_language()
    with translation.override(language), timezone.override(_zone(headers.timezone)):
        return run.task.call(run.args, run.kwargs)


def _zone(name: str | None) -> tzinfo:
    """The zone that was active at enqueue, or the project's own where this host does not know it."""
    if name is not None and name[:1] in "+-":
        return timezone.get_fixed_timezone(int(name))
    try:
        return timezone.get_default_timezone() if name is None else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return timezone.get_default_timezone()


def _result_text(task: Task[Any, Any], headers: Headers, value: Any) -> str | None:
    ignored = task.options.ignore_result if headers.ignore_result is None else headers.ignore_result
    if ignored or value is None:
        return None
    text = serializers.dumps(value)
    limit = conf.get_settings().max_payload
    if len(text) * 4 > limit and len(text.encode()) > limit:
        raise PayloadTooLarge(
            f"the result takes {len(text.encode()):,} bytes and TASKQ['MAX_PAYLOAD'] allows {limit:,}: "
            f"store it and return its key, or set ignore_result=True"
        )
    return text


def _failure(
    task: Task[Any, Any], delivery: Delivery, headers: Headers, started_at: float, error: BaseException
) -> Outcome:
    finished_at = clock.time()
    if isinstance(error, Retry):
        text = describe(error.cause) if error.cause is not None else ErrorText(_path(Retry), str(error))
        due = error.run_after if isinstance(error.run_after, datetime) else None
        return Outcome(delivery, Action.RETRY, started_at, finished_at, error=text, delay=error.delay, run_after=due)
    policy = task.retry_policy
    if policy.retries_on(error) and policy.has_retries_left(delivery.attempt, headers.max_retries):
        delay = policy.delay(delivery.attempt)
        return Outcome(delivery, Action.RETRY, started_at, finished_at, error=describe(error), delay=delay)
    outcome = Outcome(delivery, Action.FAILED, started_at, finished_at, error=describe(error))
    if task.watcher is not None:
        outcome.exception = error.with_traceback(_of_the_task(error))
    return outcome


def _unknown(delivery: Delivery) -> Outcome:
    """Kept for a worker that knows the task (a rolling deploy), more patiently the longer that takes."""
    age = clock.time() - delivery.enqueued_at
    error = ErrorText(_path(UnknownTask), f"no task is named {delivery.name!r} here")
    deadline = conf.get_settings().unknown_task_deadline
    if deadline is not None and age > deadline / timedelta(seconds=1):
        return Outcome(delivery, Action.FAILED, error=error)
    delay = min(max(age, FIRST_UNKNOWN_DELAY), LAST_UNKNOWN_DELAY)
    return Outcome(delivery, Action.RETRY, error=error, delay=delay, is_counted=False)


def _limits(task: Task[Any, Any], headers: Headers) -> tuple[float | None, float | None]:
    settings, options = conf.get_settings(), task.options
    soft = headers.soft_time_limit or options.soft_time_limit or settings.soft_time_limit
    hard = headers.time_limit or options.time_limit or settings.time_limit
    return soft, hard


def describe(error: BaseException) -> ErrorText:
    """An error as bounded text; an error whose own ``__str__`` fails is described all the same."""
    try:
        message = str(error)
    except BaseException as failure:
        message = f"<{type(failure).__name__} in __str__>"
    try:
        summary = traceback.TracebackException(type(error), error, _of_the_task(error), limit=-MAX_FRAMES)
        text = "".join(summary.format())
    except BaseException as failure:
        text = f"<no traceback: {type(failure).__name__}>"
    return ErrorText(_path(type(error)), _bounded(message), _bounded(text))


def _of_the_task(error: BaseException) -> TracebackType | None:
    """The traceback from the task's own first line on; what leads there is the same for every run."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        trace = trace.tb_next
    return trace or error.__traceback__


def _bounded(text: str) -> str:
    # NUL cannot be stored in PostgreSQL's text, nor a lone surrogate anywhere.
    text = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}\n... {len(text) - MAX_TEXT:,} characters left out ...\n{text[-half:]}"


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
