"""Workers on a Redis that is killed, emptied, told to forget its scripts, cut off from them, or fed with rubbish."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from django_taskq.envelope import dumps
from django_taskq.message import Tracking, new_ids
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.conftest import find
from tests.depots.workers_bed import Place, Start, at, memory, on_url
from tests.faults.conftest import ROUNDS
from tests.faults.history import History, crashes, wait_until_finished
from tests.faults.loads import Load, assert_empty, resumed_after
from tests.servers import RedisServer
from tests.testapp.tasks import note
from tests.unit.making import make_message
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


@contextmanager
def on_own(worker: Start, config: pytest.Config, settings: dict[str, str]) -> Iterator[tuple[Place, RedisServer]]:
    """A place on a Redis that nobody else uses."""
    find(RedisServer, config)
    with RedisServer(settings) as server, at(worker, on_url(server.url)) as place:
        yield place, server


@pytest.fixture
def place(redis_server: RedisServer, worker: Start) -> Iterator[Place]:
    with at(worker, on_url(redis_server.url)) as found:
        yield found


def kill_and_start(server: RedisServer) -> float:
    """Returns when it answers again, on the clock of the history."""
    server.kill(signal.SIGKILL)
    wait_for(lambda: not server.is_running)
    server.start()
    return time.monotonic()


def test_a_durable_server_is_killed(worker: Start, pytestconfig: pytest.Config, history: History) -> None:
    with on_own(worker, pytestconfig, RedisServer.DURABLE) as (place, server):
        load = Load(history)
        process = place.start("--processes", "2")
        children = process.children()
        took = []
        for _ in range(ROUNDS):
            done = history.count("end")
            load.add(800, 0.005)
            wait_for(lambda done=done: history.count("end") > done + 50, 30, process.log)
            answers_at = kill_and_start(server)
            took.append(resumed_after(history, answers_at + 0.3, 10, process.log))
        load.wait_until_done(60, process.log)
        repeated = load.assert_done()
        print(f"\n{ROUNDS} kills of Redis, {len(load.keys)} runs: resumed after {took} s, {repeated} started again")
        assert process.children() == children
        assert not crashes()
        process.terminate()
        assert process.wait() == 0
        assert_empty(place.depot)


def test_a_server_comes_back_empty(worker: Start, pytestconfig: pytest.Config, history: History) -> None:
    """It keeps nothing on disk: what has a row is found and published again, the rest is gone, as was warned."""
    with on_own(worker, pytestconfig, {}) as (place, server):
        load = Load(history)
        process = place.start("--processes", "2", env={"TASKQ_TEST_LOST_INTERVAL": "1"})
        assert "keeps nothing" in process.log()
        load.add(1000, 0.005)
        history.wait_for("end", count=50)
        answers_at = kill_and_start(server)
        wait_for(lambda: "has lost runs of queue 'default'" in process.log(), 30, process.log)
        took = resumed_after(history, answers_at + 0.3, 30, process.log)
        wait_until_finished()
        ended = set(history.counts("end"))
        assert set(load.tracked) <= ended
        lost = len(load.untracked) - len(ended & set(load.untracked))
        print(f"\nresumed after {took} s; of {len(load.untracked)} runs without a row {lost} are gone")
        load.untracked = [key for key in load.untracked if key in ended]
        load.assert_done()
        # And it is served as before.
        load.add(50)
        load.wait_until_done(20, process.log)


@contextmanager
def again_and_again(server: RedisServer, pause: float, *command: str) -> Iterator[list[int]]:
    """Have the server do this in the background until the block ends; counts how often."""
    over, count = threading.Event(), [0]

    def run() -> None:
        with server.client() as client:
            while not over.wait(pause):
                client.execute_command(*command)
                count[0] += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield count
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("command", "pause"),
    [(("SCRIPT", "FLUSH"), 0.02), (("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"), 0.2)],
    ids=["scripts", "connections"],
)
def test_what_is_cut_under_load_is_made_again(
    place: Place, redis_server: RedisServer, history: History, command: tuple[str, ...], pause: float
) -> None:
    load = Load(history)
    process = place.start("--processes", "2")
    with again_and_again(redis_server, pause, *command) as count:
        # Nobody who enqueues is told of an error.
        for _ in range(20):
            load.add(40, 0.002)
            history.wait_for("end", count=len(load.keys) // 2)
        for number in range(100):
            note.enqueue(history.path, f"single{number}")
            load.tracked.append(f"single{number}")
        load.wait_until_done(60, process.log)
        assert count[0] > 5
    repeated = load.assert_done()
    print(f"\n{count[0]} times {' '.join(command[:2])}, {len(load.keys)} runs: {repeated} started again")
    assert not crashes()
    assert len(process.children()) == 2
    process.terminate()
    assert process.wait() == 0
    assert_empty(place.depot)


def put_raw(server: RedisServer, place: Place, id: str, text: bytes) -> None:
    """Past everything of ours, as somebody else might."""
    start = f"{{{place.prefix}:default}}:"
    with server.client() as client:
        client.hset(f"{start}messages", id, text)
        client.zadd(f"{start}ready", {id: 0})


BAD: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b".+000{",
    "no text": b".+000\xff\xfe",
    "nested": b".+000" + b"[" * 200_000,
    "a later format": b'.+000[99,"x"]',
    "wrong types": b'.+000[1,"x",2,3,4,5,6,7,8,9,10,11,12]',
    "large": b'.+000"' + b"x" * (16 << 20) + b'"',
}


def test_bad_messages_are_parked(place: Place, redis_server: RedisServer, history: History) -> None:
    process = place.start()
    load = Load(history)
    load.add(200)
    load.wait_until_done(30, process.log)
    children, before = process.children(), memory(process)
    bad: dict[str, str] = {}
    for what, text in BAD.items():
        (bad[what],) = new_ids(1)
        put_raw(redis_server, place, bad[what], text)
        load.add(20)
    load.wait_until_done(30, process.log)

    def parked() -> dict[str, Any]:
        return {letter.id: letter for letter in place.depot.dead_letters()}

    wait_for(lambda: set(parked()) == set(bad.values()), 20, lambda: f"{parked()}\n{process.log()}")
    assert all(letter.reason for letter in parked().values())
    assert max(len(letter.text) for letter in parked().values()) <= 2000
    assert process.children() == children
    # What the largest took for a moment is given back.
    wait_for(lambda: memory(process) - before < 50 << 20, 10, lambda: f"{memory(process) - before} bytes too many")
    grown = (memory(process) - before) / (1 << 20)
    print(f"\nit grew by {grown:.1f} MB; {[letter.reason for letter in parked().values()]}")
    assert not crashes()


def test_an_unknown_task_waits_for_a_worker_that_knows_it(
    place: Place, redis_server: RedisServer, history: History
) -> None:
    process = place.start()
    unknown = make_message(name="shop.tasks.unknown", tracking=Tracking.FAILURE)
    put_raw(redis_server, place, unknown.id, f".+000{dumps(unknown)}".encode())
    row = TaskRecord.objects.filter(pk=unknown.id, status=Status.SCHEDULED, reason__startswith="UnknownTask: ")
    wait_for(row.exists, 20, process.log)
    load = Load(history)
    load.add(20)
    wait_for(lambda: history.count("end") == 20, 20, process.log)
    assert row.get().attempt == 1
