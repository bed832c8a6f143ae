"""A broker on the test bench: short ways to put work in and take it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from django_taskq.brokers.base import Broker
from django_taskq.message import Action, Delivery, ErrorText, Message, Outcome
from tests.unit.making import make_message, make_outcome

QUEUE = "default"


@dataclass(slots=True)
class Bed:
    """One broker. ``promote`` does what a supervisor does now and then: it makes ready what is due.

    ``make`` makes the broker that another process has, ``settings`` are what such a process is to have as TASKQ.
    ``keeps_places``: ids decide the order, so that what was given back is where it was; otherwise the order of arrival.
    """

    broker: Broker
    promote: Callable[[], object] = lambda: None
    make: Callable[[], Broker] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    keeps_places: bool = True
    next_number: dict[int, int] = field(default_factory=dict)

    def other(self) -> Bed:
        """What another process has; where a process is no different from a thread, this one."""
        return self if self.make is None else replace(self, broker=self.make(), next_number={})

    def leave(self) -> None:
        """End what :meth:`other` began: nothing is sent to it any more."""
        if self.make is not None:
            self.broker.close()

    def put(self, count: int = 1, **changes: Any) -> list[Message]:
        messages = [make_message(**changes) for _ in range(count)]
        self.broker.enqueue(messages)
        return messages

    def put_priorities(self, *priorities: int) -> dict[int, list[str]]:
        """One message for each; the ids by priority, in the order they were put."""
        ids: dict[int, list[str]] = {}
        for priority in priorities:
            ids.setdefault(priority, []).append(self.put(priority=priority)[0].id)
        return ids

    def take(
        self, limit: int = 100, *, queue: str = QUEUE, process: int = 1, first: int | None = None
    ) -> list[Delivery]:
        """Claim under numbers that were not used before, as the contract wants it."""
        if first is None:
            first = self.next_number.get(process, 1)
            self.next_number[process] = first + limit
        return self.broker.claim(queue, limit, process, first)

    def take_ids(self, limit: int = 100, **how: Any) -> list[str]:
        return [delivery.id for delivery in self.take(limit, **how)]

    def settle(self, action: Action, *deliveries: Delivery, process: int = 1, **changes: Any) -> list[Outcome]:
        """Settle these the same way; returns what was lost."""
        if action in (Action.RETRY, Action.FAILED):
            changes.setdefault("error", ErrorText("builtins.OSError", "disk", "Traceback: disk"))
        outcomes = [make_outcome(action, delivery, **changes) for delivery in deliveries]
        return self.broker.settle(process, outcomes)


def ids(items: list[Any]) -> list[str]:
    return [item.id for item in items]
