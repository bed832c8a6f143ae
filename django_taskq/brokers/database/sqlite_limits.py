"""SQLite: there is one writer at a time, so nothing needs to be locked. See PostgreSQL's for what each is for."""

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
from django_taskq.brokers.database.sqlite_forms import claimed_since, dashed, hexed, hexes, stored
from django_taskq.gates import AT_GATE
from django_taskq.message import Delivery

_INSERT = """
    INSERT INTO taskq_permit (task_id, key, priority, gates, state)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), %s
    FROM json_each(%s)
"""
_TAKE_ARRIVALS = """
    UPDATE taskq_permit SET state = 1
    WHERE id IN (SELECT id FROM taskq_permit WHERE state = 0 ORDER BY id * -1 DESC LIMIT %s)
    RETURNING task_id, key, priority, gates
"""
_LIMITS = """
    SELECT own.key, own.most, own.rate, own.burst, own.rest, own.declared_by,
        coalesce(own.set_most, whole.set_most, own.most), coalesce(own.set_rate, whole.set_rate, own.rate),
        coalesce(own.set_burst, whole.set_burst, own.burst), own.spent_until, own.opens_at, own.tripped_at
    FROM taskq_limit own LEFT JOIN taskq_limit whole ON whole.key = own.base
    WHERE own.key IN (SELECT value FROM json_each(%s)) ORDER BY own.key
"""
_HELD = """
    SELECT key, count(*) FROM taskq_permit WHERE state = 2 AND key IN (SELECT value FROM json_each(%s)) GROUP BY key
"""
_UNCLAIMED = """
    SELECT key, count(*) FROM taskq_permit CROSS JOIN taskq_task ON taskq_task.id = task_id
    WHERE state = 2 AND key IN (SELECT value FROM json_each(%s)) AND +status <> 'RUNNING' GROUP BY key
"""
_PASS_ON = """
    UPDATE taskq_permit SET state = 2 WHERE id IN (
        SELECT id FROM taskq_permit WHERE state < 2 AND key = %s ORDER BY priority DESC, id LIMIT %s
    ) RETURNING id, task_id, key, priority, gates
"""
_LET_GO = f"""
    UPDATE taskq_task SET status = 'READY', waits_at = NULL, place = asked.place,
        run_after = max(coalesce(run_after, now), now)
    FROM (
        SELECT json_extract(value, '$[0]') AS asked_id, json_extract(value, '$[1]') AS place, %s AS now
        FROM json_each(%s)
    ) AS asked
    WHERE id = asked_id AND +status = 'WAITING' AND waits_at = {AT_GATE} RETURNING id, queue_name
"""
_LEAVE = "DELETE FROM taskq_permit WHERE task_id IN (SELECT value FROM json_each(%s)) RETURNING key, gates, state"
_CLAIM_BEHIND = f"""
    UPDATE taskq_task SET status = 'RUNNING', waits_at = NULL, worker_id = %s, claim = %s + number
    FROM (
        SELECT task_id, number FROM (
            SELECT task_id, gates, row_number() OVER (ORDER BY priority DESC, id) - 1 AS number
            FROM taskq_permit WHERE state < 2 AND key = %s ORDER BY priority DESC, id LIMIT %s
        ) WHERE gates = (SELECT gates FROM taskq_permit WHERE task_id = %s AND key = %s AND state = 2)
    ) AS waiting
    WHERE taskq_task.id = waiting.task_id AND +status = 'WAITING' AND waits_at = {AT_GATE}
        AND +name = %s AND +queue_name = %s
"""
_FOLLOWING = """
    UPDATE taskq_permit SET state = 3, worker_id = run.worker_id, claim = run.claim
    FROM (
        SELECT id AS run_id, worker_id, claim FROM taskq_task
        WHERE status = 'RUNNING' AND worker_id = %s AND claim >= %s
    ) AS run
    WHERE task_id = run_id AND state < 2 AND key = %s
"""
_STEP_UP = """
    UPDATE taskq_permit SET state = 2, worker_id = NULL, claim = NULL WHERE id = (
        SELECT id FROM taskq_permit WHERE state = 3 AND worker_id = %s AND key = %s ORDER BY claim LIMIT 1
    )
"""
_DROP_STALE = f"""
    DELETE FROM taskq_permit WHERE state < 2 AND key IN (SELECT value FROM json_each(%s)) AND NOT EXISTS (
        SELECT 1 FROM taskq_task WHERE taskq_task.id = task_id AND +status = 'WAITING' AND waits_at = {AT_GATE}
    ) RETURNING task_id
"""
_DROP_STRAYS = """
    DELETE FROM taskq_permit WHERE state = 3 AND NOT EXISTS (
        SELECT 1 FROM taskq_task run WHERE run.id = task_id AND +status = 'RUNNING'
            AND run.worker_id = taskq_permit.worker_id AND run.claim = taskq_permit.claim
    )
"""
_DROP_ORPHANS = f"""
    DELETE FROM taskq_permit WHERE state = 2 AND NOT EXISTS (
        SELECT 1 FROM taskq_task run WHERE run.id = task_id AND CASE
            WHEN taskq_permit.claim IS NOT NULL THEN +status = 'RUNNING' AND run.worker_id = taskq_permit.worker_id
                AND run.claim = taskq_permit.claim
            ELSE +status IN ('READY', 'RUNNING') OR +status = 'WAITING' AND waits_at = {AT_GATE} END
    ) AND NOT EXISTS (
        SELECT 1 FROM taskq_task run JOIN taskq_permit behind ON behind.worker_id = +run.worker_id
        WHERE run.id = taskq_permit.task_id AND behind.state = 3 AND behind.key = taskq_permit.key
    ) RETURNING key, gates
"""


