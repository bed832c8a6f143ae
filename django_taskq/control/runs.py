"""What people ask of runs that exist already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.apps import apps
from django.db import connections, transaction
from django.utils.module_loading import import_string

from django_taskq import conf, registry
from django_taskq.cancelling import cancel_records
from django_taskq.control.issuing import issue
from django_taskq.exceptions import ResultNotFound
from django_taskq.gates import GATED
from django_taskq.message import Headers
from django_taskq.result import TaskResult
from django_taskq.status import Status
from django_taskq.unique_keys import KEYED

if TYPE_CHECKING:
    from django_taskq.models.task import TaskQuerySet


def cancel(run: TaskResult[Any] | UUID | str, *, by: Any = None) -> Status:
    """Have a run not happen, or stopped where it runs; its status right afterwards.

    CANCELLED when it had not been claimed. RUNNING (or READY, before it has begun) while the worker that has it is
    being told; what it does then is for ``result.get()`` to say. Raises :exc:`ResultNotFound` where there is no row:
    so it is also for a run of a ``track_pending=False`` task that has not lasted 0.2 s yet, which nothing can stop.
    """
    result: TaskResult[Any] = run if isinstance(run, TaskResult) else TaskResult(run)
    using = conf.get_settings().database
    try:
        records = apps.get_model("django_taskq", "TaskRecord").objects.using(using).filter(pk=UUID(result.id))
    except ValueError:
        raise ResultNotFound(f"{result.id[:100]!r} is not the id of a run") from None
    issue("cancel", {"run": result.id}, by=by, timeout=0, effect=lambda alias, who: cancel_records(records))
    record = records.first()
    if record is None:
        raise ResultNotFound(f"no run has the id {result.id}, or it has no row yet, so nobody was told to stop it")
    status: Status = record.shown_status
    return status


def retry(records: TaskQuerySet) -> int:
    """Another attempt, at once, for those that are FAILED or CANCELLED; their history stays. Returns how many.

    What was cancelled because a step of its workflow failed waits for that step again. A run that was to be unique is
    left as it is while another one has its key.
    """
    using = records.db
    retryable = records.filter(status__in=("FAILED", "CANCELLED"))
    steps = list(retryable.filter(workflow__isnull=False).values_list("pk", flat=True))
    again: int = import_string("django_taskq.brokers.database.workflow_verbs.retry_steps")(using, steps) if steps else 0
    plain = retryable.filter(workflow__isnull=True)
    if not registry.is_unique():
        return again + _retry_plain(plain)
    keyed = list(plain.filter(headers__contains=KEYED).values_list("pk", "headers"))
    again += _retry_plain(plain.exclude(headers__contains=KEYED))
    return again + sum(_retry_keyed(plain.filter(pk=pk), pk, Headers.loads(headers).unique) for pk, headers in keyed)


def _retry_keyed(retryable: TaskQuerySet, id: UUID, key: str | None) -> int:
    using = retryable.db
    with transaction.atomic(using=using):
        if key is not None and not import_string("django_taskq.brokers.database.uniqueness.retake")(using, id, key):
            return 0
        return _retry_plain(retryable)


def _retry_plain(retryable: TaskQuerySet) -> int:
    using = retryable.db
    # Looked at before the transaction, whose first statement has to be the write: SQLite refuses it otherwise.
    names = sorted(set(retryable.order_by().values_list("queue_name", flat=True).distinct()))
    is_eager = conf.get_settings().eager
    ids = [str(pk) for pk in retryable.values_list("pk", flat=True)] if is_eager else []
    gated = list(retryable.filter(headers__contains=GATED).values_list("pk", flat=True))
    if not names:
        return 0
    with transaction.atomic(using=using):
        count = retryable.retry()
        if gated:
            apps.get_model("django_taskq", "Permit").objects.using(using).put_back(gated)
        import_string("django_taskq.brokers.database.get_dialect")(using).wake(connections[using], names)
    if is_eager:
        import_string("django_taskq.worker.eager.run")(ids)
    return count
