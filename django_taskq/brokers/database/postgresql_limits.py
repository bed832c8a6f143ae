"""PostgreSQL: limits are locked before anything is counted, and every count is a statement of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from django_taskq import clock
from django_taskq.brokers.database.limit_dialect import (
    GLANCE,
    HAS_ARRIVALS,
    Arrival,
    Glance,
    LimitDialect,
    LimitState,
    Passed,
    Place,
)
from django_taskq.gates import AT_GATE
from django_taskq.message import Delivery

_INSERT = """
    INSERT INTO taskq_permit (task_id, key, priority, gates, state)
    SELECT (row->>0)::uuid, row->>1, (row->>2)::smallint, row->>3, %s FROM json_array_elements(%s::json) row
"""
_TAKE_ARRIVALS = """
    WITH taken AS MATERIALIZED (
        SELECT id AS taken_id FROM taskq_permit WHERE state = 0 ORDER BY id * -1 DESC LIMIT %s FOR UPDATE SKIP LOCKED
    )
    UPDATE taskq_permit SET state = 1 WHERE id = ANY(ARRAY(SELECT taken_id FROM taken))
    RETURNING task_id::text, key, priority, gates
"""
# Arrays and laterals leave no plan but the one by index, whatever the statistics say: they may be of a time when nobody
# waited, and then a join compares each with each.
# What was set for the limit as a whole holds for its keys. That row is read, not locked: it changes by hand.
_LOCK = """
    SELECT own.key, own.most, own.rate, own.burst, own.rest, own.declared_by::text,
        coalesce(own.set_most, whole.set_most, own.most), coalesce(own.set_rate, whole.set_rate, own.rate),
        coalesce(own.set_burst, whole.set_burst, own.burst), own.spent_until, own.opens_at, own.tripped_at,
        extract(epoch FROM clock_timestamp())::float8
    FROM unnest(%s::text[]) AS given(key), LATERAL (
        SELECT * FROM taskq_limit WHERE taskq_limit.key = given.key OFFSET 0 FOR UPDATE
    ) own LEFT JOIN LATERAL (SELECT * FROM taskq_limit WHERE taskq_limit.key = own.base OFFSET 0) whole ON TRUE
"""
_HELD = """
    SELECT given.key, (SELECT count(*) FROM taskq_permit WHERE state = 2 AND taskq_permit.key = given.key)
    FROM unnest(%s::text[]) AS given(key)
"""
_UNCLAIMED = """
    SELECT given.key, (
        SELECT count(*) FROM taskq_permit WHERE state = 2 AND taskq_permit.key = given.key
            AND (SELECT status FROM taskq_task WHERE taskq_task.id = task_id) <> 'RUNNING'
    ) FROM unnest(%s::text[]) AS given(key)
"""
# New arrivals that somebody is just taking are left to him: he waits for the limit that we have locked.
_PASS_ON = """
    WITH chosen AS MATERIALIZED (
        SELECT first.id AS chosen_id FROM json_array_elements(%s::json) room, LATERAL (
            SELECT id FROM (
                SELECT id FROM taskq_permit WHERE state < 2 AND key = room->>0
                ORDER BY priority DESC, id LIMIT 1000 FOR UPDATE SKIP LOCKED
            ) waiting LIMIT (room->>1)::int
        ) first
    )
    UPDATE taskq_permit SET state = 2 WHERE id = ANY(ARRAY(SELECT chosen_id FROM chosen))
    RETURNING id, task_id::text, key, priority, gates
"""
_LET_GO = f"""
    UPDATE taskq_task SET status = 'READY', waits_at = NULL, place = (row->>1)::uuid,
        run_after = greatest(run_after, clock_timestamp())
    FROM json_array_elements(%s::json) row
    WHERE id = (row->>0)::uuid AND CASE WHEN status = 'WAITING' AND waits_at = {AT_GATE} THEN TRUE ELSE FALSE END
    RETURNING id::text, queue_name
