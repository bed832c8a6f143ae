"""The supervisor's main loop, with a crew that does nothing but what the test says."""

from __future__ import annotations

import socket
from typing import Any

from django_taskq.worker.fetcher import QueueOrder
from django_taskq.worker.options import WorkerOptions
from django_taskq.worker.supervisor import Supervisor


class HastyCrew:
    """Its only process starts, and finds nothing to do, between two questions of the supervisor."""

    sentinels = ()
    is_hopeless = False
    is_dry = True
    is_gone = False

    def __init__(self) -> None:
        self.looks = 0

    @property
    def is_up(self) -> bool:
        self.looks += 1
        return self.looks > 1

    def look(self, ended: set[Any], now: float) -> None: ...

    def close(self) -> None:
        self.is_gone = True


def test_a_burst_that_finds_nothing_is_announced_all_the_same() -> None:
    said: list[str] = []
    supervisor = Supervisor(
        WorkerOptions(QueueOrder(("default",)), 1, 1, 30, burst=True, start_method="spawn"),
        on_ready=lambda worker: said.append("ready"),
    )
    supervisor._worker = None  # type: ignore[assignment]
    supervisor.crew = HastyCrew()  # type: ignore[assignment]
    supervisor._requests.bell, waker = socket.socketpair()
    with supervisor._requests.bell, waker:
        supervisor._loop()
    assert said == ["ready"]
