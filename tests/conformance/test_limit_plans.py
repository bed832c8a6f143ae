"""The statements for limits use their indexes, whatever lies in the tables and however old their statistics are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from django_taskq.brokers.database import get_dialect
from django_taskq.brokers.database.limit_dialect import Place
from django_taskq.gates import AT_GATE
from django_taskq.message import new_ids
from django_taskq.models import Limit
from tests.conformance.test_plans import NUMBERS, forget, plans_of

pytestmark = pytest.mark.django_db

PERMITS, BATCH = 30_000, 100
BUSY = "task:app.send:a"


@pytest.fixture(params=["old", "new", "none"])
def crowd(request: pytest.FixtureRequest, db: None) -> list[str]:
    """30,000 runs at or past gates: of one key, and of as many keys as there are others. Returns some of their ids.

    The statistics are those of empty tables, of these, or there are none.
    """
    if request.param == "old":
        analyze()
    if request.param == "none":
        forget()
    _, numbers = NUMBERS[connection.vendor]
    id = "('00000000-0000-7000-8000-' || lpad(number::text, 12, '0'))::uuid"
    if connection.vendor == "sqlite":
        id = "'00000000000070008000' || substr('000000000000' || number, -12)"
    with connection.cursor() as cursor:
        cursor.execute(
            f"""INSERT INTO taskq_task (id, name, queue_name, status, payload, enqueued_at, waits_at)
                SELECT {id}, 'app.send', 'default',
                CASE WHEN number % 10 = 0 THEN 'READY' ELSE 'WAITING' END, '[[],{{}}]', CURRENT_TIMESTAMP,
                CASE WHEN number % 10 = 0 THEN NULL ELSE {AT_GATE} END
                FROM {numbers.replace("%s", str(PERMITS))}"""
        )
        cursor.execute(
            f"""INSERT INTO taskq_permit (task_id, key, priority, gates, state) SELECT {id},
                CASE WHEN number % 2 = 0 THEN '{BUSY}' ELSE 'task:app.send:' || number END, 0, '[["task","app.send"]]',
                CASE WHEN number % 10 = 0 THEN 2 WHEN number % 1000 = 1 THEN 0 WHEN number % 1000 = 3 THEN 3 ELSE 1 END
                FROM {numbers.replace("%s", str(PERMITS))}"""
        )
        cursor.execute(
            f"""INSERT INTO taskq_limit (key, base, kind, most, opens_at)
                SELECT 'task:app.send:' || number, 'task:app.send', 'task', 3,
                CASE WHEN number % 100 = 1 THEN number END FROM {numbers.replace("%s", str(PERMITS))}"""
        )
    if request.param == "new":
        analyze()
    return [f"00000000-0000-7000-8000-{number:012}" for number in range(1, 10 * BATCH, 10)]


def analyze() -> None:
    with connection.cursor() as cursor:
        for table in ("taskq_task", "taskq_permit", "taskq_limit"):
            cursor.execute(f"ANALYZE {table}")


def others(count: int = BATCH) -> list[str]:
    return sorted(f"task:app.send:{number}" for number in range(1, 2 * count, 2))


STATEMENTS: dict[str, Callable[[Any, list[str]], Any]] = {
    "has_arrivals": lambda dialect, ids: dialect.has_arrivals(connection),
    "take_arrivals": lambda dialect, ids: dialect.take_arrivals(connection, 10),
    "lock_limits": lambda dialect, ids: dialect.lock_limits(connection, others()),
    "held": lambda dialect, ids: dialect.held(connection, others()),
    "unclaimed": lambda dialect, ids: dialect.unclaimed(connection, others()),
    "pass_on": lambda dialect, ids: dialect.pass_on(connection, [(key, 3) for key in others()]),
    "pass_on one of many": lambda dialect, ids: dialect.pass_on(connection, [(BUSY, 3)]),
    "let_go": lambda dialect, ids: dialect.let_go(connection, list(zip(ids, new_ids(len(ids)), strict=True))),
    "leave": lambda dialect, ids: dialect.leave(connection, ids),
    "claim_behind": lambda dialect, ids: dialect.claim_behind(
        connection, 7, [Place(ids[0], key, "app.send", "default", 10) for key in others()], 1
    ),
    "claim_behind one of many": lambda dialect, ids: dialect.claim_behind(
        connection, 7, [Place(ids[9], BUSY, "app.send", "default", 10)], 1
    ),
    "step_up": lambda dialect, ids: dialect.step_up(connection, 7, others()),
    "drop_stale": lambda dialect, ids: dialect.drop_stale(connection, others()),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_goes_by_index(crowd: list[str], name: str) -> None:
    plan = plans_of(lambda: STATEMENTS[name](get_dialect("default"), crowd))
    for table in ("taskq_permit", "taskq_limit"):
        assert f"Seq Scan on {table}" not in plan, plan
        assert f"SCAN {table}\n" not in f"{plan}\n", plan
    if name == "step_up":
        assert "taskq_permit_next" in plan, plan
    if name.startswith(("pass_on", "claim_behind")):
        assert "taskq_permit_waiting" in plan, plan
        assert "Sort Key: taskq_permit.priority" not in plan, plan
        assert "TEMP B-TREE" not in plan, plan


def test_looking_for_what_opens_reads_no_other_limits(crowd: list[str]) -> None:
    due = Limit.objects.filter(opens_at__lte=500).order_by("opens_at")[:200]
    plan = plans_of(lambda: list(due))
    assert "taskq_limit_opening" in plan, plan
