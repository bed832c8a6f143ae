"""The raw table on PostgreSQL, with psycopg as it comes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import psycopg

from django_taskq.bench.raw.store import CHANNEL, NAME, QUEUE, TABLE, Access, Finished, RawStore, Row, utc_now

_COLUMNS = "id, name, queue_name, priority, status, payload, headers, enqueued_at, run_after, expires_at"
_INSERT = f"""
    INSERT INTO {TABLE} ({_COLUMNS})
    VALUES (%s::uuid, '{NAME}', '{QUEUE}', 0, 'READY', %s, NULL, %s, NULL, NULL)
"""
_INSERT_MANY = f"""
    INSERT INTO {TABLE} ({_COLUMNS})
    SELECT (row->>0)::uuid, '{NAME}', '{QUEUE}', 0, 'READY', row->>1, NULL, %s, NULL, NULL
    FROM json_array_elements(%s::json) row
"""
_CLAIM = f"""
    WITH taken AS MATERIALIZED (
        SELECT id, priority, place FROM {TABLE} WHERE status = 'READY' AND queue_name = %s
        ORDER BY priority DESC, coalesce(place, id) LIMIT %s FOR UPDATE SKIP LOCKED
    ), numbered AS (
        SELECT id AS taken_id, row_number() OVER (ORDER BY priority DESC, coalesce(place, id)) - 1 AS number FROM taken
    )
    UPDATE {TABLE} SET status = 'RUNNING', worker_id = %s, claim = %s + number
    FROM numbered WHERE id = taken_id RETURNING id::text, claim, payload
"""
# The condition hides in a CASE: from statistics of an idle table the planner would conclude that hardly any row is
# RUNNING, and compare every claimed row with every row of the JSON instead of looking up ids.
_FINISH = f"""
    UPDATE {TABLE} SET status = 'SUCCESSFUL', result = row->>2, started_at = to_timestamp((row->>3)::float8),
        finished_at = to_timestamp((row->>4)::float8)
    FROM json_array_elements(%s::json) row
    WHERE id = (row->>0)::uuid
        AND CASE WHEN status = 'RUNNING' AND worker_id = %s THEN claim = (row->>1)::bigint ELSE false END
"""


class Store(RawStore):
    """Autocommit, and psycopg's own habit of preparing what is sent often."""

    claim_sql: ClassVar[str] = _CLAIM
    finish_sql: ClassVar[str] = _FINISH

    def __init__(self, access: Access) -> None:
        self._connection: psycopg.Connection[Any] = psycopg.connect(**access.parameters, autocommit=True)

    def create_table(self) -> None:
        self._execute(f"DROP TABLE IF EXISTS {TABLE}")
        self._execute(f"CREATE TABLE {TABLE} (LIKE taskq_task INCLUDING ALL)")
        # LIKE leaves out the table's own storage options (fillfactor, autovacuum).
        found = self._execute("SELECT unnest(reloptions) FROM pg_class WHERE oid = 'taskq_task'::regclass").fetchall()
        if found:
            self._execute(f"ALTER TABLE {TABLE} SET ({', '.join(option for (option,) in found)})")

    def empty(self) -> None:
        self._execute(f"TRUNCATE {TABLE}")

    def copy_rows(self) -> None:
        self._execute(f"INSERT INTO {TABLE} SELECT * FROM taskq_task")

    def insert_one(self, row: Row) -> None:
        self._connection.execute(_INSERT, (row.id, row.payload, utc_now()))

    def insert_and_wake(self, row: Row) -> None:
        self._execute(f"WITH new AS ({_INSERT}) SELECT pg_notify('{CHANNEL}', '')", (row.id, row.payload, utc_now()))

    def insert_many(self, rows: Sequence[Row]) -> None:
        self._connection.execute(_INSERT_MANY, (utc_now(), json.dumps(rows)))

    def transaction(self) -> AbstractContextManager[object]:
        return self._connection.transaction()

    def claim(self, process: int, first_claim: int, limit: int) -> list[tuple[str, int, str]]:
        rows = self._connection.execute(_CLAIM, (QUEUE, limit, process, first_claim)).fetchall()
        return sorted(rows, key=lambda row: row[1])

    def finish(self, process: int, finished: Sequence[Finished]) -> None:
        self._connection.execute(_FINISH, (json.dumps(finished), process))

    def results(self) -> dict[str, str]:
        found = self._execute(
            f"SELECT replace(id::text, '-', ''), result FROM {TABLE} WHERE name = '{NAME}' AND status = 'SUCCESSFUL'"
        )
        return dict(found.fetchall())

    def close(self) -> None:
        self._connection.close()

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> psycopg.Cursor[Any]:
        # psycopg wants literals, as a guard against values pasted into SQL; none of these holds one.
        return self._connection.execute(statement.encode(), values or None)
