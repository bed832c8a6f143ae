"""Whatever the server: kill -9 of everything that works, runs longer than a lease, and networks that swallow all."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from django.db import connections
from django.utils import timezone

from django_taskq.exceptions import BrokerUnavailable, EnqueueUncertain
from django_taskq.models import PeriodicTask, ScheduleTick, TaskRecord
from django_taskq.models.schedule import Decision
from django_taskq.status import Status
from tests.depots.tasks import note_late
from tests.depots.workers_bed import SERVERS, BlackHole, Place, Start, at, on_url, shared_server
from tests.faults.conftest import ROUNDS
from tests.faults.history import (
    History,
    assert_no_orphans,
    assert_registry_is_clean,
    crashes,
    wait_until_finished,
)
from tests.faults.loads import Load, assert_empty, resumed_after
from tests.servers import PostgresServer, RedisServer
from tests.testapp.tasks import let_go, note
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = int(os.environ.get("TASKQ_SCHEDULE_SECONDS", "6"))
BLACKED_OUT = 60.0 if ROUNDS > 2 else 4.0
RESUMED = {"redis": 10, "rabbitmq": 15}


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


@pytest.fixture(params=SERVERS)
def server_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(request: pytest.FixtureRequest, worker: Start, server_name: str) -> Iterator[Place]:
    with at(worker, on_url(shared_server(request, server_name).url)) as found:
        yield found


def at_work(process: WorkerProcess, history: History) -> list[int]:
    return sorted(set(process.children()) & {line.pid for line in history.lines()})


@pytest.mark.one_database
@pytest.mark.parametrize("what", ["child", pytest.param("supervisor", marks=pytest.mark.whole), "everything"])
def test_kills_lose_nothing(place: Place, history: History, what: str) -> None:
    load, killed = Load(history), set[int]()
    process = place.start("--processes", "2", ready=False)
    for _ in range(ROUNDS):
        # Given a worker at any point of its work, or of its start
        began = history.count("start")
        load.add(200)
        goal = began + random.random() * (len(load.keys) - began)
        wait_for(lambda goal=goal: history.count("start") >= goal, 60, process.log, interval=0.005)
        time.sleep(random.uniform(0, 0.02))  # not a wait for anything: the point at which to strike
        if what == "child":
            # One that has got to work: processes that never do end the worker, after five of them.
            victim = random.choice(wait_for(partial(at_work, process, history), 20, process.log))
            killed.add(victim)
            os.kill(victim, signal.SIGKILL)
            continue
        killed.update(process.children())
        process.kill() if what == "supervisor" else process.kill_tree()
        killed.update(line.pid for line in history.lines())
        process = place.start("--processes", "2", ready=False)
    load.wait_until_done(60, process.log)
    repeated = load.assert_done(killed=killed)
    print(f"\n{ROUNDS} kills of {what}, {len(load.keys)} runs: {repeated} started again, none lost")
    process.wait_ready()
    assert_empty(place.depot)
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()


@pytest.mark.one_database
def test_runs_of_many_leases_start_once(place: Place, history: History) -> None:
    """Ten leases long, with a row and without, and due in three; a second worker looks on for whatever looks dead."""
    lease = {"HEARTBEAT_INTERVAL": 0.5, "LEASE_DURATION": 1}
    workers = [place.start("--processes", "2", **lease) for _ in range(2)]
    results = [note.enqueue(history.path, "tracked", 10), note_late.enqueue(history.path, "untracked", 10)]
    due = note.using(countdown=3).enqueue(history.path, "due")
    assert due.get(20) is None
    for result in results:
        assert result.get(30) in (None, "untracked")
    assert history.counts("start") == {"tracked": 1, "untracked": 1, "due": 1}
    assert not crashes()
    for process in workers:
        process.terminate()
        assert process.wait() == 0
    assert_empty(place.depot)


@pytest.mark.one_database
def test_a_network_that_swallows_everything(
    request: pytest.FixtureRequest, worker: Start, history: History, server_name: str
) -> None:
    server = shared_server(request, server_name)
    with (
        BlackHole(server.port) as hole,
        at(worker, on_url(server.url.replace(str(server.port), str(hole.port)))) as place,
    ):
        load = Load(history)
        process = place.start("--processes", "2")
        load.add(500, 0.01)
        history.wait_for("end", count=50)

        # When nothing passes any more, then an enqueue takes no longer than it may
        hole.hold()
        until = time.monotonic() + BLACKED_OUT
        uncertain, refused = [], 0
        for number in range(3):
            before = time.monotonic()
            with pytest.raises((EnqueueUncertain, BrokerUnavailable)) as caught:
                note.enqueue(history.path, f"meanwhile{number}")
            took = time.monotonic() - before
            assert took < 2.5, f"call {number + 1} took {took:.2f} s"
            if isinstance(caught.value, EnqueueUncertain):
                uncertain.append(f"meanwhile{number}")
            else:
                refused += 1
        time.sleep(max(0.0, until - time.monotonic()))  # the time of the case, not a wait
        hole.release()
        released = time.monotonic()

        # And the work goes on soon after; what may have been enqueued was, once
        took = resumed_after(history, released, RESUMED[server_name], process.log)
        load.tracked += uncertain
        # What ended while the server could not be told is started again there: the end of its connection gave it back.
        may_repeat = load.untracked if server_name == "rabbitmq" else ()
        load.wait_until_done(60, process.log)
        cancelled = TaskRecord.objects.filter(status=Status.CANCELLED)
        assert cancelled.count() == refused
        cancelled.delete()
        repeated = load.assert_done(may_repeat=may_repeat)
        print(f"\nresumed {took} s after {BLACKED_OUT:.0f} s; {repeated} runs without a row started again")
        assert len(process.children()) == 2
        assert not crashes()
        process.terminate()
        assert process.wait() == 0
        assert_empty(place.depot)


def test_the_database_is_killed_and_the_depot_lives(
    postgres_server: PostgresServer, redis_server: RedisServer, worker: Start, history: History
) -> None:
    """The rows come back with the server; no process died, so there is nothing that may start again."""
    with at(worker, on_url(redis_server.url)) as place:
        # Given long runs, with a row and without, and short ones beside them
        load = Load(history)
        process = place.start("--processes", "2", "--threads", "2")
        load.add(2, 20, "until-told")
        long = sorted(load.keys)
        for key in long:
            history.wait_for("start", key)
        children = process.children()
        for _ in range(40):  # a few of each kind in turn, so that both are in hand whenever it dies
            load.add(20, 0.01)
        history.wait_for("end", count=100)

        # When the server dies, and the long ones end before it is back
        connections.close_all()
        postgres_server.kill()
        for pid in children:
            let_go(history.path, pid)
        for key in long:
            history.wait_for("end", key)
        wait_for(lambda: not postgres_server.is_running)
        assert history.count("end") < len(load.keys)
        postgres_server.start()

        # Then all of it is in the record, once
        load.wait_until_done(30, process.log)
        assert load.assert_done() == 0
        assert not crashes()
        assert process.children() == children
        assert_empty(place.depot)
        process.terminate()
        assert process.wait() == 0
        assert_registry_is_clean()


@pytest.mark.one_database
def test_one_run_for_each_due_time(place: Place, history: History) -> None:
    """Three supervisors on a schedule of one second; the one that schedules is killed in the middle."""
    entry = {"task": "tests.testapp.tasks.note", "schedule": "every 1 second", "args": [history.path, "tick"]}
    team = [place.start(SCHEDULE={"tick": entry}) for _ in range(3)]
    began = time.monotonic()
    history.wait_for("start", "tick", count=2)
    time.sleep(max(0.0, SECONDS / 2 - (time.monotonic() - began)))
    team[0].kill_tree()
    time.sleep(max(1.0, SECONDS - (time.monotonic() - began)))
    ended = timezone.now()
    PeriodicTask.objects.update(is_enabled=False)
    wait_until_finished()

    dues = list(ScheduleTick.objects.order_by("due_at").values_list("due_at", flat=True))
    assert dues == [dues[0] + timedelta(seconds=number) for number in range(len(dues))]
    assert ended - dues[-1] < timedelta(seconds=12), "whoever is next waits for the lease of the one before"
    assert set(ScheduleTick.objects.values_list("decision", flat=True)) == {Decision.ENQUEUED}
    assert TaskRecord.objects.filter(status=Status.SUCCESSFUL).count() == len(dues)
    starts = history.count("start", "tick")
    print(f"\n{len(dues)} due times, {starts} starts")
    assert len(dues) <= starts <= len(dues) + 1  # the one that the kill may have cut
