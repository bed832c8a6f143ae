"""What the supervisor ends by force where it has to: runs past their limits, and cancelled ones that go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django_taskq import sizes
from django_taskq.exceptions import MemoryLimitExceeded, TaskCancelled, TaskqError, TimeLimitExceeded
from django_taskq.worker import table
from django_taskq.worker.child import Child
from django_taskq.worker.table import Running


def keep(child: Child, running: Sequence[Running], now: float) -> Mapping[int, TaskqError]:
    """Kill the process for what its runs have passed, where that ends nothing else but is given back.

    Returns, by claim, how those end that go on in threads: they are lost from now on.
    """
    _keep_memory(child, running, now)
    what = (
        "the worker process was killed" if child.table.slots == 1 else "its thread goes on, and its outcome is refused"
    )
    passed: dict[int, TaskqError] = {}
    for entry in running:
        if entry.deadline is not None and now >= entry.deadline and entry.claim not in child.lost:
            limit = entry.deadline - entry.started
            passed[entry.claim] = TimeLimitExceeded(f"the hard time limit of {limit:g} s passed; {what}")
    return _end(child, passed, "its run passed the hard time limit")


def cancel(child: Child, claim: int) -> Mapping[int, TaskqError]:
    """Do the same for a run that was cancelled and did not heed it."""
    if claim in child.lost:
        return {}
    error = TaskCancelled("it was cancelled while it ran")
    return _end(child, {claim: error}, "its run was cancelled and did not heed it")


def _end(child: Child, errors: Mapping[int, TaskqError], why: str) -> Mapping[int, TaskqError]:
    if not errors or child.killed_for:
        return {}
    child.errors.update(errors)
    if child.table.slots == 1:
        child.kill(why, is_blameless=True)
        return {}
    child.lost.update(errors)
    return errors


def _keep_memory(child: Child, running: Sequence[Running], now: float) -> None:
    found = child.memory.look(running, now)
    if found is None:
        return
    entry, taken = found
    limit, peak = sizes.text(entry.memory), sizes.text(child.memory.peak)
    child.errors[entry.claim] = MemoryLimitExceeded(
        f"the worker process took {sizes.text(taken)}; the memory limit is {limit}, the peak was {peak}"
    )
    # Its neighbours are ended with it, and charged nothing.
    child.kill(f"its run passed the memory limit of {limit}", is_blameless=True)


def end_if_spent(child: Child, running: Sequence[Running]) -> None:
    """Kill a process in which only lost runs go on, once nothing else is left to record or nothing else can start."""
    if not child.lost or child.killed_for:
        return
    lost = sum(entry.claim in child.lost for entry in running)
    child.table.words[table.LOST] = lost
    is_over = child.is_stopping and child.table.words[table.HELD] <= lost
    if lost == len(running) > 0 and (is_over or lost == child.table.slots):
        child.kill("only runs that cannot be ended were left in it", is_blameless=True)
