"""A broker on a server that sends messages by itself: it waits for those under way before it looks."""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import Any, ClassVar

from django_taskq.brokers.mixed import MixedBroker
from django_taskq.message import Delivery, Message, Outcome
from tests.waiting import wait_for


class PatientBroker(MixedBroker):
    """For RabbitMQ, where a message that was published, or given back, is a moment later where it is taken.

    The contract is about what is handed out, not about that moment, which a worker passes waiting at its socket.
    """

    # Whether any of them may have sent something that nobody has received yet.
    is_under_way: ClassVar[bool] = False

    def enqueue(self, messages: Sequence[Message]) -> None:
        super().enqueue(messages)
        PatientBroker.is_under_way = True

    def settle(self, process_id: int, outcomes: Sequence[Outcome]) -> list[Outcome]:
        PatientBroker.is_under_way = True
        return super().settle(process_id, outcomes)

    def release(self, process_id: int, claims: Sequence[int]) -> int:
        PatientBroker.is_under_way = True
        return super().release(process_id, claims)

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
            # A busy machine takes its time between the server and the socket.
            patience = 0.3 if PatientBroker.is_under_way else 0.005
            PatientBroker.is_under_way = False
            while select.select(depot.filenos(), [], [], patience)[0]:
                depot.queues_with_work([])  # reads what has come
                patience = 0.005
            lines = [line for line in self._lines(queue_name) if line.prefetch]
            return is_dry or not lines or any(len(line.held) >= line.prefetch for line in lines)

        wait_for(have_come, 10, f"the deliveries of {queue_name}", interval=0.002)
