"""The database's clock as an expression, for due times and leases that several hosts compare."""

from __future__ import annotations

from datetime import timedelta

from django.db import connections
from django.db.models import DateTimeField, DurationField, Expression, ExpressionWrapper, Func, Value
from django.db.models.expressions import Combinable
from django.utils import timezone


class _ClockTimestamp(Func):
    """PostgreSQL's wall clock; ``now()`` would stand still for the length of a transaction."""

    template = "CLOCK_TIMESTAMP()"
    output_field = DateTimeField()


def database_now(alias: str) -> Expression:
    """The current time by the clock of the database ``alias``.

    SQLite has no clock but its host's, and its ``Now()`` is UTC whatever ``USE_TZ`` says, so Python's is used there.
    """
    if connections[alias].vendor == "postgresql":
        return _ClockTimestamp()
    return Value(timezone.now(), output_field=DateTimeField())


def database_now_plus(alias: str, seconds: float) -> Combinable:
    """The database's time ``seconds`` from now."""
    if connections[alias].vendor == "postgresql":
        later = _ClockTimestamp() + Value(timedelta(seconds=seconds), output_field=DurationField())
        return ExpressionWrapper(later, output_field=DateTimeField())
    return Value(timezone.now() + timedelta(seconds=seconds), output_field=DateTimeField())
