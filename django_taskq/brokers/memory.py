"""A broker in this process's memory: the contract at its plainest, for the conformance suite and for unit tests.

It keeps deliveries and forgets them once they are settled; it is not a value of ``BROKER_URL``, because web and
worker processes would each have one of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from django_taskq.brokers.base import Broker, Capabilities
from django_taskq.message import Action, Delivery, Message, Outcome
from django_taskq.options import MAX_PRIORITY, MIN_PRIORITY


@dataclass(slots=True)
class _Kept:
    message: Message
    attempt: int = 1
    is_suspect: bool = False
    holder: tuple[int, int] | None = None


class MemoryBroker(Broker):
    """Every verb under one lock; sorting on each claim is plenty for tests."""

    capabilities = Capabilities(
        priority_levels=MAX_PRIORITY - MIN_PRIORITY + 1,
        transactional_enqueue=False,
        transactional_finish=False,
        is_shared=False,
        claims_lightly=True,
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self.rejected: dict[str, str] = {}

    def enqueue(self, messages: Sequence[Message]) -> None:
        with self._lock:
            self._kept.update({message.id: _Kept(message) for message in messages})

    def queues_with_work(self, queue_names: Sequence[str]) -> list[str]:
        return [name for name in queue_names if self.size(name)]

    def claim(self, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Delivery]:
        with self._lock:
            taken = self._waiting(queue_name)[:limit]
            for claim, kept in enumerate(taken, first_claim):
                kept.holder = (process_id, claim)
            return [_delivery(kept, claim) for claim, kept in enumerate(taken, first_claim)]

    def settle(self, process_id: int, outcomes: Sequence[Outcome]) -> list[Outcome]:
        return [outcome for outcome in outcomes if not self._settle(process_id, outcome)]

    def release(self, process_id: int, claims: Sequence[int]) -> int:
        wanted = {(process_id, claim) for claim in claims}
        with self._lock:
            held = [kept for kept in self._kept.values() if kept.holder in wanted]
            for kept in held:
                kept.holder = None
            return len(held)

    def reject(self, process_id: int, claim: int, reason: str) -> bool:
        with self._lock:
            for id, kept in list(self._kept.items()):
                if kept.holder == (process_id, claim):
                    self.rejected[id] = reason
                    return self._kept.pop(id) is kept
        return False

    def rescue(self, process_id: int) -> int:
        with self._lock:
            held = [kept for kept in self._kept.values() if kept.holder and kept.holder[0] == process_id]
            for kept in held:
                kept.holder, kept.is_suspect = None, True
            return len(held)

    def mark_started(self, process_id: int, delivery: Delivery, started_at: float) -> bool:
        with self._lock:
            kept = self._kept.get(delivery.id)
            return kept is not None and kept.holder == (process_id, delivery.claim)

    def purge(self, queue_name: str) -> int:
        with self._lock:
            doomed = [
                id for id, kept in self._kept.items() if kept.message.queue_name == queue_name and kept.holder is None
            ]
            for id in doomed:
                del self._kept[id]
            return len(doomed)

    def size(self, queue_name: str) -> int:
        with self._lock:
            return len(self._waiting(queue_name))

    def oldest_age(self, queue_name: str) -> float | None:
        with self._lock:
            messages = [kept.message for kept in self._waiting(queue_name)]
        waiting = [message.run_after or message.enqueued_at for message in messages]
        return max(0.0, (datetime.now(UTC) - min(waiting)).total_seconds()) if waiting else None

    def peek(self, queue_name: str, limit: int) -> list[Message]:
        with self._lock:
            return [kept.message for kept in self._waiting(queue_name)[:limit]]

    def _waiting(self, queue_name: str) -> list[_Kept]:
        now = datetime.now(UTC)
        waiting = [
            kept
            for kept in self._kept.values()
            if kept.holder is None
            and kept.message.queue_name == queue_name
            and (kept.message.run_after is None or kept.message.run_after <= now)
        ]
        return sorted(waiting, key=lambda kept: (-kept.message.priority, kept.message.id))

    def _settle(self, process_id: int, outcome: Outcome) -> bool:
        delivery = outcome.delivery
        with self._lock:
            kept = self._kept.get(delivery.id)
            if kept is None or kept.holder != (process_id, delivery.claim):
                return False
            if outcome.action not in (Action.RETRY, Action.RELEASED):
                del self._kept[delivery.id]
                return True
            kept.holder = None
            if outcome.action is Action.RETRY:
                due = outcome.run_after or datetime.now(UTC) + timedelta(seconds=outcome.delay or 0)
                kept.message = replace(kept.message, run_after=due)
                kept.attempt += outcome.is_counted
            return True


def _delivery(kept: _Kept, claim: int) -> Delivery:
    message = kept.message
    return Delivery(
        message.id,
        claim,
        message.name,
        message.queue_name,
        message.payload,
        message.headers,
        *message.seconds(),
        kept.attempt,
        0,
        kept.is_suspect,
    )
