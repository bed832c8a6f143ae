"""What only RabbitMQ can show: confirms and returns, alarms, deaths on either side, topologies, dead letters."""

from __future__ import annotations

import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import amqp
import pytest

from django_taskq.brokers.depot import Depot
from django_taskq.brokers.kombu import KombuDepot
from django_taskq.conf_brokers import BrokerConfig
from django_taskq.conf_exchanges import Binding, ExchangeConfig, parse_exchanges
from django_taskq.exceptions import DepotError
from django_taskq.message import Message, Parcel, Tracking
from tests.conftest import ROOT
from tests.depots.bed import Bed, elapsed, ids
from tests.depots.rabbitmq_bed import rabbitmq_bed
from tests.servers import RabbitMQServer, free_port
from tests.unit.making import make_message
from tests.waiting import wait_for

ROUNDS = int(os.environ.get("TASKQ_FAULT_ROUNDS", "100"))
Make = Callable[..., Any]


@pytest.fixture
def server(rabbitmq_server: RabbitMQServer) -> RabbitMQServer:
    return rabbitmq_server


@pytest.fixture
def make(server: RabbitMQServer) -> Iterator[Make]:
    """Depots under a prefix of the test's own; closed with the test."""
    made: list[Depot] = []
    prefix = f"t{uuid4().hex[:12]}"

    def make(url: str = "", *, timeout: float = 2, queues: Any = None, exchanges: Any = None, **options: Any) -> Any:
        config = BrokerConfig("default", url or server.url, prefix, options)
        made.append(KombuDepot(config, timeout, queues=queues, exchanges=exchanges))
        return made[-1]

    yield make
    for depot in made:
        depot.close()


@pytest.fixture
def bed(server: RabbitMQServer) -> Iterator[Bed]:
    made = rabbitmq_bed(server)
    yield made
    made.close()


@contextmanager
def raw(server: RabbitMQServer) -> Iterator[Any]:
    """A channel as anybody may have it."""
    with amqp.Connection(f"127.0.0.1:{server.port}", login_method="PLAIN", confirm_publish=True) as connection:
        yield connection.channel()


def messages(count: int, **changes: Any) -> list[Message]:
    return [make_message(**changes) for _ in range(count)]


def collect(depot: Any, count: int, queue: str = "default", limit: int = 100, seconds: float = 10) -> list[Parcel]:
    """Take until there are so many. A depot that is cut off says so once in a while, and goes on by itself."""
    found: list[Parcel] = []

    def is_enough() -> bool:
        try:
            found.extend(depot.take(queue, min(limit, count - len(found)), 1, 1 + len(found)))
        except DepotError:
            pass
        return len(found) >= count

    wait_for(is_enough, seconds, message=lambda: f"{count} messages; there came {len(found)}")
    return found


