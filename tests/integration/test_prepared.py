"""The prepared insert of PostgreSQL: the right statement or an error, also behind a pooler that swaps connections."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection

from django_taskq.brokers.database import prepared
from django_taskq.models import TaskRecord
from tests.testapp.tasks import add

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.database,
    pytest.mark.skipif("connection.vendor != 'postgresql'", reason="PostgreSQL's alone"),
]


def names() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_prepared_statements")
        return {name for (name,) in cursor.fetchall()}


def swap_server_connection() -> None:
    """What a pooler does between two transactions, seen from here: the names are gone."""
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")


def test_is_prepared_once_and_used() -> None:
    connection.close()
    for _ in range(20):
        add.enqueue(1, 2)
    assert 1 <= len([name for name in names() if name.startswith("taskq_")]) <= 2
    assert TaskRecord.objects.count() == 20


def test_a_missing_name_is_run_unprepared_and_then_left_alone() -> None:
    connection.close()
    for _ in range(10):
        add.enqueue(1, 2)
        swap_server_connection()
    add.enqueue(1, 2)
    assert TaskRecord.objects.count() == 11
    assert max(prepared._states[connection.connection].values()) > prepared._MOST_MISSES


def test_a_name_that_is_there_already_is_the_same_statement() -> None:
    connection.close()
    add.enqueue(1, 2)
    prepared._states.clear()
    add.enqueue(1, 2)
    assert TaskRecord.objects.count() == 2


def test_errors_are_django_s() -> None:
    first = add.enqueue(1, 2)
    with pytest.raises(Exception, match="exists already") as caught:
        add.using(task_id=first.id).enqueue(1, 2)
    assert isinstance(caught.value.__cause__, IntegrityError)


def test_a_lost_connection_is_an_operational_error_and_the_next_call_can_reconnect() -> None:
    add.enqueue(1, 2)
    raw: Any = connection.connection
    with connection.cursor() as cursor, pytest.raises(OperationalError):
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert raw.broken
    with pytest.raises(OperationalError):
        add.enqueue(1, 2)
    connection.close_if_unusable_or_obsolete()
    add.enqueue(1, 2)
    assert TaskRecord.objects.count() == 2
