"""Workers on a RabbitMQ that is killed, in alarm, impatient with consumers, or fed with rubbish."""

from __future__ import annotations

import gzip
import signal
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import amqp
import pytest

from django_taskq.brokers import get_broker
from django_taskq.envelope import dumps
from django_taskq.exceptions import BrokerUnavailable, EnqueueUncertain
from django_taskq.message import Tracking
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.depots.tasks import note_late
from tests.depots.workers_bed import Place, Start, at, memory, on_url, shared_rabbitmq
from tests.faults.conftest import ROUNDS
from tests.faults.history import History, crashes, wait_until_finished
from tests.faults.loads import Load, assert_empty, resumed_after
from tests.servers import RabbitMQServer
from tests.testapp.tasks import let_go, note
from tests.unit.making import make_message
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

PATIENCE, BUSY = (10, 30) if ROUNDS > 2 else (3, 8)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


@pytest.fixture
def server(pytestconfig: pytest.Config) -> RabbitMQServer:
    return shared_rabbitmq(pytestconfig)


@pytest.fixture
def place(server: RabbitMQServer, worker: Start) -> Iterator[Place]:
    with at(worker, on_url(server.url)) as found:
        yield found


def write_directory(server: RabbitMQServer) -> None:
    """Have the server put on disk which quorum queues there are, which it does seconds after they were declared.

    Killed before that, RabbitMQ (3.10 at least) starts the queue anew, empty and without a leader for ever: a fault of
    the server, of which nothing here is meant to tell.
    """
    server.ctl("eval", "dets:sync(ra_directory_reverse).")


def queues(server: RabbitMQServer) -> str:
    """What the server says of its queues, for the report of a failure."""
    server.ctl("list_queues", "name", "leader", "messages_ready", "messages_unacknowledged", "consumers")
    return server.log(80)


