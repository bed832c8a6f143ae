"""A worker under load whose broker is killed and comes back, again and again: nothing of it grows.

Three restarts by default. ``TASKQ_SOAK_MINUTES`` is for how long it goes on, one restart every ten seconds; from half
an hour on the slope of the memory is held to its bound as well.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import find
from tests.depots.workers_bed import Start, at, memory, on_url
from tests.faults.history import History, assert_no_orphans, crashes
from tests.faults.loads import Load
from tests.servers import RabbitMQServer, RedisServer
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

MINUTES = float(os.environ.get("TASKQ_SOAK_MINUTES", "0"))
RESTARTS = 3
PAUSE = 10.0 if MINUTES else 0.3  # seconds of work between two kills
ENOUGH = 30.0  # minutes after which a slope says something
MOST_SLOPE = 1.0  # MB an hour
KINDS = {"redis": RedisServer, "rabbitmq": RabbitMQServer} if MINUTES else {"redis": RedisServer}


@pytest.mark.parametrize("name", KINDS)
def test_nothing_grows(worker: Start, pytestconfig: pytest.Config, history: History, name: str) -> None:
    find(KINDS[name], pytestconfig)
    server = RedisServer(RedisServer.DURABLE) if name == "redis" else RabbitMQServer()
    with server, at(worker, on_url(server.url)) as place:
        load, process = Load(history), place.start("--processes", "2")
        children, samples, before = process.children(), list[tuple[float, int]](), (0, 0)
        began, restarts = time.monotonic(), 0
        while restarts < RESTARTS or time.monotonic() - began < 60 * MINUTES:
            load.add(100, 0.001)
            load.wait_until_done(60, process.log)
            time.sleep(PAUSE)  # the time of the case, not a wait
            samples.append((time.monotonic() - began, memory(process)))
            # What is opened once, at the first trouble, is no growth.
            before = held(process) if restarts == 1 else before
            server.kill(signal.SIGKILL)
            wait_for(lambda: not server.is_running)
            server.start()
            restarts += 1
        load.add(100, 0.001)
        load.wait_until_done(60, process.log)
        steepness = slope(samples[len(samples) // 5 :])
        print(
            f"\n{restarts} restarts of {name} in {(time.monotonic() - began) / 60:.1f} minutes, {len(load.keys)} runs: "
            f"{samples[-1][1] / 1e6:.0f} MB, {steepness:+.2f} MB/h, files and threads {before} -> {held(process)}"
        )
        load.assert_done(may_repeat=load.untracked)
        assert process.children() == children
        assert not crashes()
        # A server that is restarted leaves a connection behind for a moment.
        wait_for(lambda: all(now <= then for now, then in zip(held(process), before, strict=True)), 10,
                 lambda: f"files and threads: {before} before, {held(process)} now")  # fmt: skip
        assert MINUTES < ENOUGH or steepness <= MOST_SLOPE
        process.terminate()
        assert process.wait() == 0
        assert_no_orphans(process)


def held(process: WorkerProcess) -> tuple[int, int]:
    """Open files and threads of a worker's processes."""
    files = threads = 0
    for pid in process.tree():
        files += len(os.listdir(f"/proc/{pid}/fd"))
        threads += len(list(Path(f"/proc/{pid}/task").iterdir()))
    return files, threads


def slope(samples: list[tuple[float, int]]) -> float:
    """MB an hour, by least squares over (seconds, bytes)."""
    if len(samples) < 2:
        return 0.0
    middle = sum(at for at, _ in samples) / len(samples)
    mean = sum(size for _, size in samples) / len(samples)
    over = sum((at - middle) ** 2 for at, _ in samples)
    return sum((at - middle) * (size - mean) for at, size in samples) / over * 3600 / 1e6
