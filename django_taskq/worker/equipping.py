"""Having at hand the resources that a run needs, before it starts; or leaving it to others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from django_taskq.context import TaskContext
from django_taskq.exceptions import ResourceUnavailable
from django_taskq.message import Action, ErrorText, Outcome

if TYPE_CHECKING:
    from django_taskq.worker.guards import Guard, LoopGuard

CLASS_PATH = f"{ResourceUnavailable.__module__}.{ResourceUnavailable.__qualname__}"


def equip(run: TaskContext, guard: Guard) -> Outcome | None:
    """Open what is not open yet. An outcome when the run cannot be made here: given back, charged nothing."""
    try:
        if run.resources.are_open(run.task.needs):
            return None
        # A start, so that what crashes is charged and nothing waits behind it; without limits, as it is not the run's
        # own time that this takes.
        if not guard.begin(run.delivery, None, commit_first=run.delivery.is_suspect):
            return Outcome(run.delivery, Action.RELEASED)
        try:
            run.resources.pick(run.task.needs)
        finally:
            guard.end()
    except ResourceUnavailable as error:
        return _left_to_others(run, error)
    return None


async def equip_on_loop(run: TaskContext, guard: LoopGuard) -> Outcome | None:
    """:func:`equip` on the running loop, which others need meanwhile: what takes time does so in a thread."""
    try:
        if run.resources.are_open(run.task.needs):
            return None
        if not await guard.begin(run.delivery, None, commit_first=run.delivery.is_suspect):
            return Outcome(run.delivery, Action.RELEASED)
        try:
            await asyncio.to_thread(run.resources.pick, run.task.needs)
        finally:
            guard.end()
    except ResourceUnavailable as error:
        return _left_to_others(run, error)
    return None


def equipped(run: TaskContext) -> dict[str, Any]:
    """The keyword arguments of the call: those of the run, and the resources."""
    return {**run.kwargs, **run.resources.pick(run.task.needs)} if run.task.needs else run.kwargs


def _left_to_others(run: TaskContext, error: ResourceUnavailable) -> Outcome:
    text = ErrorText(CLASS_PATH, str(error))
    return Outcome(run.delivery, Action.RETRY, error=text, delay=error.delay, is_counted=False)
