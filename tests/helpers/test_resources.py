"""Resources and task hooks in tests of a project: eager runs, ``drain()`` and ``testing.resources()``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

from django_taskq import Task, injected, registry, resource, resources, task, testing
from django_taskq.models import TaskRecord
from django_taskq.status import Status

pytestmark = pytest.mark.django_db

EVENTS: list[str] = []


def declared() -> tuple[Any, Any]:
    @resource
    def pool() -> Iterator[str]:
        EVENTS.append("open")
        yield "pool"
        EVENTS.append("close")

    @task(name="helpers.uses")
    def uses(number: int, *, pool: str = injected) -> str:
        EVENTS.append(f"run {number}")
        return f"{number} {pool}"

    return pool, uses


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A task with a resource; both are forgotten after the test."""
    EVENTS.clear()
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))
    monkeypatch.setattr(resources, "_resources", dict(resources._resources))
    return declared()[1]


def test_each_drain_opens_its_own_and_closes_it(uses: Any) -> None:
    for number in (1, 2):
        uses.enqueue(number)
        uses.enqueue(number + 10)
        assert [result.get() for result in testing.drain()] == [f"{number} pool", f"{number + 10} pool"]
    assert EVENTS == ["open", "run 1", "run 11", "close", "open", "run 2", "run 12", "close"]


def test_a_block_has_them_in_common(uses: Any) -> None:
    with testing.resources() as found:
        for number in (1, 2):
            uses.enqueue(number)
            testing.drain()
        assert found["pool"] == "pool"
    assert EVENTS == ["open", "run 1", "run 2", "close"]


def test_what_is_given_stands_in(uses: Any) -> None:
    with testing.resources(pool="fake"):
        uses.enqueue(1)
        assert [result.get() for result in testing.drain()] == ["1 fake"]
    assert EVENTS == ["run 1"]


def test_blocks_nest(uses: Any) -> None:
    with testing.resources(pool="outer"), testing.resources(pool="inner"):
        assert uses(1) == "1 inner"
    assert uses(1, pool="given") == "1 given"


@override_settings(TASKQ={"EAGER": True})
def test_an_eager_run_opens_and_closes_its_own(uses: Any) -> None:
    assert uses.enqueue(1).get() == "1 pool"
    with testing.resources(pool="fake"):
        assert uses.enqueue(2).get() == "2 fake"
    assert EVENTS == ["open", "run 1", "close", "run 2"]


@override_settings(TASKQ={"EAGER": True})
def test_an_eager_run_inside_a_run_shares_its(uses: Any) -> None:
    @task(name="helpers.outer")
    def outer(*, pool: str = injected) -> Any:
        return uses.enqueue(1).get()

    assert outer.enqueue().get() == "1 pool"
    assert EVENTS == ["open", "run 1", "close"]


def test_it_catches_a_resource_that_is_missing(uses: Any) -> None:
    @resource
    def missing() -> Iterator[None]:
        raise OSError("no route")
        yield

    @task(name="helpers.needs_it")
    def needs_it(*, missing: None = injected) -> None: ...

    needs_it.enqueue()
    (result,) = testing.drain()
    assert result.status == Status.SCHEDULED
    assert (
        TaskRecord.objects.get().reason == "ResourceUnavailable: resource missing cannot be opened: OSError: no route"
    )


def test_hooks_of_a_class_are_called(uses: Any) -> None:
    class Noted(Task[..., Any]):
        def after_return(self, context: Any, status: Status, result: Any) -> None:
            EVENTS.append(f"{status} {result}")

    @task(name="helpers.noted", base=Noted)
    def noted(x: int) -> int:
        return x

    noted.enqueue(5)
    testing.drain()
    assert EVENTS == ["SUCCESSFUL 5"]
