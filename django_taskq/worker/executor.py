"""Running one delivery: a straight pipeline that ends in an ``Outcome``, with no I/O to broker or rows.

The one exception is a ``transactional`` task: its success is recorded through the guard inside the task's own atomic
block, so that both commit or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from asgiref.sync import sync_to_async
from django.db import transaction
from django.utils import timezone, translation

from django_taskq import clock, conf, context, registry, serializers, signals
from django_taskq.context import TaskContext
from django_taskq.exceptions import (
    InvalidArguments,
    LeaseLost,
    PayloadTooLarge,
    Refused,
    Release,
    Replace,
    Retry,
    SerializationError,
    Snooze,
    TaskExpired,
    UnknownTask,
)
from django_taskq.gates import Gate
from django_taskq.message import NO_HEADERS, Action, Delivery, ErrorText, Headers, Outcome
from django_taskq.steps import GATHER
from django_taskq.task import Task
from django_taskq.worker import growing, overrides, task_hooks
from django_taskq.worker.describing import describe, of_the_task, path_of
from django_taskq.worker.equipping import equip, equip_on_loop, equipped
from django_taskq.worker.guards import Guard, LoopGuard
from django_taskq.worker.interrupting import Drive

FIRST_UNKNOWN_DELAY, LAST_UNKNOWN_DELAY = 5.0, 300.0  # seconds


def execute(delivery: Delivery, guard: Guard) -> Outcome:
    """Run one delivery and say what became of it. Never raises for anything the task does.

    Each run has a context of its own (:mod:`contextvars`): a language, time zone or variable that it activates is
    gone with it.
    """
    return copy_context().run(_execute, delivery, guard)


def _execute(delivery: Delivery, guard: Guard) -> Outcome:
    run = prepare(delivery, guard.stop_requested)
    if isinstance(run, Outcome):
        return run
    if run.task.needs and (given_back := equip(run, guard)) is not None:
        return given_back
    soft, hard, most_memory = limits(run.task, run.headers)
    if not guard.begin(delivery, hard, most_memory, commit_first=_must_commit_first(run)):
        return Outcome(delivery, Action.RELEASED)
    outcome = _attempt(run, guard, soft)
    if task_hooks.have_after(run):
        # With the limits of the call anew, and charged like it; but what is decided stands.
        guard.begin(delivery, hard, most_memory, commit_first=False)
        with surroundings(run.headers):
            task_hooks.after(run, outcome)
        guard.end()
    if signals.task_left.receivers:
        signals.send(signals.task_left, run.name, delivery=delivery, outcome=outcome)
    return outcome


def _attempt(run: TaskContext, guard: Guard, soft: float | None) -> Outcome:
    run.started_at = clock.time()
    context.activate(run)
    try:
        try:
            if signals.task_entered.receivers:
                signals.send(signals.task_entered, run.name, delivery=run.delivery, headers=run.headers)
            if signals.task_started.receivers:
                signals.send(signals.task_started, run.name, delivery=run.delivery)
            if run.task.hooks:
                with surroundings(run.headers):
                    task_hooks.before(run)
            drive = Drive(run.task.coroutine(run.args, equipped(run))) if run.task.is_async else None
            guard.arm(soft, drive)
            return _call(run, guard, drive)
        finally:
            guard.end()
    except BaseException as error:
        # The limit may have struck inside end() itself; this time it gets through.
        guard.end()
        return failure(run, error, is_cancel=guard.is_cancel(error))


async def execute_on_loop(delivery: Delivery, guard: LoopGuard) -> Outcome:
    """:func:`execute` for the task of a coroutine, on the running loop. The caller gives it a context of its own."""
    run = prepare(delivery, guard.stop_requested)
    if isinstance(run, Outcome):
        return run
    if run.task.needs and (given_back := await equip_on_loop(run, guard)) is not None:
        return given_back
    soft, hard, most_memory = limits(run.task, run.headers)
    if not await guard.begin(delivery, hard, most_memory, commit_first=_must_commit_first(run)):
        return Outcome(delivery, Action.RELEASED)
    outcome = await _attempt_on_loop(run, guard, soft)
    if task_hooks.have_after(run):
        await guard.begin(delivery, hard, most_memory, commit_first=False)
        with surroundings(run.headers):
            await sync_to_async(task_hooks.after)(run, outcome)
        guard.end()
    if signals.task_left.receivers:
        signals.send(signals.task_left, run.name, delivery=delivery, outcome=outcome)
    return outcome


async def _attempt_on_loop(run: TaskContext, guard: LoopGuard, soft: float | None) -> Outcome:
    run.started_at = clock.time()
    context.activate(run)
    try:
        try:
            if signals.task_entered.receivers:
                signals.send(signals.task_entered, run.name, delivery=run.delivery, headers=run.headers)
            if signals.task_started.receivers:
                await signals.asend(signals.task_started, run.name, delivery=run.delivery)
            if run.task.hooks:
                with surroundings(run.headers):
                    await sync_to_async(task_hooks.before)(run)
            drive = Drive(run.task.coroutine(run.args, equipped(run)))
            guard.arm(soft, drive)
            with surroundings(run.headers):
                value = await drive.run()
            guard.end()
            return success(run, value)
        finally:
            guard.end()
    except BaseException as error:
        guard.end()
        return failure(run, error, is_cancel=guard.is_cancel(error))


def prepare(delivery: Delivery, stop_requested: Callable[[], bool] | None) -> TaskContext | Outcome:
    """The run that is to be made, or what becomes of it without being made."""
    task = registry.find(delivery.name)
    if task is None:
        return _unknown(delivery)
    if delivery.expires_at is not None and clock.time() > delivery.expires_at:
        latest = datetime.fromtimestamp(delivery.expires_at, UTC)
        error = ErrorText(path_of(TaskExpired), f"not started before {latest:%Y-%m-%d %H:%M:%S} UTC")
        return Outcome(delivery, Action.CANCELLED, error=error)
    try:
        headers = NO_HEADERS if delivery.headers is None else Headers.loads(delivery.headers)
        args, kwargs = _arguments(delivery.payload)
        if headers.adopts:
            # Others were put in its place: it has their value, and is not called again.
            now = clock.time()
            return Outcome(delivery, Action.SUCCESS, now, now, None if not args else serializers.dumps(args[0]))
        # The signature may have changed since; no retry would help, so this is not left to the call.
        task.check_arguments(args, kwargs)
    except (SerializationError, InvalidArguments, ValueError, TypeError) as error:
        now = clock.time()
        return Outcome(delivery, Action.FAILED, now, now, error=describe(error))
    return TaskContext(task, delivery, headers, args, kwargs, stop_requested)


def _must_commit_first(run: TaskContext) -> bool:
    return run.delivery.is_suspect or not run.task.options.acks_late


def _arguments(payload: str) -> tuple[list[Any], dict[str, Any]]:
    match serializers.loads(payload):
        case [list() as args, dict() as kwargs]:
            return args, kwargs
    raise SerializationError("the stored arguments are not a list and a dict, so they were not written by an enqueue")


def _call(run: TaskContext, guard: Guard, drive: Drive | None) -> Outcome:
    if run.task.options.transactional:
        return _call_in_transaction(run, guard)
    value = _invoke(run, drive)
    guard.end()
    return success(run, value)


def _call_in_transaction(run: TaskContext, guard: Guard) -> Outcome:
    with transaction.atomic(using=conf.get_settings().database):
        value = _invoke(run, None)
        guard.end()
        outcome = success(run, value)
        outcome.is_inside = True
        if not guard.commit(outcome):
            raise LeaseLost(f"the claim on run {run.id} of {run.name} was lost while it ran")
    outcome.is_recorded, outcome.is_inside = True, False
    return outcome


def success(run: TaskContext, value: Any) -> Outcome:
    finished_at = clock.time()
    text = _result_text(run.task, run.headers, value)
    outcome = Outcome(run.delivery, Action.SUCCESS, run.started_at, finished_at, text)
    outcome.growth = growing.added(run)
    if run.task.hooks:
        outcome.value = value
    return outcome


def _invoke(run: TaskContext, drive: Drive | None) -> Any:
    headers = run.headers
    if headers.language is None and headers.timezone is None:
        return run.task.call(run.args, equipped(run)) if drive is None else drive.run_here()
    with surroundings(headers):
        return run.task.call(run.args, equipped(run)) if drive is None else drive.run_here()


@contextmanager
def surroundings(headers: Headers) -> Iterator[None]:
    """The language and time zone that were active at enqueue, where they are not the defaults."""
    if headers.language is None and headers.timezone is None:
        yield
        return
    language = headers.language or translation.get_language()
    with translation.override(language), timezone.override(_zone(headers.timezone)):
        yield


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
    if task.name == GATHER:
        return text  # others have been measured already, and this is all of them
    limit = conf.get_settings().max_payload
    if len(text) * 4 > limit and len(text.encode()) > limit:
        raise PayloadTooLarge(
            f"the result takes {len(text.encode()):,} bytes and TASKQ['MAX_PAYLOAD'] allows {limit:,}: "
            f"store it and return its key, or set ignore_result=True"
        )
    return text


def failure(run: TaskContext, error: BaseException, *, is_cancel: bool) -> Outcome:
    outcome = _after_error(run, error, is_cancel=is_cancel)
    if run.task.options.breaker is not None and outcome.error is not None and outcome.action is not Action.CANCELLED:
        cause = error.cause if isinstance(error, Retry) else error
        outcome.trips = path_of(type(cause)) if isinstance(cause, run.task.options.breaker.on) else ""
    if run.task.hooks or (run.task.watcher is not None and outcome.action is Action.FAILED):
        outcome.exception = error.with_traceback(of_the_task(error))
    return outcome


def _after_error(run: TaskContext, error: BaseException, *, is_cancel: bool) -> Outcome:
    task, delivery, started_at, finished_at = run.task, run.delivery, run.started_at, clock.time()
    if isinstance(error, Release):
        return Outcome(delivery, Action.RELEASED, started_at, finished_at)
    if isinstance(error, Replace):
        return _replaced(run, error)
    if is_cancel:
        return Outcome(delivery, Action.CANCELLED, started_at, finished_at, error=describe(error))
    if isinstance(error, Refused):
        gate = cast(Gate, error.gate)
        return Outcome(delivery, Action.RETRY, started_at, finished_at, is_counted=False, gate=gate)
    if isinstance(error, Snooze):
        return Outcome(delivery, Action.RETRY, started_at, finished_at, delay=error.delay, is_counted=False)
    if isinstance(error, Retry):
        text = describe(error.cause) if error.cause is not None else ErrorText(path_of(Retry), str(error))
        due = error.run_after if isinstance(error.run_after, datetime) else None
        return Outcome(delivery, Action.RETRY, started_at, finished_at, error=text, delay=error.delay, run_after=due)
    policy = task.retry_policy
    if policy.retries_on(error) and policy.has_retries_left(delivery.attempt, run.headers.max_retries):
        delay = policy.delay(delivery.attempt)
        return Outcome(delivery, Action.RETRY, started_at, finished_at, error=describe(error), delay=delay)
    return Outcome(delivery, Action.FAILED, started_at, finished_at, error=describe(error))


def _replaced(run: TaskContext, error: Replace) -> Outcome:
    try:
        growth, constant = growing.replacing(run, error.canvas)
    except Exception as refusal:
        return Outcome(run.delivery, Action.FAILED, run.started_at, clock.time(), error=describe(refusal))
    action = Action.SUCCESS if growth is None else Action.REPLACED
    return Outcome(run.delivery, action, run.started_at, clock.time(), constant, growth=growth)


def _unknown(delivery: Delivery) -> Outcome:
    """Kept for a worker that knows the task (a rolling deploy), more patiently the longer that takes."""
    age = clock.time() - delivery.enqueued_at
    error = ErrorText(path_of(UnknownTask), f"no task is named {delivery.name!r} here")
    deadline = conf.get_settings().unknown_task_deadline
    if deadline is not None and age > deadline / timedelta(seconds=1):
        return Outcome(delivery, Action.FAILED, error=error)
    delay = min(max(age, FIRST_UNKNOWN_DELAY), LAST_UNKNOWN_DELAY)
    return Outcome(delivery, Action.RETRY, error=error, delay=delay, is_counted=False)


def limits(task: Task[Any, Any], headers: Headers) -> tuple[float | None, float | None, int]:
    settings, options = conf.get_settings(), task.options
    # What was set while workers run goes before what the code says, and what a call says before both.
    set_soft, set_hard = overrides.limits.get(task.name, overrides.NONE)
    soft = headers.soft_time_limit or set_soft or options.soft_time_limit or settings.soft_time_limit
    hard = headers.time_limit or set_hard or options.time_limit or settings.time_limit
    return soft, hard, headers.memory_limit or options.memory_limit or 0
