"""What a background thread does with its Django connections that a web request's end would do for it."""

from __future__ import annotations

from django.conf import settings
from django.db import connections

from django_taskq import conf
from django_taskq.brokers.database.broker import get_dialect


def isolate() -> None:
    """Give this thread's transactions, which are ours alone, the level they are written for, whatever the project's."""
    using = conf.get_settings().database
    get_dialect(using).isolate(connections[using])


def forget_queries() -> None:
    """Empty the logs in which Django keeps every query of a debugging process until a request ends: none does here."""
    if settings.DEBUG:
        for connection in connections.all(initialized_only=True):
            connection.queries_log.clear()


def drop_connections() -> None:
    """Close this thread's connections after an error, whatever state that left them in; the next use makes new ones."""
    for connection in connections.all(initialized_only=True):
        # Inside a block close() would only mark the connection, and one that is marked it leaves as it is.
        connection.in_atomic_block = connection.closed_in_transaction = False
        connection.close()
