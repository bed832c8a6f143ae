"""What only Redis can show: its keys, its scripts, the wake-up token, and what its options do."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured

from django_taskq.brokers.redis import RedisDepot, letters
from django_taskq.exceptions import DepotError
from tests.depots.bed import QUEUE, Bed, ids
from tests.servers import RedisServer, free_port
from tests.unit.making import make_message
from tests.waiting import wait_for

MakeDepot = Callable[..., RedisDepot]


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as made:
        yield made


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that a test may change; skipped or failed by ``redis_server`` where there is none."""
    with RedisServer() as server:
        yield server


class TestKeys:
    def test_those_of_a_queue_share_a_hash_tag(self, redis_only: Bed, client: redis.Redis) -> None:
        redis_only.put(3)
        redis_only.put_raw(QUEUE, b"?")
        redis_only.collect(2)
        redis_only.depot.rescue(1, after=0, up_to=1, is_suspect=False)
        redis_only.take(process=2)
        prefix = redis_only.depot.config.prefix
        names = set(client.scan_iter(f"*{prefix}*", count=1000))
        kinds = {name.partition(f"{{{prefix}:{QUEUE}}}:")[2].partition(":")[0] for name in names}
        assert kinds - {""} == {"messages", "held", "holders", "fence", "dead", "letters"}
        assert {name for name in names if not name.startswith(f"{{{prefix}:{QUEUE}}}:")} == {f"{prefix}:queues"}

    def test_nothing_is_left_of_what_was_dropped(self, redis_only: Bed, client: redis.Redis) -> None:
        redis_only.put(30)
        redis_only.depot.drop(1, redis_only.collect(30))
        redis_only.take()
        prefix = redis_only.depot.config.prefix
        assert list(client.scan_iter(f"*{prefix}*", count=1000)) == [f"{prefix}:queues"]

    def test_prefixes_do_not_meet(
        self, redis_only: Bed, make_redis_depot: MakeDepot, redis_server: RedisServer
    ) -> None:
        redis_only.put()
        stranger = make_redis_depot(redis_server.url)
        assert stranger.size(QUEUE) == 0
        assert stranger.holders() == {}

    def test_a_queue_nobody_named_here_is_rescued(self, redis_only: Bed) -> None:
        redis_only.put(queue_name="elsewhere")
        redis_only.collect(1, queue="elsewhere")
        assert redis_only.other().rescue(1) == 1

    def test_the_queues_are_named_again_after_the_server_was_emptied(
        self, redis_only: Bed, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        redis_only.put()
        client.delete(f"{redis_only.depot.config.prefix}:queues")
        redis_only.put()
        assert redis_only.other().holders() == {}
        monkeypatch.setattr("django_taskq.brokers.redis.depot.ANNOUNCED_FOR", 0.0)
        redis_only.put()
        assert client.smembers(f"{redis_only.depot.config.prefix}:queues") == {QUEUE}


class TestScripts:
    def test_forgotten_ones_are_sent_again(self, redis_only: Bed, client: redis.Redis) -> None:
        messages = []
        for _ in range(3):
            client.script_flush()
            messages += [*redis_only.put(), *redis_only.put(queue_name="mail")]
            redis_only.depot.publish([make_message(), make_message(queue_name="mail")])
        client.script_flush()
        assert len(redis_only.collect(6)) == 6
        client.script_flush()
        assert redis_only.depot.rescue(1) == 6
        client.script_flush()
        assert redis_only.depot.dead_letters() == []

    def test_a_take_is_bounded_by_bytes(self, redis_only: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("django_taskq.brokers.redis.depot.MOST_BYTES", (8 << 20) // 20)
        redis_only.put(300, payload="x" * 5_000)
        first = redis_only.take(300)
        assert 84 <= len(first) < 300
        assert len(redis_only.collect(300 - len(first))) == 300 - len(first)
        assert len(redis_only.depot.held(1)) == 300

    def test_old_dead_letters_make_room(self, redis_only: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(letters, "MOST_LETTERS", 3)
        for number in range(5):
            redis_only.put_raw(QUEUE, b"%d?" % number)
        redis_only.take()
        assert [letter.text for letter in redis_only.depot.dead_letters()] == ["4?", "3?", "2?"]
        assert redis_only.depot.discard([letter.id for letter in redis_only.depot.dead_letters()]) == 3

    def test_a_claim_of_before_gives_nothing_back(self, redis_only: Bed) -> None:
        redis_only.put(2)
        parcels = redis_only.collect(2)
        redis_only.depot.rescue(1)
        again = redis_only.collect(2)
        assert redis_only.depot.give_back(1, parcels) == 0
        assert redis_only.depot.held(1) == again

    def test_a_take_that_fails_over_a_broken_message_is_uncertain(
        self, redis_only: Bed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What it took besides is held by then."""
        redis_only.put(2)
        redis_only.put_raw(QUEUE, b"?")
        with monkeypatch.context() as patched:
            patched.setattr(letters, "refusal", _fail)
            with pytest.raises(DepotError) as caught:
                redis_only.depot.take(QUEUE, 10, 1, 1)
        assert not caught.value.is_certain
        assert redis_only.depot.rescue(1, after=0, up_to=10, is_suspect=False) == 3
        redis_only.next_claim = 11
        assert len(redis_only.take()) == 2

    def test_what_was_set_aside_before_it_failed_is_logged(
        self, redis_only: Bed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(2):
            redis_only.put_raw(QUEUE, b"?")
        calls = iter([letters.refusal])
        with monkeypatch.context() as patched, pytest.raises(DepotError):
            patched.setattr(letters, "refusal", lambda *args: next(calls, _fail)(*args))
            redis_only.take()
        assert len(redis_only.depot.dead_letters()) == 1
        assert [record.args[1] for record in caplog.records] == [1]

    def test_a_message_in_the_wrong_queue_is_set_aside(self, redis_only: Bed) -> None:
        (message,) = redis_only.put(queue_name="mail")
        with redis.Redis.from_url(redis_only.depot.config.url) as client:
            start = f"{{{redis_only.depot.config.prefix}:"
            text = client.hget(f"{start}mail}}:messages", message.id)
            client.hset(f"{start}{QUEUE}}}:messages", message.id, text)
            client.zadd(f"{start}{QUEUE}}}:ready", {message.id: 0})
        assert redis_only.take() == []
        (letter,) = redis_only.depot.dead_letters()
        assert "another" in letter.reason


def _fail(*args: object) -> None:
    raise DepotError("gone", is_certain=True)


class TestToken:
    def waiting(self, bed: Bed, client: redis.Redis, pool: ThreadPoolExecutor, count: int) -> list:
        before = _blocked(client)
        depots = [bed.other() for _ in range(count)]
        found = [pool.submit(depot.wait, [QUEUE, "mail"], 5.0) for depot in depots]
        wait_for(lambda: _blocked(client) >= before + count, message="all of them to wait")
        return found

    def test_of_two_one_is_told_of_one_message(self, redis_only: Bed, client: redis.Redis) -> None:
        with ThreadPoolExecutor() as pool:
            waits = self.waiting(redis_only, client, pool, 2)
            redis_only.put()
            wait_for(lambda: any(each.done() for each in waits), message="one to be told")
            assert len(redis_only.take()) == 1
            redis_only.put(queue_name="mail")  # lets the other go
        assert all(each.result() for each in waits)

    def test_both_are_told_of_two(self, redis_only: Bed, client: redis.Redis) -> None:
        with ThreadPoolExecutor() as pool:
            waits = self.waiting(redis_only, client, pool, 2)
            redis_only.put()
            redis_only.put()
            assert all(each.result() for each in waits)

    def test_whoever_leaves_some_tells_the_next(self, redis_only: Bed, client: redis.Redis) -> None:
        with ThreadPoolExecutor() as pool:
            waits = self.waiting(redis_only, client, pool, 2)
            redis_only.put(2)  # one publish, one token
            wait_for(lambda: any(each.done() for each in waits), message="one to be told")
            redis_only.take(1)
            assert all(each.result() for each in waits)

    def test_what_is_given_back_or_rescued_is_told_of(self, redis_only: Bed) -> None:
        redis_only.put()
        parcels = redis_only.collect(1)
        assert not redis_only.depot.wait([QUEUE], 0.05)
        redis_only.depot.give_back(1, parcels)
        assert redis_only.depot.wait([QUEUE], 5)
        redis_only.collect(1)
        redis_only.depot.rescue(1)
        assert redis_only.depot.wait([QUEUE], 5)

    def test_nobody_is_told_of_what_is_gone(self, redis_only: Bed) -> None:
        redis_only.put(2)
        redis_only.collect(2)
        assert not redis_only.depot.wait([QUEUE], 0.05)
        redis_only.put(2)
        redis_only.depot.purge(QUEUE)
        assert not redis_only.depot.wait([QUEUE], 0.05)
        assert not redis_only.depot.wait([QUEUE], 0)
        assert not redis_only.depot.wait([], 5)

    def test_there_is_one_at_most(self, redis_only: Bed, client: redis.Redis) -> None:
        wake = redis_only.depot._of(QUEUE).wake
        for _ in range(3):
            redis_only.put(2)
        redis_only.depot.give_back(1, redis_only.take(2))
        redis_only.take(1)
        redis_only.depot.rescue(1)
        assert client.llen(wake) == 1

    def test_waiting_holds_nobody_up(self, redis_only: Bed, client: redis.Redis) -> None:
        before = _blocked(client)
        with ThreadPoolExecutor() as pool:
            told = pool.submit(redis_only.depot.wait, [QUEUE], 5.0)
            wait_for(lambda: _blocked(client) > before)
            redis_only.put(queue_name="mail")
            assert len(redis_only.collect(1, queue="mail")) == 1
            redis_only.put()
            assert told.result()


def _blocked(client: redis.Redis) -> int:
    return int(client.info("clients")["blocked_clients"])


class TestConnecting:
    def test_unix_sockets_and_databases(self, redis_server: RedisServer, make_redis_depot: MakeDepot) -> None:
        depot = make_redis_depot(f"unix://{redis_server.socket_path}?db=3")
        depot.publish([make_message()])
        assert make_redis_depot(redis_server.url.replace("/0", "/3")).size(QUEUE) == 1
        assert make_redis_depot(redis_server.url).size(QUEUE) == 0

    def test_the_password_is_used_and_never_told(self, make_redis_depot: MakeDepot) -> None:
        with RedisServer(password="Gehe1m-Wort") as server:
            depot = make_redis_depot(server.url)
            depot.publish([make_message()])
            assert depot.size(QUEUE) == 1
            for wrong in ("redis://:Falsch-Wort@", "redis://somebody:Falsch-Wort@", "redis://"):
                with pytest.raises(DepotError, match=f"Redis at 127.0.0.1:{server.port}") as caught:
                    make_redis_depot(f"{wrong}127.0.0.1:{server.port}/0").publish([make_message()])
                assert caught.value.is_certain
                assert "Wort" not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!s}"
            assert "Wort" not in repr(depot.config)

    def test_the_first_that_answers_is_kept(self, redis_server: RedisServer, make_redis_depot: MakeDepot) -> None:
        depot = make_redis_depot(f"redis://127.0.0.1:{free_port()}/0;{redis_server.url}")
        for _ in range(3):
            depot.publish([make_message()])
        assert depot.size(QUEUE) == 3
        assert depot._connections._current == 1

    def test_a_replica_is_passed_over_and_a_new_main_server_followed(
        self, own_server: RedisServer, make_redis_depot: MakeDepot
    ) -> None:
        with RedisServer() as second, own_server.client() as one, second.client() as two:
            for client in (one, two):
                client.config_set("repl-diskless-sync-delay", 0)
            depot = make_redis_depot(f"{own_server.url};{second.url}")
            one.execute_command("REPLICAOF", "127.0.0.1", second.port)
            depot.publish([make_message()])
            assert two.dbsize() > 0
            assert len(depot.take(QUEUE, 10, 1, 1)) == 1
            wait_for(lambda: one.info("replication")["master_link_status"] == "up", message="the replica's link")
            two.zadd("one more write", {"to wait for": 1})
            assert two.wait(1, 5000) == 1
            one.execute_command("REPLICAOF", "NO", "ONE")
            two.execute_command("REPLICAOF", "127.0.0.1", own_server.port)
            wait_for(lambda: two.info("replication")["master_link_status"] == "up", message="the other way round")
            depot.publish([make_message()])
            assert one.zcard(depot._of(QUEUE).ready) == 1
            assert depot.rescue(1) == 1

    def test_one_that_stays_a_replica_is_an_error_in_which_nothing_happened(
        self, own_server: RedisServer, make_redis_depot: MakeDepot
    ) -> None:
        with own_server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", free_port())
        depot = make_redis_depot(own_server.url)
        with pytest.raises(DepotError) as caught:
            depot.publish([make_message()])
        assert caught.value.is_certain
        with pytest.raises(DepotError):
            depot.take(QUEUE, 10, 1, 1)

    def test_encrypted_with_certificates_verified(self, make_redis_depot: MakeDepot, own_server: RedisServer) -> None:
        port, authority = _encrypt(own_server)
        url = f"rediss://localhost:{port}/0"
        with pytest.raises(DepotError, match="(?i)certificate") as caught:
            make_redis_depot(url).publish([make_message()])
        assert caught.value.is_certain
        trusting = make_redis_depot(url, ssl_ca_certs=str(authority))
        trusting.publish([make_message()])
        assert len(trusting.take(QUEUE, 1, 1, 1)) == 1
        with pytest.raises(DepotError, match="(?i)certificate|match"):
            make_redis_depot(url.replace("localhost", "127.0.0.1"), ssl_ca_certs=str(authority)).size(QUEUE)
        assert make_redis_depot(url.replace("localhost", "127.0.0.1"), ssl_cert_reqs="none").size(QUEUE) == 0


def _encrypt(server: RedisServer) -> tuple[int, Path]:
    """Have a server listen with a certificate for localhost that it signed itself; its port and its certificate."""
    key, certificate, port = server.home / "key.pem", server.home / "certificate.pem", free_port()
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(command, check=True, capture_output=True)
    key.chmod(0o644)  # the server may run under another account
    server.stop("immediate")
    server.config |= {"tls-port": str(port), "tls-cert-file": str(certificate), "tls-key-file": str(key)}
    server.config |= {"tls-auth-clients": "no"}
    server.start()
    return port, certificate


class TestSettings:
    @pytest.mark.parametrize(
        ("url", "options", "text"),
        [
            (
                "redis://h",
                {"socket_timeuot": 1},
                r"'default' has no option 'socket_timeuot'. Did you mean \"socket_timeout\"",
            ),
            ("redis://h", {"socket_timeout": 0}, "'socket_timeout' .* has to be a number of seconds above 0"),
            ("redis://h", {"socket_timeout": True}, "'socket_timeout' .* has to be a number"),
            ("redis://h", {"health_check_interval": -1}, "'health_check_interval' .* has to be a number"),
            ("redis://h", {"ssl_ca_certs": "/a"}, "'ssl_ca_certs' .* rediss://"),
            ("rediss://h", {"ssl_ca_certs": 3}, "'ssl_ca_certs' .* path"),
            ("rediss://h", {"ssl_cert_reqs": None}, "'ssl_cert_reqs' .* \"required\""),
            ("redis://:Wort@h:port/0", {}, "URL 1 of the broker 'default' cannot be used: it is malformed"),
            ("redis://h;redis://:Wort@h/zero", {}, "URL 2 .* number of a database"),
            ("redis://h/0?decode_responses=1", {}, "URL 1 .* 'decode_responses' does not belong"),
            ("redis://h;amqp://h", {}, "URL 2 .* scheme"),
        ],
    )
    def test_what_is_wrong_is_named(self, url: str, options: dict, text: str, make_redis_depot: MakeDepot) -> None:
        with pytest.raises(ImproperlyConfigured, match=text) as caught:
            make_redis_depot(url, **options)
        assert "Wort" not in str(caught.value)

    def test_a_depot_is_made_without_a_server(self, make_redis_depot: MakeDepot) -> None:
        make_redis_depot(f"redis://user:word@127.0.0.1:{free_port()}/5", socket_timeout=1, health_check_interval=0)

    def test_the_library_is_an_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        package = RedisDepot.__module__.rpartition(".")[0]
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "redis", None)
        with pytest.raises(ImproperlyConfigured, match="A broker on Redis needs") as caught:
            import_module(package)
        assert 'pip install "django-kombu-taskq[redis]"' in str(caught.value)


class TestCheck:
    @pytest.mark.parametrize(
        ("config", "level", "text"),
        [
            ({"appendonly": "yes", "appendfsync": "always"}, "info", "loses nothing"),
            ({"appendonly": "yes", "appendfsync": "everysec"}, "info", "up to about one second of enqueues"),
            ({"appendonly": "yes", "appendfsync": "no"}, "warning", "30 seconds"),
            ({"save": "3600 1 60 10000"}, "warning", "every 3600 s with 1 changes or more, every 60 s"),
            ({}, "warning", "keeps nothing: a restart of it loses everything"),
        ],
    )
    def test_what_a_crash_may_lose(
        self, config: dict[str, str], level: str, text: str, make_redis_depot: MakeDepot
    ) -> None:
        with RedisServer(config) as server:
            (finding,) = make_redis_depot(server.url).check()
        assert (finding.level, text in finding.text) == (level, True), finding
        assert bool(finding.hint) == (level != "info")

    def test_each_policy_that_throws_messages_away_is_an_error(
        self, own_server: RedisServer, make_redis_depot: MakeDepot
    ) -> None:
        depot = make_redis_depot(own_server.url)
        with own_server.client() as client:
            for policy in ("allkeys-lru", "volatile-ttl", "allkeys-random"):
                client.config_set("maxmemory-policy", policy)
                (found,) = [finding for finding in depot.check() if finding.level == "error"]
                assert policy in found.text
                assert "CONFIG SET maxmemory-policy noeviction" in found.hint

    def test_where_the_configuration_is_hidden(self, own_server: RedisServer, make_redis_depot: MakeDepot) -> None:
        with own_server.client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.execute_command("ACL", "SETUSER", "guest", "on", ">word", "~*", "&*", "+@all", "-config")
        found = make_redis_depot(own_server.url.replace("//", "//guest:word@")).check()
        assert [finding.level for finding in found] == ["warning", "error", "warning"]
        assert "could not be checked" in found[0].text

    def test_where_even_the_server_s_state_is_hidden(
        self, own_server: RedisServer, make_redis_depot: MakeDepot
    ) -> None:
        with own_server.client() as client:
            client.execute_command("ACL", "SETUSER", "guest", "on", ">word", "~*", "&*", "+@all", "-config", "-info")
        (found,) = make_redis_depot(own_server.url.replace("//", "//guest:word@")).check()
        assert found.level == "warning"

    def test_a_cluster_and_an_old_server_are_errors(
        self, make_redis_depot: MakeDepot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("django_taskq.brokers.redis.checking.OLDEST_VERSION", (99, 1))
        with RedisServer({"cluster-enabled": "yes"}) as server:
            found = make_redis_depot(server.url).check()
        errors = [finding.text for finding in found if finding.level == "error"]
        assert len(errors) == 2
        assert "Redis Cluster" in errors[1]

    def test_no_server_is_no_finding(self, make_redis_depot: MakeDepot) -> None:
        with pytest.raises(DepotError):
            make_redis_depot(f"redis://127.0.0.1:{free_port()}/0").check()


def test_takers_and_publishers_at_once(redis_only: Bed) -> None:
    """Doubles, gives back and rescues among them: everything arrives, and nothing stays."""
    messages = [make_message(priority=number % 3) for number in range(900)]
    depots = [redis_only.other() for _ in range(4)]
    done: set[str] = set()

    def publish(part: int) -> None:
        for start in range(part, len(messages), 30):
            depots[part % 2].publish(messages[start : start + 40])

    def take(process: int) -> None:
        claim = 1
        while len(done) < len(messages):
            parcels = depots[process].take(QUEUE, 20, process, claim)
            claim += 20
            if claim % 3 == 0:
                depots[process].give_back(process, parcels[5:])
                parcels = parcels[:5]
            elif claim % 7 == 0:
                redis_only.depot.rescue(process)
                continue
            done.update(ids(parcels))
            depots[process].drop(process, parcels)

    threads = [threading.Thread(target=publish, args=(part,), daemon=True) for part in range(30)]
    threads += [threading.Thread(target=take, args=(process,), daemon=True) for process in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert done == {message.id for message in messages}
    # A message that was done and published again after that is a new one, so some may wait; none is held.
    assert redis_only.depot.holders() == {}
