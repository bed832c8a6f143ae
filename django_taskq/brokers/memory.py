"""A broker in this process's memory: the contract at its plainest, for the conformance suite and for unit tests.

It keeps deliveries and forgets them once they are settled, but for what became of the steps of workflows; it is not a
value of ``BROKER_URL``, because web and worker processes would each have one of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from django_taskq.brokers.base import Broker, Capabilities
from django_taskq.brokers.memory_steps import End, MemorySteps
from django_taskq.message import Action, Delivery, Growth, Headers, Message, Outcome
from django_taskq.options import MAX_PRIORITY, MIN_PRIORITY
from django_taskq.status import Status
from django_taskq.steps import Link, StepError


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
        self.steps = MemorySteps()

    def enqueue(self, messages: Sequence[Message]) -> None:
        with self._lock:
            self._kept.update({message.id: _Kept(message) for message in messages})

    def link(self, links: Sequence[Link]) -> None:
        with self._lock:
            self.steps.add(links)

    def queues_with_work(self, queue_names: Sequence[str]) -> list[str]:
        return [name for name in queue_names if self.size(name)]

    def claim(self, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Delivery]:
        with self._lock:
            taken = self._waiting(queue_name)[:limit]
            for claim, kept in enumerate(taken, first_claim):
                kept.holder = (process_id, claim)
            return [self.steps.complete(_delivery(kept, claim)) for claim, kept in enumerate(taken, first_claim)]

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
                    self._end(id, End(Status.FAILED, error=StepError("", reason, id, kept.message.name)))
                    return True
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
                self._end(id, End(Status.CANCELLED, error=StepError("TaskCancelled", "its queue was purged", id, "")))
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
            and not kept.message.is_waiting
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
            kept.holder = None
            if outcome.action is Action.REPLACED:
                kept.message = _replaced(kept.message, outcome.growth)
            if outcome.growth is not None:
                self._grow(outcome.growth)
            if outcome.action is Action.RETRY:
                due = outcome.run_after or datetime.now(UTC) + timedelta(seconds=outcome.delay or 0)
                kept.message = replace(kept.message, run_after=due)
                kept.attempt += outcome.is_counted
            elif outcome.action not in (Action.RELEASED, Action.REPLACED):
                self._end(delivery.id, _end(outcome))
            return True

    def _grow(self, growth: Growth) -> None:
        self._kept.update({message.id: _Kept(message) for message in growth.messages})
        self.steps.add(growth.links)
        self._move_on([message.id for message in growth.messages])

    def _end(self, id: str, end: End) -> None:
        """Forget it; of a step it is remembered how it ended, and those that waited for it go on."""
        if self._kept.pop(id).message.workflow_id is not None:
            self.steps.ended[id] = end
            self._move_on(self.steps.children(id))

    def _move_on(self, ids: Sequence[str]) -> None:
        way = list(ids)
        for id in way:
            kept = self._kept.get(id)
            verdict = Status.WAITING if kept is None or not kept.message.is_waiting else self.steps.verdict(id)
            if kept is None or verdict is Status.WAITING:
                continue
            if verdict is Status.READY:
                kept.message = _ready(kept.message)
                continue
            error = StepError("UpstreamFailed", "a step before it did not succeed", id, kept.message.name)
            cause = self.steps.cause(id) if verdict is Status.FAILED else None
            self.steps.ended[id] = End(verdict, error=cause or error)
            del self._kept[id]
            way += self.steps.children(id)


def _replaced(message: Message, growth: Growth | None) -> Message:
    """It waits for what took its place, and has its value then."""
    id = None if growth is None else growth.workflow_id
    headers = Headers.loads(message.headers)._replace(workflow=id, adopts=True).dumps()
    return replace(message, headers=headers, workflow_id=id, is_waiting=True, run_after=None)


def _ready(message: Message) -> Message:
    headers, now = Headers.loads(message.headers), datetime.now(UTC)
    if headers.countdown is not None:
        message = replace(message, run_after=now + timedelta(seconds=headers.countdown))
    if headers.expires is not None:
        message = replace(message, expires_at=now + timedelta(seconds=headers.expires))
    return replace(message, is_waiting=False)


def _end(outcome: Outcome) -> End:
    if outcome.action is Action.SUCCESS:
        return End(Status.SUCCESSFUL, outcome.result)
    status = Status.FAILED if outcome.action is Action.FAILED else Status.CANCELLED
    class_path, message = (outcome.error.class_path, outcome.error.message) if outcome.error else ("", "")
    return End(status, error=StepError(class_path, message, outcome.delivery.id, outcome.delivery.name))


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
