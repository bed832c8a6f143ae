"""Two connections end the last two parents of a step at the same moment, on PostgreSQL, at any isolation level."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.db.backends.postgresql.psycopg_any import IsolationLevel
from django.db.utils import OperationalError

from django_taskq.brokers.database import DatabaseBroker
from django_taskq.canvas import chord
from django_taskq.conflicts import is_conflict
from django_taskq.message import Action, Delivery, ErrorText, Outcome
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.faults.conftest import ROUNDS
from tests.servers import PostgresServer
from tests.testapp.fault_canvas_tasks import ALERT, STEP, made
from tests.testapp.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)

TIMES = 200 if ROUNDS > 2 else 25
LEVELS = {"READ COMMITTED": IsolationLevel.READ_COMMITTED, "SERIALIZABLE": IsolationLevel.SERIALIZABLE}


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[str]:
    """The isolation level that the project has chosen."""
    options: dict[str, Any] = connection.settings_dict["OPTIONS"]
    options["isolation_level"] = LEVELS[request.param]
    connections.close_all()
    yield request.param
    options.pop("isolation_level")
    connections.close_all()


class Pair:
    """Two threads with a connection each, prepared as those of couriers if they are couriers."""

    def __init__(self, broker: DatabaseBroker, *, are_couriers: bool) -> None:
        self._pool = ThreadPoolExecutor(2)
        self._barrier = Barrier(2, timeout=10)
        if are_couriers:
            self.do(lambda number: broker.prepare())

    def do(self, work: Callable[[int], object]) -> None:
        """``work(0)`` and ``work(1)`` at the same moment."""

        def at_once(number: int) -> None:
            self._barrier.wait()
            work(number)

        list(self._pool.map(at_once, range(2)))

    def close(self) -> None:
        self.do(lambda number: connections.close_all())
        self._pool.shutdown()


@pytest.fixture
def broker() -> DatabaseBroker:
    return DatabaseBroker("default")


@pytest.fixture
def couriers(level: str, broker: DatabaseBroker) -> Iterator[Pair]:
    pair = Pair(broker, are_couriers=True)
    yield pair
    pair.close()


@pytest.fixture
def slots(level: str, broker: DatabaseBroker) -> Iterator[Pair]:
    pair = Pair(broker, are_couriers=False)
    yield pair
    pair.close()


def claim_two(broker: DatabaseBroker, number: int) -> list[Delivery]:
    """Both parents of a new join, each under a process of its own."""
    parents = [made(STEP, f"{number}.{parent}") for parent in range(2)]
    body = made(STEP, f"{number}.body")
    chord(parents, body).on_error(made(ALERT, f"{number}.alert")).enqueue()
    return [broker.claim("default", 1, process, number + 1)[0] for process in (1, 2)]


def outcome_of(delivery: Delivery, place: int) -> Outcome:
    return Outcome(delivery, Action.SUCCESS, 1000.0, 1001.0, str(place))


def assert_goes_on(broker: DatabaseBroker, number: int, name: str) -> list[Any]:
    """This step alone follows, once; its arguments, and it is settled."""
    (delivery,) = broker.claim("default", 10, 3, 10 * number + 1)
    assert delivery.name == name
    assert not broker.settle(3, [outcome_of(delivery, 3)])
    assert not broker.claim("default", 10, 3, 10 * number + 5)
    (args, _) = json.loads(delivery.payload)
    return list(args)


def test_both_succeed(broker: DatabaseBroker, couriers: Pair) -> None:
    for number in range(TIMES):
        deliveries = claim_two(broker, number)
        outcomes = [outcome_of(delivery, place) for place, delivery in enumerate(deliveries)]
        couriers.do(lambda place, outcomes=outcomes: broker.settle(place + 1, [outcomes[place]]))
        assert assert_goes_on(broker, number, STEP)[0] == [0, 1]


@pytest.mark.parametrize("failing", [1, 2])
def test_some_fail(broker: DatabaseBroker, couriers: Pair, failing: int) -> None:
    """The error callback is called once, and the body never."""
    error = ErrorText("builtins.ValueError", "it failed")
    for number in range(TIMES):
        outcomes = [outcome_of(delivery, place) for place, delivery in enumerate(claim_two(broker, number))]
        for outcome in outcomes[:failing]:
            outcome.action, outcome.error = Action.FAILED, error
        couriers.do(lambda place, outcomes=outcomes: broker.settle(place + 1, [outcomes[place]]))
        assert_goes_on(broker, number, ALERT)
    bodies = TaskRecord.objects.filter(payload__contains=".body")
    assert set(bodies.values_list("status", flat=True)) == {Status.CANCELLED}
    assert not TaskRecord.objects.filter(status=Status.WAITING).exists()


def test_within_the_tasks_own_transactions(broker: DatabaseBroker, couriers: Pair, slots: Pair, level: str) -> None:
    """At a high level neither may see the other's end; the couriers, who hear of it next, look once more."""
    for number in range(TIMES):
        outcomes = [outcome_of(delivery, place) for place, delivery in enumerate(claim_two(broker, number))]

        def succeed(place: int, outcomes: list[Outcome] = outcomes) -> None:
            while True:
                try:
                    with transaction.atomic():
                        Effect.objects.create(name=f"of {Effect.objects.count()}")
                        assert not broker.settle(place + 1, [outcomes[place]])
                    break
                except OperationalError as error:
                    if not is_conflict(error):
                        raise
            outcomes[place].is_recorded = True

        slots.do(succeed)
        couriers.do(lambda place, outcomes=outcomes: broker.settle(place + 1, [outcomes[place]]))
        assert assert_goes_on(broker, number, STEP)[0] == [0, 1]
    assert Effect.objects.count() == 2 * TIMES
