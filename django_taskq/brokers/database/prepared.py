"""Prepared statements on psycopg's connection that are safe behind a pooler, for the one statement worth it.

Planning a single-row INSERT costs PostgreSQL a third of executing it. Django leaves psycopg's own prepared statements
off, because behind PgBouncer in transaction mode the next statement may run on another server connection, where their
numbered names are missing or mean something else. The names here contain a digest of the statement, so they mean the
same everywhere, and a missing one is an error before anything has happened: it is then run unprepared.

Only for connections in autocommit: inside a transaction that error would end the transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

_MISSING, _EXISTS = "26000", "42P05"  # SQLSTATE: invalid_sql_statement_name, duplicate_prepared_statement
# A connection whose names go missing so often is a pooler's: no more of it there.
_MOST_MISSES = 3

_states: WeakKeyDictionary[Any, dict[bytes, int]] = WeakKeyDictionary()


class Statement:
    """A statement with parameters $1, $2, ..., under a name that says what it is."""

    def __init__(self, sql: str) -> None:
        self.sql = sql.encode()
        self.name = b"taskq_" + hashlib.sha256(self.sql).hexdigest()[:16].encode()


def execute(connection: Any, statement: Statement, values: Sequence[Any]) -> None:
    """Run it on a psycopg connection in autocommit; values travel as text. Raises psycopg's errors."""
    libpq = connection.pgconn
    texts = [None if value is None else str(value).encode() for value in values]
    misses = _states.setdefault(connection, {})
    if misses.get(statement.name, 0) > _MOST_MISSES:
        _check(connection, libpq.exec_params(statement.sql, texts))
        return
    if statement.name not in misses:
        state = _state(libpq.prepare(statement.name, statement.sql))
        misses[statement.name] = 0 if state in (None, _EXISTS) else _MOST_MISSES
    result = libpq.exec_prepared(statement.name, texts)
    if _state(result) == _MISSING:
        misses[statement.name] += 1
        result = libpq.exec_params(statement.sql, texts)
    _check(connection, result)


def _state(result: Any) -> str | None:
    """The SQLSTATE of an error, None for a success."""
    state: bytes | None = result.error_field(_pq().DiagnosticField.SQLSTATE)
    return state.decode() if state else None


def _check(connection: Any, result: Any) -> None:
    status = _pq().ExecStatus
    if result.status not in (status.COMMAND_OK, status.TUPLES_OK):
        raise import_module("psycopg.errors").error_from_result(result, connection.info.encoding)


@cache
def _pq() -> Any:
    # By name, because psycopg is an extra: a project on SQLite has none.
    return import_module("psycopg.pq")
