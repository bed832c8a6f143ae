"""Unique tasks and locks whose queue is kept on a server.

Messages may be older than the arguments of their runs, and whoever may start has a message only once it is handed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings

from django_taskq import Unique, current_task, maintenance, registry
from django_taskq.brokers import get_broker, get_depots
from django_taskq.message import Delivery
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from django_taskq.task import Task
from tests.depots.workers_bed import SERVERS, on_url, shared_server
from tests.unit.making import make_task
from tests.unit.working import claim, run
from tests.waiting import wait_for

pytestmark = [pytest.mark.one_database, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True, params=SERVERS)
def on_a_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))
    with override_settings(TASKQ=on_url(shared_server(request, request.param).url)):
        yield
        get_broker().close()


def make(seen: list[str], policy: str) -> Task[Any, Any]:
    unique = Unique(by=["number"], on_duplicate=policy)
    return make_task(lambda number, text="": seen.append(text), name="noted", unique=unique)


def work(count: int = 1) -> None:
    found: list[Delivery] = []

    def take() -> bool:
        get_broker().relay()
        found.extend(claim())
        return len(found) >= count

    wait_for(take)
    assert run(found) == []


def test_replaced_arguments_are_what_runs() -> None:
    seen: list[str] = []
    task = make(seen, "replace")
    first = task.enqueue(1, "a")
    wait_for(lambda: get_depots()["default"].size("default") == 1)
    assert [task.enqueue(1, text).id for text in "bc"] == [first.id] * 2
    other = task.enqueue(2, "other")
    work(2)
    assert sorted(seen) == ["c", "other"]
    assert [TaskRecord.objects.get(pk=result.id).status for result in (first, other)] == [Status.SUCCESSFUL] * 2


def test_a_message_that_was_published_twice_runs_once() -> None:
    seen: list[str] = []
    task = make(seen, "replace")
    task.enqueue(1, "a")
    task.enqueue(1, "b")
    TaskRecord.objects.update(publish_after="2000-01-01T00:00:00Z")
    assert get_broker().relay() == 1
    work()
    assert (seen, claim()) == (["b"], [])


def test_a_duplicate_is_nowhere_and_a_rolled_back_call_neither() -> None:
    seen: list[str] = []
    task = make(seen, "return")
    with transaction.atomic():
        task.enqueue(1, "a")
        transaction.set_rollback(True)
    assert not task.enqueue(1, "b").is_duplicate
    assert task.enqueue(1, "c").is_duplicate
    work()
    assert (seen, claim()) == (["b"], [])
    assert TaskRecord.objects.count() == 1


def test_the_latest_follows_the_one_that_runs() -> None:
    seen: list[str] = []
    task = make(seen, "latest")
    task.enqueue(1, "a")
    maintenance.tend_limits()
    found: list[Delivery] = []
    wait_for(lambda: get_broker().relay() >= 0 and (found.extend(claim()) or bool(found)))
    for text in "bc":
        task.enqueue(1, text)
    maintenance.tend_limits()
    get_broker().relay()
    assert claim() == []
    assert run(found) == []
    work()
    assert seen == ["a", "c"]


def test_a_lock_that_its_block_frees_is_handed_on_without_a_supervisor() -> None:
    sizes: list[int] = []
    size = get_depots()["default"].size
    follower = make_task(lambda: None, name="follower", lock="x")

    def hold() -> None:
        with current_task.lock("x"):
            follower.enqueue()
            maintenance.tend_limits()
            sizes.append(size("default"))
        wait_for(lambda: size("default") == 1)

    make_task(hold, name="holder").enqueue()
    work()
    assert sizes == [0]
