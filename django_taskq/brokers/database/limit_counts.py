"""How many hold limits and wait for them, for a page of a list in one query, however many there are."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from django.db import connections

# Counting stops here: a look must not cost the database a scan of millions of rows.
COUNTED = 10_000
# The states are literals, because no planner uses a partial index for a parameter.
_COUNTS = """
    SELECT asked.key,
        (SELECT count(*) FROM (SELECT 1 FROM taskq_permit WHERE key = asked.key AND state = 2 LIMIT {most}) held),
        (SELECT count(*) FROM (SELECT 1 FROM taskq_permit WHERE key = asked.key AND state < 2 LIMIT {most}) waiting)
    FROM taskq_limit asked WHERE asked.key IN ({keys})
"""


class Crowd(NamedTuple):
    """How many are past a limit, and how many wait for it, each up to :data:`COUNTED` and one more."""

    held: int = 0
    waiting: int = 0


def crowds(using: str, keys: Collection[str]) -> dict[str, Crowd]:
    """By key, for those of these limits that have a row."""
    if not keys:
        return {}
    sql = _COUNTS.format(most=COUNTED + 1, keys=", ".join(["%s"] * len(keys)))
    with connections[using].cursor() as cursor:
        cursor.execute(sql, list(keys))
        return {key: Crowd(held, waiting) for key, held, waiting in cursor.fetchall()}
