"""Workflows with real workers: on the database, and with steps on queues that Redis and RabbitMQ keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from django_taskq import chain, chord, control, group
from django_taskq.models import TaskRecord
from django_taskq.status import FINAL
from tests.depots.workers_bed import Place, Start, at, on_url, shared_server
from tests.testapp.canvas_tasks import add, again, alert, becomes, count, echo, fail_after, say, total
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)
TIMEOUT = 30


@pytest.fixture
def mixed(worker: Start, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Three queues: on the database, on Redis and on RabbitMQ."""
    brokers = {
        name: {"URL": shared_server(request, name).url, "PREFIX": f"t{uuid4().hex[:12]}"}
        for name in ("redis", "rabbitmq")
    }
    queues = {"default": {}, "quick": {"broker": "redis"}, "safe": {"broker": "rabbitmq"}}
    with at(worker, {"BROKERS": {"default": {"URL": "database://"}, **brokers}, "QUEUES": queues}) as place:
        yield place


@pytest.fixture(params=["database", "redis", "rabbitmq"])
def one_place(worker: Start, request: pytest.FixtureRequest) -> Iterator[Place]:
    taskq = {} if request.param == "database" else on_url(shared_server(request, request.param).url)
    with at(worker, taskq) as place:
        yield place


def test_steps_on_three_brokers_in_one_workflow(mixed: Place) -> None:
    process = mixed.start("--processes", "2")
    queues = ("default", "quick", "safe")
    header = [
        echo.s(number).set(queue=queues[number % 3]) | add.s(1).set(queue=queues[(number + 1) % 3])
        for number in range(12)
    ]
    result = (chord(header, total.s().set(queue="safe")) | add.s(100).set(queue="quick")).enqueue()
    assert result.get(TIMEOUT) == sum(range(12)) + 12 + 100
    wait_for(lambda: result.refresh() or result.status == "SUCCESSFUL", TIMEOUT, process.log)
    assert {row.queue_name for row in result.steps()} == set(queues)
    assert not TaskRecord.objects.exclude(publish_after=None).exists()


class TestAnywhere:
    def test_all_that_a_workflow_can_do(self, one_place: Place) -> None:
        process = one_place.start("--processes", "2")
        plain = chain(add.s(1, 1), again.s(), add.s(2)).enqueue()
        replaced = (becomes.s("chord") | add.s(3)).enqueue()
        alone = becomes.enqueue("group")
        failing = (group(add.s(1, 1), fail_after.s(0, "no")) | say.s()).on_error(alert.s()).enqueue()
        tolerant = (group(add.s(1, 1), fail_after.s(0, "no"), on_failure="continue") | count.s()).enqueue()
        assert plain.get(TIMEOUT) == 4
        assert replaced.get(TIMEOUT) == 9
        assert alone.get(TIMEOUT) == [2, 4]
        assert tolerant.get(TIMEOUT) == 2
        with pytest.raises(ValueError, match="no"):
            failing.get(TIMEOUT)
        failing.wait(TIMEOUT)
        called = [row for row in failing.steps() if row.name == alert.name]
        assert [row.status for row in called] == ["SUCCESSFUL"], process.log()
        for result in (plain, replaced, tolerant):
            result.wait(TIMEOUT)
            assert result.status == "SUCCESSFUL"

    def test_countdown_of_a_later_step(self, one_place: Place) -> None:
        one_place.start()
        result = chain(echo.s(1), echo.s().set(countdown=1), echo.s()).enqueue()
        assert result.get(TIMEOUT) == 1
        first, second, third = result.steps()
        assert (second.started_at - first.finished_at).total_seconds() > 0.99
        assert third.started_at >= second.finished_at

    def test_cancel_and_resume(self, one_place: Place) -> None:
        result = chain(echo.s(1), echo.s(), echo.s()).enqueue()
        result.cancel()
        one_place.start()
        assert result.resume() == 3
        assert result.get(TIMEOUT) == 1

    def test_one_cancelled_step_ends_what_follows(self, one_place: Place) -> None:
        one_place.start()
        result = chain(echo.s(1).set(countdown=600), echo.s(), echo.s()).enqueue()
        control.cancel(str(result.steps()[0].pk))
        result.wait(TIMEOUT)
        assert result.status == "CANCELLED"

    def test_the_worker_is_killed_at_any_time(self, one_place: Place) -> None:
        """Every step has one end, the callback one run."""
        result = chord([echo.s(number) | add.s(1) for number in range(300)], count.s()).enqueue()
        for done in (30, 200):
            process = one_place.start("--processes", "2")
            wait_for(lambda least=done: ended() >= least, TIMEOUT, process.log)
            process.kill_tree()
        one_place.start("--processes", "2")
        assert result.get(60) == 300
        result.wait(TIMEOUT)
        assert result.progress().successful == 601


def ended() -> int:
    return TaskRecord.objects.filter(status__in=FINAL).count()


def test_burst_ends_with_the_last_step(worker: Callable[..., WorkerProcess]) -> None:
    result = chord([echo.s(number) for number in range(20)], count.s()).then(add.s(1)).enqueue()
    assert worker("--burst", ready=False).wait() == 0
    assert result.get(1) == 21
