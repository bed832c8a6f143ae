"""The hot statements use their indexes, whatever lies in the table and however old its statistics are."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection

from django_taskq.message import Action
from django_taskq.worker.health import backlog
from tests.conformance.bed import QUEUE, Bed

HISTORY, WAITING, BATCH = 30_000, 3000, 100


@contextmanager
def explained(plans: list[str]) -> Iterator[None]:
    """Collect the plan of every statement run inside."""
    prefix = "EXPLAIN " if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN "

    def explain(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.lstrip(" (\n").startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
            with connection.cursor() as cursor:
                cursor.execute(prefix + sql, params[0] if many else params)
                plans.append("\n".join(str(line[-1]) for line in cursor.fetchall()))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        yield


def analyze() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE taskq_task")


def forget() -> None:
    """Make the table one that was never analyzed.

    PostgreSQL writes the sizes an ANALYZE found in place and keeps them when the test's transaction is undone, while
    the statistics of the columns go. Sizes without statistics are a state no server comes to by itself, and with them
    the planner guesses two rows and sorts those.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("UPDATE pg_class SET relpages = 0, reltuples = -1 WHERE relname LIKE 'taskq\\_%%'", [])
            assert cursor.rowcount > 0


NUMBERS = {
    "postgresql": ("gen_random_uuid()", "generate_series(1, %s) AS numbers(number)"),
    "sqlite": (
        "lower(hex(randomblob(16)))",
        "(WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n LIMIT %s) SELECT number FROM n)",
    ),
}


@pytest.fixture
def history(db: None) -> None:
    """Tens of thousands of runs that have ended."""
    id, numbers = NUMBERS[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(
            f"""INSERT INTO taskq_task (id, name, queue_name, status, payload, enqueued_at, started_at, finished_at,
                worker_id, claim) SELECT {id}, 'app.send', 'default',
                CASE WHEN number % 20 = 0 THEN 'FAILED' ELSE 'SUCCESSFUL' END,
                '[[],{{}}]', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, 1, number
                FROM {numbers.replace("%s", str(HISTORY))}"""
        )


@pytest.fixture(params=["idle", "busy", "never"])
def table(request: pytest.FixtureRequest, rows: Bed, history: None) -> Bed:
    """The statistics are of a table without waiting work, of one with it, or there are none."""
    if request.param == "idle":
        analyze()
    if request.param == "never":
        forget()
    rows.put(WAITING)
    if request.param == "busy":
        analyze()
    return rows


def plans_of(work: Callable[[], Any]) -> str:
    plans: list[str] = []
    with explained(plans):
        work()
    assert plans
    text = "\n".join(plans)
    assert "Seq Scan on taskq_task" not in text, text
    assert "SCAN taskq_task" not in text, text
    return text


def test_claim_takes_ready_rows_in_order_from_their_index(table: Bed) -> None:
    plan = plans_of(lambda: table.take(BATCH))
    assert "taskq_line" in plan, plan
    assert "Sort Key: taskq_task" not in plan, plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan, plan


def test_finish_goes_by_primary_key(table: Bed) -> None:
    deliveries = table.take(BATCH)
    plan = plans_of(lambda: table.settle(Action.SUCCESS, *deliveries))
    assert "taskq_task_pkey" in plan or "sqlite_autoindex_taskq_task_1" in plan, plan
    assert "Nested Loop" in plan or connection.vendor == "sqlite"
    assert "taskq_claimed" not in plan, plan


def test_release_goes_by_the_index_of_claims(table: Bed) -> None:
    table.take(BATCH)
    plan = plans_of(lambda: table.broker.release(1, list(range(1, BATCH + 1))))
    assert "taskq_claimed" in plan, plan


def test_looking_for_work_reads_one_entry_a_queue(table: Bed) -> None:
    plan = plans_of(lambda: table.broker.queues_with_work([QUEUE, "mail", "bulk"]))
    assert "taskq_line" in plan, plan


@pytest.mark.parametrize("verb", ["claim", "finish"])
def test_a_batch_costs_milliseconds_not_a_look_at_everything(table: Bed, verb: str) -> None:
    """A plan may look right and still compare each with each; then this takes seconds."""
    best = 10.0
    for first in range(1, 5 * BATCH, BATCH):
        start = time.perf_counter()
        deliveries = table.take(BATCH, first=first)
        claimed = time.perf_counter()
        table.settle(Action.SUCCESS, *deliveries)
        best = min(best, claimed - start if verb == "claim" else time.perf_counter() - claimed)
    assert best < 0.1


def test_measuring_the_queues_does_not_read_history(table: Bed, request: pytest.FixtureRequest) -> None:
    """All of a partial index may be read, which is what waits or runs; never the table."""
    if connection.vendor == "postgresql" and "busy" in request.node.name:
        pytest.skip("where much of the table waits, PostgreSQL may find reading all of it cheaper than the index")
    table.take(BATCH)
    plans: list[str] = []
    with explained(plans):
        backlog._read_rows(backlog.Backlog())
    (plan,) = plans
    lines = [line for line in plan.splitlines() if "taskq_task" in line]
    assert not [line for line in lines if "Seq Scan" in line or ("SCAN" in line and "USING INDEX" not in line)], plan
    assert {"taskq_line", "taskq_due", "taskq_claimed"} <= set(re.findall(r"taskq_(?:line|due|claimed)", plan)), plan
