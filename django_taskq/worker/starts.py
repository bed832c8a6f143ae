"""Starts that are committed before the run is made: asked for by slots, committed by the bookkeeping thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from django_taskq.brokers.base import Broker
from django_taskq.message import Delivery


class Starts:
    """True while any is asked for."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """``wake`` wakes the bookkeeping thread."""
        self._wake = wake
        self._asked: deque[tuple[Sequence[Delivery], Callable[[list[Delivery]], Any]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._asked)

    def commit(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Commit the start of these in one moment; returns those that may start (:meth:`Broker.mark_all_started`)."""
        answer: SimpleQueue[list[Delivery]] = SimpleQueue()
        self.ask(deliveries, answer.put)
        return answer.get()

    def ask(self, deliveries: Sequence[Delivery], answer: Callable[[list[Delivery]], Any]) -> None:
        """:meth:`commit` for who cannot wait: ``answer`` is called in the bookkeeping thread."""
        self._asked.append((deliveries, answer))
        self._wake()

    def work_off(self, broker: Broker, process_id: int) -> None:
        """For the bookkeeping thread: commit what is asked for. After an error it is still asked for."""
        while self._asked:
            deliveries, answer = self._asked[0]
            held = broker.mark_all_started(process_id, deliveries, time.time())
            self._asked.popleft()
            answer(held)
