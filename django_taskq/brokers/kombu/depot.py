"""What all depots behind kombu share: their settings, and the choice between RabbitMQ and kombu's other transports."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.utils.module_loading import import_string

from django_taskq.brokers.depot import Depot
from django_taskq.brokers.kombu.codec import Codec
from django_taskq.brokers.kombu.options import parse_options
from django_taskq.brokers.kombu.topology import Topology
from django_taskq.conf_brokers import BrokerConfig
from django_taskq.conf_exchanges import ExchangeConfig
from django_taskq.exceptions import DepotError, MessageRefused

AMQP_SCHEMES = ("amqp", "amqps", "pyamqp", "librabbitmq")
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0


class KombuDepot(Depot):
    """A depot on whatever kombu speaks. ``KombuDepot(config, timeout)`` is of the class that the URL calls for.

    AMQP (RabbitMQ) gets code of its own on py-amqp, kombu's client for it; every other transport goes through kombu's
    virtual channels and promises only what those do.
    """

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

    # Exchanges and queues at run time, where the server has them.

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

    def delete_queue(self, queue_name: str, *, if_empty: bool = True) -> None:
        """Delete a queue with what is in it; one with work in it only with ``if_empty=False``."""
        raise self._no_exchanges()

    def _no_exchanges(self) -> DepotError:
        return MessageRefused(f"{self.config.scheme}:// has no exchanges")
