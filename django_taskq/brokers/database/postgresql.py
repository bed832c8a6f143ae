"""PostgreSQL: SKIP LOCKED claims, JSON for many rows at once, NOTIFY as a doorbell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from typing import Any, ClassVar

from django.db.backends.base.base import BaseDatabaseWrapper

from django_taskq.brokers.database import prepared
from django_taskq.brokers.database.dialect import (
    COLUMNS,
    RELEASED,
    Dialect,
    Finished,
    Known,
    Shared,
    by_shared_columns,
    is_plain,
    may_be_direct,
    status_of,
)
from django_taskq.brokers.database.postgresql_limits import PostgreSQLLimits
from django_taskq.brokers.database.postgresql_steps import PostgreSQLSteps
from django_taskq.message import Delivery, Message

CHANNEL = "django_taskq"

_INSERT = f"INSERT INTO taskq_task ({COLUMNS}) VALUES (%s::uuid, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
# One statement and one transaction even in autocommit: the hint cannot arrive without the row.
_INSERT_AND_WAKE = f"WITH new AS ({_INSERT}) SELECT pg_notify('{CHANNEL}', queue) FROM unnest(%s::text[]) queue"

_NUMBERED = f"INSERT INTO taskq_task ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
_PREPARED = {
    False: prepared.Statement(_NUMBERED),
    True: prepared.Statement(f"WITH new AS ({_NUMBERED}) SELECT pg_notify('{CHANNEL}', $3)"),
}

# Rows as one JSON text: rendering arrays on the client costs twice as much (measured, docs/performance.md).
_INSERT_MANY = f"""
    INSERT INTO taskq_task ({COLUMNS}, workflow_id, waits_at)
    SELECT (row->>0)::uuid, %s, %s, %s::smallint, %s, row->>1, %s, %s::timestamptz, %s::timestamptz, %s::timestamptz,
        %s::timestamptz, %s::uuid, %s::int
    FROM json_array_elements(%s::json) row
"""

_WITH_WORK = """
    SELECT queue FROM unnest(%s::text[]) WITH ORDINALITY AS asked(queue, place)
    WHERE EXISTS (SELECT 1 FROM taskq_task WHERE status = 'READY' AND queue_name = queue) ORDER BY place
"""

# MATERIALIZED: as a plain sub-select the planner may run the locking part more than once and claim too much.
# Numbering happens outside of it, because FOR UPDATE does not go with window functions.
_CLAIM = """
    WITH taken AS MATERIALIZED (
        SELECT id FROM taskq_task WHERE status = 'READY' AND queue_name = (
            SELECT %s WHERE NOT EXISTS (SELECT 1 FROM taskq_queue WHERE name = %s AND paused_at IS NOT NULL)
        ) ORDER BY priority DESC, coalesce(place, id) LIMIT %s FOR UPDATE SKIP LOCKED
    ), numbered AS (
        SELECT id AS taken_id, row_number() OVER () - 1 AS number FROM taken
    )
    UPDATE taskq_task SET status = 'RUNNING', worker_id = %s, claim = %s + number
    FROM numbered WHERE id = taken_id RETURNING id::text, claim, name, queue_name, payload, headers,
        extract(epoch FROM expires_at)::float8, extract(epoch FROM enqueued_at)::float8,
        extract(epoch FROM run_after)::float8, attempt, crashes, is_suspect
"""

_CLAIM_KNOWN = """
    UPDATE taskq_task SET status = 'RUNNING', worker_id = %s, claim = (row->>1)::bigint, publish_after = NULL
    FROM json_array_elements(%s::json) row
    WHERE id = (row->>0)::uuid AND CASE WHEN status = 'READY' THEN TRUE ELSE FALSE END
    RETURNING claim, attempt, crashes, is_suspect, headers
"""

# The CASE hides its conditions from the planner. Seen plainly, they make it expect one row of the table (few are
# RUNNING when statistics are taken) and compare every claimed row with every row of the JSON: 361 ms instead of 5.
_FINISH = """
    UPDATE taskq_task SET status = 'SUCCESSFUL', result = row->>2, started_at = to_timestamp((row->>3)::float8),
        finished_at = to_timestamp((row->>4)::float8), reason = ''
    FROM json_array_elements(%s::json) row
    WHERE id = (row->>0)::uuid AND CASE
        WHEN status = 'RUNNING' AND worker_id = %s AND claim = (row->>1)::bigint THEN TRUE ELSE FALSE END
"""

_RELEASE = f"""
    UPDATE taskq_task SET {RELEASED % "clock_timestamp()"}
    WHERE status = 'RUNNING' AND worker_id = %s AND claim = ANY(%s::bigint[]) RETURNING id::text, queue_name
