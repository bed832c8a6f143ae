"""Random canvases, run by the engine on the database and on the memory broker, against their plain meaning.

``TASKQ_CANVAS_CASES`` says how many; more than the usual ones are new ones in every run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, note, settings

from django_taskq import registry, serializers, testing, workflows
from django_taskq.brokers.memory import MemoryBroker
from django_taskq.composing import Canvas
from django_taskq.message import new_ids
from django_taskq.plan import Plan
from django_taskq.status import FINAL, Status
from django_taskq.steps import LinkKind, joined
from django_taskq.worker import executor
from django_taskq.workflow_result import WorkflowResult
from tests.unit.canvas_oracle import FUNCTIONS, call_of, canvases, expect, plain
from tests.unit.making import FakeGuard

USUAL = 60
CASES = int(os.environ.get("TASKQ_CANVAS_CASES", USUAL))
TASKS = {name: registry._tasks[name] for name in FUNCTIONS}
cases = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=CASES == USUAL,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True, scope="module")
def _registered_here_alone() -> Iterator[None]:
    """Other modules' tests look at every registered task."""
    added = TASKS.keys() - registry._tasks.keys()
    registry._tasks.update(TASKS)
    yield
    for name in added:
        registry._tasks.pop(name, None)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How often which task is called with what, as the interpreter writes it."""
    calls = Counter[str]()

    def counting(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[call_of(name, args)] += 1
            return FUNCTIONS[name](*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name, task in TASKS.items():
            patch.setattr(task, "function", counting(name))
        yield calls


@pytest.mark.one_database
@pytest.mark.django_db
@cases
@given(canvas=canvases())
def test_on_the_database(canvas: Canvas) -> None:
    note(f"{canvas!r}")
    expected = expect(canvas)
    with transaction.atomic(), counted() as calls:
        # A handle that knows nothing of the open transaction, in which this test runs its steps as well.
        handle = WorkflowResult(workflows.start(canvas.plan()).id)
        testing.drain()
        assert outcome_of(lambda: handle.get(5), expected.errors) == expected.value
        assert calls == expected.calls
        handle.refresh()
        assert handle.is_finished
        assert handle.status == ("FAILED" if expected.errors else "SUCCESSFUL")
        assert not handle.steps().exclude(status__in=FINAL).exists()
        transaction.set_rollback(True)


@cases
@given(canvas=canvases())
def test_on_the_memory_broker(canvas: Canvas) -> None:
    note(f"{canvas!r}")
    expected = expect(canvas)
    with counted() as calls:
        run = InMemory(canvas.plan())
        run.to_the_end()
    assert outcome_of(run.value, expected.errors) == expected.value
    assert calls == expected.calls
    assert len(run.broker.steps.ended) == len(run.plan.nodes)


def outcome_of(get: Callable[[], Any], errors: frozenset[str]) -> Any:
    """The value; or None once it has raised one of these."""
    if not errors:
        return plain(get())
    with pytest.raises(ValueError) as caught:
        get()
    assert str(caught.value) in errors
    return None


class InMemory:
    """A plan on a broker of its own, and a worker of a few lines."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.broker = MemoryBroker()
        self.id = new_ids(1)[0]
        growth = workflows.grow(plan, self.id, adopter=self.id)
        waiting = {link.child_id for link in growth.links}
        self.broker.enqueue([replace(message, is_waiting=message.id in waiting) for message in growth.messages])
        self.broker.link(growth.links)

    def to_the_end(self) -> None:
        for claim in count(1):
            deliveries = self.broker.claim("default", 1, 1, claim)
            if not deliveries:
                return
            assert not self.broker.settle(1, [executor.execute(deliveries[0], FakeGuard())])

    def value(self) -> Any:
        ended = self.broker.steps.ended
        bad = [
            end
            for link in self.broker.steps.links_of(self.id)
            if (end := ended[link.parent_id]).status is not Status.SUCCESSFUL and link.kind is LinkKind.SUCCESS
        ]
        if bad:
            failed = [end for end in (bad[0], *ended.values()) if end.status is Status.FAILED and end.error]
            raise ValueError(failed[0].error.message)
        return serializers.loads(self.plan.constant or joined(self.broker.steps.values_of(self.id)))
