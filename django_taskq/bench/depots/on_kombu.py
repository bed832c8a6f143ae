"""The bare server behind kombu: RabbitMQ, or one of kombu's other transports."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import amqp
import kombu

from django_taskq.bench.depots import bare
from django_taskq.bench.depots.base import PUBLISHED, TAKEN, RawServer
from django_taskq.brokers.kombu import KombuDepot
from django_taskq.brokers.kombu.depot import AMQP_SCHEMES
from django_taskq.conf_brokers import BrokerConfig

# kombu says that it is typed, and most of it is not; and which depot it is depends on the URL.
_kombu: Any = kombu
_Depot: Any = KombuDepot
# Nothing came for so long: nothing is left.
_DRY = 1.0
# Seconds until the server must have confirmed a batch.
_PATIENCE = 60.0
_PROPERTIES = {"content_type": "application/json", "content_encoding": "utf-8"}


class Server(RawServer):
    """One queue of the measured queues' type. On AMQP every publish is confirmed."""

    def __init__(self, config: BrokerConfig) -> None:
        depot = _Depot(config, bare.TIMEOUT)
        self._options, topology = depot.options, depot.topology
        self._is_amqp = config.scheme in AMQP_SCHEMES
        name = f"{config.prefix}.raw"
        one = "single confirmed publishes" if self._is_amqp else "single publishes"
        self.titles = {
            "one": one,
            "many": f"{PUBLISHED:,} publishes, then their confirms" if self._is_amqp else one,
            "take": f"consume and acknowledge, prefetch {TAKEN}",
            "idle": "a process that consumes",
        }
        self._names = [name, *topology.server_queues("default"), topology.dead_queue]
        self.access = {
            "kind": "kombu",
            # "kombu+redis://" is kombu's own transport where there is one of ours.
            "url": config.url.removeprefix("kombu+"),
            "name": name,
            "is_amqp": self._is_amqp,
            "queue_type": self._options.queue_type,
            "ssl": dict(self._options.ssl or {}),
            "options": dict(self._options.transport_options),
        }
        self._connection = bare.kombu_connection(self.access, confirms=True)
        self._channel = self._connection.channel()
        self._queue = bare.kombu_queue(self.access)(self._channel)
        self._queue.declare()
        self._producer = _kombu.Producer(self._channel, routing_key=name)

    def publish_one(self, text: bytes) -> None:
        self._producer.publish(text, **_PROPERTIES)

    def publish_many(self, texts: Sequence[bytes]) -> None:
        for start in range(0, len(texts), PUBLISHED):
            some = texts[start : start + PUBLISHED]
            if self._is_amqp:
                self._pipe.publish(some)
            else:
                for text in some:
                    self.publish_one(text)

    @cached_property
    def _pipe(self) -> _Pipe:
        return _Pipe(bare.kombu_connection(self.access), self.access["name"])

    def drain(self, process: int) -> tuple[int, float, float]:
        began = ended = time.time()
        untold: list[Any] = []
        count = 0

        def take(message: Any) -> None:
            nonlocal count, ended
            json.loads(json.loads(message.body)[6])
            count += 1
            untold.append(message)
            if len(untold) == TAKEN // 2:
                self._acknowledge(untold)
                untold.clear()
            ended = time.time()

        with _kombu.Consumer(self._channel, [self._queue], on_message=take, prefetch_count=TAKEN):
            try:
                while True:
                    self._connection.drain_events(timeout=_DRY)
            except TimeoutError:
                self._acknowledge(untold)
        return count, began, ended

    def _acknowledge(self, messages: Sequence[Any]) -> None:
        if self._is_amqp and messages:
            self._channel.basic_ack(messages[-1].delivery_tag, multiple=True)
        else:
            for message in messages:
                message.ack()

    def empty(self) -> None:
        self._queue.purge()

    def wipe(self) -> None:
        for name in self._names:
            # A channel for each: a refusal closes it.
            with self._connection.channel() as channel:
                channel.queue_delete(name)

    def about(self) -> dict[str, Any]:
        client = f"kombu {kombu.__version__}"
        if not self._is_amqp:
            return {"server": self._connection.transport.driver_type, "client": client}
        properties = self._connection.connection.server_properties
        settings = {"queue type": self._options.queue_type, "prefetch": str(self._options.prefetch)}
        return {
            "server": f"{properties.get('product', '?')} {properties.get('version', '?')}",
            "client": f"{client}, py-amqp {amqp.__version__}",
            "server settings": settings,
        }

    def close(self) -> None:
        if "_pipe" in self.__dict__:
            self._pipe.close()
        self._connection.release()


class _Pipe:
    """A connection that publishes many messages before it waits for the server's confirms."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection, self._name = connection, name
        self._channel = connection.channel()
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._on_ack)
        self._sent, self._confirmed = 0, 0
        self._early: set[int] = set()

    def publish(self, texts: Sequence[bytes]) -> None:
        for text in texts:
            message = self._channel.prepare_message(text, **_PROPERTIES, properties={"delivery_mode": 2})
            self._channel.basic_publish(message, routing_key=self._name)
            self._sent += 1
        deadline = time.monotonic() + _PATIENCE
        while self._confirmed < self._sent:
            self._connection.drain_events(timeout=max(0.1, deadline - time.monotonic()))

    def _on_ack(self, tag: int, is_multiple: bool) -> None:
        """Confirms come in any order, and one may stand for all before it."""
        if is_multiple:
            self._confirmed = max(self._confirmed, tag)
        else:
            self._early.add(tag)
        while self._confirmed + 1 in self._early:
            self._confirmed += 1
            self._early.discard(self._confirmed)

    def close(self) -> None:
        self._connection.release()
