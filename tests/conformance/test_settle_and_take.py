"""Steps that are claimed in the transaction which recorded the step before them: only what would be next anyhow."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from django_taskq import chain, group
from django_taskq.brokers import get_rows
from django_taskq.message import Action, Delivery, Outcome, Room
from django_taskq.models import Queue, TaskRecord
from django_taskq.status import Status
from django_taskq.worker import executor
from django_taskq.worker.eager import _Guard
from tests.testapp.canvas_tasks import add, echo, fail, show

pytestmark = pytest.mark.django_db(transaction=True)
PROCESS = 7
QUEUES = ("default",)


@pytest.fixture(autouse=True)
def takes(db: None) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("on SQLite recording and claiming are two transactions, so nothing is taken with the record")


def claim(limit: int = 10) -> list[Delivery]:
    return get_rows().claim("default", limit, PROCESS, 1)


def settle(deliveries: list[Delivery], room: Room) -> list[Delivery]:
    outcomes = [executor.execute(delivery, _Guard()) for delivery in deliveries]
    lost, taken = get_rows().settle_and_take(PROCESS, outcomes, room)
    assert not lost
    return taken


def statuses(result: Any) -> list[str]:
    return list(result.steps().values_list("status", flat=True))


def test_the_next_link_is_claimed_with_its_value() -> None:
    result = chain(add.s(1, 2), add.s(3), echo.s()).enqueue()
    (second,) = settle(claim(), Room(100, 5, QUEUES))
    row = TaskRecord.objects.get(pk=second.id)
    assert (row.status, row.worker_id, row.claim) == (Status.RUNNING, PROCESS, 100)
    assert second.payload == "[[3,3],{}]"
    assert (second.claim, second.name, second.attempt) == (100, "canvas.add", 1)
    (third,) = settle([second], Room(101, 5, QUEUES))
    assert settle([third], Room(102, 5, QUEUES)) == []
    assert result.get(1) == 6
    assert result.is_finished


def test_it_is_the_delivery_that_a_claim_would_have_made() -> None:
    chain(add.s(1, 2), show.s(3, word="x").set(priority=5, expires=600)).enqueue()
    chain(add.s(1, 2), show.s(3, word="x").set(priority=5)).enqueue()
    taken = settle(claim(), Room(100, 5, QUEUES))
    assert len(taken) == 1  # what expires is counted from when it is ready, which takes a statement more
    get_rows().release(PROCESS, [100])
    claimed = {delivery.id: delivery for delivery in get_rows().claim("default", 5, PROCESS, 200)}
    assert claimed[taken[0].id]._replace(claim=100) == taken[0]


def test_no_more_than_there_is_room_for_in_the_order_of_a_claim() -> None:
    group(chain(echo.s(n), echo.s().set(priority=n)) for n in range(5)).enqueue()
    taken = settle(claim(), Room(100, 2, QUEUES))
    assert [(delivery.claim, delivery.payload) for delivery in taken] == [(100, "[[4],{}]"), (101, "[[3],{}]")]
    assert TaskRecord.objects.filter(status=Status.READY).count() == 3


@pytest.mark.parametrize("priority", [0, 1])
def test_what_waits_in_front_goes_first(priority: int) -> None:
    older = echo.using(priority=priority).enqueue("older") if priority == 0 else None
    result = chain(echo.s(1), echo.s()).enqueue()
    if older is None:
        echo.using(priority=priority).enqueue("more urgent")
    (first,) = [delivery for delivery in claim() if delivery.payload == "[[1],{}]"]
    get_rows().release(PROCESS, [n for n in range(1, 11) if n != first.claim])
    assert settle([first], Room(100, 5, QUEUES)) == []
    assert statuses(result) == [Status.SUCCESSFUL, Status.READY]


def test_what_waits_behind_does_not_matter() -> None:
    chain(echo.s(1), echo.s()).enqueue()
    (first,) = claim()
    echo.enqueue("newer")
    echo.using(priority=-5).enqueue("less urgent")
    assert len(settle([first], Room(100, 5, QUEUES))) == 1


@pytest.mark.parametrize("room", [Room(100, 0, QUEUES), Room(100, 5, ()), Room(100, 5, ("other",))])
def test_without_room_it_waits_for_a_claim(room: Room) -> None:
    result = chain(echo.s(1), echo.s()).enqueue()
    assert settle(claim(), room) == []
    assert statuses(result) == [Status.SUCCESSFUL, Status.READY]


def test_a_paused_queue_gives_nothing() -> None:
    result = chain(echo.s(1), echo.s()).enqueue()
    first = claim()
    Queue.objects.create(name="default", paused_at=timezone.now())
    assert settle(first, Room(100, 5, QUEUES)) == []
    assert statuses(result)[1] == Status.READY


@pytest.mark.parametrize("options", [{"countdown": 60}, {"run_after": timezone.now() + timedelta(hours=1)}])
def test_what_has_a_time_of_its_own_waits_for_it(options: dict[str, Any]) -> None:
    result = chain(echo.s(1), echo.s().set(**options)).enqueue()
    assert settle(claim(), Room(100, 5, QUEUES)) == []
    assert statuses(result)[1] == Status.SCHEDULED


def test_a_join_is_never_taken() -> None:
    result = chain(group(echo.s(1), echo.s(2)), echo.s()).enqueue()
    assert settle(claim(), Room(100, 5, QUEUES)) == []
    assert statuses(result)[-1] == Status.READY


def test_nothing_follows_a_failure() -> None:
    result = chain(fail.s("text"), echo.s()).enqueue()
    assert settle(claim(), Room(100, 5, QUEUES)) == []
    assert statuses(result) == [Status.FAILED, Status.CANCELLED]


def test_what_was_taken_by_a_record_that_is_repeated_is_given_back_by_its_number() -> None:
    """The courier does so when it does not know whether a commit has come through."""
    result = chain(echo.s(1), echo.s()).enqueue()
    (first,) = claim()
    outcome = Outcome(first, Action.SUCCESS, 1.0, 2.0, "1")
    assert len(get_rows().settle_and_take(PROCESS, [outcome], Room(100, 5, QUEUES))[1]) == 1
    assert get_rows().settle_and_take(PROCESS, [outcome], Room(105, 5, QUEUES)) == ([], [])
    assert get_rows().release(PROCESS, list(range(100, 105))) == 1
    assert statuses(result)[1] == Status.READY
