"""The depot on kombu's other transports: best effort, and honest about it.

They have no confirms, no socket to wait on and no time limits that hold for all of them; each does what its server
and kombu's code for it do. What is taken stays kombu's until it is acknowledged; what a killed process held comes
back where kombu says so (Redis: an hour later; SQS: after its visibility timeout; memory: never).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

import kombu.connection

from django_taskq.brokers.depot import DepotCapabilities, Finding
from django_taskq.brokers.kombu.dead import DeadLetterQueue, content_of
from django_taskq.brokers.kombu.depot import KombuDepot
from django_taskq.brokers.kombu.publisher import Letter
from django_taskq.exceptions import DepotError, SerializationError
from django_taskq.message import Message, Parcel

_MOST_DEAD = 1000
_IN_PROCESS = ("memory",)
# kombu says that it is typed; most of it is not.
_Connection: Any = kombu.connection.Connection


class _Got(NamedTuple):
    """A message of kombu's in the shape of an AMQP delivery."""

    message: Any

    @property
    def tag(self) -> Any:
        return self.message.delivery_tag

    @property
    def body(self) -> bytes:
        body = self.message.body
        return body.encode() if isinstance(body, str) else bytes(body or b"")

    def properties(self) -> Mapping[str, Any]:
        message = self.message
        return {
            "content_type": message.content_type,
            "content_encoding": message.content_encoding,
            "application_headers": message.headers or {},
            "message_id": message.properties.get("message_id"),
        }


class _Session:
    """One connection with one channel, for one thread at a time, made again after an error or a fork."""

    def __init__(self, url: str, connect_timeout: float, transport_options: Mapping[str, Any]) -> None:
        self._url, self._connect_timeout, self._transport_options = url, connect_timeout, transport_options
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._connection: Any = None
        self._channel: Any = None
        self.generation = getattr(self, "generation", 0) + 1

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """The channel; whatever goes wrong in here is a :exc:`DepotError`, and the next use connects anew."""
        if self._pid != os.getpid():
            self._start_afresh()
        with self._lock:
            if self._channel is None:
                self._connect()
            errors = (OSError, *self._connection.connection_errors, *self._connection.channel_errors)
            try:
                yield self._channel
            except errors as error:
                self.forget()
                raise DepotError(f"{self._scheme} failed: {type(error).__name__}: {error!s:.200}") from error

    @property
    def _scheme(self) -> str:
        return self._url.partition("://")[0]

    def _connect(self) -> None:
        options = dict(self._transport_options)
        connection = _Connection(
            self._url, connect_timeout=self._connect_timeout, transport_options=options, heartbeat=0
        )
        try:
            # One try: how to go on is the caller's to say.
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
            self._connection, self._channel = connection, connection.channel()
        except Exception as error:
            # The text may repeat the URL, and so a password.
            text = f"{self._scheme} cannot be reached: {type(error).__name__}"
            raise DepotError(text, is_certain=True) from None

    def forget(self) -> None:
        """Drop a connection that is broken."""
        self._connection = self._channel = None
        self.generation += 1

    def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        self.generation += 1
        if connection is not None and self._pid == os.getpid():
            try:
                connection.release()
            except Exception:
                pass  # it is gone either way


class _DeadLetters(DeadLetterQueue):
    """On a virtual channel."""

    def __init__(self, depot: VirtualDepot) -> None:
        super().__init__(depot.topology, depot.codec)
        self._depot = depot

    def post(self, letters: Sequence[Letter]) -> None:
        self._depot.post(letters)

    @contextmanager
    def all(self, ids: Collection[str] = ()) -> Iterator[tuple[Any, Sequence[_Got]]]:
        with self._depot.asking.channel() as channel:
            name = self._topology.dead_queue
            most = min(_MOST_DEAD, channel.queue_declare(name).message_count)
            found = [_Got(message) for _ in range(most) if (message := channel.basic_get(name)) is not None]
            left = {got.tag for got in found}

            class Settling:
                def basic_ack(self, tag: Any) -> None:
                    left.discard(tag)
                    channel.basic_ack(tag)

            try:
                yield Settling(), found
            finally:
                for got in found:
                    if got.tag in left:
                        channel.basic_reject(got.tag, requeue=True)


