"""Coroutines of real workers: the ORM, enqueueing and what surrounds a task work in them as in any task."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.utils import timezone, translation

from django_taskq.result import TaskResult
from tests.faults.history import assert_registry_is_clean
from tests.testapp.models import Effect
from tests.testapp.tasks import add, look_around_on_loop, meet_in_queries, nap
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]


def test_orm_enqueueing_language_and_time_zone(worker: Start) -> None:
    process = worker("--processes", "1", "--coroutines", "5")
    with translation.override("de"), timezone.override("America/New_York"):
        away = look_around_on_loop.enqueue(1)
    home = look_around_on_loop.enqueue(2)
    plain = add.enqueue(1, 1)
    assert away.get(10)[:3] == [away.id, "de", "America/New_York"]
    assert home.get(10)[:3] == [home.id, "en-us", "Europe/Riga"]
    assert plain.get(10) == 2
    assert set(Effect.objects.values_list("name", flat=True)) == {"on the loop 1", "on the loop 2"}
    # What they have enqueued runs, too.
    assert TaskResult(home.get()[3]).get(10) == 4
    process.terminate()
    assert process.wait() == 0
    assert_registry_is_clean()


def test_queries_of_different_runs_meet_on_few_connections(worker: Start) -> None:
    """Each waits in its query until three do: on one thread they would wait for ever, and more than three may not."""
    settings = '{"COROUTINE_CONNECTIONS": 3}'
    worker("--processes", "1", "--coroutines", "30", env={"TASKQ_TEST_SETTINGS": settings})
    results = [meet_in_queries.enqueue(3) for _ in range(30)]
    assert {result.get(30) for result in results} == {3}


def test_a_worker_stops_with_coroutines_that_wait(worker: Start) -> None:
    process = worker("--processes", "1", "--coroutines", "5", "--grace", "0.5")
    wait_for(process.children)
    nap.enqueue(0).get(10)
    results = [look_around_on_loop.using(countdown=0).enqueue(number) for number in range(3)]
    for result in results:
        result.get(10)
    process.terminate()
    assert process.wait() == 0
