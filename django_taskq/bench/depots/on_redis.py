"""The bare Redis: redis-py as it comes, lists, and one small script."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import RedisError

from django_taskq.bench.depots import bare
from django_taskq.bench.depots.base import PUBLISHED, TAKEN, RawServer
from django_taskq.brokers.redis.addresses import parse_options
from django_taskq.conf_brokers import BrokerConfig

# What is taken is kept aside until it is dealt with, as every queue has to that loses nothing with a consumer.
_TAKE = """
local texts = redis.call('LPOP', KEYS[1], ARGV[1])
if not texts then return {} end
redis.call('RPUSH', KEYS[2], unpack(texts))
return texts
"""
_ASKED = ("appendonly", "appendfsync", "save", "maxmemory-policy")


class Server(RawServer):
    """A list of messages, and one of those taken for each process."""

    def __init__(self, config: BrokerConfig) -> None:
        self.titles = {
            "one": "single round trips (RPUSH)",
            "many": f"RPUSH of {PUBLISHED:,}",
            "take": f"a script that takes {TAKEN}",
            "idle": "a process in BLPOP",
        }
        self._prefix, self._name = config.prefix, f"{config.prefix}:raw"
        options = {name: value for name, value in parse_options(config).items() if name.startswith("ssl_")}
        self.access = {"kind": "redis", "urls": config.url.split(";"), "name": self._name, "options": options}
        self._client = bare.redis_client(self.access)
        self._take = self._client.register_script(_TAKE)

    def publish_one(self, text: bytes) -> None:
        self._client.rpush(self._name, text)

    def publish_many(self, texts: Sequence[bytes]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for start in range(0, len(texts), PUBLISHED):
            pipeline.rpush(self._name, *texts[start : start + PUBLISHED])
        pipeline.execute()

    def drain(self, process: int) -> tuple[int, float, float]:
        held = f"{self._name}:held:{process}"
        self._client.script_load(_TAKE)
        began, count = time.time(), 0
        while True:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.delete(held)
            self._take([self._name, held], [TAKEN], client=pipeline)
            texts = pipeline.execute()[1]
            if not texts:
                return count, began, time.time()
            for text in texts:
                json.loads(json.loads(text)[6])
            count += len(texts)

    def empty(self) -> None:
        self._client.delete(self._name)

    def wipe(self) -> None:
        found = []
        # Step by step, so that others who use the server hardly notice.
        for key in self._client.scan_iter(match=f"*{self._prefix}:*", count=1_000):
            found.append(key)
            if len(found) == 1_000:
                self._client.unlink(*found)
                found.clear()
        if found:
            self._client.unlink(*found)

    def about(self) -> dict[str, Any]:
        settings: dict[str, str] = {}
        for name in _ASKED:
            try:
                settings |= {key: value or "none" for key, value in _text(self._client.config_get(name)).items()}
            except RedisError:  # hosted servers forbid it
                settings[name] = "not told"
        version = self._client.info("server").get("redis_version", "of an unknown version")
        return {"server": f"Redis {version}", "client": f"redis-py {redis.__version__}", "server settings": settings}

    def close(self) -> None:
        self._client.close()


def _text(found: dict[Any, Any]) -> dict[str, str]:
    return {
        key.decode() if isinstance(key, bytes) else key: value.decode() if isinstance(value, bytes) else value
        for key, value in found.items()
    }