def test_the_server_is_killed(place: Place, server: RabbitMQServer, history: History) -> None:
    load = Load(history)
    process = place.start("--processes", "2")
    load.add(20)
    load.wait_until_done(20, process.log)
    write_directory(server)
    children, took = process.children(), []
    for _ in range(max(1, min(ROUNDS // 2, 20))):
        done = history.count("end")
        load.add(600, 0.01)
        wait_for(lambda done=done: history.count("end") > done + 50, 30, process.log)
        server.kill(signal.SIGKILL)
        wait_for(lambda: not server.is_running)
        server.start(60)
        took.append(resumed_after(history, time.monotonic() + 0.3, 15, lambda: process.log() + queues(server)))
    load.wait_until_done(60, process.log)
    # The end of a connection gives back what had no row and was not acknowledged yet.
    repeated = load.assert_done(may_repeat=load.untracked)
    print(f"\n{len(took)} kills of RabbitMQ, {len(load.keys)} runs: resumed after {took} s, {repeated} started again")
    assert process.children() == children
    assert not crashes()
    process.terminate()
    assert process.wait() == 0
    assert_empty(place.depot)


@contextmanager
def memory_alarm(server: RabbitMQServer) -> Iterator[None]:
    server.ctl("set_vm_memory_high_watermark", "0")
    try:
        yield
    finally:
        server.ctl("set_vm_memory_high_watermark", "absolute", "1GB")


def test_an_alarm_refuses_soon_and_stops_nobody(place: Place, server: RabbitMQServer, history: History) -> None:
    load = Load(history)
    process = place.start("--processes", "1")
    note.enqueue(history.path, "first", 60, "until-told")
    child = history.wait_for("start", "first").pid
    load.add(100)
    load.tracked.append("first")
    with memory_alarm(server):
        took, uncertain = [], []
        for number in range(3):
            before = time.monotonic()
            with pytest.raises((BrokerUnavailable, EnqueueUncertain), match="alarm") as caught:
                note.enqueue(history.path, f"meanwhile{number}")
            took.append(round(time.monotonic() - before, 2))
            # The server tells of an alarm only when something was sent: then it may have been taken.
            uncertain += [f"meanwhile{number}"] if isinstance(caught.value, EnqueueUncertain) else []
        assert max(took) < 2.5
        assert uncertain in ([], ["meanwhile0"])
        # With a fallback it is kept, and as soon told.
        fallback = place.taskq | {"ENQUEUE_FALLBACK": "outbox"}
        get_broker().close()  # other settings, another broker
        with at(place.worker, fallback):
            before = time.monotonic()
            kept = [note.enqueue(history.path, f"kept{number}") for number in range(3)]
            assert time.monotonic() - before < 3 * 2.5
            assert TaskRecord.objects.filter(pk__in=[each.id for each in kept], status=Status.READY).count() == 3
        # Whoever consumes goes on.
        let_go(history.path, child)
        history.wait_for("end", count=101)
    load.tracked += [*uncertain, *(f"kept{number}" for number in range(3))]
    load.wait_until_done(60, process.log)
    refused = TaskRecord.objects.filter(status=Status.CANCELLED)
    assert refused.count() == 3 - len(uncertain)
    refused.delete()
    assert load.assert_done() == 0
    print(f"\nrefused after {took} s")


def set_patience(server: RabbitMQServer, milliseconds: int, looks_every: int) -> None:
    """How long a consumer may leave a message unacknowledged, and how often the server looks for that."""
    names = {"consumer_timeout": milliseconds, "channel_tick_interval": looks_every}
    server.ctl("eval", ", ".join(f"application:set_env(rabbit, {name}, {names[name]})" for name in names) + ".")


def test_runs_longer_than_the_server_has_patience(place: Place, server: RabbitMQServer, history: History) -> None:
    """Nothing that runs is unacknowledged for long: what lasts has a row by then, and no message."""
    set_patience(server, PATIENCE * 1000, 1000)
    try:
        logged = len(server.log(100_000))
        place.start("--processes", "2")
        tasks = {"tracked": note, "untracked": note_late}
        results = [task.enqueue(history.path, key, BUSY) for key, task in tasks.items()]
        for key in tasks:
            history.wait_for("start", key)
        # What waits behind them goes to nobody, or back.
        behind = note.enqueue_many([((history.path, f"behind{number}"), {}) for number in range(20)])
        assert [result.get(BUSY + 30) for result in results] == [None, "untracked"]
        wait_until_finished(30)
        assert len(behind) == 20
        assert set(history.counts("start").values()) == {1}
        assert "timeout" not in server.log(100_000)[logged:].lower()
        assert not crashes()
    finally:
        set_patience(server, 1_800_000, 60_000)


def test_a_task_that_keeps_the_interpreter_keeps_the_connection(
    place: Place, server: RabbitMQServer, history: History
) -> None:
    """No heartbeat of the process is waited for; its supervisor's tells that it lives."""
    process = place.start("--processes", "1")
    (child,) = wait_for(process.children)
    load = Load(history)
    load.add(20)
    load.wait_until_done(20, process.log)
    before = connections(server)
    result = note.enqueue(history.path, "gil", BUSY / 2, "gil")
    history.wait_for("start", "gil")
    load.add(20)
    assert result.get(BUSY + 30) is None
    load.tracked.append("gil")
    load.wait_until_done(20, process.log)
    assert load.assert_done() == 0
    assert process.children() == [child]
    assert connections(server) >= before > set(), "all that were there are there"


def connections(server: RabbitMQServer) -> set[str]:
    """The names of those the server has, but for those it is asked with."""
    before = len(server.log_path.read_text(errors="replace"))
    server.ctl("list_connections", "name")
    text = server.log_path.read_text(errors="replace")[before:]
    return {line for line in text.splitlines() if " -> " in line and not line.startswith("20")}


GOOD = dumps(make_message(tracking=Tracking.FAILURE, payload="[[1,2],{}]")).encode()
BAD: dict[str, tuple[bytes, dict[str, object]]] = {
    "another content type": (GOOD, {"content_type": "application/x-python-serialize"}),
    "no JSON": (b"{", {}),
    "no text": (b"\xff\xfe", {}),
    "nested": (b"[" * 200_000, {}),
    "a later format": (b'[99,"x"]', {}),
    "zlib bomb": (zlib.compress(b"[" * (200 << 20)), {"application_headers": {"compression": "application/x-gzip"}}),
    "gzip bomb": (gzip.compress(b" " * (50 << 20)), {"application_headers": {"compression": "application/x-gzip"}}),
    "unknown compression": (GOOD, {"application_headers": {"compression": "rot13"}}),
    "large": (b'"' + b"x" * (16 << 20) + b'"', {}),
}


def put_raw(server: RabbitMQServer, place: Place, body: bytes, **properties: object) -> None:
    """Past everything of ours, as somebody else might; the queue is there, since a worker consumes it."""
    with amqp.Connection(f"127.0.0.1:{server.port}", login_method="PLAIN", confirm_publish=True) as connection:
        message = amqp.Message(body, **({"content_type": "application/json"} | properties))
        connection.channel().basic_publish(message, routing_key=f"{place.prefix}.default", mandatory=True)


def test_bad_messages_are_parked(place: Place, server: RabbitMQServer, history: History) -> None:
    process = place.start()
    load = Load(history)
    load.add(200)
    load.wait_until_done(30, process.log)
    children, before = process.children(), memory(process)
    for body, properties in BAD.values():
        put_raw(server, place, body, **properties)
        load.add(20)
    load.wait_until_done(30, process.log)
    wait_for(lambda: len(place.depot.dead_letters()) == len(BAD), 20, process.log)
    letters = place.depot.dead_letters()
    assert all(letter.reason and len(letter.text) <= 1000 for letter in letters)
    assert process.children() == children
    # What the largest took for a moment is given back.
    wait_for(lambda: memory(process) - before < 50 << 20, 10, lambda: f"{memory(process) - before} bytes too many")
    grown = (memory(process) - before) / (1 << 20)
    print(f"\nit grew by {grown:.1f} MB; {[letter.reason for letter in letters]}")
    assert not crashes()
    # A task that nobody knows is no bad message.
    unknown = make_message(name="shop.tasks.unknown", tracking=Tracking.FAILURE)
    put_raw(server, place, dumps(unknown).encode())
    row = TaskRecord.objects.filter(pk=unknown.id, status=Status.SCHEDULED, reason__startswith="UnknownTask: ")
    wait_for(row.exists, 20, process.log)
