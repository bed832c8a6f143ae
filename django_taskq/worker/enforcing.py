"""The limits of runs as the supervisor keeps them: what passes one is ended, by force where it has to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django_taskq import sizes
from django_taskq.exceptions import MemoryLimitExceeded, TaskqError, TimeLimitExceeded
from django_taskq.worker import table
from django_taskq.worker.child import Child
from django_taskq.worker.table import Running


def keep(child: Child, running: Sequence[Running], now: float) -> Mapping[int, TaskqError]:
    """Kill the process for what its runs have passed, where that ends nothing else but is given back.

    Returns, by claim, how those end that go on in threads: they are lost from now on.
    """
    _keep_memory(child, running, now)
    is_alone = child.table.slots == 1
    what = "the worker process was killed" if is_alone else "its thread goes on, and its outcome is refused"
    passed: dict[int, TaskqError] = {}
    for entry in running:
        if entry.deadline is not None and now >= entry.deadline and entry.claim not in child.lost:
            limit = entry.deadline - entry.started
            passed[entry.claim] = TimeLimitExceeded(f"the hard time limit of {limit:g} s passed; {what}")
    if not passed or child.killed_for:
        return {}
    child.errors.update(passed)
    if is_alone:
        child.kill("its run passed the hard time limit", is_blameless=True)
        return {}
    child.lost.update(passed)
    return passed


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
        child.kill("only runs past their limit were left in it", is_blameless=True)
