"""A broker on a server that sends messages by itself: it waits for those under way before it looks."""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import Any

from django_taskq.brokers.mixed import MixedBroker
from django_taskq.message import Delivery
from tests.waiting import wait_for


class PatientBroker(MixedBroker):
    """For RabbitMQ, where a message that was published, or given back, is a moment later where it is taken.

    The contract is about what is handed out, not about that moment, which a worker passes waiting at its socket.
    """

    def claim(self, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Delivery]:
        self._await_deliveries(queue_name)
        return super().claim(queue_name, limit, process_id, first_claim)

    def queues_with_work(self, queue_names: Sequence[str]) -> list[str]:
        for name in queue_names:
            self._await_deliveries(name)
        return super().queues_with_work(queue_names)

    def size(self, queue_name: str) -> int:
        """With what the server has sent ahead to this process: to the server, that is no longer waiting."""
        self._await_deliveries(queue_name)
        return super().size(queue_name) + sum(len(line.waiting) for line in self._lines(queue_name))

    def _lines(self, queue_name: str) -> list[Any]:
        depot: Any = self.depots["default"]
        return [line for line in depot._consumer._lines.values() if line.queue_name == queue_name]

    def _await_deliveries(self, queue_name: str) -> None:
        """Until the server has nothing left for this queue, or this process has as much as it asked for."""
        depot: Any = self.depots["default"]

        def have_come() -> bool:
            is_dry = depot.size(queue_name) == 0
            while select.select(depot.filenos(), [], [], 0.005)[0]:
                depot.queues_with_work([])  # reads what has come
            lines = [line for line in self._lines(queue_name) if line.prefetch]
            return is_dry or not lines or any(len(line.held) >= line.prefetch for line in lines)

        wait_for(have_come, 10, f"the deliveries of {queue_name}", interval=0.002)
