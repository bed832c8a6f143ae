"""The forms in which Django's SQLite backend keeps ids and times, and rows that were claimed read from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from django_taskq.message import Delivery

_CLAIMED = """
    SELECT json_group_array(json_array(id, claim, name, queue_name, payload, headers, expires_at, enqueued_at,
        run_after, attempt, crashes, is_suspect))
    FROM (SELECT * FROM taskq_task WHERE status = 'RUNNING' AND worker_id = %s AND claim >= %s ORDER BY claim)
"""


def hexed(id: str | None) -> str | None:
    """A UUID as Django's SQLite backend stores it."""
    return None if id is None else id.replace("-", "")


def hexes(ids: Sequence[str]) -> str:
    """Several of them, as one JSON text."""
    return json.dumps([id.replace("-", "") for id in ids])


def dashed(hex_id: str) -> str:
    """The inverse of :func:`hexed`."""
    return f"{hex_id[:8]}-{hex_id[8:12]}-{hex_id[12:16]}-{hex_id[16:20]}-{hex_id[20:]}"


def stored(value: datetime | None, zone: tzinfo | None) -> str | None:
    """An aware datetime as Django's SQLite backend writes it: naive text in the connection's zone (None: local)."""
    return None if value is None else value.astimezone(zone).replace(tzinfo=None).isoformat(" ")


def claimed_since(connection: BaseDatabaseWrapper, process_id: int, first_claim: int) -> list[Delivery]:
    """What this process holds under ``first_claim`` and the numbers after it, in that order."""
    with connection.cursor() as cursor:
        cursor.execute(_CLAIMED, [process_id, first_claim])
        (text,) = cursor.fetchone()
    zone = connection.timezone
    return [_delivery(row, zone) for row in json.loads(text)]


def _seconds(text: str | None, zone: tzinfo | None) -> float | None:
    """The inverse of :func:`stored`, as POSIX seconds."""
    return None if text is None else _whole_second(text[:19], zone) + float(f"0{text[19:]}")


@lru_cache(maxsize=64)
def _whole_second(text: str, zone: tzinfo | None) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def _delivery(row: list[Any], zone: tzinfo | None) -> Delivery:
    hex_id, claim, name, queue_name, payload, headers, expires_at, enqueued_at, run_after, *rest = row
    attempt, crashes, is_suspect = rest
    times = (_seconds(expires_at, zone), _seconds(enqueued_at, zone) or 0.0, _seconds(run_after, zone))
    return Delivery(
        dashed(hex_id), claim, name, queue_name, payload, headers, *times, attempt, crashes, bool(is_suspect)
    )
