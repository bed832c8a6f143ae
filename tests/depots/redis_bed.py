"""The bed of Redis, and how to look into the server from outside."""

from __future__ import annotations

from uuid import uuid4

from django_taskq.brokers.redis import RedisDepot
from django_taskq.conf_brokers import BrokerConfig
from django_taskq.message import new_ids
from tests.depots.bed import Bed
from tests.servers import RedisServer


def redis_bed(server: RedisServer) -> Bed:
    config = BrokerConfig("default", server.url, f"t{uuid4().hex[:12]}")

    def put_raw(queue: str, text: bytes) -> str:
        """Past the depot's own writing; under an id of the form that a text names, if it is one of ours."""
        start = f"{{{config.prefix}:{queue}}}:"
        id = text[4:40].decode() if text.startswith(b'[1,"') else new_ids(1)[0]
        with server.client() as client:
            client.hset(f"{start}messages", id, b".+000" + text)
            client.zadd(f"{start}ready", {id: 0})
            client.sadd(f"{config.prefix}:queues", queue)
        return id

    return Bed(lambda: RedisDepot(config, 2), put_raw)
