"""Running a batch: :func:`~django_taskq.worker.executor.execute` for many deliveries of one task with one call.

Each of them has its own outcome. What comes before the call and after it (expiry, bad arguments, hooks, signals) is
done for each on its own, in a context of its own; only the function is called once for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from typing import Any

from django_taskq import clock, context, signals
from django_taskq.batch_calls import BatchContext, Call, share
from django_taskq.context import TaskContext
from django_taskq.message import Action, Delivery, Outcome
from django_taskq.worker import executor, task_hooks
from django_taskq.worker.describing import describe
from django_taskq.worker.equipping import equip, equipped
from django_taskq.worker.guards import BatchGuard


@dataclass(slots=True)
class _Member:
    """A call with its run, and the context in which everything but the call of the function happens."""

    run: TaskContext
    call: Call[Any]
    context: Context


def goes_alone(delivery: Delivery) -> bool:
    """Whether this one has no part in a batch of several: it may be what took its process down."""
    return delivery.crashes > 0 or delivery.is_suspect


def execute_batch(deliveries: Sequence[Delivery], guard: BatchGuard) -> list[Outcome]:
    """Run these deliveries of one task and say what became of each. Never raises for anything the task does."""
    return copy_context().run(_execute, deliveries, guard)


def _execute(deliveries: Sequence[Delivery], guard: BatchGuard) -> list[Outcome]:
    prepared = [executor.prepare(delivery, guard.stop_requested) for delivery in deliveries]
    settled = [each for each in prepared if isinstance(each, Outcome)]
    runs = [each for each in prepared if isinstance(each, TaskContext)]
    return settled + _run(runs, guard) if runs else settled


def _run(runs: list[TaskContext], guard: BatchGuard) -> list[Outcome]:
    task = runs[-1].task
    if task.needs and (given_back := equip(runs[-1], guard)) is not None:
        return [replace(given_back, delivery=run.delivery) for run in runs]
    soft, hard, most_memory = _limits(runs)
    held = guard.begin_batch([run.delivery for run in runs], hard, most_memory)
    started = [run for run in runs if run.delivery.claim in held]
    outcomes = [Outcome(run.delivery, Action.RELEASED) for run in runs if run.delivery.claim not in held]
    if not started:
        return outcomes
    members = [_Member(run, Call(run), copy_context()) for run in started]
    decided = _attempt(members, guard, soft)
    if task_hooks.have_after(started[-1]):
        guard.begin(started[-1].delivery, hard, most_memory, commit_first=False)
        for member, outcome in zip(members, decided, strict=True):
            member.context.run(_after, member.run, outcome)
        guard.end()
    if signals.task_left.receivers:
        for member, outcome in zip(members, decided, strict=True):
            delivery = outcome.delivery
            member.context.run(signals.send, signals.task_left, task.name, delivery=delivery, outcome=outcome)
    return outcomes + decided


def _limits(runs: Sequence[TaskContext]) -> tuple[float | None, float | None, int]:
    """Of the whole call: the shortest that hold for any of these."""
    softs, hards, memories = zip(*(executor.limits(run.task, run.headers) for run in runs), strict=True)
    soft, hard = (min((limit for limit in limits if limit), default=None) for limits in (softs, hards))
    return soft, hard, min((limit for limit in memories if limit), default=0)


def _attempt(members: Sequence[_Member], guard: BatchGuard, soft: float | None) -> list[Outcome]:
    """Call the function; what the members end with, in their order."""
    runs, calls = [member.run for member in members], [member.call for member in members]
    batch = BatchContext(runs, guard.stop_requested)
    context.activate(batch)
    started_at = clock.time()
    problem = ""
    try:
        try:
            for member in members:
                member.run.started_at = started_at
                member.context.run(_before, member)
            going = [call for call in calls if not call.is_settled]
            if going:
                guard.arm(soft)
                returned = runs[0].task.function(going, **equipped(batch))
                guard.end()
                problem = share(going, returned)
        finally:
            guard.end()
    except BaseException as error:
        # The limit may have struck inside end() itself; this time it gets through.
        guard.end()
        for call in calls:
            if not call.is_settled:
                call.fail(error)
    return [_outcome(member, problem) for member in members]


def _before(member: _Member) -> None:
    """What comes before the call, for one of them; what a hook raises is the error of that one alone."""
    run = member.run
    context.activate(run)
    if signals.task_entered.receivers:
        signals.send(signals.task_entered, run.name, delivery=run.delivery, headers=run.headers)
    if signals.task_started.receivers:
        signals.send(signals.task_started, run.name, delivery=run.delivery)
    if run.task.hooks:
        try:
            with executor.surroundings(run.headers):
                task_hooks.before(run)
        except BaseException as error:
            member.call.fail(error)


def _after(run: TaskContext, outcome: Outcome) -> None:
    with executor.surroundings(run.headers):
        task_hooks.after(run, outcome)


def _outcome(member: _Member, problem: str) -> Outcome:
    run, call = member.run, member.call
    if not call.is_settled:
        # No retry: the function has done its work, and what is wrong is how it tells of it.
        error = describe(ValueError(problem))
        return Outcome(run.delivery, Action.FAILED, run.started_at, clock.time(), error=error)
    if call.error is not None:
        return executor.failure(run, call.error, is_cancel=False)
    try:
        return executor.success(run, call.value)
    except Exception as error:
        return executor.failure(run, error, is_cancel=False)
