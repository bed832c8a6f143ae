"""A worker with nothing to do on a depot, beside the smallest possible one on the same server."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django_taskq.bench import idling, processes
from django_taskq.bench.depots.base import RawServer, envelopes
from django_taskq.bench.depots.rates import clear
from django_taskq.bench.plan import Figure
from django_taskq.bench.stage import DepotStage
from django_taskq.bench.workers import WorkerFailed


class BareClient:
    """The bare process; it writes a line for each message."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process

    def next_time(self) -> float:
        """When it got the next message."""
        output = self._process.stdout
        assert output is not None
        found, _, _ = select.select([output], [], [], idling.PATIENCE)
        line = output.readline() if found else b""
        if not line:
            raise WorkerFailed(f"the bare process has ended, or got no message for {idling.PATIENCE:.0f} s")
        return float(line)


@contextmanager
def bare_client(server: RawServer) -> Iterator[BareClient]:
    """The smallest possible worker on the raw queue."""
    script = Path(__file__).with_name("bare.py")
    # Unbuffered, so that what there is to read can be waited for.
    process = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    try:
        assert process.stdin is not None
        # Through a pipe: a URL may hold a password, and command lines can be seen by others.
        process.stdin.write(json.dumps(server.access).encode() + b"\n")
        yield BareClient(process)
    finally:
        process.kill()
        process.communicate()


def measure_idle_worker(stage: DepotStage) -> dict[str, Figure]:
    """Memory, then CPU, then latency (with rows) of one worker; then the same of the bare process."""
    plan, idle = stage.plan, stage.server.titles["idle"]
    clear(stage)
    figures = idling.watch_worker(stage)
    for figure in figures.values():
        figure.beside = idle
    stage.tell("an idle bare process")
    stage.server.empty()
    with bare_client(stage.server) as client:
        _raw_latencies(stage, client, 1)
        idling.watch(stage, lambda: processes.tree(client.pid), figures, lambda figure: figure.raw_all)
        if plan.wants("latency"):
            found = _raw_latencies(stage, client, plan.latency_runs)
            idling.add_latencies(figures, found, lambda figure: figure.raw_all)
    return figures


def measure_startup(stage: DepotStage) -> dict[str, Figure]:
    """From the start of the command to the first task of a queue that is full already."""
    figure = Figure("start to first task", "s", beside=stage.server.titles["idle"])
    for number in range(stage.plan.repeat):
        stage.tell(f"start {number + 1}/{stage.plan.repeat}")
        clear(stage)
        figure.all.append(idling.start_worker(stage))
        stage.server.publish_one(envelopes(1)[0])
        spawned_at = time.time()
        with bare_client(stage.server) as client:
            figure.raw_all.append(client.next_time() - spawned_at)
    return {"startup": figure}


def _raw_latencies(stage: DepotStage, client: BareClient, count: int) -> list[float]:
    found = []
    for text in envelopes(count):
        idling.pause()
        began = time.time()
        stage.server.publish_one(text)
        found.append(client.next_time() - began)
    return found
