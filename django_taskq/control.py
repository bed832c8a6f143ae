"""What people ask of runs that exist already. (Cancelling is a queryset's verb: it needs nobody to be told.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connections, transaction
from django.utils.module_loading import import_string

from django_taskq import conf

if TYPE_CHECKING:
    from django_taskq.models.task import TaskQuerySet


def retry(records: TaskQuerySet) -> int:
    """Another attempt, at once, for those that are FAILED or CANCELLED; their history stays. Returns how many."""
    using = records.db
    retryable = records.filter(status__in=("FAILED", "CANCELLED"))
    # Looked at before the transaction, whose first statement has to be the write: SQLite refuses it otherwise.
    names = sorted(set(retryable.order_by().values_list("queue_name", flat=True).distinct()))
    is_eager = conf.get_settings().eager
    ids = [str(pk) for pk in retryable.values_list("pk", flat=True)] if is_eager else []
    if not names:
        return 0
    with transaction.atomic(using=using):
        count = retryable.retry()
        import_string("django_taskq.brokers.database.get_dialect")(using).wake(connections[using], names)
    if is_eager:
        import_string("django_taskq.worker.eager.run")(ids)
    return count
