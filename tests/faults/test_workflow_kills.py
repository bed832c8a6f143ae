"""F54, F55 with real workers: kill -9 of processes and supervisors while workflows run, on every broker.

By default one round on one broker; with ``TASKQ_FAULT_ROUNDS`` above its default each broker, and more of everything.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from django_taskq.canvas import chain, chord, group
from django_taskq.composing import Canvas
from django_taskq.models import TaskRecord, Workflow
from django_taskq.status import Status
from django_taskq.workflow_result import WorkflowResult
from tests.depots.workers_bed import Place, Start, at, on_url, shared_server
from tests.faults.conftest import ROUNDS
from tests.faults.history import History, assert_no_orphans, assert_registry_is_clean, crashes
from tests.faults.random_canvases import Expected, expect
from tests.testapp.fault_canvas_tasks import DIE_ONCE, STEP, WRITE, made, plain
from tests.testapp.models import Effect
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

IS_WHOLE = ROUNDS > 2
BROKERS = ("database", "redis", "rabbitmq") if IS_WHOLE else ("database",)
WORKFLOWS = 20 if IS_WHOLE else 6
LINKS = 50 if IS_WHOLE else 8
EVERY = 0.5  # seconds between two kills
PATIENCE = 120.0  # seconds; on a busy machine everything takes long
FAST = {"HEARTBEAT_INTERVAL": 0.5, "LEASE_DURATION": 5}


@pytest.fixture
def place(request: pytest.FixtureRequest, worker: Start) -> Iterator[Place]:
    taskq = {} if request.param == "database" else on_url(shared_server(request, request.param).url)
    with at(worker, taskq) as found:
        yield found


def workflow(number: int, path: str) -> Canvas:
    """Chords of 50, chains of 20, and both in each other; what comes last leaves an effect."""

    def step(key: str) -> Canvas:
        return made(STEP, f"{number}.{key}", path=path, seconds=0.01)

    def last(key: str) -> Canvas:
        return made(WRITE, f"{number}.{key}", path=path)

    if number % 3 == 0:
        return chord([step(f"part{each}") for each in range(50)], last("end"))
    if number % 3 == 1:
        return chain(*(step(f"link{each}") for each in range(19)), last("end"))
    lists = [chain(step(f"{each}.first"), group(step(f"{each}.a"), step(f"{each}.b"))) for each in range(5)]
    return chord(lists, last("middle")) | chord([step(f"part{each}") for each in range(10)], last("end"))


def wait_until_all_ended(process: WorkerProcess) -> float:
    """Seconds it took."""
    began = time.monotonic()

    def state() -> str:
        counts = Counter(TaskRecord.objects.values_list("status", flat=True))
        return f"the end of {Workflow.objects.unfinished().count()} workflows, {counts}\n{process.log()}"

    wait_for(lambda: not Workflow.objects.unfinished().exists(), PATIENCE, state, interval=0.05)
    return time.monotonic() - began


def assert_started_again_only_where_killed(history: History, killed: set[int]) -> int:
    """How many starts too many."""
    last: dict[str, int] = {}
    again = 0
    for line in history.lines("start"):
        if line.key in last:
            assert last[line.key] in killed, f"{line} although {last[line.key]} was not killed"
            again += 1
        last[line.key] = line.pid
    return again


@pytest.mark.parametrize("place", BROKERS, indirect=True)
def test_kills_call_nothing_twice(place: Place, history: History, request: pytest.FixtureRequest) -> None:
    process, killed, kills = place.start("--processes", "2", **FAST), set[int](), 0
    started: list[tuple[WorkflowResult, Expected]] = []
    for number in range(WORKFLOWS):
        canvas = workflow(number, history.path)
        result: Any = canvas.enqueue()
        started.append((result, expect(canvas)))

    # When somebody is killed every half second while they run
    while Workflow.objects.unfinished().exists() and kills < 100:
        time.sleep(EVERY * random.uniform(0.5, 1.5))  # not a wait for anything: the rhythm of the kills
        at_work = set(process.children()) & {line.pid for line in history.lines()}
        kills += 1
        if random.random() < 0.3:
            killed.update(process.children())
            process.kill()
            killed.update(line.pid for line in history.lines())
            process = place.start("--processes", "2", ready=False, **FAST)
        elif at_work:
            victim = random.choice(sorted(at_work))
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
    took = wait_until_all_ended(process)

    # Then every workflow has what it is to have, and every callback was called once
    assert set(TaskRecord.objects.values_list("status", flat=True)) == {Status.SUCCESSFUL}
    for result, expected in started:
        assert plain(result.get(0)) == expected.value
    assert TaskRecord.objects.count() == sum(result.size for result, _ in started)
    effects = Counter(Effect.objects.values_list("name", flat=True))
    assert effects == sum((expected.effects for _, expected in started), Counter())
    again = assert_started_again_only_where_killed(history, killed)
    steps = TaskRecord.objects.count()
    where = f"{request.node.callspec.id} and {connection.vendor}"
    print(
        f"\n{kills} kills, {WORKFLOWS} workflows of {steps} steps on {where}: {again} started again, {took:.1f} s after"
    )
    process.wait_ready()
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()


@pytest.mark.parametrize("place", BROKERS, indirect=True)
def test_a_kill_after_each_effect(place: Place, history: History) -> None:
    """A chain whose every link kills its process once it is done, before anybody hears of it."""
    process = place.start("--processes", "2", **FAST)
    keys = [f"{number:02}" for number in range(LINKS)]
    links = chain(*(made(STEP, key, path=history.path, how=DIE_ONCE) for key in keys))
    result: Any = links.enqueue()
    wait_until_all_ended(process)

    assert result.get(0) == expect(links).value
    assert history.counts("end") == dict.fromkeys(keys, 2), "once before the kill, and once after it"
    # No link was started before the one before it had ended for good, and none has a second successor.
    assert [line.key for line in history.lines("start")] == [key for key in keys for _ in range(2)]
    rows = TaskRecord.objects.all()
    assert list(rows.values_list("status", "crashes").distinct()) == [(Status.SUCCESSFUL, 1)]
    assert rows.count() == LINKS
    assert Counter(kind for _, kind in crashes()) == {"WorkerLost": LINKS}
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()