class SQLiteLimits(LimitDialect):
    """Statements for SQLite 3.35 and newer (UPDATE ... RETURNING)."""

    def insert_permits(self, connection: BaseDatabaseWrapper, arrivals: Sequence[Arrival], *, is_new: bool) -> None:
        rows = [(hexed(each.task_id), *each[1:]) for each in arrivals]
        with connection.cursor() as cursor:
            cursor.execute(_INSERT, [0 if is_new else 1, json.dumps(rows)])

    def glance(self, connection: BaseDatabaseWrapper) -> Glance:
        with connection.cursor() as cursor:
            cursor.execute(GLANCE)
            has_arrivals, has_holders, opens_at = cursor.fetchone()
        return Glance(bool(has_arrivals), bool(has_holders), opens_at, clock.time())

    def has_arrivals(self, connection: BaseDatabaseWrapper) -> bool:
        with connection.cursor() as cursor:
            cursor.execute(HAS_ARRIVALS)
            return cursor.fetchone() is not None

    def take_arrivals(self, connection: BaseDatabaseWrapper, limit: int) -> list[Arrival]:
        with connection.cursor() as cursor:
            cursor.execute(_TAKE_ARRIVALS, [limit])
            return [Arrival(dashed(id), *row) for id, *row in cursor.fetchall()]

    def lock_limits(self, connection: BaseDatabaseWrapper, keys: Sequence[str]) -> list[LimitState]:
        with connection.cursor() as cursor:
            cursor.execute(_LIMITS, [json.dumps(list(keys))])
            rows = cursor.fetchall()
        now = clock.time()
        return [
            LimitState(
                key,
                (most, rate, burst, rest),
                by and dashed(by),
                now_most,
                now_rate,
                now_burst,
                rest,
                spent,
                opens,
                tripped,
                now,
            )
            for key, most, rate, burst, rest, by, now_most, now_rate, now_burst, spent, opens, tripped in rows
        ]

    def held(self, connection: BaseDatabaseWrapper, keys: Sequence[str]) -> dict[str, int]:
        with connection.cursor() as cursor:
            cursor.execute(_HELD, [json.dumps(list(keys))])
            return dict(cursor.fetchall())

    def unclaimed(self, connection: BaseDatabaseWrapper, keys: Sequence[str]) -> dict[str, int]:
        with connection.cursor() as cursor:
            cursor.execute(_UNCLAIMED, [json.dumps(list(keys))])
            return dict(cursor.fetchall())

    def pass_on(self, connection: BaseDatabaseWrapper, rooms: Sequence[tuple[str, int]]) -> list[Passed]:
        passed: list[Passed] = []
        with connection.cursor() as cursor:
            for key, room in rooms:
                cursor.execute(_PASS_ON, [key, room])
                rows = sorted(cursor.fetchall(), key=lambda row: (-row[3], row[0]))
                passed += [Passed(dashed(id), *row) for _, id, *row in rows]
        return passed

    def let_go(self, connection: BaseDatabaseWrapper, places: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        asked = json.dumps([(hexed(id), hexed(place)) for id, place in places])
        with connection.cursor() as cursor:
            cursor.execute(_LET_GO, [stored(clock.now(), connection.timezone), asked])
            return [(dashed(id), name) for id, name in cursor.fetchall()]

    def claim_behind(
        self, connection: BaseDatabaseWrapper, process_id: int, places: Sequence[Place], first_claim: int
    ) -> list[Delivery]:
        number = first_claim
        with connection.cursor() as cursor:
            for place in places:
                led_by = (hexed(place.task_id), place.key, place.name, place.queue_name)
                cursor.execute(_CLAIM_BEHIND, [process_id, number, place.key, place.most, *led_by])
                cursor.execute(_FOLLOWING, [process_id, number, place.key])
                number += place.most
        return claimed_since(connection, process_id, first_claim)

    def step_up(self, connection: BaseDatabaseWrapper, process_id: int, keys: Sequence[str]) -> None:
        with connection.cursor() as cursor:
            for key in keys:
                cursor.execute(_STEP_UP, [process_id, key])

    def leave(self, connection: BaseDatabaseWrapper, task_ids: Sequence[str]) -> list[tuple[str, str, int]]:
        with connection.cursor() as cursor:
            cursor.execute(_LEAVE, [hexes(task_ids)])
            return list(cursor.fetchall())

    def drop_stale(self, connection: BaseDatabaseWrapper, keys: Sequence[str]) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute(_DROP_STALE, [json.dumps(list(keys))])
            return [dashed(id) for (id,) in cursor.fetchall()]

    def drop_orphans(self, connection: BaseDatabaseWrapper) -> list[tuple[str, str]]:
        with connection.cursor() as cursor:
            cursor.execute(_DROP_STRAYS)
            cursor.execute(_DROP_ORPHANS)
            return list(cursor.fetchall())
