"""The benchmark on brokers: their own section, beside the bare server, and nothing left on a server it was let into."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.bench.conftest import BenchProcess, scratch_databases
from tests.servers import RedisServer, free_port
from tests.waiting import wait_for

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]

Start = Callable[..., BenchProcess]

RATES = {"enqueue", "enqueue_without_rows", "enqueue_many", "enqueue_many_without_rows", "drain", "drain_without_rows"}
RATES |= {"limited_to_3", "limited_to_100", "keyed", "batched"}
OTHERS = {"latency_p50", "latency_p95", "latency_p99", "memory", "startup"}
WITHOUT_RAW = {"drain_wall"}
MAY_BE_ZERO = {"idle"}  # in steps of a hundredth of a second


@pytest.fixture
def shared_redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """A server on which the project has keys of its own, which stay as they are."""
    own = {"taskq:queues": "mine", "{taskq:default}:ready": "mine", "taskqbench": "mine"}
    with redis_server.client() as client:
        client.flushall()
        client.mset(own)
        yield redis_server
        assert {key: client.get(key) for key in client.scan_iter()} == own
        client.flushall()


def test_a_small_run_on_redis(bench: Start, shared_redis: RedisServer) -> None:
    arguments = ("--runs", "100", "--repeat", "1", "--idle-seconds", "0.5", "--broker", shared_redis.url, "--json")
    report = json.loads(bench(*arguments).output())

    assert report["settings"]["broker"] == "database"
    (section,) = report["brokers"]
    figures = section["figures"]
    assert set(figures) == RATES | OTHERS | WITHOUT_RAW | MAY_BE_ZERO
    for name, figure in figures.items():
        values = figure["all"] if name in WITHOUT_RAW else figure["all"] + figure["raw_all"]
        assert all(value > 0 or (value == 0 and name in MAY_BE_ZERO) for value in values), (name, figure)
        assert name in WITHOUT_RAW or (figure["raw"] is not None and figure["beside"]), name
    assert section["settings"]["broker"] == shared_redis.url
    assert section["settings"]["server"].startswith("Redis ")
    assert section["settings"]["server settings"]["appendonly"] == "no"
    assert scratch_databases() == set()


def test_the_project_s_own_broker_is_measured_under_another_prefix(bench: Start, shared_redis: RedisServer) -> None:
    taskq = {
        "BROKERS": {"default": {"URL": shared_redis.url, "OPTIONS": {"socket_timeout": 9}}},
        "ROUTES": {"django_taskq.bench.*": {"queue_name": "elsewhere"}},
        "QUEUES": {"default": {"broker": "default"}, "elsewhere": {}},
    }
    process = bench("--runs", "50", "--repeat", "1", "--only", "enqueue,drain", taskq=taskq)
    lines = process.output().splitlines()
    titles = [line for line in lines if line.startswith("enqueue, one by one")]
    assert len(titles) == 2
    assert titles[1].endswith("single-row commits of the database")
    assert f"broker                    {shared_redis.url}" in lines


def test_an_interrupted_run_leaves_nothing_on_the_server(bench: Start, shared_redis: RedisServer) -> None:
    process = bench("--runs", "2000", "--only", "drain", "--repeat", "1", "--broker", shared_redis.url)
    with shared_redis.client() as client:
        wait_for(lambda: client.dbsize() > 6, 60, process.log)
    process.process.send_signal(signal.SIGINT)
    assert process.process.wait(30) == 130, process.log()
    assert scratch_databases() == set()
    assert "may be left" not in process.log()


def test_a_broker_that_cannot_be_reached_is_named_at_once(bench: Start) -> None:
    process = bench("--broker", f"redis://:secret@127.0.0.1:{free_port()}/0")
    assert process.process.wait(30) == 1
    assert "the broker redis://127.0.0.1:" in process.log()
    assert "secret" not in process.log()
    assert scratch_databases() == set()
