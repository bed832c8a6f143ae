"""Dead letters on an AMQP server: what could not be read, and what the server itself gave up on, in one queue.

They are looked at by taking them and giving them back, which changes nothing but their count of deliveries.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from django_taskq.brokers.depot import DeadLetter
from django_taskq.brokers.kombu.codec import Codec, Content
from django_taskq.brokers.kombu.publisher import Letter, Publisher
from django_taskq.brokers.kombu.topology import Topology
from django_taskq.brokers.kombu.wire import Incoming
from django_taskq.exceptions import SerializationError

_REASON, _QUEUE, _AT = "taskq-reason", "taskq-queue", "taskq-refused-at"
# How many are looked at, from the oldest on. Beyond that somebody has to tidy up first.
_MOST = 10_000
_TEXT = 500
# What of a body is kept to show it, and to tell apart those that have no id.
_BEGINNING = 4 * _TEXT
# When nothing has come for so long, that was all. What was just given back takes a moment.
_QUIET = 0.1
_SERVER_REASONS = {
    "delivery_limit": "its delivery limit: it was handed out again and again, and never settled",
    "rejected": "it is larger than a worker reads (OPTIONS['max_body']), or somebody rejected it",
    "expired": "it waited longer than its queue allows",
    "maxlen": "its queue was full",
}


class _Dead(NamedTuple):
    """One dead letter. ``content`` has the headers it came with, without those that say why it is dead."""

    id: str
    server_queue: str
    reason: str
    at: datetime | None
    content: Content


class Delivered(Protocol):
    """A delivery, of whatever transport, with py-amqp's names for its properties."""

    @property
    def tag(self) -> Any: ...

    @property
    def body(self) -> bytes: ...

    def properties(self) -> Mapping[str, Any]: ...


class DeadLetterQueue(ABC):
    """The queue ``<prefix>.dead``, but for how to get at it."""

    def __init__(self, topology: Topology, codec: Codec) -> None:
        self._topology, self._codec = topology, codec

    @abstractmethod
    def post(self, letters: Sequence[Letter]) -> None:
        """Have these kept for good, in the queues they name."""

    @abstractmethod
    def all(self, ids: Collection[str] = ()) -> AbstractContextManager[tuple[Any, Sequence[Delivered]]]:
        """A channel and every dead letter, held on it; what is not acknowledged in here goes back at its end.

        Whole are only those of ``ids``: all of them at once may be more than fits into memory.
        """

    def park(self, letters: Sequence[tuple[str, Delivered, str]]) -> None:
        """Keep what could not be read: where it came from, what came, and the reason. Then it may be acknowledged."""
        now = time.time()
        # A microsecond apart, so that they can be told apart by their time.
        self.post([self._parked(*letter, now + nth / 1e6) for nth, letter in enumerate(letters)])

    def _parked(self, server_queue: str, delivery: Delivered, reason: str, now: float) -> Letter:
        try:
            properties = delivery.properties()
        except Exception:
            properties = {}
        content = content_of(properties, delivery)
        # What a stranger's header holds may not be writable again.
        kept = {key: value for key, value in content.headers.items() if type(value) in (str, int, float, bool)}
        headers = {**kept, _REASON: reason, _QUEUE: server_queue, _AT: now}
        id = str(properties.get("message_id") or uuid.uuid4())
        return Letter(id[:255], "", self._topology.dead_queue, content._replace(headers=headers))

    def list(self, limit: int) -> list[DeadLetter]:
        """The newest of those that are looked at."""
        found: list[DeadLetter] = []
        with self.all() as (_, deliveries):
            for delivery in deliveries:
                dead = _read(delivery)
                text = dead.content.body[:_BEGINNING].decode(errors="replace")[:_TEXT]
                queue_name, _ = self._topology.place_of(dead.server_queue)
                found.append(DeadLetter(dead.id, queue_name, dead.reason, text, dead.at))
        found.sort(key=lambda letter: letter.refused_at or datetime.min.replace(tzinfo=UTC), reverse=True)
        return found[:limit]

    def replay(self, ids: Sequence[str]) -> int:
        """Those of ``ids`` that can be read now go back to the queues they came from."""
        with self.all(set(ids)) as (channel, deliveries):
            chosen = [(delivery, dead) for delivery in deliveries if (dead := _read(delivery)).id in set(ids)]
            readable = [(delivery, dead) for delivery, dead in chosen if self._is_readable(dead)]
            letters = []
            for _, dead in readable:
                target = self._topology.server_queue(*self._topology.place_of(dead.server_queue))
                letters.append(Letter(dead.id, "", target, dead.content))
            if letters:
                self.post(letters)
            for delivery, _ in readable:
                channel.basic_ack(delivery.tag)
        return len(readable)

    def discard(self, ids: Sequence[str]) -> int:
        """Throw these away."""
        with self.all() as (channel, deliveries):
            chosen = [delivery for delivery in deliveries if _read(delivery).id in set(ids)]
            for delivery in chosen:
                channel.basic_ack(delivery.tag)
        return len(chosen)

    def _is_readable(self, dead: _Dead) -> bool:
        try:
            self._codec.decode(dead.content, self._topology.place_of(dead.server_queue)[0])
        except SerializationError:
            return False
        return bool(dead.server_queue)