"""
_LEAVE = "DELETE FROM taskq_permit WHERE task_id = ANY(ARRAY(SELECT unnest(%s::uuid[]))) RETURNING key, gates, state"
# Locked, the places cannot be given to others before those who follow are there.
_CLAIM_BEHIND = f"""
    WITH place AS MATERIALIZED (
        SELECT own.key, own.gates, row->>2 AS name, row->>3 AS queue_name, (row->>4)::int AS most
        FROM json_array_elements(%s::json) row, LATERAL (
            SELECT key, gates FROM taskq_permit
            WHERE task_id = (row->>0)::uuid AND taskq_permit.key = row->>1 AND state = 2 OFFSET 0 FOR UPDATE
        ) own
    ), chosen AS MATERIALIZED (
        SELECT next.id AS permit_id, next.task_id, place.name, place.queue_name FROM place, LATERAL (
            SELECT * FROM (
                SELECT id, task_id, gates FROM taskq_permit WHERE state < 2 AND taskq_permit.key = place.key
                ORDER BY priority DESC, id LIMIT 1000 FOR UPDATE SKIP LOCKED
            ) waiting LIMIT place.most
        ) next WHERE next.gates = place.gates
    ), numbered AS (
        SELECT *, row_number() OVER () - 1 AS number FROM chosen
    ), claimed AS (
        UPDATE taskq_task SET status = 'RUNNING', waits_at = NULL, worker_id = %s, claim = %s + number FROM numbered
        WHERE taskq_task.id = numbered.task_id AND CASE WHEN status = 'WAITING' AND waits_at = {AT_GATE}
            AND taskq_task.name = numbered.name AND taskq_task.queue_name = numbered.queue_name THEN TRUE ELSE FALSE END
        RETURNING permit_id, taskq_task.*
    ), following AS (
        UPDATE taskq_permit SET state = 3, worker_id = claimed.worker_id, claim = claimed.claim FROM claimed
        WHERE taskq_permit.id = permit_id
    )
    SELECT id::text, claim, name, queue_name, payload, headers, extract(epoch FROM expires_at)::float8,
        extract(epoch FROM enqueued_at)::float8, extract(epoch FROM run_after)::float8, attempt, crashes, is_suspect
    FROM claimed ORDER BY claim
"""
_STEP_UP = """
    UPDATE taskq_permit SET state = 2, worker_id = NULL, claim = NULL WHERE id = ANY(ARRAY(
        SELECT (
            SELECT id FROM taskq_permit WHERE state = 3 AND worker_id = %s AND taskq_permit.key = given.key
            ORDER BY claim LIMIT 1
        ) FROM unnest(%s::text[]) AS given(key)
    ))
"""
_DROP_STALE = f"""
    DELETE FROM taskq_permit WHERE state < 2 AND key = ANY(ARRAY(SELECT unnest(%s::text[]))) AND (
        SELECT status = 'WAITING' AND waits_at = {AT_GATE} FROM taskq_task WHERE taskq_task.id = task_id
    ) IS NOT TRUE RETURNING task_id::text
"""
_DROP_STRAYS = """
    DELETE FROM taskq_permit WHERE state = 3 AND NOT EXISTS (
        SELECT 1 FROM taskq_task run WHERE run.id = task_id AND status = 'RUNNING'
            AND run.worker_id = taskq_permit.worker_id AND run.claim = taskq_permit.claim
    )
"""
_DROP_ORPHANS = f"""
    DELETE FROM taskq_permit WHERE state = 2 AND NOT EXISTS (
        SELECT 1 FROM taskq_task run WHERE run.id = task_id AND CASE
            WHEN taskq_permit.claim IS NOT NULL THEN status = 'RUNNING' AND run.worker_id = taskq_permit.worker_id
                AND run.claim = taskq_permit.claim
            ELSE status IN ('READY', 'RUNNING') OR status = 'WAITING' AND waits_at = {AT_GATE} END
    ) AND NOT EXISTS (
        SELECT 1 FROM taskq_task run JOIN taskq_permit behind ON behind.worker_id = run.worker_id
        WHERE run.id = taskq_permit.task_id AND behind.state = 3 AND behind.key = taskq_permit.key
    ) RETURNING key, gates
