"""The hot statements for steps use their indexes, and a join costs no more for what has ended already."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from django_taskq.brokers.database import get_dialect
from django_taskq.brokers.database.step_dialect import Waiting
from django_taskq.message import NO_ROOM, new_ids
from django_taskq.models import TaskRecord, Workflow, WorkflowLink
from django_taskq.steps import Link, LinkKind
from tests.conformance.bed import Bed
from tests.conformance.test_plans import HISTORY, NUMBERS, analyze, forget, history, plans_of
from tests.unit.making import make_message

__all__ = ["history"]  # the fixture

JOIN = 5000


@pytest.fixture(params=["idle", "busy", "never"])
def steps(request: pytest.FixtureRequest, rows: Bed, history: None) -> Callable[..., tuple[list[str], list[str]]]:
    """Makes steps that wait; as many links of others lie about as there are other runs."""
    id, numbers = NUMBERS[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(
            f"""INSERT INTO taskq_link (child_id, position, parent_id, kind, opens, closes, carries)
                SELECT {id}, 0, {id}, 0, 0, 0, {"true" if connection.vendor == "postgresql" else "1"}
                FROM {numbers.replace("%s", str(HISTORY))}"""
        )
    if request.param == "idle":
        analyze_both()
    if request.param == "never":
        forget()

    def make(parents: int, children: int = 1) -> tuple[list[str], list[str]]:
        made = started(rows, parents, children)
        if request.param == "busy":
            analyze_both()
        return made

    return make


def analyze_both() -> None:
    analyze()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE taskq_link")


def started(rows: Bed, parents: int, children: int) -> tuple[list[str], list[str]]:
    """Parents that are ready, and children each of which waits for all of them."""
    workflow_id, ids = new_ids(1)[0], new_ids(parents + children)
    Workflow.objects.create(pk=workflow_id, name="w", size=len(ids), enqueued_at=make_message().enqueued_at)
    rows.broker.enqueue(
        [make_message(id=id, workflow_id=workflow_id, is_waiting=place >= parents) for place, id in enumerate(ids)]
    )
    links = [
        Link(parent, child, position, LinkKind.SUCCESS, 0, 0, True)
        for child in ids[parents:]
        for position, parent in enumerate(ids[:parents])
    ]
    rows.broker.link([*links, Link(ids[-1], workflow_id, 0, LinkKind.SUCCESS, 0, 0, True)])
    return ids[:parents], ids[parents:]


STATEMENTS: dict[str, Callable[[Any, list[str], list[str]], Any]] = {
    "follow": lambda dialect, parents, children: dialect.follow(connection, parents, 0, NO_ROOM),
    "lock_waiting": lambda dialect, parents, children: dialect.lock_waiting(connection, parents),
    "advance": lambda dialect, parents, children: dialect.advance(connection, [Waiting(id, None) for id in children]),
    "doomed": lambda dialect, parents, children: dialect.doomed(connection, parents),
    "parents": lambda dialect, parents, children: dialect.parents(connection, children),
}


# Of many more, reading all of this small table may really be cheaper.
@pytest.mark.parametrize("parents", [1, 20, 200])
@pytest.mark.parametrize("name", STATEMENTS)
def test_goes_by_index(steps: Any, name: str, parents: int) -> None:
    made = steps(parents)
    if name == "follow" and connection.vendor == "sqlite":
        assert STATEMENTS[name](get_dialect("default"), *made).has_others
        return
    plan = plans_of(lambda: STATEMENTS[name](get_dialect("default"), *made))
    assert "Seq Scan on taskq_link" not in plan, plan
    assert "SCAN taskq_link" not in plan, plan


def test_closing_goes_by_index(steps: Any) -> None:
    steps(100)
    TaskRecord.objects.filter(workflow__isnull=False).update(status="SUCCESSFUL", finished_at="2020-01-01T00:00:00Z")
    id = str(Workflow.objects.get().pk)
    found: list[Any] = []
    plan = plans_of(lambda: found.extend(get_dialect("default").close(connection, [id])))
    assert "Seq Scan on taskq_link" not in plan, plan
    assert "SCAN taskq_link" not in plan, plan
    assert found == [(id, "SUCCESSFUL")]


def test_a_join_costs_no_more_for_what_has_ended(rows: Bed) -> None:
    """Each look begins at the link that the one before has ended with."""
    parents, (child,) = started(rows, JOIN, 1)
    dialect = get_dialect("default")

    def look_after(ended: list[str]) -> float:
        TaskRecord.objects.filter(pk__in=ended).update(status="SUCCESSFUL", finished_at="2020-01-01T00:00:00Z")
        best = 10.0
        for _ in range(5):
            began = time.perf_counter()
            waiting = dialect.lock_waiting(connection, ended[-1:])
            assert dialect.advance(connection, waiting) == []
            best = min(best, time.perf_counter() - began)
        return best

    early = look_after(parents[:10])
    for start in range(10, JOIN - 10, 499):
        late = look_after(parents[start : min(start + 499, JOIN - 10)])
    assert TaskRecord.objects.get(pk=child).waits_at == JOIN - 10
    assert late < 5 * early + 0.002
    assert WorkflowLink.objects.filter(child_id=child).count() == JOIN
