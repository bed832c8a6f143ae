"""Counting runs: by task, queue and how they ended, with how long they took and how long they had waited.

A worker process counts in its bookkeeping thread and tells its supervisor the differences once a second, over a pipe:
one line for each task and queue, short enough that the system writes it whole or not at all. When the pipe is full
the differences wait. So counting costs no file, no lock and no system call per run.
"""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from django_taskq.message import Action, Outcome

# Upper bounds in seconds: the first nine are those of OpenTelemetry and of prometheus_client, but runs last longer.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
# Names come with messages, so they are bounded: a sender of nonsense must not fill the memory of whoever collects.
MOST_SERIES = 1000
OTHER = "(other)"
SEND_INTERVAL = 1.0  # seconds
# PIPE_BUF of Linux: what a pipe takes whole or not at all.
LONGEST_LINE = 4096

STATES = {
    Action.SUCCESS: "successful",
    Action.RETRY: "retried",
    Action.FAILED: "failed",
    Action.CANCELLED: "cancelled",
}
REFUSED = "refused"

Key = tuple[str, str]


@dataclass(slots=True)
class Histogram:
    """How many values fell below each bound (the last count is for those above all), and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    sum: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value; a clock that was set back makes it 0."""
        seconds = max(seconds, 0.0)
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds

    def add(self, counts: Iterable[int], total: float) -> None:
        """Add what another has counted."""
        self.counts = [mine + other for mine, other in zip(self.counts, counts, strict=True)]
        self.sum += total


@dataclass(slots=True)
class Series:
    """What is counted of the runs of one task on one queue. ``states`` is by the words of :data:`STATES`."""

    states: dict[str, int] = field(default_factory=dict)
    runtime: Histogram = field(default_factory=Histogram)
    wait: Histogram = field(default_factory=Histogram)


class Counts:
    """Counts by (task, queue). For one thread at a time."""

    def __init__(self) -> None:
        self.series: dict[Key, Series] = {}

    def of(self, key: Key) -> Series:
        """The series of a task and queue; beyond the bound, that of all others."""
        found = self.series.get(key)
        if found is None:
            key = key if len(self.series) < MOST_SERIES else (OTHER, OTHER)
            found = self.series.setdefault(key, Series())
        return found

    def note(self, outcomes: Iterable[Outcome], lost: Sequence[Outcome] = ()) -> None:
        """Count what became of these attempts; those in ``lost`` were refused, and somebody else's count."""
        refused = {id(outcome) for outcome in lost}
        for outcome in outcomes:
            action, delivery = outcome.action, outcome.delivery
            # One that others have replaced is counted when it has their result.
            if action in (Action.RELEASED, Action.REPLACED):
                continue
            # Nor is it an attempt where a run waits for a resource or for code that knows its task.
            if action is Action.RETRY and not outcome.is_counted:
                continue
            series = self.of((delivery.name, delivery.queue_name))
            state = REFUSED if id(outcome) in refused else STATES[action]
            series.states[state] = series.states.get(state, 0) + 1
            started, finished = outcome.started_at, outcome.finished_at
            if started is not None and finished is not None and state != REFUSED:
                series.runtime.observe(finished - started)
                series.wait.observe(started - max(delivery.enqueued_at, delivery.run_after or 0.0))

    def dumps(self, key: Key) -> bytes:
        """One series as a line."""
        series = self.series[key]
        runtime, wait = series.runtime, series.wait
        document = [*key, series.states, runtime.counts, runtime.sum, wait.counts, wait.sum]
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"

    def merge(self, line: bytes) -> None:
        """Add what a line of :meth:`dumps` says. Raises ``ValueError`` for anything else, which changes nothing."""
        if len(line) > LONGEST_LINE:
            raise ValueError("too long")
        match _loads(line):
            case [str(name), str(queue_name), dict(states), list(runtime), float(ran), list(wait), float(waited)]:
                if not all(type(count) is int for count in [*states.values(), *runtime, *wait]):
                    raise ValueError("not all are numbers")
                if {len(runtime), len(wait)} != {len(BUCKETS) + 1}:
                    raise ValueError("not as many as there are buckets")
                series = self.of((name, queue_name))
                for state, count in states.items():
                    series.states[state] = series.states.get(state, 0) + count
                series.runtime.add(runtime, ran)
                series.wait.add(wait, waited)
            case _:
                raise ValueError("something else")


def _loads(line: bytes) -> object:
    try:
        return json.loads(line)
    except RecursionError as error:
        raise ValueError("too deep") from error


class Reporter:
    """The counts of one worker process, on their way to its supervisor. For the bookkeeping thread alone."""

    def __init__(self, pipe: int) -> None:
        """``pipe`` is the file descriptor of the writing end."""
        os.set_blocking(pipe, False)
        self._pipe = pipe
        self._counts = Counts()
        self._send_at = 0.0

    def note(self, outcomes: Sequence[Outcome], lost: Sequence[Outcome]) -> None:
        """Count what was recorded."""
        self._counts.note(outcomes, lost)

    def send(self, *, is_last: bool = False) -> None:
        """Tell the differences, at most once a second unless it is the last time."""
        now = time.monotonic()
        if not self._counts.series or (now < self._send_at and not is_last):
            return
        self._send_at = now + SEND_INTERVAL
        for key in list(self._counts.series):
            try:
                # At most LONGEST_LINE bytes, so it is written whole or not at all.
                os.write(self._pipe, self._counts.dumps(key))
            except BlockingIOError:
                return
            except BrokenPipeError:
                pass  # the supervisor is gone, and this process will be in a moment
            del self._counts.series[key]
