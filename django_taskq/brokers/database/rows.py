"""Rows as what travels, and the other way round."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django_taskq.message import EXCHANGE, Delivery, Message
from django_taskq.models import TaskRecord
from django_taskq.models.clock import aware, stored

# What an update sets for a run that nobody holds any more.
UNCLAIMED: dict[str, Any] = {"worker": None, "claim": None, "started_at": None}


def to_message(record: TaskRecord) -> Message:
    """A row as the message it was."""
    exchange = record.queue_name.removeprefix(EXCHANGE) if record.queue_name.startswith(EXCHANGE) else None
    return Message(
        str(record.id),
        record.name,
        record.queue_name,
        record.priority,
        record.payload,
        record.headers,
        aware(record.enqueued_at),
        record.run_after and aware(record.run_after),
        record.expires_at and aware(record.expires_at),
        exchange=exchange,
        routing_key="" if exchange is None else record.headers_read.routing_key or "",
        parent_id=str(record.parent_id) if record.parent_id else None,
    )


def to_delivery(record: TaskRecord) -> Delivery:
    """A claimed row as what its claimant was handed."""
    message = to_message(record)
    return Delivery(
        message.id,
        record.claim or 0,
        message.name,
        message.queue_name,
        message.payload,
        message.headers,
        *message.seconds(),
        record.attempt,
        record.crashes,
        record.is_suspect,
    )


def stored_time(moment: float | None) -> datetime | None:
    """POSIX seconds as the ORM takes them: aware with ``USE_TZ``, else naive local time."""
    return None if moment is None else stored(datetime.fromtimestamp(moment, UTC))
