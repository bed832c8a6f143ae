"""PostgreSQL: steps are locked before they are looked at, and every look is a statement of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from django_taskq.brokers.database.step_dialect import (
    ALL_ENDED,
    ONE,
    PARENT_COLUMNS,
    WORKFLOW_STATUS,
    Advanced,
    Followed,
    Parent,
    StepDialect,
    Taken,
    Waiting,
)
from django_taskq.gates import AT_GATE
from django_taskq.message import Delivery, Room
from django_taskq.steps import Link

_INSERT_LINKS = """
    INSERT INTO taskq_link (child_id, position, parent_id, kind, opens, closes, carries)
    SELECT (row->>1)::uuid, (row->>2)::int, (row->>0)::uuid, (row->>3)::smallint, (row->>4)::smallint,
        (row->>5)::smallint, (row->>6)::boolean
    FROM json_array_elements(%s::json) row
"""

# The sub-select is made an array so that no plan but the one by primary key is left, whatever the statistics say.
_LOCK_WAITING = f"""
    SELECT id::text, waits_at FROM taskq_task
    WHERE id = ANY(ARRAY(SELECT child_id FROM unnest(%s::uuid[]) AS given(id), LATERAL (
        SELECT child_id FROM taskq_link WHERE parent_id = given.id OFFSET 0
    ) link)) AND status = 'WAITING' AND waits_at IS DISTINCT FROM {AT_GATE}
    ORDER BY id FOR UPDATE
"""

# Most steps follow one other. Nobody else can be about to let them go, so there is nothing to lock or to look at; and
# what would be claimed next anyhow is claimed here: it comes before the head of its queue, which is not paused.
_FOLLOW = f"""
    WITH children AS MATERIALIZED (
        SELECT child_id, given.id AS followed, opens, closes, carries FROM unnest(%s::uuid[]) AS given(id), LATERAL (
            SELECT child_id, opens, closes, carries FROM taskq_link WHERE parent_id = given.id OFFSET 0
        ) link
    ), heads AS MATERIALIZED (
        SELECT served, head.priority, head.id FROM unnest(%s::text[]) AS served LEFT JOIN LATERAL (
            SELECT priority, coalesce(place, id) AS id FROM taskq_task
            WHERE status = 'READY' AND queue_name = served ORDER BY priority DESC, coalesce(place, id) LIMIT 1
        ) head ON TRUE
        WHERE NOT EXISTS (SELECT 1 FROM taskq_queue WHERE name = served AND paused_at IS NOT NULL)
    ), chosen AS MATERIALIZED (
        SELECT step.id AS chosen_id, row_number() OVER (ORDER BY step.priority DESC, step.id) - 1 AS number
        FROM taskq_task step JOIN heads ON served = step.queue_name
        WHERE step.id = ANY(ARRAY(SELECT child_id FROM children)) AND step.status = 'WAITING' AND step.waits_at = {ONE}
            AND coalesce(step.run_after <= clock_timestamp(), TRUE)
            AND (heads.id IS NULL OR step.priority > heads.priority
                OR step.priority = heads.priority AND step.id < heads.id)
    ), moved AS (
        UPDATE taskq_task SET waits_at = NULL,
            status = CASE WHEN number < %s THEN 'RUNNING' WHEN run_after > clock_timestamp() THEN 'SCHEDULED'
                ELSE 'READY' END,
            worker_id = CASE WHEN number < %s THEN %s END, claim = CASE WHEN number < %s THEN %s + number END,
            run_after = greatest(run_after, clock_timestamp())
        FROM children LEFT JOIN chosen ON chosen_id = child_id
        WHERE id = ANY(ARRAY(SELECT child_id FROM children)) AND id = child_id AND status = 'WAITING'
            AND waits_at = {ONE}
        RETURNING id::text, status, queue_name, headers, workflow_id::text, claim, name,
            CASE WHEN claim IS NOT NULL THEN payload END, extract(epoch FROM expires_at)::float8,
            extract(epoch FROM enqueued_at)::float8, extract(epoch FROM run_after)::float8, attempt, crashes,
            is_suspect, followed::text, opens, closes, carries
    )
    SELECT (SELECT count(*) FROM children), moved.* FROM (VALUES (1)) AS one LEFT JOIN moved ON TRUE
"""

# A statement of its own, so that it sees what was committed while the locks were waited for. A link to a parent that
# is not there any more holds its child up until maintenance finds it. MATERIALIZED: else the planner copies the search
# to each place that uses it. The ids are given twice, so that no plan but the one by primary key is left.
_ADVANCE = """
    WITH found AS MATERIALIZED (
        SELECT (row->>0)::uuid AS step_id, (
            SELECT position FROM taskq_link WHERE child_id = (row->>0)::uuid AND position >= coalesce((row->>1)::int, 0)
                AND CASE WHEN kind = 0
                    THEN (SELECT status FROM taskq_task WHERE id = taskq_link.parent_id) IS DISTINCT FROM 'SUCCESSFUL'
                    ELSE (SELECT finished_at FROM taskq_task WHERE id = taskq_link.parent_id) IS NULL END
            ORDER BY child_id, position LIMIT 1
        ) AS next, (
            SELECT kind = 2 FROM taskq_link WHERE child_id = (row->>0)::uuid ORDER BY child_id, position LIMIT 1
        ) AS calls_back
        FROM json_array_elements(%s::json) row
    )
    UPDATE taskq_task SET waits_at = next,
        status = CASE WHEN next IS NOT NULL THEN 'WAITING' WHEN is_needless THEN 'CANCELLED'
            WHEN run_after > clock_timestamp() THEN 'SCHEDULED' ELSE 'READY' END,
        run_after = CASE WHEN next IS NULL THEN greatest(run_after, clock_timestamp()) ELSE run_after END,
        finished_at = CASE WHEN is_needless THEN clock_timestamp() END,
        reason = CASE WHEN is_needless THEN 'NotNeeded' ELSE reason END
    FROM (
        SELECT step_id, next, CASE WHEN next IS NULL AND calls_back THEN NOT EXISTS (
            SELECT 1 FROM taskq_link WHERE child_id = step_id
                AND (SELECT status FROM taskq_task WHERE id = taskq_link.parent_id) = 'FAILED'
        ) ELSE false END AS is_needless FROM found
    ) looked
    WHERE id = ANY(%s::uuid[]) AND id = step_id AND status = 'WAITING'
        AND (next IS NULL OR next IS DISTINCT FROM waits_at)
    RETURNING id::text, status, queue_name, headers, workflow_id::text
