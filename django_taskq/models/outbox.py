"""The outbox: READY rows that wait to be handed to the depot that keeps their queue.

Whoever makes a row READY sets ``publish_after`` with the same statement where the queue is kept by a depot, so nothing
can be READY and forgotten. Supervisors publish what is due (:mod:`django_taskq.brokers.outbox`); the claim of a row and
the note that it was published clear the column. A row that is published twice is claimed once.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Case, Q, Value, When
from django.db.models.expressions import Combinable

from django_taskq import conf
from django_taskq.conf_brokers import DEFAULT_BROKER
from django_taskq.message import EXCHANGE
from django_taskq.models.clock import database_now


def on_depots() -> Q | None:
    """Which rows have a queue that a depot keeps; None where every queue is in the database."""
    settings = conf.get_settings()
    in_database = [name for name in settings.queues if settings.broker_of(name).is_database]
    if not settings.broker(DEFAULT_BROKER).is_database:
        return ~Q(queue_name__in=in_database)
    elsewhere = sorted(set(settings.queues) - set(in_database))
    if settings.exchanges:
        return Q(queue_name__in=elsewhere) | Q(queue_name__startswith=EXCHANGE)
    return Q(queue_name__in=elsewhere) if elsewhere else None


def publication(using: str, *, unless: Q | None = None) -> dict[str, Any]:
    """What an update that makes rows READY sets besides, so that their depot gets them; not where ``unless`` holds."""
    kept = on_depots()
    if kept is None:
        return {}
    never: Combinable = Value(None, models.DateTimeField())
    cases = [When(kept if unless is None else kept & ~unless, then=database_now(using))]
    return {"publish_after": Case(*cases, default=never, output_field=models.DateTimeField())}
