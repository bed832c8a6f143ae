"""F54: whatever is killed, comes late or comes twice, every step of a workflow is recorded once, and so its callback.

``TASKQ_FAULT_ROUNDS`` above its default asks for 1,000 random schedules on each broker, ``TASKQ_FAULT_SEED`` for the
one whose number a failure has named.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from django_taskq.brokers import alias_of, make_depot, outbox, sending
from django_taskq.brokers.base import Broker
from django_taskq.brokers.database import DatabaseBroker
from django_taskq.brokers.database.rows import to_message
from django_taskq.brokers.mixed import MixedBroker
from django_taskq.canvas import chain, group
from django_taskq.conf import get_settings
from django_taskq.exceptions import TaskqError
from django_taskq.maintenance import Death, look_after_workflows, settle_death
from django_taskq.models import TaskAttempt, TaskRecord, Workflow, WorkflowLink
from django_taskq.status import FINAL, Status
from django_taskq.worker.executor import execute
from django_taskq.workflow_result import WorkflowResult
from tests.conformance.memory_depot import MemoryDepot
from tests.conformance.patient import PatientBroker
from tests.depots.workers_bed import Start, at, on_url, shared_server
from tests.faults.conftest import ROUNDS
from tests.faults.random_canvases import Expected, Maker, expect
from tests.faults.simulation import Guard, History, Process, Simulation
from tests.testapp.fault_canvas_tasks import FAIL, GROW, GROW_AND_WRITE, REPLACE, STEP, made, plain
from tests.testapp.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)

SCHEDULES = 1000 if ROUNDS > 2 else 12
# Those on depots take seconds each.
BROKERS = ("database", "redis", "rabbitmq") if ROUNDS > 2 else ("database",)


@pytest.fixture
def make_broker(
    request: pytest.FixtureRequest, worker: Start, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Broker]]:
    """Makes the broker of one more process, on the settings of this test."""
    if request.param == "database":
        yield lambda: DatabaseBroker("default")
        return
    # What was not published at once is due at once.
    for module in (outbox, sending):
        monkeypatch.setattr(module, "GRACE", 0.0)
    kind = PatientBroker if request.param == "rabbitmq" else MixedBroker
    with at(worker, on_url(shared_server(request, request.param).url)):
        yield lambda: kind(
            DatabaseBroker("default"), {"default": make_depot(get_settings().broker("default"))}, alias_of
        )


@pytest.mark.parametrize("make_broker", BROKERS, indirect=True)
def test_random_schedules(make_broker: Callable[[], Broker], request: pytest.FixtureRequest) -> None:
    """Random workflows, random kills: everything is called that has to be, and recorded once."""
    seeds = [int(os.environ["TASKQ_FAULT_SEED"])] if os.environ.get("TASKQ_FAULT_SEED") else range(SCHEDULES)
    total, steps = Counter[str](), 0
    for seed in seeds:
        try:
            faults, count = follow(seed, make_broker)
        except BaseException as error:
            error.add_note(f"TASKQ_FAULT_SEED={seed} on {request.node.callspec.id} and {connection.vendor}")
            raise
        total += faults
        steps += count
    print(f"\n{len(seeds)} schedules, {steps} steps on {request.node.callspec.id} and {connection.vendor}: {total}")


@pytest.mark.parametrize("name", [GROW, GROW_AND_WRITE])
def test_a_success_that_is_recorded_twice(name: str) -> None:
    """As after a commit of which the database said nothing, and as every transactional task's is."""
    # Given a run that adds to its workflow, and has its success recorded
    chain(made(name, "first"), made(STEP, "second")).enqueue()
    process = Process(DatabaseBroker("default"))
    (delivery,) = process.broker.claim("default", 1, process.id, 1)
    outcome = execute(delivery, Guard(process, History()))
    assert not process.broker.settle(process.id, [outcome])
    steps = list(TaskRecord.objects.order_by("pk").values_list("pk", "status"))
    assert len(steps) == 3

    # When it is recorded once more, then that changes nothing
    assert not process.broker.settle(process.id, [outcome])
    assert list(TaskRecord.objects.order_by("pk").values_list("pk", "status")) == steps
    assert Workflow.objects.get().size == 3


def test_a_message_from_before_the_run_was_replaced() -> None:
    """It is as good as the one that was sent since: the run has the value of what took its place, and is not called."""
    canvas, history = chain(made(STEP, "first", how=REPLACE), made(STEP, "second")), History()
    canvas.enqueue()
    before = to_message(TaskRecord.objects.get(status=Status.READY))
    with override_settings(TASKQ={"BROKER_URL": "memory://"}):
        depot = MemoryDepot()
        process = Process(MixedBroker(DatabaseBroker("default"), {"default": depot}, lambda name: "default"))
        for turn in range(1, 20):
            if not TaskRecord.objects.exclude(status__in=FINAL).exists():
                break
            process.broker.relay()
            taken = process.broker.claim("default", 5, process.id, 10 * turn)
            # It is on its way once more, before what is sent once these are recorded.
            depot.publish([before])
            assert not process.broker.settle(process.id, [execute(each, Guard(process, history)) for each in taken])
    assert history.calls() == expect(canvas).calls
    assert set(TaskRecord.objects.values_list("status", flat=True)) == {Status.SUCCESSFUL}


def test_what_goes_on_after_a_step_that_killed_its_processes() -> None:
    """It goes on within a look of the supervisors, though another step of the workflow runs for hours."""
    killing = made(STEP, "killing", how=FAIL).set(on_failure="continue")
    group(made(STEP, "lasting"), chain(killing, made(STEP, "next"))).enqueue()
    broker = DatabaseBroker("default")
    for process in (1, 2, 3):
        deliveries = {"killing" in each.payload: each for each in broker.claim("default", 2, process, 1)}
        settle_death(Death(process, "it was killed", [deliveries[True].claim]))
    (lasting,) = broker.claim("default", 5, 4, 1)
    assert '"lasting"' in lasting.payload
    look_after_workflows()
    (following,) = broker.claim("default", 5, 5, 1)
    assert '"next"' in following.payload


def follow(seed: int, make: Callable[[], Broker]) -> tuple[Counter[str], int]:
    """One schedule; what went wrong in it, and how many steps there were."""
    random = Random(seed)
    empty()
    started: list[tuple[WorkflowResult, Expected]] = []
    for number in range(random.choice((1, 1, 2))):
        canvas = Maker(random, f"{seed}.{number}").workflow()
        result: Any = canvas.enqueue()
        started.append((result, expect(canvas)))
    simulation = Simulation(random, make)
    simulation.run()
    simulation.history.check()
    assert simulation.history.calls() == sum((expected.calls for _, expected in started), Counter())
    for result, expected in started:
        check(result, expected)
    effects = Counter(Effect.objects.values_list("name", flat=True))
    assert effects == sum((expected.effects for _, expected in started), Counter())
    assert not TaskRecord.objects.exclude(status__in=FINAL).exists()
    return simulation.faults, TaskRecord.objects.count()


def check(result: WorkflowResult, expected: Expected) -> None:
    """Its value, or that it has none."""
    result.refresh()
    assert result.is_finished
    if expected.fails:
        with pytest.raises((TaskqError, ValueError)):
            result.get(0)
        assert result.status in ("FAILED", "CANCELLED")
    else:
        assert plain(result.get(0)) == expected.value
        assert result.status == "SUCCESSFUL"


def empty() -> None:
    """Forget the schedule before."""
    for model in (WorkflowLink, TaskAttempt, TaskRecord, Workflow, Effect):
        model.objects.all()._raw_delete("default")