"""

_LOCK_ENDING = """
    SELECT id::text FROM taskq_workflow WHERE id = ANY(%s::uuid[]) AND finished_at IS NULL AND NOT EXISTS (
        SELECT 1 FROM taskq_task WHERE workflow_id = taskq_workflow.id AND status IN ('WAITING', 'READY', 'SCHEDULED')
    ) ORDER BY id FOR UPDATE
"""
_CLOSE = f"""
    UPDATE taskq_workflow SET finished_at = clock_timestamp(), status = {WORKFLOW_STATUS}
    WHERE id = ANY(%s::uuid[]) AND {ALL_ENDED} RETURNING id::text, status
"""

# OFFSET 0 keeps the planner from a join that reads all links at every turn.
_DOOMED = """
    WITH RECURSIVE doomed(id) AS (
        SELECT child_id FROM unnest(%s::uuid[]) AS given(id), LATERAL (
            SELECT child_id FROM taskq_link WHERE parent_id = given.id AND kind = 0 OFFSET 0
        ) link
        UNION
        SELECT child_id FROM doomed, LATERAL (
            SELECT child_id FROM taskq_link WHERE parent_id = doomed.id AND kind = 0 OFFSET 0
        ) link
    )
    SELECT id::text FROM taskq_task WHERE id = ANY(ARRAY(SELECT id FROM doomed)) AND status = 'WAITING' ORDER BY id
"""

_PARENTS = f"""
    SELECT child_id::text, {PARENT_COLUMNS.replace("parent.id", "parent.id::text")}
    FROM taskq_link JOIN taskq_task parent ON parent.id = taskq_link.parent_id
    WHERE child_id = ANY(%s::uuid[]) ORDER BY child_id, position
"""


class PostgreSQLSteps(StepDialect):
    """Statements for PostgreSQL 14 and newer."""

    def begin(self, connection: BaseDatabaseWrapper) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL jit = off")

    def insert_links(self, connection: BaseDatabaseWrapper, links: Sequence[Link]) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_INSERT_LINKS, [json.dumps(links)])

    def follow(
        self, connection: BaseDatabaseWrapper, parent_ids: Sequence[str], process_id: int, room: Room
    ) -> Followed:
        limit, first_claim = room.limit, room.first_claim
        with connection.cursor() as cursor:
            cursor.execute(
                _FOLLOW, [list(parent_ids), list(room.queue_names), limit, limit, process_id, limit, first_claim]
            )
            rows = cursor.fetchall()
        moved = [row for row in rows if row[1] is not None]
        ready = [Advanced(*row[1:6]) for row in moved if row[6] is None]
        taken = sorted((_taken(row) for row in moved if row[6] is not None), key=_claim_of)
        return Followed(ready, taken, rows[0][0] > len(moved))

    def lock_waiting(self, connection: BaseDatabaseWrapper, parent_ids: Sequence[str]) -> list[Waiting]:
        with connection.cursor() as cursor:
            cursor.execute(_LOCK_WAITING, [list(parent_ids)])
            return [Waiting(*row) for row in cursor.fetchall()]

    def advance(self, connection: BaseDatabaseWrapper, waiting: Sequence[Waiting]) -> list[Advanced]:
        with connection.cursor() as cursor:
            cursor.execute(_ADVANCE, [json.dumps(waiting), [step.id for step in waiting]])
            return [Advanced(*row) for row in cursor.fetchall() if row[1] != "WAITING"]

    def close(self, connection: BaseDatabaseWrapper, workflow_ids: Sequence[str]) -> list[tuple[str, str]]:
        with connection.cursor() as cursor:
            cursor.execute(_LOCK_ENDING, [list(workflow_ids)])
            ending = [id for (id,) in cursor.fetchall()]
            if not ending:
                return []
            cursor.execute(_CLOSE, [ending])
            return list(cursor.fetchall())

    def doomed(self, connection: BaseDatabaseWrapper, failed_ids: Sequence[str]) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute(_DOOMED, [list(failed_ids)])
            return [id for (id,) in cursor.fetchall()]

    def parents(self, connection: BaseDatabaseWrapper, child_ids: Sequence[str]) -> list[Parent]:
        with connection.cursor() as cursor:
            cursor.execute(_PARENTS, [list(child_ids)])
            return [Parent(*row) for row in cursor.fetchall()]


def _taken(row: tuple[Any, ...]) -> Taken:
    _, id, _, queue_name, headers, workflow_id, claim, name, payload, expires_at, enqueued_at, run_after, *rest = row
    attempt, crashes, is_suspect, parent_id, opens, closes, carries = rest
    times = (expires_at, enqueued_at, run_after)
    delivery = Delivery(id, claim, name, queue_name, payload, headers, *times, attempt, crashes, is_suspect)
    return Taken(delivery, workflow_id, parent_id, opens, closes, carries)


def _claim_of(taken: Taken) -> int:
    return taken.delivery.claim
