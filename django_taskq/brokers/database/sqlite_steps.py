"""SQLite: there is one writer at a time, so nothing needs to be locked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from django.db.backends.base.base import BaseDatabaseWrapper

from django_taskq.brokers.database.sqlite_forms import dashed, hexed, hexes, stored
from django_taskq.brokers.database.step_dialect import (
    ALL_ENDED,
    DOOMED,
    PARENT_COLUMNS,
    WORKFLOW_STATUS,
    Advanced,
    Parent,
    StepDialect,
    Waiting,
)
from django_taskq.gates import AT_GATE
from django_taskq.steps import Link

_INSERT_LINKS = """
    INSERT INTO taskq_link (child_id, position, parent_id, kind, opens, closes, carries)
    SELECT json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[0]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
        json_extract(value, '$[6]')
    FROM json_each(%s)
"""

# See the statements of PostgreSQL for what each is for.
_WAITING = f"""
    SELECT json_group_array(json_array(id, waits_at)) FROM taskq_task
    WHERE id IN (SELECT child_id FROM taskq_link WHERE parent_id IN (SELECT value FROM json_each(%s)))
        AND +status = 'WAITING' AND waits_at IS NOT {AT_GATE}
"""
_ADVANCE = """
    UPDATE taskq_task SET waits_at = next,
        status = CASE WHEN next IS NOT NULL THEN 'WAITING' WHEN is_needless THEN 'CANCELLED'
            WHEN run_after > now THEN 'SCHEDULED' ELSE 'READY' END,
        run_after = CASE WHEN next IS NULL THEN max(coalesce(run_after, now), now) ELSE run_after END,
        finished_at = CASE WHEN is_needless THEN now END,
        reason = CASE WHEN is_needless THEN 'NotNeeded' ELSE reason END
    FROM (SELECT step_id, now, next, CASE WHEN next IS NULL AND calls_back THEN NOT EXISTS (
        SELECT 1 FROM taskq_link WHERE child_id = step_id
            AND (SELECT status FROM taskq_task WHERE id = taskq_link.parent_id) = 'FAILED'
    ) ELSE 0 END AS is_needless FROM (
        SELECT step_id, %s AS now, (
            SELECT position FROM taskq_link WHERE child_id = step_id AND position >= seen
                AND CASE WHEN kind = 0
                    THEN (SELECT status FROM taskq_task WHERE id = taskq_link.parent_id) IS NOT 'SUCCESSFUL'
                    ELSE (SELECT finished_at FROM taskq_task WHERE id = taskq_link.parent_id) IS NULL END
            ORDER BY position LIMIT 1
        ) AS next, (SELECT kind = 2 FROM taskq_link WHERE child_id = step_id ORDER BY position LIMIT 1) AS calls_back
        FROM (
            SELECT json_extract(value, '$[0]') AS step_id, coalesce(json_extract(value, '$[1]'), 0) AS seen
            FROM json_each(%s)
        )
    ))
    WHERE id = step_id AND +status = 'WAITING'
    RETURNING id, status, queue_name, headers, taskq_task.workflow_id
"""

_CLOSE = f"""
    UPDATE taskq_workflow SET finished_at = %s, status = {WORKFLOW_STATUS}
    WHERE id IN (SELECT value FROM json_each(%s)) AND {ALL_ENDED} RETURNING id, status
"""

_DOOMED = DOOMED.replace("given", "SELECT value FROM json_each(%s)")

_PARENTS = f"""
    SELECT child_id, {PARENT_COLUMNS} FROM taskq_link JOIN taskq_task parent ON parent.id = taskq_link.parent_id
    WHERE child_id IN (SELECT value FROM json_each(%s)) ORDER BY child_id, position
"""


class SQLiteSteps(StepDialect):
    """Statements for SQLite 3.35 and newer (UPDATE ... RETURNING)."""

    def insert_links(self, connection: BaseDatabaseWrapper, links: Sequence[Link]) -> None:
        rows = [(hexed(link.parent_id), hexed(link.child_id), *link[2:]) for link in links]
        with connection.cursor() as cursor:
            cursor.execute(_INSERT_LINKS, [json.dumps(rows)])

    def lock_waiting(self, connection: BaseDatabaseWrapper, parent_ids: Sequence[str]) -> list[Waiting]:
        with connection.cursor() as cursor:
            cursor.execute(_WAITING, [hexes(parent_ids)])
            (text,) = cursor.fetchone()
        return [Waiting(dashed(hex_id), waits_at) for hex_id, waits_at in json.loads(text)]

    def advance(self, connection: BaseDatabaseWrapper, waiting: Sequence[Waiting]) -> list[Advanced]:
        now = stored(datetime.now(UTC), connection.timezone)
        asked = json.dumps([(hexed(id), waits_at) for id, waits_at in waiting])
        with connection.cursor() as cursor:
            cursor.execute(_ADVANCE, [now, asked])
            rows = [row for row in cursor.fetchall() if row[1] != "WAITING"]
        return [Advanced(dashed(id), status, name, headers, dashed(of)) for id, status, name, headers, of in rows]

    def close(self, connection: BaseDatabaseWrapper, workflow_ids: Sequence[str]) -> list[tuple[str, str]]:
        now = stored(datetime.now(UTC), connection.timezone)
        with connection.cursor() as cursor:
            cursor.execute(_CLOSE, [now, hexes(workflow_ids)])
            return [(dashed(id), status) for id, status in cursor.fetchall()]

    def doomed(self, connection: BaseDatabaseWrapper, failed_ids: Sequence[str]) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute(_DOOMED, [hexes(failed_ids)])
            return [dashed(id) for (id,) in cursor.fetchall()]

    def parents(self, connection: BaseDatabaseWrapper, child_ids: Sequence[str]) -> list[Parent]:
        with connection.cursor() as cursor:
            cursor.execute(_PARENTS, [hexes(child_ids)])
            rows = cursor.fetchall()
        # Child, four numbers, whether it carries, the parent, and what its row says.
        return [
            Parent(dashed(child), place, kind, opens, closes, bool(carries), dashed(id), name, status, result, reason)
            for child, place, kind, opens, closes, carries, id, name, status, result, reason in rows
        ]
