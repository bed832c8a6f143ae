"""A message as the text that travels to a depot and back: a JSON list behind its format's number.

What a depot hands out may come from anywhere: :func:`loads` refuses what is not of :func:`dumps`' making, and never
looks anything up or imports on its word.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from django_taskq.exceptions import SerializationError
from django_taskq.message import Delivery, Message, Parcel, Tracking
from django_taskq.options import MAX_PRIORITY, MIN_PRIORITY

VERSION = 1
CONTENT_TYPE = "application/json"

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode
_FIELDS = 13
_TEXT = (str, type(None))
_TIME = (float, int, type(None))
_TRACKINGS = tuple(Tracking)
# The end of the year 9998 in POSIX seconds: what a datetime can say in every time zone.
_LATEST = 253_370_764_800


def fields(message: Message) -> list[Any]:
    """The message as plain values; times are POSIX seconds."""
    expires_at, enqueued_at, run_after = message.seconds()
    return [
        VERSION,
        message.id,
        message.name,
        message.queue_name,
        message.priority,
        int(message.tracking),
        message.payload,
        message.headers,
        expires_at,
        enqueued_at,
        run_after,
        message.exchange,
        message.parent_id,
    ]


def dumps(message: Message) -> str:
    """The message as text."""
    return _encoder(fields(message))


def loads(text: str | bytes, claim: int = 0, *, receipt: Any = None, is_suspect: bool = False) -> Parcel:
    """The text as a parcel with this claim number. Raises :exc:`SerializationError` saying what is wrong with it."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SerializationError(f"the message is not readable JSON: {type(error).__name__}") from error
    return parcel(values, claim, receipt=receipt, is_suspect=is_suspect)


def parcel(values: Any, claim: int = 0, *, receipt: Any = None, is_suspect: bool = False) -> Parcel:
    """What :func:`fields` made, as a parcel. Raises :exc:`SerializationError` saying what is wrong with it."""
    if type(values) is not list or len(values) < _FIELDS or values[0] != VERSION:
        found = values[0] if type(values) is list and values else type(values).__name__
        raise SerializationError(f"the message is not of format {VERSION} of this package, but {found!r:.40}")
    (_, id, name, queue, priority, tracking, payload, headers, expires_at, enqueued_at, run_after, exchange, parent) = (
        values[:_FIELDS]
    )
    is_sound = (
        type(id) is type(name) is type(queue) is type(payload) is str
        and len(id) == 36
        and type(priority) is type(tracking) is int
        and type(headers) in _TEXT
        and type(exchange) in _TEXT
        and type(parent) in _TEXT
        and type(enqueued_at) in (float, int)
        and type(expires_at) in _TIME
        and type(run_after) in _TIME
        and 0 <= tracking < len(_TRACKINGS)
        and MIN_PRIORITY <= priority <= MAX_PRIORITY
        # Not a number compares as False, too.
        and 0 <= enqueued_at <= _LATEST
        and (expires_at is None or 0 <= expires_at <= _LATEST)
        and (run_after is None or 0 <= run_after <= _LATEST)
    )
    if not is_sound:
        raise SerializationError("a field of the message has a type or value that this package never writes")
    delivery = Delivery(id, claim, name, queue, payload, headers, expires_at, enqueued_at, run_after, 1, 0, is_suspect)
    return Parcel(delivery, priority, _TRACKINGS[tracking], parent, receipt)


def to_message(parcel: Parcel) -> Message:
    """A parcel as the message it was."""
    run = parcel.delivery
    return Message(
        run.id,
        run.name,
        run.queue_name,
        parcel.priority,
        run.payload,
        run.headers,
        datetime.fromtimestamp(run.enqueued_at, UTC),
        None if run.run_after is None else datetime.fromtimestamp(run.run_after, UTC),
        None if run.expires_at is None else datetime.fromtimestamp(run.expires_at, UTC),
        parcel.tracking,
        parent_id=parcel.parent_id,
    )
