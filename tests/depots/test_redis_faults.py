"""Redis when things break: lost answers, cut connections, killed servers and takers, full memory, no answer at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from django_taskq.brokers.redis import RedisDepot
from django_taskq.exceptions import DepotError
from tests.conftest import ROOT
from tests.depots.bed import QUEUE, Bed, elapsed, ids
from tests.depots.proxy import Proxy
from tests.servers import RedisServer, free_port
from tests.unit.making import make_message
from tests.waiting import wait_for

MakeDepot = Callable[..., RedisDepot]
ROUNDS = int(os.environ.get("TASKQ_FAULT_ROUNDS", "100"))


@pytest.fixture
def durable() -> Iterator[RedisServer]:
    """Its own server, which has on disk what it has answered."""
    with RedisServer(RedisServer.DURABLE) as server:
        yield server


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis_server.port) as made:
        yield made


def url_of(proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0"


def cut_while_it_waits(depot: RedisDepot, proxy: Proxy) -> None:
    """End the connection of somebody who waits for work, which is an error for them."""
    with redis.Redis(port=proxy.target) as client, ThreadPoolExecutor() as pool:
        before = client.info("clients")["blocked_clients"]
        waiting = pool.submit(depot.wait, ["nothing"], 20.0)
        wait_for(lambda: client.info("clients")["blocked_clients"] > before, message="it to wait")
        proxy.cut()
        with pytest.raises(DepotError):
            waiting.result()


class TestConnections:
    def test_killed_ones_are_not_noticed(self, redis_server: RedisServer, make_redis_depot: MakeDepot) -> None:
        depot = make_redis_depot(redis_server.url)

        def kill_all() -> None:
            with redis_server.client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        messages = [make_message() for _ in range(5)]
        for message in messages:
            kill_all()
            depot.publish([message])
        kill_all()
        parcels = depot.take(QUEUE, 4, 1, 1)  # even this: the connection was seen to be dead before anything was sent
        kill_all()
        assert depot.give_back(1, parcels[2:]) == 2
        kill_all()
        depot.drop(1, parcels[:2])
        kill_all()
        assert depot.queues_with_work([QUEUE]) == [QUEUE]
        assert depot.size(QUEUE) == 3
        kill_all()
        assert depot.holders() == {}

    def test_a_broken_one_is_replaced_and_the_message_sent_once(
        self, proxy: Proxy, make_redis_depot: MakeDepot, redis_server: RedisServer
    ) -> None:
        depot = make_redis_depot(url_of(proxy))
        depot.publish([make_message()])
        proxy.lose_replies(1)
        depot.publish([make_message()])
        assert depot.size(QUEUE) == 2
        proxy.cut()
        depot.publish([make_message()])
        assert make_redis_depot(redis_server.url).size(QUEUE) == 3

    def test_waiting_ends_with_its_connection(self, proxy: Proxy, make_redis_depot: MakeDepot) -> None:
        depot = make_redis_depot(url_of(proxy))
        cut_while_it_waits(depot, proxy)
        assert depot.wait([QUEUE], 0.05) is False

    def test_a_server_is_not_left_because_one_connection_broke(
        self, proxy: Proxy, make_redis_depot: MakeDepot, durable: RedisServer
    ) -> None:
        depot = make_redis_depot(f"{url_of(proxy)};{durable.url}")
        depot.publish([make_message()])
        cut_while_it_waits(depot, proxy)
        assert depot.size(QUEUE) == 1

    def test_they_do_not_pile_up(self, redis_server: RedisServer, make_redis_depot: MakeDepot) -> None:
        depot = make_redis_depot(redis_server.url)
        threads = [threading.Thread(target=depot.size, args=(QUEUE,)) for _ in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= len(depot._connections._idle) <= 16
        depot.close()
        assert depot._connections._idle == []


class TestLostAnswers:
    def test_a_publish_without_answer_is_uncertain(self, proxy: Proxy, make_redis_depot: MakeDepot) -> None:
        depot = make_redis_depot(url_of(proxy))
        depot.size(QUEUE)
        proxy.lose_replies()
        with pytest.raises(DepotError) as caught:
            depot.publish([make_message()])
        assert not caught.value.is_certain
        proxy.pass_all()
        assert depot.size(QUEUE) == 1

    def test_what_a_take_may_have_taken_is_rescued(self, proxy: Proxy, make_redis_depot: MakeDepot) -> None:
        depot = make_redis_depot(url_of(proxy))
        messages = [make_message() for _ in range(30)]
        depot.publish(messages)
        before = depot.take(QUEUE, 10, 1, 1)
        proxy.lose_replies()
        with pytest.raises(DepotError) as caught:
            depot.take(QUEUE, 10, 1, 11)
        assert not caught.value.is_certain
        proxy.pass_all()
        assert depot.size(QUEUE) == 10
        assert depot.rescue(1, after=10, up_to=20, is_suspect=False) == 10
        assert depot.held(1) == before
        again = depot.take(QUEUE, 100, 1, 21)
        assert ids(again) == [message.id for message in messages[10:]]
        assert not any(parcel.delivery.is_suspect for parcel in again)

    def test_a_take_that_arrives_after_its_rescue_takes_nothing(
        self, proxy: Proxy, make_redis_depot: MakeDepot, redis_server: RedisServer
    ) -> None:
        """Otherwise it would be held by a process that lives and knows nothing of it."""
        direct = make_redis_depot(redis_server.url)
        direct.publish([make_message(), make_message()])
        depot = make_redis_depot(url_of(proxy), socket_timeout=0.3)
        depot.size(QUEUE)
        proxy.hold()
        with pytest.raises(DepotError):
            depot.take(QUEUE, 10, 1, 11)
        assert direct.rescue(1, after=10, up_to=20, is_suspect=False) == 0
        with redis_server.client() as client:
            calls = int(client.info("commandstats")["cmdstat_evalsha"]["calls"])
            proxy.release()
            wait_for(
                lambda: int(client.info("commandstats")["cmdstat_evalsha"]["calls"]) > calls, message="the late take"
            )
        assert direct.holders() == {}
        assert direct.size(QUEUE) == 2
        assert len(direct.take(QUEUE, 10, 1, 21)) == 2


class TestTimeLimits:
    def test_no_server_is_certain_and_soon_known(self, make_redis_depot: MakeDepot) -> None:
        depot = make_redis_depot(f"redis://127.0.0.1:{free_port()}/0")
        with pytest.raises(DepotError, match="refused") as caught:
            depot.publish([make_message()])
        assert caught.value.is_certain
        assert elapsed(lambda: depot.publish([make_message()])) < 1

    @pytest.mark.parametrize("is_connected", [True, False])
    def test_a_silent_server_takes_no_longer_than_allowed(
        self, durable: RedisServer, make_redis_depot: MakeDepot, is_connected: bool
    ) -> None:
        depot = make_redis_depot(durable.url, timeout=0.2, socket_timeout=0.15)
        if is_connected:
            depot.publish([make_message()])
        durable.kill(signal.SIGSTOP)
        try:
            for _ in range(2):
                assert 0.15 < elapsed(lambda: depot.publish([make_message()])) < 0.4
                assert 0.1 < elapsed(lambda: depot.take(QUEUE, 1, 1, 1)) < 0.35
                assert 0.1 < elapsed(lambda: depot.wait([QUEUE], 0.1)) < 0.45
        finally:
            durable.kill(signal.SIGCONT)
        depot.publish([make_message()])

    def test_the_next_server_has_its_share_of_the_time(
        self, redis_server: RedisServer, durable: RedisServer, make_redis_depot: MakeDepot
    ) -> None:
        depot = make_redis_depot(f"{durable.url};{redis_server.url}", timeout=1)
        durable.kill(signal.SIGSTOP)
        depot.publish([make_message()])
        assert depot.size(QUEUE) == 1


class TestFullMemory:
    def test_enqueueing_is_refused_and_the_server_can_be_emptied(
        self, make_redis_depot: MakeDepot, durable: RedisServer
    ) -> None:
        depot = make_redis_depot(durable.url)
        confirmed = [make_message(payload="x" * 1000) for _ in range(50)]
        depot.publish(confirmed)
        parcels = depot.take(QUEUE, 10, 1, 1)
        with durable.client() as client:
            client.config_set("maxmemory", "1mb")
            for messages in ([make_message()], [make_message(), make_message(queue_name="mail")]):
                with pytest.raises(DepotError, match="OOM|memory") as caught:
                    depot.publish(messages)
                assert caught.value.is_certain
            assert depot.give_back(1, parcels[:5]) == 5
            assert depot.rescue(1) == 5
            assert depot.rescue(1, after=0, up_to=20, is_suspect=False) == 0
            again = depot.take(QUEUE, 100, 1, 21)
            assert ids(again) == [message.id for message in confirmed]
            depot.drop(1, again)
            client.config_set("maxmemory", "0")
        depot.publish([make_message()])
        assert depot.size(QUEUE) == 1


class TestRefusals:
    def test_a_server_that_wants_replicas_has_done_nothing(
        self, durable: RedisServer, make_redis_depot: MakeDepot
    ) -> None:
        depot = make_redis_depot(durable.url)
        depot.publish([make_message()])
        with durable.client() as client:
            client.config_set("min-replicas-to-write", 1)
            with pytest.raises(DepotError, match="replicas") as caught:
                depot.publish([make_message()])
            assert caught.value.is_certain
            assert "script" not in str(caught.value)
            client.config_set("min-replicas-to-write", 0)
        assert depot.size(QUEUE) == 1

    def test_of_several_queues_one_may_have_been_served(
        self, durable: RedisServer, make_redis_depot: MakeDepot
    ) -> None:
        depot = make_redis_depot(durable.url)
        with durable.client() as client:
            client.set(depot._of("mail").messages, "not ours")
        with pytest.raises(DepotError, match="wrong kind") as caught:
            depot.publish([make_message(), make_message(queue_name="mail")])
        assert not caught.value.is_certain
        assert depot.size(QUEUE) == 1

    def test_a_server_that_loads_its_data_has_done_nothing(self, make_redis_depot: MakeDepot) -> None:
        with (
            RedisServer({"enable-debug-command": "local", "rdbcompression": "no"}) as server,
            server.client() as client,
        ):
            depot = make_redis_depot(server.url)
            depot.publish([make_message()])
            client.mset({f"key {number}": "x" * 3000 for number in range(200)})
            client.config_set("loading-process-events-interval-bytes", 2048)
            client.config_set("key-load-delay", 5000)
            reload = threading.Thread(target=client.execute_command, args=("DEBUG", "RELOAD"))
            reload.start()
            try:
                wait_for(lambda: _is_loading(server), message="it to begin", interval=0.001)
                for verb in (lambda: depot.publish([make_message()]), lambda: depot.take(QUEUE, 1, 1, 1)):
                    with pytest.raises(DepotError, match="(?i)loading") as caught:
                        verb()
                    assert caught.value.is_certain
            finally:
                reload.join()
            assert depot.size(QUEUE) == 1


def _is_loading(server: RedisServer) -> bool:
    with server.client() as client:
        return bool(client.info("persistence")["loading"])


class TestKilled:
    def test_servers_lose_nothing_that_they_confirmed(self, durable: RedisServer, make_redis_depot: MakeDepot) -> None:
        depot = make_redis_depot(durable.url)
        confirmed: list[str] = []
        is_over = threading.Event()

        def publish() -> None:
            while not is_over.is_set():
                messages = [make_message() for _ in range(3)]
                try:
                    depot.publish(messages)
                except DepotError:
                    continue
                confirmed.extend(message.id for message in messages)

        threads = [threading.Thread(target=publish) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                enough = len(confirmed) + 100
                wait_for(lambda enough=enough: len(confirmed) > enough, message="some more to be confirmed")
                durable.kill(signal.SIGKILL)
                wait_for(lambda: not durable.is_running)
                durable.start()
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        found: set[str] = set()
        claim = 1
        while parcels := depot.take(QUEUE, 1000, 1, claim):
            claim += 1000
            found.update(ids(parcels))
        assert set(confirmed) <= found
        durable.restart("immediate")
        assert len(depot.held(1)) == len(found)

    def test_takers_lose_nothing(self, redis_only: Bed, redis_server: RedisServer, tmp_path: Path) -> None:
        """So many takers, each killed at a random moment once it has begun to take and drop."""
        messages = [message for _ in range(ROUNDS // 10 + 1) for message in redis_only.put(1000)]
        config, effects = redis_only.depot.config, tmp_path / "effects"
        arguments = [config.url, config.prefix, str(ROUNDS), str(effects)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.depots.takers", *arguments],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert int(done.stdout) > ROUNDS / 10, "too few were killed while they held something"
        # The last line of one who was killed may be cut off; it has not started that one, then.
        started = {line for line in effects.read_text().splitlines() if len(line) == 36}
        left: set[str] = set()
        while parcels := redis_only.take(1000, process=10**6):
            redis_only.depot.drop(10**6, parcels)
            left.update(ids(parcels))
        assert started | left == {message.id for message in messages}
        assert redis_only.depot.holders() == {}
