"""Cancelling runs: the mark on their rows, and the word to the workers that have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connections
from django.utils.module_loading import import_string

if TYPE_CHECKING:
    from django_taskq.models.task import TaskQuerySet

# What the doorbell says when only supervisors are to look: no queue has this name.
SUPERVISORS = ""


def cancel_records(records: TaskQuerySet) -> int:
    """Cancel what waits and have what runs stopped; returns how many runs that reached."""
    count: int = records.cancel()
    if count:
        wake_supervisors(records.db)
    return count


def wake_supervisors(using: str) -> None:
    """Have every supervisor look at what it was told, now or when the open transaction commits."""
    import_string("django_taskq.brokers.database.get_dialect")(using).wake(connections[using], [SUPERVISORS])
