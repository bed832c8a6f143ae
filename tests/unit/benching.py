"""A worker process without a process, and without a database: courier and slots around a broker in memory."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from django_taskq.brokers.memory import MemoryBroker
from django_taskq.worker.courier import Courier
from django_taskq.worker.fetcher import Fetcher, QueueOrder
from django_taskq.worker.table import SlotTable
from tests.unit.making import make_message


class Bench:
    """A worker process without a process: one courier, its slots, and the supervisor's end of the pipe."""

    def __init__(
        self,
        path: Path,
        slots: int = 1,
        coroutines: int = 0,
        quota: int | None = None,
        broker: MemoryBroker | None = None,
        queues: tuple[str, ...] = ("default",),
    ) -> None:
        self.broker = broker or MemoryBroker()
        self.table = SlotTable.create(path, slots + coroutines)
        reader, self.orders = os.pipe()
        fetcher = Fetcher(self.broker, 1, QueueOrder(queues, rotate=True))
        self.courier = Courier(self.broker, 1, fetcher, self.table, reader, coroutines=coroutines, quota=quota)
        targets = [self.courier.run, *(slot.run for slot in self.courier.threads.slots)]
        if self.courier.coroutines is not None:
            targets.append(self.courier.coroutines.run)
        self.threads = [threading.Thread(target=target, daemon=True) for target in targets]

    def put(self, name: str, count: int = 1, queue_name: str = "default", headers: str | None = None) -> None:
        how = {"name": name, "payload": "[[],{}]", "queue_name": queue_name, "headers": headers}
        self.broker.enqueue([make_message(**how) for _ in range(count)])

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def has_ended(self) -> bool:
        for thread in self.threads:
            thread.join(10)
        return not any(thread.is_alive() for thread in self.threads)
