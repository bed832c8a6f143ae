"""SQLite: every statement that writes is the first of its transaction, so it waits for its turn instead of failing.

A transaction that has read and then writes after somebody else's commit fails at once (SQLITE_BUSY_SNAPSHOT),
whatever the timeout; and a claim takes the write lock even when nothing is there, so callers look first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from django.db.backends.base.base import BaseDatabaseWrapper

from django_taskq.brokers.database.dialect import (
    COLUMNS,
    RELEASED,
    Dialect,
    Finished,
    Known,
    is_at_gate,
    is_plain,
    may_be_direct,
    status_of,
)
from django_taskq.brokers.database.sqlite_forms import claimed_since, hexed, stored
from django_taskq.brokers.database.sqlite_limits import SQLiteLimits
from django_taskq.brokers.database.sqlite_steps import SQLiteSteps
from django_taskq.gates import AT_GATE
from django_taskq.message import Delivery, Message

_INSERT = f"INSERT INTO taskq_task ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"

_INSERT_DIRECTLY = _INSERT.replace("%s", "?")

_INSERT_WAITING = _INSERT.replace(")", ", workflow_id, waits_at)", 1)[:-1] + ", %s, %s)"

_HAS_WORK = "SELECT 1 FROM taskq_task WHERE status = 'READY' AND queue_name = %s LIMIT 1"

# Many rows travel as one JSON text, both ways. The driver lets go of the GIL at every row it steps over, and getting
# it back from a thread that computes takes up to 5 ms: a thousand rows one by one cost the claim 40 ms, and now 6.
_CLAIM = """
    UPDATE taskq_task SET status = 'RUNNING', worker_id = %s, claim = %s + number
    FROM (
        SELECT id AS taken_id, row_number() OVER (ORDER BY priority DESC, coalesce(place, id)) - 1 AS number
        FROM taskq_task WHERE status = 'READY' AND queue_name = %s
            AND NOT EXISTS (SELECT 1 FROM taskq_queue WHERE name = %s AND paused_at IS NOT NULL)
        ORDER BY priority DESC, coalesce(place, id) LIMIT %s
    )
    WHERE id = taken_id
"""
_CLAIM_KNOWN = """
    UPDATE taskq_task SET status = 'RUNNING', worker_id = %s, claim = asked_claim, publish_after = NULL
    FROM (
        SELECT json_extract(value, '$[0]') AS asked_id, json_extract(value, '$[1]') AS asked_claim FROM json_each(%s)
    ) AS asked
    WHERE id = asked_id AND +status = 'READY'
"""
_CLAIMED_KNOWN = """
    SELECT json_group_array(json_array(claim, attempt, crashes, is_suspect, headers)) FROM taskq_task
    WHERE status = 'RUNNING' AND worker_id = %s AND claim BETWEEN %s AND %s
"""

# The plus signs keep the planner off the index of claimed rows: by id each row is found at once.
_FINISH = """
    UPDATE taskq_task
    SET status = 'SUCCESSFUL', result = done.result, started_at = done.begun, finished_at = done.ended, reason = ''
    FROM (
        SELECT json_extract(value, '$[0]') AS done_id, json_extract(value, '$[1]') AS done_claim,
            json_extract(value, '$[2]') AS result, json_extract(value, '$[3]') AS begun,
            json_extract(value, '$[4]') AS ended
        FROM json_each(%s)
    ) AS done
    WHERE id = done_id AND +status = 'RUNNING' AND +worker_id = %s AND +claim = done_claim
"""

_RELEASE = f"""
    UPDATE taskq_task SET {RELEASED}
    WHERE status = 'RUNNING' AND worker_id = %s AND claim IN (SELECT value FROM json_each(%s)) RETURNING id, queue_name