"""


class PostgreSQL(PostgreSQLSteps, PostgreSQLLimits, Dialect):
    """Statements for PostgreSQL 14 and newer."""

    vendor: ClassVar[str] = "postgresql"
    claims_lightly: ClassVar[bool] = True

    def insert(
        self,
        connection: BaseDatabaseWrapper,
        messages: Sequence[Message],
        wake: Sequence[str],
        publish_after: datetime | None = None,
    ) -> None:
        if len(messages) == 1 and is_plain(messages[0]) and may_be_direct(connection):
            with connection.wrap_database_errors:
                if connection.in_atomic_block:
                    statement = _INSERT_AND_WAKE if wake else _INSERT
                    values = _one(messages[0], publish_after) + ([list(wake)] if wake else [])
                    connection.connection.execute(statement, values)
                else:
                    prepared.execute(connection.connection, _PREPARED[bool(wake)], _one(messages[0], publish_after))
            return
        with connection.cursor() as cursor:
            for shared, group in by_shared_columns(messages):
                cursor.execute(_INSERT_MANY, _many(shared, group, publish_after))
        if wake:
            self.wake(connection, wake)

    def queues_with_work(self, connection: BaseDatabaseWrapper, queue_names: Sequence[str]) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute(_WITH_WORK, [list(queue_names)])
            return [name for (name,) in cursor.fetchall()]

    def claim(
        self, connection: BaseDatabaseWrapper, queue_name: str, limit: int, process_id: int, first_claim: int
    ) -> list[Delivery]:
        with connection.cursor() as cursor:
            cursor.execute(_CLAIM, [queue_name, queue_name, limit, process_id, first_claim])
            rows = cursor.fetchall()
        # RETURNING keeps no order.
        rows.sort(key=_claim_number)
        return [Delivery._make(row) for row in rows]

    def claim_known(
        self, connection: BaseDatabaseWrapper, process_id: int, claims: Sequence[tuple[str, int]]
    ) -> dict[int, Known]:
        with connection.cursor() as cursor:
            cursor.execute(_CLAIM_KNOWN, [process_id, json.dumps(claims)])
            return {claim: Known(*known) for claim, *known in cursor.fetchall()}

    def finish(self, connection: BaseDatabaseWrapper, process_id: int, finished: Sequence[Finished]) -> int:
        with connection.cursor() as cursor:
            cursor.execute(_FINISH, [json.dumps(finished), process_id])
            return int(cursor.rowcount)

    def release(self, connection: BaseDatabaseWrapper, process_id: int, claims: Sequence[int]) -> list[tuple[str, str]]:
        with connection.cursor() as cursor:
            cursor.execute(_RELEASE, [process_id, list(claims)])
            return list(cursor.fetchall())

    def wake(self, connection: BaseDatabaseWrapper, queue_names: Sequence[str]) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT pg_notify('{CHANNEL}', queue) FROM unnest(%s::text[]) queue", [list(queue_names)])

    def prepare(self, connection: BaseDatabaseWrapper) -> None:
        self.isolate(connection)

    def isolate(self, connection: BaseDatabaseWrapper) -> None:
        """READ COMMITTED: at a higher level the project has chosen, claims and ends of runs would end one another."""
        options = connection.settings_dict["OPTIONS"]
        if options.get("pool") and "isolation_level" not in options:
            return  # whoever gets the connection next from the pool would have that level, too
        level = import_module("django.db.backends.postgresql.psycopg_any").IsolationLevel.READ_COMMITTED
        if options.get("isolation_level") == level:
            return
        # The connections of other threads share the settings, so this one gets its own.
        connection.settings_dict = {**connection.settings_dict, "OPTIONS": {**options, "isolation_level": level}}
        if connection.connection is not None:
            connection.connection.isolation_level = level

    def limit_idle_transaction(self, connection: BaseDatabaseWrapper, seconds: float) -> None:
        with connection.cursor() as cursor:
            limit = f"{int(seconds * 1000)}ms"
            cursor.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, TRUE)", [limit])


def listen(connection: BaseDatabaseWrapper) -> None:
    """Subscribe this connection to the doorbell."""
    with connection.cursor() as cursor:
        cursor.execute(f"LISTEN {CHANNEL}")


def _one(message: Message, publish_after: datetime | None) -> list[Any]:
    return [
        message.id,
        message.name,
        message.queue_name,
        message.priority,
        status_of(message),
        message.payload,
        message.headers,
        message.enqueued_at,
        message.run_after,
        message.expires_at,
        publish_after,
    ]


def _many(shared: Shared, group: list[Message], publish_after: datetime | None) -> list[Any]:
    name, queue_name, priority, status, headers, enqueued_at, run_after, expires_at, workflow_id, waits_at = shared
    rows = json.dumps([(message.id, message.payload) for message in group])
    return [
        name,
        queue_name,
        priority,
        status,
        headers,
        enqueued_at,
        run_after,
        expires_at,
        publish_after,
        workflow_id,
        waits_at,
        rows,
    ]


def _claim_number(row: tuple[Any, ...]) -> int:
    claim: int = row[1]
    return claim
