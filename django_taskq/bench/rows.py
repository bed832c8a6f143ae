"""The package's own rows in the scratch database: empty, fill, count."""

from __future__ import annotations

import time
from typing import NamedTuple

from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, Max, Min, Q

from django_taskq import Task, conf
from django_taskq.bench.tasks import noop
from django_taskq.models import Limit, Permit, TaskAttempt, TaskRecord
from django_taskq.status import Status

BULK = 5_000


class Drained(NamedTuple):
    """What the rows say about a drain: how many ended well with a result, first start to last end in seconds."""

    successful: int
    seconds: float
    first_started: float


def migrate() -> None:
    """Make this app's tables, and no others: the project's migrations may be slow, or need data."""
    executor = MigrationExecutor(connections[conf.get_settings().database])
    executor.migrate([key for key in executor.loader.graph.leaf_nodes() if key[0] == "django_taskq"])


def empty() -> None:
    """Leave no row, and no remains of rows either."""
    connection = connections[conf.get_settings().database]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("TRUNCATE taskq_task, taskq_permit, taskq_limit CASCADE")
        else:
            for model in (TaskAttempt, TaskRecord, Permit, Limit):
                cursor.execute(f"DELETE FROM {model._meta.db_table}")


def settle() -> None:
    """Let the planner know the rows: otherwise it is chance whether autovacuum does so in the middle of a drain."""
    connection = connections[conf.get_settings().database]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def fill(count: int, task: Task[[int], int] = noop) -> tuple[str, float]:
    """Enqueue ``count`` of these no-ops in bulk; returns the first one's id and the seconds it took."""
    first = ""
    began = time.perf_counter()
    for start in range(0, count, BULK):
        results = task.enqueue_many([((number,), {}) for number in range(start, min(start + BULK, count))])
        first = first or str(results[0].id)
    return first, time.perf_counter() - began


def drained_since(first_id: str, task: Task[[int], int] = noop) -> Drained:
    """What became of the no-ops from this one on."""
    done = Q(status=Status.SUCCESSFUL, result__isnull=False)
    ours = TaskRecord.objects.filter(pk__gte=first_id, name=task.name)
    found = ours.aggregate(count=Count("pk", filter=done), first=Min("started_at"), last=Max("finished_at"))
    if found["first"] is None or found["last"] is None:
        return Drained(0, 0.0, 0.0)
    return Drained(found["count"], (found["last"] - found["first"]).total_seconds(), found["first"].timestamp())