class TestPublishing:
    @pytest.mark.parametrize("queue_type", ["quorum", "classic"])
    def test_a_batch_is_confirmed_as_a_whole(self, make: Make, queue_type: str) -> None:
        depot = make(queue_type=queue_type)
        sent = messages(2500)
        depot.publish(sent)
        wait_for(lambda: depot.size("default") == 2500)
        parcels = collect(depot, 2500, limit=1000)
        assert ids(parcels) == [message.id for message in sent]
        depot.drop(1, parcels)
        depot.close()
        assert depot.size("default") == 0

    def test_a_queue_that_was_deleted_is_declared_again(self, make: Make) -> None:
        depot = make()
        depot.publish(messages(1))
        make().delete_queue("default", if_empty=False)
        sent = messages(3)
        depot.publish(sent)
        assert ids(collect(depot, 3)) == [message.id for message in sent]

    def test_a_queue_that_is_deleted_while_it_is_consumed(self, make: Make) -> None:
        depot, other = make(), make()
        other.publish(messages(1))
        depot.drop(1, collect(depot, 1))
        other.delete_queue("default", if_empty=False)
        sent = messages(2)
        other.publish(sent)
        assert ids(collect(depot, 2)) == [message.id for message in sent]

    def test_what_the_queue_refuses_is_an_error_and_certain(self, make: Make) -> None:
        depot = make(queues={"default": {"x-max-length": 1, "x-overflow": "reject-publish"}}, queue_type="classic")
        depot.publish(messages(1))
        with pytest.raises(DepotError, match="refused 1 of 1 messages for .*default") as caught:
            depot.publish(messages(1))
        assert caught.value.is_certain

    def test_a_conflict_says_what_to_do(self, make: Make) -> None:
        make(queue_type="classic").publish(messages(1))
        other = make()
        for action in (lambda: other.publish(messages(1)), lambda: other.take("default", 1, 1, 1)):
            with pytest.raises(DepotError, match=r"the queue \S+\.dead exists .*delete it.*queue_type") as caught:
                action()
            assert caught.value.is_certain
        changed = make(queue_type="classic", queues={"default": {"x-max-length": 5}})
        with pytest.raises(DepotError, match=r"the queue \S+\.default exists .*x-max-length.*\['arguments'\]"):
            changed.publish(messages(1))

    def test_a_queue_cannot_have_the_name_of_the_dead_letters(self, make: Make) -> None:
        with pytest.raises(DepotError, match="'dead' here"):
            make().publish(messages(1, queue_name="dead"))

    def test_nobody_listens(self, make: Make) -> None:
        depot = make(f"amqp://user:secret@127.0.0.1:{free_port()}//")
        for _ in range(3):
            with pytest.raises(DepotError, match="Connection refused") as caught:
                depot.publish(messages(1))
            assert caught.value.is_certain
            assert "secret" not in str(caught.value)

    def test_a_wrong_password_is_not_repeated(self, make: Make, server: RabbitMQServer) -> None:
        with pytest.raises(DepotError, match="ACCESS_REFUSED") as caught:
            make(f"amqp://guest:secret@127.0.0.1:{server.port}//").publish(messages(1))
        assert "secret" not in str(caught.value)
        assert "secret" not in repr(caught.value.__cause__)

    def test_a_black_hole_takes_no_longer_than_allowed(self, make: Make) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            depot = make(f"amqp://127.0.0.1:{silent.getsockname()[1]}//", timeout=0.25, connect_timeout=0.25)
            for _ in range(3):
                assert 0.2 < elapsed(lambda: depot.publish(messages(1))) < 0.75
            assert 0.2 < elapsed(lambda: depot.take("default", 1, 1, 1)) < 0.75
            # It looks again later; until then it says at once that there is nothing.
            assert elapsed(lambda: depot.take("default", 1, 1, 1)) < 0.1

    def test_it_goes_on_with_an_address_that_works(self, make: Make, server: RabbitMQServer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            depot = make(
                f"amqp://127.0.0.1:{free_port()}//;amqp://127.0.0.1:{silent.getsockname()[1]}//;{server.url}",
                connect_timeout=0.5,
            )
            assert elapsed(lambda: depot.publish(messages(1))) > 0.4
            depot.close()
            assert elapsed(lambda: depot.publish(messages(1))) < 0.3
            assert len(collect(depot, 2)) == 2

    def test_an_alarm_fails_quickly_and_certainly(self, make: Make, server: RabbitMQServer) -> None:
        used, fresh = make(), make()
        used.publish(messages(1))
        server.ctl("set_vm_memory_high_watermark", "0")
        try:
            used_times = [elapsed(lambda: used.publish(messages(1))) for _ in range(3)]
            for _ in range(3):
                started = time.monotonic()
                with pytest.raises(DepotError, match=r"alarm blocks it \(low on memory\)") as caught:
                    fresh.publish(messages(1))
                assert caught.value.is_certain
                assert time.monotonic() - started < 2.5
            assert max(used_times) < 2.5
            with pytest.raises(DepotError, match="alarm"):
                used.publish(messages(1))
            # Who asks is answered, and who takes gets.
            assert fresh.size("default") >= 1
            assert collect(make(), 1)
        finally:
            server.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
        for depot in (used, fresh):
            wait_for(lambda depot=depot: elapsed_without_error(lambda: depot.publish(messages(1))))

    def test_a_thread_for_each_publisher(self, make: Make) -> None:
        depot = make()
        depot.publish(messages(1))
        threads = [threading.Thread(target=lambda: [depot.publish(messages(3)) for _ in range(10)]) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for(lambda: depot.size("default") == 361)


def elapsed_without_error(action: Callable[[], object]) -> bool:
    try:
        action()
    except DepotError:
        return False
    return True


class TestTls:
    def test_an_unknown_certificate_is_refused(self, make: Make, server: RabbitMQServer) -> None:
        with pytest.raises(DepotError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            make(server.tls_url).publish(messages(1))
        assert caught.value.is_certain

    def test_a_known_one_is_taken_for_its_own_host_only(self, make: Make, server: RabbitMQServer) -> None:
        known = {"ca_certs": str(server.certificate)}
        depot = make(server.tls_url, ssl=known)
        sent = messages(300, payload="x" * 10_000)
        depot.publish(sent)
        # Nothing hides in a buffer below the socket.
        assert ids(collect(depot, 300)) == [message.id for message in sent]
        elsewhere = server.tls_url.replace("localhost", "127.0.0.1")
        with pytest.raises(DepotError, match=r"IP address mismatch|CERTIFICATE_VERIFY_FAILED"):
            make(elsewhere, ssl=known).publish(messages(1))
        make(elsewhere, ssl={"cert_reqs": ssl.CERT_NONE}).publish(messages(1))


class TestTaking:
    def test_bands_from_the_highest_on_each_in_its_order(self, make: Make) -> None:
        depot = make()
        assert depot.capabilities.priority_levels == 3
        sent = [make_message(priority=priority) for priority in (-50, 0, 5, 0, 100, -1, 1)]
        depot.publish(sent)
        wait_for(lambda: depot.size("default") == 7)
        order = [2, 4, 6, 1, 3, 0, 5]
        assert ids(collect(depot, 7)) == [sent[index].id for index in order]

    def test_one_band_is_enough(self, make: Make) -> None:
        depot = make(bands=[0])
        assert depot.capabilities.priority_levels == 1
        sent = [make_message(priority=priority) for priority in (-50, 50, 0)]
        depot.publish(sent)
        assert ids(collect(depot, 3)) == [message.id for message in sent]

    def test_the_prefetch_follows_what_is_asked_for(self, make: Make) -> None:
        depot, asking = make(), make()
        depot.publish(messages(2000))
        wait_for(lambda: asking.size("default") == 2000)
        (first,) = collect(depot, 1)
        assert asking.size("default") == 1999
        depot.drop(1, [first])
        wait_for(lambda: asking.size("default") == 1998, message="one on its way")
        parcels = collect(depot, 100)
        wait_for(lambda: asking.size("default") <= 1998 - 256 + 1, message="more on its way")
        depot.drop(1, parcels)
        for _ in range(5):
            depot.drop(1, depot.take("default", 1, 1, 1))
        # What was sent ahead is given back without an answer, so the server may count it a moment later.
        left = 2000 - 101 - 5
        wait_for(lambda: asking.size("default") >= left - 2, message="less sent ahead once less is asked for")

    def test_pause_gives_to_others_what_was_not_taken(self, make: Make) -> None:
        depot, other = make(), make()
        sent = messages(60)
        depot.publish(sent)
        wait_for(lambda: depot.size("default") == 60)
        parcels = depot.take("default", 4, 1, 1) + depot.take("default", 20, 1, 5)
        assert depot.filenos()
        depot.pause()
        assert depot.filenos() == []
        wait_for(lambda: other.size("default") == 60 - len(parcels))
        rest = collect(other, 60 - len(parcels))
        assert {*ids(parcels), *ids(rest)} == {message.id for message in sent}
        depot.drop(1, parcels)
        other.drop(1, rest[1:])
        other.close()
        # The next take ends it.
        assert ids(collect(depot, 1)) == ids(rest[:1])

    def test_the_socket_tells(self, make: Make) -> None:
        depot, other = make(), make()
        assert depot.queues_with_work(["default", "mail"]) == []
        (fileno,) = depot.filenos()

        def is_quiet() -> bool:
            return depot.queues_with_work(["default", "mail"]) == [] and not select.select([fileno], [], [], 0.05)[0]

        # The server answers that it will send, and nobody waits for that: the answer may come after the first look.
        wait_for(is_quiet, message="a look that leaves nothing on the socket")
        for queue in ("mail", "default"):
            other.publish(messages(1, queue_name=queue))
            assert select.select([fileno], [], [], 5)[0]
            wait_for(lambda queue=queue: depot.queues_with_work(["default", "mail"]) == [queue])
            depot.drop(1, collect(depot, 1, queue))

    def test_what_a_dead_process_held_is_suspect_and_what_was_given_back_is_not(self, make: Make) -> None:
        dying, depot = make(), make()
        depot.publish(messages(4))
        collect(dying, 2)
        dying.close()
        parcels = collect(depot, 4)
        assert {parcel.delivery.is_suspect for parcel in parcels} == {True, False} or all(
            parcel.delivery.is_suspect for parcel in parcels
        )
        suspects = {parcel.delivery.id for parcel in parcels if parcel.delivery.is_suspect}
        assert len(suspects) >= 2
        for _ in range(3):
            depot.give_back(1, parcels)
            parcels = collect(depot, 4)
            assert {parcel.delivery.id for parcel in parcels if parcel.delivery.is_suspect} == suspects

    def test_giving_back_again_and_again_kills_nobody(self, make: Make) -> None:
        """A quorum queue counts what is given back as it counts what died, and gives up at its limit."""
        depot = make(delivery_limit=4)
        depot.publish(messages(1) + messages(1, priority=5))
        for _ in range(10):
            parcels = collect(depot, 2)
            assert len(parcels) == 2
            assert not any(parcel.delivery.is_suspect for parcel in parcels)
            assert depot.give_back(1, parcels) == 2
        for _ in range(10):
            wait_for(lambda: depot.size("default") == 2)
            depot.queues_with_work(["default"])
            depot.pause()
        assert len(collect(depot, 2)) == 2
        assert depot.dead_letters() == []


class TestLosingTheServer:
    def test_stale_receipts_are_passed_over(self, make: Make, server: RabbitMQServer) -> None:
        depot = make()
        sent = messages(10)
        depot.publish(sent)
        parcels = collect(depot, 10)
        server.ctl("close_all_connections", "test")
        again = collect(depot, 10)
        assert {parcel.delivery.id for parcel in again} == {message.id for message in sent}
        assert all(parcel.delivery.is_suspect for parcel in again)
        depot.drop(1, parcels)
        assert depot.give_back(1, parcels) == 0
        depot.drop(1, again)
        depot.publish(messages(1))
        assert len(collect(depot, 1)) == 1
        depot.close()
        # The queue hears of the end of the connection by itself.
        wait_for(lambda: depot.size("default") == 1, message="what was held to be back")

    def test_a_kill_loses_nothing_that_was_confirmed(self, make: Make, server: RabbitMQServer) -> None:
        depot, publisher = make(), make()
        publisher.publish(messages(1))
        depot.drop(1, collect(depot, 1))
        confirmed: list[str] = []
        unknown: list[str] = []
        is_over = threading.Event()

        def publish() -> None:
            while not is_over.is_set():
                batch = messages(20)
                try:
                    publisher.publish(batch)
                    confirmed.extend(message.id for message in batch)
                except DepotError as error:
                    if not error.is_certain:
                        unknown.extend(message.id for message in batch)
                    is_over.wait(0.05)

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            wait_for(lambda: len(confirmed) > 200)
            server.kill()
            wait_for(lambda: not server.is_running)
            server.start()
            back_at, before = time.monotonic(), len(confirmed)
            wait_for(lambda: len(confirmed) > before, 15)
        finally:
            is_over.set()
            thread.join()
        wanted, found = set(confirmed), set[str]()

        def has_all() -> bool:
            try:
                parcels = depot.take("default", 100, 1, 1)
                depot.drop(1, parcels)
                found.update(ids(parcels))
            except DepotError:
                pass
            return wanted <= found

        wait_for(has_all, 15, message=lambda: f"{len(wanted - found)} of {len(wanted)} confirmed are missing")
        assert time.monotonic() - back_at < 15
        assert found <= wanted | set(unknown)

    def test_killed_takers_lose_nothing(self, make: Make, server: RabbitMQServer) -> None:
        """Takers are killed at any moment; whatever they had dropped, they had written down before."""
        depot = make(delivery_limit=10_000, bands=[0])
        sent = messages(80 * ROUNDS)
        for start in range(0, len(sent), 1000):
            depot.publish(sent[start : start + 1000])
        environment = os.environ | {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.settings"}
        command = [sys.executable, "-c", TAKERS, server.url, depot.config.prefix, str(ROUNDS)]
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert output.count("killed") == ROUNDS
        done = {word for word in output.split() if len(word) == 36}
        assert done
        left = {message.id for message in sent} - done
        found: set[str] = set()

        def has_all() -> bool:
            parcels = depot.take("default", 1000, 1, 1)
            depot.drop(1, parcels)
            found.update(ids(parcels))
            return left <= found

        wait_for(has_all, 20, message=lambda: f"{len(left - found)} of {len(left)}")
        assert depot.dead_letters() == []

    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_forked_child_leaves_its_parents_connections_alone(self, make: Make) -> None:
        depot = make()
        depot.publish(messages(5))
        parcels = collect(depot, 2)
        inherited = [os.readlink(f"/proc/self/fd/{fd}") for fd in depot.filenos()]
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                mine = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if exists(fd)]
                assert not set(inherited) & set(mine)
                depot.drop(1, parcels)
                depot.publish(messages(1))
                depot.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        depot.drop(1, parcels)
        rest = collect(depot, 4)
        assert not any(parcel.delivery.is_suspect for parcel in rest)


def exists(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


# Each round forks a taker, which has nothing of the others but the code, and kills it while it takes and drops.
TAKERS = """
import os, random, signal, sys, time
from django_taskq.brokers.kombu import KombuDepot
from django_taskq.conf_brokers import BrokerConfig

def take(output):
    depot = KombuDepot(BrokerConfig("default", sys.argv[1], sys.argv[2], {"delivery_limit": 10_000, "bands": [0]}), 2)
    while True:
        parcels = depot.take("default", 4, 1, 1)
        os.write(output, "".join(parcel.delivery.id + "\\n" for parcel in parcels).encode() or b" ")
        depot.drop(1, parcels)

rng = random.Random(7)
for _ in range(int(sys.argv[3])):
    source, output = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            take(output)
        finally:
            os._exit(1)
    os.close(output)
    began = os.read(source, 1)
    time.sleep(rng.random() * 0.02)
    os.kill(pid, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    with open(source, "rb") as rest:
        print((began + rest.read()).decode(), "killed", flush=True)
"""


class TestContents:
    def test_what_cannot_be_read_is_set_aside_and_work_goes_on(self, bed: Bed) -> None:
        assert bed.put_raw is not None
        wrong: list[tuple[bytes, dict[str, Any], str]] = [
            (b"{}", {"content_type": "application/x-python-serialize"}, "not accepted"),
            (b"{", {}, "not readable"),
            (b"[" * 200_000, {}, "nested too deeply"),
            (b'{"task": "celery"}', {"message_id": "theirs"}, "not of format 1"),
            (b"x", {"application_headers": {"compression": "application/x-gzip"}}, "compressed"),
        ]
        for body, properties, _ in wrong:
            bed.put_raw("default", body, **properties)
        (message,) = bed.put()
        assert ids(bed.collect(1)) == [message.id]
        letters = wait_for(lambda: len(found := bed.depot.dead_letters()) == len(wrong) and found)
        by_text = {letter.text: letter for letter in letters}
        for body, properties, reason in wrong:
            letter = by_text[body.decode()[:500]]
            assert reason in letter.reason
            assert letter.queue_name == "default"
            assert letter.id == properties.get("message_id", letter.id)
        assert bed.depot.discard([letter.id for letter in letters]) == len(wrong)

    def test_what_is_too_large_never_comes_into_memory(
        self, make: Make, server: RabbitMQServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        import tracemalloc

        depot = make(max_body=100_000)
        depot.publish(messages(1, queue_name="other"))
        depot.take("default", 1, 1, 1)
        with raw(server) as channel:
            message = amqp.Message(bytes(12 << 20), content_type="application/json", message_id="large")
            channel.basic_publish(message, routing_key=f"{depot.config.prefix}.default", mandatory=True)
            del message
        tracemalloc.start()
        try:
            depot.publish(messages(1))
            assert len(collect(depot, 1)) == 1
            (letter,) = wait_for(depot.dead_letters)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert letter.id == "large"
        assert "max_body" in letter.reason
        assert peak < 5 << 20
        (record,) = caplog.records
        assert "1 message(s) of queue 'default' are dead letters now" in record.getMessage()
        assert "larger than 100000 bytes" in record.getMessage()

    def test_serializers_that_are_accepted_may_be_mixed(self, make: Make) -> None:
        make(serializer="yaml", accept=["yaml", "json"], compression="gzip").publish(messages(1))
        make(serializer="pickle", accept=["pickle"]).publish(messages(1))
        depot = make(accept=["json", "yaml"])
        depot.publish(messages(1))
        assert len(collect(depot, 2)) == 2
        (letter,) = wait_for(lambda: not depot.take("default", 5, 1, 1) and depot.dead_letters())
        assert "application/x-python-serialize" in letter.reason

    def test_what_nobody_ever_settles_is_given_up_by_the_server(self, make: Make) -> None:
        depot = make(delivery_limit=2)
        depot.publish(messages(1))
        for _ in range(3):
            dying = make(delivery_limit=2)
            collect(dying, 1)
            dying.close()
        (letter,) = wait_for(depot.dead_letters)
        assert "delivery limit" in letter.reason
        assert letter.queue_name == "default"
        assert letter.refused_at is not None
        assert depot.replay([letter.id]) == 1
        (parcel,) = collect(depot, 1)
        assert parcel.delivery.id == letter.id
        assert depot.dead_letters() == []


class TestTopologies:
    TYPES = {
        "fanout": ("", ""),
        "topic": ("order.*", "order.new"),
        "direct": ("order", "order"),
    }

    @pytest.mark.parametrize("kind", TYPES)
    def test_a_message_is_copied_to_every_bound_queue(self, make: Make, kind: str) -> None:
        pattern, key = self.TYPES[kind]
        queues = ["mail", "audit", "stock"]
        bindings = [{"queue": queue} | ({"routing_key": pattern} if pattern else {}) for queue in queues]
        exchanges = parse_exchanges({"events": {"type": kind, "bindings": bindings}})
        depot = make(exchanges=exchanges)
        sent = messages(2, exchange="events", routing_key=key, priority=9)
        depot.publish(sent)
        parcels = [parcel for queue in queues for parcel in collect(depot, 2, queue)]
        assert [parcel.delivery.queue_name for parcel in parcels] == ["mail"] * 2 + ["audit"] * 2 + ["stock"] * 2
        assert {parcel.parent_id for parcel in parcels} == {message.id for message in sent}
        assert len({parcel.delivery.id for parcel in parcels} | {message.id for message in sent}) == 8
        assert {parcel.tracking for parcel in parcels} == {Tracking.START}
        assert {parcel.priority for parcel in parcels} == {9}
        depot.give_back(1, parcels[:2])
        assert ids(collect(depot, 2, "mail")) == ids(parcels[:2])
        if kind != "fanout":
            with pytest.raises(DepotError, match=r"no queue is bound to .*events for the key 'other'") as caught:
                depot.publish(messages(1, exchange="events", routing_key="other"))
            assert caught.value.is_certain

    def test_a_worker_that_comes_first_binds_its_queues(self, make: Make) -> None:
        exchanges = {"events": ExchangeConfig("events", "fanout", bindings=(Binding("mail"),))}
        worker = make(exchanges=exchanges)
        worker.take("mail", 1, 1, 1)
        make().publish(messages(1, exchange="events"))
        assert len(collect(worker, 1, "mail")) == 1

    def test_binding_and_unbinding_at_run_time(self, make: Make) -> None:
        depot = make()
        with pytest.raises(DepotError, match="events") as caught:
            depot.publish(messages(1, exchange="events"))
        assert caught.value.is_certain
        depot.declare_exchange(ExchangeConfig("events", "direct"))
        depot.bind("events", "mail", "a")
        depot.publish(messages(1, exchange="events", routing_key="a"))
        assert len(collect(depot, 1, "mail")) == 1
        depot.unbind("events", "mail", "a")
        with pytest.raises(DepotError, match="no queue is bound"):
            depot.publish(messages(1, exchange="events", routing_key="a"))
        depot.delete_exchange("events")
        depot.delete_exchange("events")
        with pytest.raises(DepotError):
            depot.publish(messages(1, exchange="events", routing_key="a"))
        with pytest.raises(DepotError, match="binding .*mail to the exchange .*events"):
            depot.bind("events", "mail", "a")

    def test_a_queue_is_deleted_when_it_is_empty_or_when_that_does_not_matter(self, make: Make) -> None:
        depot = make()
        depot.publish(messages(2) + messages(1, priority=9))
        wait_for(lambda: depot.size("default") == 3)
        with pytest.raises(DepotError, match="'default' is not empty: 3"):
            depot.delete_queue("default")
        depot.delete_queue("default", if_empty=False)
        assert depot.size("default") == 0
        assert depot.purge("default") == 0
        depot.publish(messages(1))
        depot.purge("default")
        depot.delete_queue("default")


class TestChecks:
    def test_it_names_the_server_and_what_it_may_lose(self, make: Make) -> None:
        levels = {finding.level: finding for finding in make().check()}
        assert set(levels) == {"info"}
        findings = make(
            queue_type="classic",
        ).check()
        assert any(finding.level == "error" and "delete it" in finding.text for finding in findings)
        assert any(finding.level == "warning" and "classic" in finding.text for finding in findings)
        assert any("RabbitMQ 3." in finding.text or "RabbitMQ 4." in finding.text for finding in findings)

    def test_unreachable_is_an_error(self, make: Make) -> None:
        with pytest.raises(DepotError):
            make(f"amqp://127.0.0.1:{free_port()}//").check()