"""


class SQLite(SQLiteSteps, SQLiteLimits, Dialect):
    """Statements for SQLite 3.35 and newer (UPDATE ... RETURNING)."""

    vendor: ClassVar[str] = "sqlite"
    claims_lightly: ClassVar[bool] = False
    # In WAL mode a commit writes no disk. A transaction of several statements would need the GIL between them, and
    # while a task keeps that, the write lock of the whole site would be held.
    commits_cheaply: ClassVar[bool] = True

    def insert(
        self,
        connection: BaseDatabaseWrapper,
        messages: Sequence[Message],
        wake: Sequence[str],
        publish_after: datetime | None = None,
    ) -> None:
        zone = connection.timezone
        published = (stored(publish_after, zone),)
        if len(messages) == 1 and is_plain(messages[0]) and may_be_direct(connection):
            with connection.wrap_database_errors:
                connection.connection.execute(_INSERT_DIRECTLY, _row(messages[0], zone) + published)
            return
        with connection.cursor() as cursor:
            if all(map(is_plain, messages)):
                cursor.executemany(_INSERT, [_row(message, zone) + published for message in messages])
            else:
                # Here a step does not note that it follows one other: SQLite looks at all alike.
                rows = [
                    (
                        *_row(message, zone),
                        *published,
                        hexed(message.workflow_id),
                        AT_GATE if is_at_gate(message) else None,
                    )
                    for message in messages
                ]
                cursor.executemany(_INSERT_WAITING, rows)

    def queues_with_work(self, connection: BaseDatabaseWrapper, queue_names: Sequence[str]) -> list[str]:
        found = []
        with connection.cursor() as cursor:
            for name in queue_names:
                cursor.execute(_HAS_WORK, [name])
                if cursor.fetchone() is not None:
                    found.append(name)
        return found

    def claim(
        self, connection: BaseDatabaseWrapper, queue_name: str, limit: int, process_id: int, first_claim: int
    ) -> list[Delivery]:
        with connection.cursor() as cursor:
            cursor.execute(_CLAIM, [process_id, first_claim, queue_name, queue_name, limit])
        return claimed_since(connection, process_id, first_claim)

    def claim_known(
        self, connection: BaseDatabaseWrapper, process_id: int, claims: Sequence[tuple[str, int]]
    ) -> dict[int, Known]:
        numbers = [claim for _, claim in claims]
        asked = json.dumps([(id.replace("-", ""), claim) for id, claim in claims])
        with connection.cursor() as cursor:
            cursor.execute(_CLAIM_KNOWN, [process_id, asked])
            cursor.execute(_CLAIMED_KNOWN, [process_id, min(numbers), max(numbers)])
            (text,) = cursor.fetchone()
        return {
            claim: Known(attempt, crashes, bool(is_suspect), headers)
            for claim, attempt, crashes, is_suspect, headers in json.loads(text)
        }

    def finish(self, connection: BaseDatabaseWrapper, process_id: int, finished: Sequence[Finished]) -> int:
        zone = connection.timezone
        rows = [
            (
                done.id.replace("-", ""),
                done.claim,
                done.result,
                _moment(done.started_at, zone),
                _moment(done.finished_at, zone),
            )
            for done in finished
        ]
        with connection.cursor() as cursor:
            cursor.execute(_FINISH, [json.dumps(rows), process_id])
            return int(cursor.rowcount)

    def release(self, connection: BaseDatabaseWrapper, process_id: int, claims: Sequence[int]) -> list[tuple[str, str]]:
        now = stored(datetime.now(UTC), connection.timezone)
        with connection.cursor() as cursor:
            cursor.execute(_RELEASE, [now, process_id, json.dumps(list(claims))])
            return list(cursor.fetchall())

    def prepare(self, connection: BaseDatabaseWrapper) -> None:
        """Take the write lock with the first statement, whatever ``transaction_mode`` the project recommends itself.

        Each of our transactions begins with a write, so that is as safe as IMMEDIATE, and what Python does before it
        (a third of the work) happens outside of the lock.
        """
        connection.ensure_connection()
        connection.transaction_mode = None  # type: ignore[attr-defined]

    def wake(self, connection: BaseDatabaseWrapper, queue_names: Sequence[str]) -> None:
        """Nothing to do: supervisors watch the file's data version."""


def data_version(connection: BaseDatabaseWrapper) -> int:
    """A number that changes with every commit of another connection (not of this one).

    Asked for without Django's cursor: the doorbell asks forty times a second.
    """
    connection.ensure_connection()
    version: int = connection.connection.execute("PRAGMA data_version").fetchone()[0]
    return version


def database_file(connection: BaseDatabaseWrapper) -> Path | None:
    """The file behind a connection; None for a database in memory."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA database_list")
        files = {name: file for _, name, file in cursor.fetchall()}
    return Path(files["main"]) if files.get("main") else None


def _row(message: Message, zone: tzinfo | None) -> tuple[Any, ...]:
    return (
        message.id.replace("-", ""),
        message.name,
        message.queue_name,
        message.priority,
        status_of(message),
        message.payload,
        message.headers,
        stored(message.enqueued_at, zone),
        stored(message.run_after, zone),
        stored(message.expires_at, zone),
    )


def _moment(seconds: float, zone: tzinfo | None) -> str:
    """POSIX seconds in the same form; runs of one batch share their second, so its text is made once."""
    whole = int(seconds)
    return f"{_second(whole, zone)}.{int((seconds - whole) * 1_000_000):06d}"


@lru_cache(maxsize=64)
def _second(seconds: int, zone: tzinfo | None) -> str:
    return datetime.fromtimestamp(seconds, zone).strftime("%Y-%m-%d %H:%M:%S")
