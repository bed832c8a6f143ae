"""The beds of RabbitMQ and of kombu's own transport in memory."""

from __future__ import annotations

from uuid import uuid4

import amqp

from django_taskq.brokers.kombu import KombuDepot
from django_taskq.brokers.kombu.codec import Content
from django_taskq.brokers.kombu.publisher import Letter
from django_taskq.brokers.kombu.virtual import VirtualDepot
from django_taskq.conf_brokers import BrokerConfig
from tests.depots.bed import Bed
from tests.servers import RabbitMQServer


def rabbitmq_bed(server: RabbitMQServer, **options: object) -> Bed:
    config = BrokerConfig("default", server.url, f"t{uuid4().hex[:12]}", options)

    def put_raw(queue: str, body: bytes, **properties: object) -> None:
        """As a stranger might."""
        depot = KombuDepot(config, 2)
        with amqp.Connection(f"127.0.0.1:{server.port}", login_method="PLAIN", confirm_publish=True) as connection:
            channel = connection.channel()
            depot.topology.declare_queue(channel, queue, depot.topology.plain_band)
            message = amqp.Message(body, **({"content_type": "application/json"} | properties))
            channel.basic_publish(message, routing_key=f"{config.prefix}.{queue}", mandatory=True)

    return Bed(lambda: KombuDepot(config, 2), put_raw)


def kombu_memory_bed() -> Bed:
    config = BrokerConfig("default", "memory://", f"t{uuid4().hex[:12]}")

    def put_raw(queue: str, body: bytes) -> None:
        depot = VirtualDepot(config, 2)
        content = Content(body, "application/json", "utf-8", {})
        depot.post([Letter("", "", depot.topology.server_queue(queue, depot.topology.plain_band), content)])

    return Bed(lambda: VirtualDepot(config, 2), put_raw)
