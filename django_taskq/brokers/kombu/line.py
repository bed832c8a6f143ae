"""One band of one queue, as a process consumes it: a channel, what it holds, and what waits there to be taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from amqp import spec

from django_taskq.brokers.kombu.suspects import Handed, Suspects, id_of
from django_taskq.brokers.kombu.wire import Incoming

# How often in a row a smaller prefetch must have been right before it is set.
_PATIENCE = 3


class Line:
    """One band of one queue. ``held`` are the tags not settled yet, rising; ``waiting`` the deliveries not taken."""

    def __init__(self, serial: int, channel: Any, queue_name: str, server_queue: str, suspects: Suspects) -> None:
        self.serial = serial
        self.channel = channel
        self.queue_name = queue_name
        self.server_queue = server_queue
        self.prefetch = 0  # 0: it is not consuming
        # With what is known of those that were taken.
        self.held: dict[int, Handed | None] = {}
        self.waiting: deque[Incoming] = deque()
        self._suspects = suspects
        self._is_in_order = True
        self._tag, self._started, self._is_consuming = "", 0, False
        self._too_much = 0
        channel.deliver = self._deliver

    def _deliver(self, delivery: Incoming) -> None:
        self.held[delivery.tag] = None
        self.waiting.append(delivery)
        self._is_in_order = self._is_in_order and not delivery.is_redelivered

    def next(self) -> Incoming:
        """Take the oldest. What comes again comes in the order in which it was given back, so that is mended."""
        if not self._is_in_order:
            self.waiting = deque(sorted(self.waiting, key=id_of))
            self._is_in_order = True
        return self.waiting.popleft()

    def wants(self, prefetch: int) -> bool:
        """Whether to consume anew with this prefetch: at once when it is more, with patience when it is less."""
        if prefetch >= self.prefetch:
            self._too_much = 0
            return prefetch > self.prefetch
        self._too_much += 1
        return self._too_much >= _PATIENCE

    def consume(self, prefetch: int) -> None:
        """Have the server send so many ahead. It counts for each consumer, so the old one goes first."""
        self.stop()
        self.give_back([delivery.tag for delivery in list(self.waiting)[prefetch:]])
        self.channel.basic_qos(0, prefetch, False)
        self._started += 1
        self._tag, self._is_consuming = f"{self.serial}-{self._started}", False
        # Not basic_consume(), which waits: a queue whose leader is away would hold up all others.
        self.channel._pending[spec.Basic.ConsumeOk] = self._on_consuming
        self.channel.cancel_callbacks[self._tag] = self._on_cancel
        arguments = (0, self.server_queue, self._tag, False, False, False, False, None)
        self.channel.send_method(spec.Basic.Consume, "BssbbbbF", arguments)
        self.prefetch, self._too_much = prefetch, 0

    def _on_consuming(self, *unused: object) -> None:
        self._is_consuming = True

    def stop(self) -> None:
        """No more deliveries after this."""
        if self.prefetch:
            self.prefetch = 0
            # What is sent until the answer comes is still ours; where nothing has begun, none will come soon.
            self.channel.basic_cancel(self._tag, nowait=not self._is_consuming)

    def _on_cancel(self, tag: str) -> None:
        self.prefetch = 0  # the queue was deleted, or has moved: the next take consumes anew

    def worn(self, tags: Sequence[int]) -> list[Handed]:
        """Those of these that were given back so often that their queue may soon give up on them."""
        for delivery in self.waiting:
            if self.held.get(delivery.tag) is None:
                self.held[delivery.tag] = self._suspects.judge(delivery)
        found = [self.held.get(tag) for tag in tags]
        return [handed for handed in found if handed is not None and handed.delivery is not None]

    def give_back(self, tags: Sequence[int]) -> int:
        """Return these to the queue, to where they were."""
        for tag in tags:
            if (handed := self.held.get(tag)) is not None:
                self._suspects.clear(handed)
        gone = self._settle(tags, spec.Basic.Nack, "Lbb", (True,))
        if self.waiting:
            self.waiting = deque(delivery for delivery in self.waiting if delivery.tag in self.held)
        return gone

    def ack(self, tags: Sequence[int]) -> int:
        """They are dealt with."""
        return self._settle(tags, spec.Basic.Ack, "Lb", ())

    def refuse(self, tag: int) -> None:
        """Have the server put it with the dead letters."""
        if tag in self.held:
            del self.held[tag]
            self.channel.basic_reject(tag, requeue=False)

    def _settle(self, tags: Sequence[int], method: Any, layout: str, more: tuple[bool, ...]) -> int:
        wanted = {tag for tag in tags if tag in self.held}
        count, together = len(wanted), []
        for tag in self.held:
            if tag not in wanted:
                break
            together.append(tag)
        if together:
            # Everything held up to here is meant, so one word does for all.
            self.channel.send_method(method, layout, (together[-1], True, *more))
        for tag in together:
            del self.held[tag]
        wanted.difference_update(together)
        for tag in sorted(wanted):
            self.channel.send_method(method, layout, (tag, False, *more))
            del self.held[tag]
        return count