"""


class PostgreSQLLimits(LimitDialect):
    """Statements for PostgreSQL 14 and newer."""

    def insert_permits(self, connection: BaseDatabaseWrapper, arrivals: Sequence[Arrival], *, is_new: bool) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_INSERT, [0 if is_new else 1, json.dumps(arrivals)])

    def glance(self, connection: BaseDatabaseWrapper) -> Glance:
        with connection.cursor() as cursor:
            cursor.execute(f"{GLANCE}, extract(epoch FROM clock_timestamp())::float8")
            has_arrivals, has_holders, opens_at, now = cursor.fetchone()
        return Glance(has_arrivals, has_holders, opens_at, now + clock.moved().total_seconds())

    def has_arrivals(self, connection: BaseDatabaseWrapper) -> bool:
        with connection.cursor() as cursor:
            cursor.execute(HAS_ARRIVALS)
            return cursor.fetchone() is not None

    def take_arrivals(self, connection: BaseDatabaseWrapper, limit: int) -> list[Arrival]:
        with connection.cursor() as cursor:
            cursor.execute(_TAKE_ARRIVALS, [limit])
            return [Arrival(*row) for row in cursor.fetchall()]

    def lock_limits(self, connection: BaseDatabaseWrapper, keys: Sequence[str]) -> list[LimitState]:
        with connection.cursor() as cursor:
            cursor.execute(_LOCK, [list(keys)])
            rows = cursor.fetchall()
        ahead = clock.moved().total_seconds()
        return [
            LimitState(
                key,
                (most, rate, burst, rest),
                by,
                now_most,
                now_rate,
                now_burst,
                rest,
                spent,
                opens,
                tripped,
                now + ahead,
            )
            for key, most, rate, burst, rest, by, now_most, now_rate, now_burst, spent, opens, tripped, now in rows
        ]

    def held(self, connection: BaseDatabaseWrapper, keys: Sequence[str]) -> dict[str, int]:
        with connection.cursor() as cursor:
            cursor.execute(_HELD, [list(keys)])
            return dict(cursor.fetchall())

    def unclaimed(self, connection: BaseDatabaseWrapper, keys: Sequence[str]) -> dict[str, int]:
        with connection.cursor() as cursor:
            cursor.execute(_UNCLAIMED, [list(keys)])
            return dict(cursor.fetchall())

    def pass_on(self, connection: BaseDatabaseWrapper, rooms: Sequence[tuple[str, int]]) -> list[Passed]:
        with connection.cursor() as cursor:
            cursor.execute(_PASS_ON, [json.dumps(rooms)])
            rows = cursor.fetchall()
        # RETURNING keeps no order.
        rows.sort(key=lambda row: (-row[3], row[0]))
        return [Passed(*row[1:]) for row in rows]

    def let_go(self, connection: BaseDatabaseWrapper, places: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        with connection.cursor() as cursor:
            cursor.execute(_LET_GO, [json.dumps(places)])
            return list(cursor.fetchall())

    def claim_behind(
        self, connection: BaseDatabaseWrapper, process_id: int, places: Sequence[Place], first_claim: int
    ) -> list[Delivery]:
        with connection.cursor() as cursor:
            cursor.execute(_CLAIM_BEHIND, [json.dumps(places), process_id, first_claim])
            return [Delivery._make(row) for row in cursor.fetchall()]

    def step_up(self, connection: BaseDatabaseWrapper, process_id: int, keys: Sequence[str]) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_STEP_UP, [process_id, list(keys)])

    def leave(self, connection: BaseDatabaseWrapper, task_ids: Sequence[str]) -> list[tuple[str, str, int]]:
        with connection.cursor() as cursor:
            cursor.execute(_LEAVE, [list(task_ids)])
            return list(cursor.fetchall())

    def drop_stale(self, connection: BaseDatabaseWrapper, keys: Sequence[str]) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute(_DROP_STALE, [list(keys)])
            return [id for (id,) in cursor.fetchall()]

    def drop_orphans(self, connection: BaseDatabaseWrapper) -> list[tuple[str, str]]:
        with connection.cursor() as cursor:
            cursor.execute(_DROP_STRAYS)
            cursor.execute(_DROP_ORPHANS)
            return list(cursor.fetchall())
