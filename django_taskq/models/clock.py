"""The database's clock as an expression, for due times and leases that several hosts compare."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import cast

from django.conf import settings
from django.db import connections
from django.db.models import DateTimeField, DurationField, Expression, ExpressionWrapper, Func, Value
from django.db.models.expressions import Combinable
from django.utils import timezone

from django_taskq import clock


class _ClockTimestamp(Func):
    """PostgreSQL's wall clock; ``now()`` would stand still for the length of a transaction."""

    template = "CLOCK_TIMESTAMP()"
    output_field = DateTimeField()


def database_now(alias: str) -> Expression:
    """The current time by the clock of the database ``alias``.

    SQLite has no clock but its host's, and its ``Now()`` is UTC whatever ``USE_TZ`` says, so Python's is used there.
    """
    if connections[alias].vendor == "postgresql":
        # Tests move the time of this process, and the database's with it.
        return cast(Expression, database_now_plus(alias, 0)) if clock.moved() else _ClockTimestamp()
    return Value(stored(clock.now()), output_field=DateTimeField())


def database_now_plus(alias: str, seconds: float) -> Combinable:
    """The database's time ``seconds`` from now."""
    if connections[alias].vendor == "postgresql":
        ahead = timedelta(seconds=seconds) + clock.moved()
        later = _ClockTimestamp() + Value(ahead, output_field=DurationField())
        return ExpressionWrapper(later, output_field=DateTimeField())
    return Value(stored(clock.now() + timedelta(seconds=seconds)), output_field=DateTimeField())


def aware(value: datetime) -> datetime:
    """A time read by the ORM, which is naive without ``USE_TZ``, with its zone."""
    return value if value.tzinfo else timezone.make_aware(value)


def stored(value: datetime) -> datetime:
    """An aware time as the ORM takes it: as it is with ``USE_TZ``, else naive local time."""
    return value if settings.USE_TZ else timezone.make_naive(value)
