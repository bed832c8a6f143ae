"""What all depots behind kombu share: their settings, and the choice between RabbitMQ and kombu's other transports."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.utils.module_loading import import_string

from django_taskq.brokers.depot import DeadLetter, Depot
from django_taskq.brokers.kombu.codec import Codec
from django_taskq.brokers.kombu.dead import DeadLetterQueue
from django_taskq.brokers.kombu.options import parse_options
from django_taskq.brokers.kombu.topology import Topology
from django_taskq.conf_brokers import BrokerConfig
from django_taskq.conf_exchanges import ExchangeConfig
from django_taskq.exceptions import DepotError, MessageRefused
from django_taskq.message import Message

AMQP_SCHEMES = ("amqp", "amqps", "pyamqp", "librabbitmq")
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0


class KombuDepot(Depot):
    """A depot on whatever kombu speaks. ``KombuDepot(config, timeout)`` is of the class that the URL calls for.

    AMQP (RabbitMQ) gets code of its own on py-amqp, kombu's client for it; every other transport goes through kombu's
    virtual channels and promises only what those do.
    """

    _dead: DeadLetterQueue

    def __new__(cls, config: BrokerConfig, *args: Any, **kwargs: Any) -> KombuDepot:
        if cls is KombuDepot:
            # By name: both build on this module.
            name = "rabbit.RabbitDepot" if config.scheme in AMQP_SCHEMES else "virtual.VirtualDepot"
            cls = import_string(f"{__package__}.{name}")
        return super().__new__(cls)

    def __init__(
        self,
        config: BrokerConfig,
        timeout: float,
        *,
        queues: Mapping[str, Mapping[str, Any]] | None = None,
        exchanges: Mapping[str, ExchangeConfig] | None = None,
    ) -> None:
        """``queues`` are arguments for the server's queues, by queue; ``exchanges`` those of this broker, by name."""
        super().__init__(config, timeout)
        self.options = parse_options(config)
        self.codec = Codec(self.options)
        found: Iterable[ExchangeConfig] = (exchanges or {}).values()
        own = [exchange for exchange in found if exchange.broker == config.alias]
        self.topology = Topology(config.prefix, self.options, queues or {}, own)

    def wait(self, queue_names: Sequence[str], seconds: float) -> bool:
        """Look again and again, for whoever does not consume."""
        until, pause = time.monotonic() + seconds, _FIRST_LOOK
        while not any(self.size(name) for name in queue_names):
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, pause))
            pause = min(_LONGEST_LOOK, pause * 2)
        return True

    # For people.

    def oldest_age(self, queue_name: str) -> float | None:
        """Unknown: to look at a message is to take it, and what is given back is suspect, or the last of its queue."""
        return None

    def peek(self, queue_name: str, limit: int) -> list[Message]:
        """Nothing, for the same reason."""
        return []

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        return self._dead.list(limit)

    def replay(self, ids: Sequence[str]) -> int:
        return self._dead.replay(ids)

    def discard(self, ids: Sequence[str]) -> int:
        return self._dead.discard(ids)

    # At run time: queues, and exchanges where the server has them.

    def delete_queue(self, queue_name: str, *, if_empty: bool = True) -> None:
        """Delete a queue with what is in it; one with work in it only with ``if_empty=False``."""
        # Quorum queues know no "if empty", so this looks first: what comes in between goes with the queue.
        if if_empty and (count := self.size(queue_name)):
            raise DepotError(f"the queue {queue_name!r} is not empty: {count} wait in it", is_certain=True)
        self._delete_bands(queue_name)

    @abstractmethod
    def _delete_bands(self, queue_name: str) -> None:
        """Delete the server's queues for this one, whatever they hold; harmless where there are none."""

    def declare_exchange(self, exchange: ExchangeConfig) -> None:
        """Have this exchange and its bindings from now on."""
        raise self._no_exchanges()

    def bind(self, exchange: str, queue_name: str, routing_key: str = "") -> None:
        """Have a queue get copies of what is sent to an exchange under this key."""
        raise self._no_exchanges()

    def unbind(self, exchange: str, queue_name: str, routing_key: str = "") -> None:
        """End that."""
        raise self._no_exchanges()

    def delete_exchange(self, name: str) -> None:
        """Delete it with its bindings; harmless where there is none."""
        raise self._no_exchanges()

    def _no_exchanges(self) -> DepotError:
        return MessageRefused(f"{self.config.scheme}:// has no exchanges")