class DeadLetters(DeadLetterQueue):
    """On an AMQP server."""

    def __init__(self, publisher: Publisher, topology: Topology, codec: Codec, seconds: float) -> None:
        super().__init__(topology, codec)
        self._publisher, self._seconds = publisher, seconds

    def post(self, letters: Sequence[Letter]) -> None:
        def declare(channel: Any) -> None:
            self._topology.declare_dead_queue(channel)
            for target in {letter.routing_key for letter in letters} - {self._topology.dead_queue}:
                self._topology.declare_queue(channel, *self._topology.place_of(target))

        self._publisher.post(letters, self._seconds, declare, lambda letter: self._topology.forget(letter.routing_key))

    @contextmanager
    def all(self, ids: Collection[str] = ()) -> Iterator[tuple[Any, list[Incoming]]]:
        with self._publisher.borrowed(self._seconds) as line:
            self._topology.declare_dead_queue(line.link.side_channel())
            channel = line.link.connection.channel()
            deliveries: list[Incoming] = []

            def deliver(delivery: Incoming) -> None:
                deliveries.append(delivery)
                if not ids or _read(delivery).id not in ids:
                    delivery.shorten(_BEGINNING)

            channel.deliver = deliver
            channel.basic_qos(0, _MOST, False)
            channel.basic_consume(self._topology.dead_queue)
            until = time.monotonic() + self._seconds / 2
            while len(deliveries) < _MOST and time.monotonic() < until:
                if not line.link.drain(_QUIET):
                    break
            try:
                yield channel, deliveries
                channel.close()
            except BaseException:
                line.link.abandon()  # so that nothing stays held on it
                raise


def content_of(properties: Mapping[str, Any], delivery: Delivered) -> Content:
    """What was delivered, as the codec takes it."""
    kind, encoding = properties.get("content_type") or "", properties.get("content_encoding") or ""
    return Content(delivery.body, kind, encoding, properties.get("application_headers") or {})


def _read(delivery: Delivered) -> _Dead:
    try:
        properties = delivery.properties()
    except Exception:
        properties = {}
    content = content_of(properties, delivery)
    headers = dict(content.headers)
    reason, server_queue, at = headers.pop(_REASON, None), headers.pop(_QUEUE, None), headers.pop(_AT, None)
    moment = datetime.fromtimestamp(at, UTC) if isinstance(at, float) else None
    deaths = headers.pop("x-death", None)
    if reason is None and isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        word, server_queue, died = deaths[0].get("reason"), deaths[0].get("queue"), deaths[0].get("time")
        reason = _SERVER_REASONS.get(str(word), str(word))
        moment = died.replace(tzinfo=UTC) if isinstance(died, datetime) else None
    kept = {key: value for key, value in headers.items() if not key.startswith(("x-first-death", "x-delivery-count"))}
    id = properties.get("message_id")
    if not id:
        known = f"{reason} {server_queue} {moment}".encode() + content.body[:_BEGINNING]
        id = str(uuid.UUID(bytes=hashlib.sha256(known).digest()[:16]))
    return _Dead(id, str(server_queue or ""), str(reason or "unknown"), moment, content._replace(headers=kept))
