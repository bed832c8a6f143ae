"""The raw table on SQLite, with the standard library's module."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import ClassVar

from django_taskq.bench.raw.store import NAME, QUEUE, TABLE, Access, Finished, RawStore, Row, utc_now

_INSERT = f"""
    INSERT INTO {TABLE} (id, name, queue_name, priority, status, payload, headers, enqueued_at, run_after, expires_at)
    VALUES (?, '{NAME}', '{QUEUE}', 0, 'READY', ?, NULL, ?, NULL, NULL)
"""
_CLAIM = f"""
    UPDATE {TABLE} SET status = 'RUNNING', worker_id = ?, claim = ? + number
    FROM (
        SELECT id AS taken_id, row_number() OVER (ORDER BY priority DESC, coalesce(place, id)) - 1 AS number
        FROM {TABLE} WHERE status = 'READY' AND queue_name = ? ORDER BY priority DESC, coalesce(place, id) LIMIT ?
    )
    WHERE id = taken_id RETURNING id, claim, payload
"""
_FINISH = f"""
    UPDATE {TABLE} SET status = 'SUCCESSFUL', result = ?, started_at = ?, finished_at = ?
    WHERE id = ? AND status = 'RUNNING' AND worker_id = ? AND claim = ?
"""


class Store(RawStore):
    """Autocommit; transactions take the write lock at once."""

    claim_sql: ClassVar[str] = _CLAIM
    finish_sql: ClassVar[str] = _FINISH

    def __init__(self, access: Access) -> None:
        self._connection = sqlite3.connect(**access.parameters, isolation_level=None)
        for pragma in access.pragmas:
            self._connection.execute(pragma)

    def create_table(self) -> None:
        self._connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
        found = self._connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE tbl_name = 'taskq_task' AND sql IS NOT NULL ORDER BY type DESC"
        ).fetchall()
        for name, sql in found:
            renamed = sql.replace('"taskq_task"', f'"{TABLE}"')
            self._connection.execute(renamed.replace(f'INDEX "{name}"', f'INDEX "{TABLE}_{name}"'))

    def empty(self) -> None:
        self._connection.execute(f"DELETE FROM {TABLE}")

    def copy_rows(self) -> None:
        self._connection.execute(f"INSERT INTO {TABLE} SELECT * FROM taskq_task")

    def insert_one(self, row: Row) -> None:
        self._connection.execute(_INSERT, _values(row))

    def insert_and_wake(self, row: Row) -> None:
        self.insert_one(row)

    def insert_many(self, rows: Sequence[Row]) -> None:
        with self.transaction():
            self._connection.executemany(_INSERT, [_values(row) for row in rows])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def claim(self, process: int, first_claim: int, limit: int) -> list[tuple[str, int, str]]:
        rows = self._connection.execute(_CLAIM, (process, first_claim, QUEUE, limit)).fetchall()
        return sorted(rows, key=lambda row: int(row[1]))

    def finish(self, process: int, finished: Sequence[Finished]) -> None:
        rows = [(f.result, _text(f.started_at), _text(f.finished_at), f.id, process, f.claim) for f in finished]
        self._connection.executemany(_FINISH, rows)

    def results(self) -> dict[str, str]:
        found = self._connection.execute(
            f"SELECT id, result FROM {TABLE} WHERE name = '{NAME}' AND status = 'SUCCESSFUL'"
        )
        return dict(found.fetchall())

    def close(self) -> None:
        self._connection.close()


def _values(row: Row) -> tuple[str, str, str]:
    return row.id.replace("-", ""), row.payload, utc_now().replace(tzinfo=None).isoformat(" ")


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None).isoformat(" ")
