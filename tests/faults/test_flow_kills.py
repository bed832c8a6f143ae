"""Limits in real workers: under kill -9, at a rate, and with many keys, on every broker.

The short forms are for every run of the suite. With ``TASKQ_TEST_WHOLE`` they have the sizes that are promised.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import count

import pytest
from django.db import connection

from django_taskq.models import Permit, TaskRecord
from django_taskq.status import Status
from tests.depots.workers_bed import Place, Start, at, on_url, shared_server
from tests.faults.history import History, assert_no_orphans, assert_registry_is_clean, wait_until_finished
from tests.faults.limited.tasks import note_at_a_rate, note_of_tenant, note_one_of_three
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

IS_WHOLE = bool(os.environ.get("TASKQ_TEST_WHOLE"))
MOST = 3
CONTENDERS, SECONDS, KILLS, EVERY = (1000, 0.06, 20, 2.0) if IS_WHOLE else (120, 0.08, 2, 1.0)
RATE, RATE_SECONDS, TOLERANCE = 100, *((60, 0.02) if IS_WHOLE else (3, 0.1))
KEYS, WAITING, ASKED = (10_000, 100_000, 50) if IS_WHOLE else (300, 3000, 10)
PATIENCE = 180.0  # seconds; on a busy machine everything takes long
FAST = {"HEARTBEAT_INTERVAL": 0.5, "LEASE_DURATION": 5}
DEPOTS = ("redis", "rabbitmq") if IS_WHOLE else ("redis",)
# Several at a time in a process, or one after the other: those share a place of the limit (following.py).
TOGETHER, SINGLY = ("--processes", "2", "--threads", "3"), ("--processes", "4")
PLACES = ["database", *(pytest.param(name, marks=pytest.mark.one_database) for name in DEPOTS)]


@pytest.fixture
def place(request: pytest.FixtureRequest, worker: Start) -> Iterator[Place]:
    taskq = {} if request.param == "database" else on_url(shared_server(request, request.param).url)
    with at(worker, taskq) as found:
        yield found


def start(place: Place, *arguments: str, ready: bool = True) -> WorkerProcess:
    env = {"DJANGO_SETTINGS_MODULE": "tests.faults.limited_settings"}
    return place.start(*arguments, ready=ready, env=env, **FAST)


def stop(process: WorkerProcess) -> None:
    process.wait_ready()
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()


def live_at_once(history: History, killed_at: dict[int, float]) -> list[tuple[float, int]]:
    """How many were running, from each moment at which that changed; what was killed ran until then."""
    changes: list[tuple[float, int]] = []
    running = dict[tuple[str, int], float]()
    for line in sorted(history.lines(), key=lambda line: line.at):
        changes.append((line.at, 1 if line.what == "start" else -1))
        if line.what == "start":
            running[line.key, line.pid] = line.at
        else:
            del running[line.key, line.pid]
    changes += [(killed_at[pid], -1) for _, pid in running]
    total, found = 0, []
    for moment, change in sorted(changes):
        total += change
        found.append((moment, total))
    return found


@pytest.mark.parametrize("arguments", [pytest.param(TOGETHER, id="together"), pytest.param(SINGLY, id="singly")])
@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_kills_neither_exceed_a_limit_nor_lose_of_it(
    place: Place, history: History, arguments: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    process, killed_at, kills = start(place, *arguments), dict[int, float](), 0
    keys = [str(number) for number in range(CONTENDERS)]
    note_one_of_three.enqueue_many([((history.path, key, SECONDS), {}) for key in keys])

    # When somebody is killed every now and then while they run
    struck = time.monotonic()
    while history.count("end") < CONTENDERS * 0.7 and kills < KILLS:
        time.sleep(EVERY * random.uniform(0.8, 1.2))  # not a wait for anything: the rhythm of the kills
        at_work = sorted(set(process.children()) & {line.pid for line in history.lines()})
        if not at_work:
            continue
        struck, kills = time.monotonic(), kills + 1
        if kills % 4 == 3:
            killed_at.update(dict.fromkeys(process.children(), struck))
            process.kill_tree()
            process = start(place, *arguments, ready=False)
        else:
            victim = random.choice(at_work)
            killed_at[victim] = struck
            os.kill(victim, signal.SIGKILL)
    wait_until_finished(PATIENCE)

    # Then there were never more than there may be, and soon after the last of them as many as there may be
    assert set(history.counts("end")) == set(keys)
    assert set(TaskRecord.objects.values_list("status", flat=True)) == {Status.SUCCESSFUL}
    live = live_at_once(history, killed_at)
    assert max(total for _, total in live) == MOST
    full = [moment for moment, total in live if total == MOST and moment > struck]
    last = max(line.at for line in history.lines("start"))
    took = min(full) - struck if full else last - struck
    starts = history.count("start") - CONTENDERS
    where = f"{request.node.callspec.id} and {connection.vendor}"
    print(f"\n{kills} kills, {CONTENDERS} contenders on {where}: {starts} started again, all places taken {took:.1f} s")
    assert kills
    assert took < 15
    assert not Permit.objects.exists()
    stop(process)


@pytest.mark.parametrize("place", PLACES if IS_WHOLE else PLACES[:1], indirect=True)
def test_a_rate(place: Place, history: History, request: pytest.FixtureRequest) -> None:
    process = start(place, "--processes", "4")
    wait_for(lambda: len(process.children()) == 4, 20, process.log)
    runs = int(RATE * (RATE_SECONDS + 2))
    note_at_a_rate.enqueue_many([((history.path, str(number)), {}) for number in range(runs)])
    first = history.wait_for("start").at
    wait_for(lambda: time.monotonic() > first + RATE_SECONDS + 0.5, RATE_SECONDS + 5, interval=0.1)

    starts = sorted(line.at for line in history.lines("start"))
    within = sum(moment <= first + RATE_SECONDS for moment in starts)
    most = {span: most_in(starts, span) for span in (0.01, 0.1, 1.0)}
    where = f"{request.node.callspec.id} and {connection.vendor}"
    print(f"\n{within} starts in {RATE_SECONDS} s on {where}; at most {most} in so many seconds")
    assert abs(within - RATE * RATE_SECONDS) <= TOLERANCE * RATE * RATE_SECONDS + 10
    # A tenth of a second may come at once, and what a look was late for, a quarter of one at most, besides.
    assert most[1.0] <= RATE * (1.0 + 0.1 + 0.25)
    process.kill_tree()


def most_in(starts: list[float], span: float) -> int:
    """The most starts in any window of this length."""
    most, begin = 0, 0
    for end, moment in enumerate(starts):
        while starts[begin] < moment - span:
            begin += 1
        most = max(most, end - begin + 1)
    return most


@pytest.mark.parametrize("place", PLACES[:2] if IS_WHOLE else PLACES[:1], indirect=True)
def test_a_run_of_another_key_starts_at_once(place: Place, history: History, request: pytest.FixtureRequest) -> None:
    # Given as many keys, one of them with a crowd that waits
    process = start(place, "--processes", "2")
    numbers = count()
    for some in range(0, WAITING, 10_000):
        crowd = range(some, min(some + 10_000, WAITING))
        note_of_tenant.enqueue_many([((history.path, "much", f"much{next(numbers)}", 0.02), {}) for _ in crowd])
    tenants = [f"t{number}" for number in range(KEYS)]
    for begin in range(0, KEYS, 1000):
        calls: list[tuple[tuple[str, str, str], dict[str, object]]] = [
            ((history.path, tenant, tenant), {}) for tenant in tenants[begin : begin + 1000]
        ]
        note_of_tenant.enqueue_many(calls)
    wait_for(lambda: set(history.counts("end")) >= set(tenants), PATIENCE, process.log, interval=0.5)

    # When runs of others come one by one
    took = []
    for number in range(ASKED):
        tenant = random.choice(tenants) if number % 2 else f"new{number}"
        began = time.monotonic()
        note_of_tenant.enqueue(history.path, tenant, f"asked{number}")
        took.append(history.wait_for("start", f"asked{number}").at - began)

    # Then none of them waits for the crowd
    left = TaskRecord.objects.filter(status=Status.WAITING).count()
    where = f"{request.node.callspec.id} and {connection.vendor}"
    print(f"\n{KEYS} keys, {left} waiting for one of them, on {where}: others took {max(took):.3f} s at most")
    assert left > WAITING / 3
    assert max(took) < 0.5
    live = defaultdict[str, int](int)
    for line in sorted(history.lines(), key=lambda line: line.at):
        if line.key.startswith("much"):
            live["much"] += 1 if line.what == "start" else -1
            assert live["much"] <= 1
    process.kill_tree()


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_a_burst_ends_with_the_last_of_those_that_wait_for_each_other(place: Place, history: History) -> None:
    note_one_of_three.enqueue_many([((history.path, str(number), 0.0), {}) for number in range(200)])
    process = start(place, "--processes", "2", "--burst", ready=False)
    assert process.wait(60) == 0
    assert history.count("end") == 200
    assert not TaskRecord.objects.exclude(status=Status.SUCCESSFUL).exists()


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_who_may_start_does_so_at_once_in_an_idle_worker(place: Place, history: History) -> None:
    process = start(place, "--processes", "1")
    took = []
    for number in range(7):
        began = time.monotonic()
        note_of_tenant.enqueue(history.path, "one", str(number))
        took.append(history.wait_for("start", str(number)).at - began)
    # A supervisor that only looked now and then would take half a second on the average.
    assert sorted(took)[len(took) // 2] < 0.3
    stop(process)
