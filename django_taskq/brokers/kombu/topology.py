"""Which queues and exchanges there are on an AMQP server, by which names, and how they are declared.

A queue of ours is one queue on the server for each band of priorities. The band that holds priority 0 has the plain
name (``taskq.mail``), the others add their lowest priority (``taskq.mail:1``). Bindings are to the plain one.
Dead letters of all queues go to ``taskq.dead``, through the server's own default exchange.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import amqp

from django_taskq.brokers.kombu.connection import describe
from django_taskq.brokers.kombu.options import Options
from django_taskq.conf_exchanges import Binding, ExchangeConfig
from django_taskq.exceptions import DepotError

# "For ever" for servers that know no such word (before 4.0), where a newer one would set 20 by itself.
_NO_LIMIT = 1_000_000_000


class Topology:
    """Declares each thing once for each process, and again when :meth:`forget` was called."""

    def __init__(
        self,
        prefix: str,
        options: Options,
        arguments: Mapping[str, Mapping[str, Any]],
        exchanges: Iterable[ExchangeConfig],
    ) -> None:
        self.prefix = prefix
        self.bands = options.bands
        self.exchanges = {config.name: config for config in exchanges}
        self._options = options
        self._arguments = arguments
        self._declared: set[str] = set()

    # Names.

    def band(self, priority: int) -> int:
        """The index of the band a priority belongs to; what is below all of them goes to the last."""
        return next((index for index, lowest in enumerate(self.bands) if priority >= lowest), len(self.bands) - 1)

    @property
    def plain_band(self) -> int:
        return self.band(0)

    def server_queue(self, queue_name: str, band: int) -> str:
        """The name on the server. A colon is in no queue name, so no two queues meet."""
        name = f"{self.prefix}.{queue_name}"
        return name if band == self.plain_band else f"{name}:{self.bands[band]}"

    def server_queues(self, queue_name: str) -> list[str]:
        """All bands, the most urgent first."""
        return [self.server_queue(queue_name, band) for band in range(len(self.bands))]

    def place_of(self, server_queue: str) -> tuple[str, int]:
        """The queue and band a name on the server stands for; the plain band where there is no such band (any more)."""
        queue_name = server_queue.removeprefix(f"{self.prefix}.").partition(":")[0]
        names = self.server_queues(queue_name)
        return queue_name, names.index(server_queue) if server_queue in names else self.plain_band

    def server_exchange(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    @property
    def dead_queue(self) -> str:
        return f"{self.prefix}.dead"

    # Declaring.

    def forget(self, name: str | None = None) -> None:
        """It is gone from the server, or all may be: the next use declares it again."""
        if name is None:
            self._declared.clear()
        else:
            self._declared.discard(name)

    def declare_queue(self, channel: Any, queue_name: str, band: int) -> None:
        """The queue of one band, with what is bound to it, and where its dead letters go."""
        name = self.server_queue(queue_name, band)
        if name in self._declared:
            return
        if name == self.dead_queue:
            text = f"a queue cannot be named {queue_name!r} here: {name} keeps the dead letters"
            raise DepotError(text, is_certain=True)
        self.declare_dead_queue(channel)
        with explaining(f"the queue {name}"):
            channel.queue_declare(name, durable=True, auto_delete=False, arguments=self._queue_arguments(queue_name))
        self._declared.add(name)
        if band == self.plain_band:
            for config in list(self.exchanges.values()):
                if any(binding.queue_name == queue_name for binding in config.bindings):
                    self.declare_exchange(channel, config)

    def declare_dead_queue(self, channel: Any) -> None:
        name = self.dead_queue
        if name in self._declared:
            return
        arguments: dict[str, Any] = {"x-queue-type": self._options.queue_type}
        if self._options.queue_type == "quorum":
            arguments["x-delivery-limit"] = _NO_LIMIT  # looking at dead letters hands them out
        with explaining(f"the queue {name}"):
            channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)
        self._declared.add(name)

    def declare_exchange(self, channel: Any, config: ExchangeConfig) -> None:
        """The exchange, and the queues that are bound to it with their bindings."""
        name = self.server_exchange(config.name)
        if f"exchange {name}" in self._declared:
            return
        with explaining(f"the exchange {name}"):
            channel.exchange_declare(
                name, config.type, durable=config.durable, auto_delete=False, arguments=dict(config.arguments)
            )
        self._declared.add(f"exchange {name}")  # before its queues, which would declare it in turn
        try:
            for binding in config.bindings:
                self.bind(channel, config.name, binding)
        except BaseException:
            self.forget(f"exchange {name}")
            raise

    def bind(self, channel: Any, exchange: str, binding: Binding) -> None:
        """Have the queue's plain band get what the exchange has for this key."""
        self.declare_queue(channel, binding.queue_name, self.plain_band)
        queue, name = self.server_queue(binding.queue_name, self.plain_band), self.server_exchange(exchange)
        with explaining(f"binding {queue} to the exchange {name}"):
            channel.queue_bind(queue, name, binding.routing_key, arguments=dict(binding.arguments))

    def declare_route(self, channel: Any, exchange: str | None, queue_name: str, priority: int) -> None:
        """What a message for this exchange, or else this queue, needs to arrive."""
        if exchange is None:
            self.declare_queue(channel, queue_name, self.band(priority))
        elif exchange in self.exchanges:
            self.declare_exchange(channel, self.exchanges[exchange])

    def _queue_arguments(self, queue_name: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "x-queue-type": self._options.queue_type,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.dead_queue,
        }
        if self._options.queue_type == "quorum":
            # At least once: a dead letter leaves its queue when it has arrived, not before.
            arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
            arguments["x-delivery-limit"] = self._options.delivery_limit
        return arguments | dict(self._arguments.get(queue_name, {}))


@contextmanager
def explaining(what: str) -> Iterator[None]:
    """Turn a server's refusal into a :exc:`DepotError` that says what to do about it."""
    try:
        yield
    except amqp.PreconditionFailed as error:
        text = (
            f"{what} exists on the server with other properties ({describe(error)}): delete it there once it is empty, "
            f"or set QUEUES[...]['arguments'] or OPTIONS['queue_type'] to what it has"
        )
        raise DepotError(text, is_certain=True) from error
    except amqp.ChannelError as error:
        raise DepotError(f"the server refused {what}: {describe(error)}", is_certain=True) from error
