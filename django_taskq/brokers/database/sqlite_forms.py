"""The forms in which Django's SQLite backend keeps ids and times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, tzinfo


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
