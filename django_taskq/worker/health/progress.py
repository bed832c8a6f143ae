"""Whether a worker gets on: the judgement behind ``/livez``, from what the supervisor sees anyway.

Processes that serve the same queues are judged together: as long as one of them gets on, their queues are served, and
what is wrong with the others is for the crew to mend. But a process that took over from one that stood still counts
only once its bookkeeping has gone round, so that replacing in vain, again and again, does not look like life.

No broker and no database is asked. While this worker's own heartbeats do not get through, nobody is blamed: that is an
outage, and starting anew would not end it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

# A bookkeeping that works goes round at least once a second, and so does the pulse.
FRESH = 3.0
# For this long a group may have nobody who has finished starting.
BOOT_SECONDS = 120.0
# Between two looks, of which there is one a second.
PAUSE_SECONDS = 5.0


class Progress:
    """What has been seen of each group of processes. For one thread; times are monotonic seconds."""

    def __init__(self, timeout: float) -> None:
        """``timeout``: seconds without progress that are too many."""
        self._timeout = timeout
        self._good_at: dict[str, float] = {}
        self._is_up: dict[str, bool] = {}
        self._looked_at: float | None = None
        self.complaints: list[str] = []

    def look(self, state: dict[str, Any], now: float, *, loop_age: float, is_steady: bool) -> None:
        """Judge a snapshot. ``loop_age``: seconds since the main loop went round; ``is_steady``: heartbeats do."""
        if self._looked_at is not None and now - self._looked_at > PAUSE_SECONDS:
            # This process itself stood still, or the whole host did.
            self._good_at.clear()
        self._looked_at = now
        groups = _by_queues(state)
        for queues, processes in groups.items():
            if any(gets_on(each, min(FRESH, self._timeout)) for each in processes):
                self._good_at[queues] = now
            self._good_at.setdefault(queues, now)
            self._is_up[queues] = any(each["up"] for each in processes)
        for gone in set(self._good_at) - set(groups):
            del self._good_at[gone]
        self.complaints = list(self._complain(now, loop_age)) if is_steady else []

    def _complain(self, now: float, loop_age: float) -> list[str]:
        found = []
        if loop_age > self._timeout:
            found.append(f"the supervisor's main loop has stood still for {loop_age:.0f} s")
        for queues, good_at in self._good_at.items():
            allowed = self._timeout if self._is_up[queues] else max(self._timeout, BOOT_SECONDS)
            if now - good_at > allowed:
                found.append(f"no process that serves {queues} has got on for {now - good_at:.0f} s")
        return found


class Stalls:
    """Queues that have work for idle processes, who do not take it: consumers that hear nothing any more."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[float, int]] = {}
        self._looked_at = 0.0

    def idle(self, state: dict[str, Any]) -> dict[str, list[str]]:
        """The queues of each group all of whose processes wait for work; of the others it need not be asked."""
        return {
            queues: processes[0]["names"]
            for queues, processes in _by_queues(state).items()
            if all(each["up"] and each["idle"] and not each["running"] for each in processes)
        }

    def look(self, state: dict[str, Any], now: float, with_work: Mapping[str, Collection[str]]) -> None:
        """Note which idle groups have ``with_work``, the names of queues that have some."""
        self._looked_at = now
        groups = _by_queues(state)
        done = {queues: sum(each["done"] for each in groups[queues]) for queues in with_work if queues in groups}
        kept = {}
        for queues, names in with_work.items():
            if names and queues in done:
                since, before = self._since.get(queues, (now, done[queues]))
                kept[queues] = (since, before) if before == done[queues] else (now, done[queues])
        self._since = kept

    def complaints(self, now: float, timeout: float) -> list[str]:
        """What has been so for too long; nothing when the last look is long ago, because then nobody knows."""
        if now - self._looked_at > timeout:
            return []
        return [
            f"work for {queues} has been waiting for {now - since:.0f} s, and idle processes do not take it"
            for queues, (since, _) in self._since.items()
            if now - since > 0.75 * timeout
        ]


def gets_on(process: dict[str, Any], fresh: float) -> bool:
    """Whether a process does what it is for, or a run that may do so keeps it from it."""
    running = process["running"]
    overdue = sum(each["overdue"] is not None and each["overdue"] > fresh for each in running)
    if not process["up"] or max(overdue, process["lost_slots"]) >= process["slots"]:
        return False
    if process["sound"] and process["tick_age"] is not None and process["tick_age"] <= fresh:
        return True
    # Nothing but the run gets the interpreter, which is its right until its time limit.
    # (One that seizes it at once leaves no time for a first pulse.)
    return bool(running) and (process["pulse_age"] is None or process["pulse_age"] > fresh)


def _by_queues(state: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for process in state["processes"]:
        if not process["leaving"]:
            groups.setdefault(process["queues"], []).append(process)
    return groups