class VirtualDepot(KombuDepot):
    """See :class:`~.depot.KombuDepot`. Publishing and taking use a connection each."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.capabilities = DepotCapabilities(
            priority_levels=len(self.options.bands),
            is_shared=self.config.scheme not in _IN_PROCESS,
            knows_holders=False,
            has_exchanges=False,
            refuses_doubles=False,
            can_peek=False,
        )
        # "kombu+redis://" is kombu's own transport where there is one of ours.
        url = self.config.url.removeprefix("kombu+")
        options = dict(self.options.transport_options)
        if url.startswith(("redis", "sentinel")):
            options = {"socket_timeout": self.timeout, "socket_connect_timeout": self.timeout} | options
        self.asking = _Session(url, min(self.timeout, self.options.connect_timeout), options)
        self._taking = _Session(url, self.options.connect_timeout, options)
        # What is held, by receipt: in which generation of the connection, under which of kombu's tags.
        self._held: dict[int, tuple[int, Any]] = {}
        self._receipts = count(1)
        self._dead = _DeadLetters(self)

    def publish(self, messages: Sequence[Message]) -> None:
        letters = []
        for message in messages:
            if message.exchange is not None:
                raise self._no_exchanges()
            target = self.topology.server_queue(message.queue_name, self.topology.band(message.priority))
            letters.append(Letter(message.id, "", target, self.codec.encode(message)))
        self.post(letters)

    def post(self, letters: Sequence[Letter]) -> None:
        """Put letters into the queues they name."""
        with self.asking.channel() as channel:
            for name in {letter.routing_key for letter in letters}:
                channel.queue_declare(name)
            for letter in letters:
                content = letter.content
                message = channel.prepare_message(
                    content.body,
                    content_type=content.content_type,
                    content_encoding=content.content_encoding,
                    headers=dict(content.headers),
                    properties={"message_id": letter.id, "delivery_mode": 2},
                )
                channel.basic_publish(message, exchange="", routing_key=letter.routing_key)

    def queues_with_work(self, queue_names: Sequence[str]) -> list[str]:
        return [name for name in queue_names if self.size(name)]

    def take(self, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Parcel]:
        parcels: list[Parcel] = []
        refused: list[tuple[str, _Got, str]] = []
        with self._taking.channel() as channel:
            for name in self.topology.server_queues(queue_name):
                channel.queue_declare(name)
                while len(parcels) < limit and (found := _get(channel, name, limit - len(parcels))):
                    for got in found:
                        try:
                            parcels.append(self._parcel(got, queue_name, first_claim + len(parcels)))
                        except SerializationError as error:
                            refused.append((name, got, str(error)))
            if refused:
                self._dead.park(refused)
                for _, got, _ in refused:
                    channel.basic_ack(got.tag)
                self.report_dead(queue_name, [reason for _, _, reason in refused])
        return parcels

    def _parcel(self, got: _Got, queue_name: str, claim: int) -> Parcel:
        content = content_of(got.properties(), got)
        is_suspect = bool((got.message.delivery_info or {}).get("redelivered"))
        # kombu's own tag stays with the message when it is given back, and would bring old receipts to life.
        parcel = self.codec.decode(content, queue_name, claim, receipt=next(self._receipts), is_suspect=is_suspect)
        self._held[parcel.receipt] = (self._taking.generation, got.tag)
        return parcel

    def drop(self, process_id: int, parcels: Sequence[Parcel]) -> None:
        self._settle([parcel.receipt for parcel in parcels], is_done=True)

    def give_back(self, process_id: int, parcels: Sequence[Parcel]) -> int:
        return self._settle([parcel.receipt for parcel in parcels], is_done=False)

    def _settle(self, receipts: Sequence[int], *, is_done: bool) -> int:
        settled = 0
        with self._taking.channel() as channel:
            for receipt in receipts:
                generation, tag = self._held.pop(receipt, (0, None))
                if generation == self._taking.generation:
                    channel.basic_ack(tag) if is_done else channel.basic_reject(tag, requeue=True)
                    settled += 1
        return settled

    def purge(self, queue_name: str) -> int:
        with self.asking.channel() as channel:
            return sum(_declare(channel, name) and channel.queue_purge(name) for name in self._bands(queue_name))

    def size(self, queue_name: str) -> int:
        with self.asking.channel() as channel:
            return sum(_declare(channel, name) for name in self._bands(queue_name))

    def _bands(self, queue_name: str) -> list[str]:
        return self.topology.server_queues(queue_name)

    def _delete_bands(self, queue_name: str) -> None:
        with self.asking.channel() as channel:
            for name in self._bands(queue_name):
                # kombu deletes a queue for each of its bindings, and ours have none. This one it notes for itself only.
                channel.state.binding_declare(name, "", name, None)
                channel.queue_delete(name)

    def check(self) -> list[Finding]:
        self.size("default")
        text = f"{self.config.scheme}:// is kombu's own transport: without confirms, polled, as safe as its server."
        return [Finding("warning", text, "RabbitMQ, redis:// and the database are what this package promises for.")]

    def close(self) -> None:
        if any(generation == self._taking.generation for generation, _ in self._held.values()):
            self._settle(list(self._held), is_done=False)  # not all of kombu's transports do this by themselves
        self._held.clear()
        self._taking.close()
        self.asking.close()


def _get(channel: Any, name: str, limit: int) -> list[_Got]:
    """Up to so many, older ids first: what was given back is at the end of most of kombu's queues."""
    found: list[_Got] = []
    while len(found) < limit and (message := channel.basic_get(name)) is not None:
        found.append(_Got(message))
    return sorted(found, key=lambda got: str(got.message.properties.get("message_id")))


def _declare(channel: Any, name: str) -> int:
    return int(channel.queue_declare(name).message_count)
