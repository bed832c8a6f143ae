"""The depots that the contract is tried on. A new one joins by an entry in ``BEDS``."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from django_taskq.brokers.redis import RedisDepot
from django_taskq.conf_brokers import BrokerConfig
from tests.depots.bed import Bed
from tests.depots.rabbitmq_bed import kombu_memory_bed, rabbitmq_bed
from tests.depots.redis_bed import redis_bed
from tests.depots.workers_bed import shared_rabbitmq
from tests.servers import RabbitMQServer, RedisServer


@pytest.fixture
def rabbitmq_server(pytestconfig: pytest.Config) -> RabbitMQServer:
    """The session's RabbitMQ, running. Whoever raises an alarm ends it."""
    return shared_rabbitmq(pytestconfig)


def make_redis(request: pytest.FixtureRequest) -> Bed:
    return redis_bed(request.getfixturevalue("redis_server"))


def make_rabbitmq(request: pytest.FixtureRequest) -> Bed:
    return rabbitmq_bed(request.getfixturevalue("rabbitmq_server"))


def make_kombu_memory(request: pytest.FixtureRequest) -> Bed:
    return kombu_memory_bed()


BEDS: dict[str, Callable[[pytest.FixtureRequest], Bed]] = {
    "redis": make_redis,
    "rabbitmq": make_rabbitmq,
    "kombu-memory": make_kombu_memory,
}


@pytest.fixture(params=BEDS)
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    made = BEDS[request.param](request)
    yield made
    made.close()
    if request.param == "rabbitmq":
        gc.collect()  # a socket that nobody closed is to be the fault of the test that opened it


@pytest.fixture
def redis_only(redis_server: RedisServer) -> Iterator[Bed]:
    """The bed of Redis, for what only Redis can show."""
    made = redis_bed(redis_server)
    yield made
    made.close()


@pytest.fixture
def make_redis_depot() -> Iterator[Callable[..., RedisDepot]]:
    """Depots on any URL, under a prefix of the test's own; closed with the test."""
    made: list[RedisDepot] = []
    prefix = f"t{uuid4().hex[:12]}"

    def make(url: str, *, timeout: float = 2, **options: object) -> RedisDepot:
        made.append(RedisDepot(BrokerConfig("default", url, prefix, options), timeout))
        return made[-1]

    yield make
    for depot in made:
        depot.close()
