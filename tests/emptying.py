"""How the databases are emptied after a test that has committed: only the tables with rows in them.

Django truncates every table and then makes the content types and permissions anew. That took a tenth of a second
after each of two thousand tests.
"""

from __future__ import annotations

from functools import cache

from django.core.management.color import no_style
from django.db import connections, transaction
from django.test import TransactionTestCase

# What `migrate` has put there stays; no test changes it.
KEPT = {"django_content_type", "auth_permission"}


def install() -> None:
    """Have every test that commits end with this."""
    TransactionTestCase._fixture_teardown = empty_all  # type: ignore[attr-defined]


def empty_all(case: TransactionTestCase) -> None:
    for alias in case._databases_names(include_mirrors=False):  # type: ignore[attr-defined]
        empty(alias)


def empty(alias: str) -> None:
    connection = connections[alias]
    quote = connection.ops.quote_name
    with transaction.atomic(using=alias), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # The server may still be at the last statement of a worker that was killed: what it commits goes, too.
            cursor.execute(f"LOCK TABLE {', '.join(quote(table) for table in tables(alias))}")
        looks = (f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {quote(table)})" for table in tables(alias))
        cursor.execute(" UNION ALL ".join(looks))
        filled = [table for (table,) in cursor.fetchall()]
        connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), filled, allow_cascade=True))


@cache
def tables(alias: str) -> tuple[str, ...]:
    names = connections[alias].introspection.django_table_names(only_existing=True, include_views=False)
    return tuple(sorted(set(names) - KEPT))
