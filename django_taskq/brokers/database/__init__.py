"""The project's own database as the broker: the rows are the queue."""

from django_taskq.brokers.database.broker import DatabaseBroker, get_dialect

__all__ = ["DatabaseBroker", "get_dialect"]
