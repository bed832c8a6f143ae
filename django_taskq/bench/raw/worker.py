"""Processes that work on the raw table: several that drain it, or the smallest possible worker."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from django_taskq.bench.raw import Access
from django_taskq.bench.raw.store import CHANNEL, QUEUE, RawStore

# For one process to connect, or to end, in seconds.
PATIENCE = 60.0


class Drained(Protocol):
    """What can be emptied by several processes at once."""

    def drain(self, process: int) -> tuple[int, float, float]:
        """Work until nothing is left; returns how many, and the times of begin and end."""

    def close(self) -> None:
        """Disconnect."""


def drain_rate(connect: Callable[[], Drained], processes: int) -> float:
    """What that many processes do per second, from when all are connected to when the last one ends.

    ``connect`` makes the connection of each, and travels to it.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    running = [
        context.Process(target=_drain, args=(connect, number + 1, barrier, results), daemon=True)
        for number in range(processes)
    ]
    for process in running:
        process.start()
    found: list[tuple[int, float, float]] = [results.get(timeout=PATIENCE * 10) for _ in running]
    for process in running:
        process.join(PATIENCE)
    # The last look of each finds nothing; it belongs to the time it takes to know that all is done.
    seconds = max(end for _, _, end in found) - min(begin for _, begin, _ in found)
    return sum(count for count, _, _ in found) / seconds


def _drain(connect: Callable[[], Drained], number: int, barrier: Any, results: Any) -> None:
    store = connect()
    barrier.wait(PATIENCE)
    results.put(store.drain(number))
    store.close()


@contextmanager
def bare_worker(access: Access, store: RawStore) -> Iterator[int]:
    """The smallest possible worker on the raw table; gives its pid."""
    script = Path(__file__).with_name("bare.py")
    plan = {
        "vendor": access.vendor,
        "parameters": access.parameters,
        "pragmas": access.pragmas,
        "claim": store.claim_sql,
        "finish": store.finish_sql,
        "queue": QUEUE,
        "channel": CHANNEL,
    }
    process = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert process.stdin is not None
        # Through a pipe: the parameters hold a password, and command lines can be seen by others.
        process.stdin.write(json.dumps(plan).encode() + b"\n")
        process.stdin.flush()
        yield process.pid
    finally:
        process.kill()
        process.communicate()
