"""What 10,000 schedules cost, and how late runs start: ``python -m tests.measure.schedules``, in a database of its own.

``TASKQ_TEST_DB`` and its kin choose the database, which must be empty and may be thrown away.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SCHEDULES, DUE, ROUNDS = 10_000, 100, 15
EACH_SECOND, SECONDS = 20, 40


class DatabaseTime:
    """An ``execute_wrapper`` that adds up the time the database takes, in milliseconds."""

    def __init__(self) -> None:
        self.milliseconds = 0.0

    def __call__(self, execute: Callable[..., Any], *args: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(*args)
        finally:
            self.milliseconds += (time.perf_counter() - began) * 1000


def measure_looks() -> None:
    """Database time of a look that finds nothing, and of one that finds a hundred due."""
    from django.db import connection
    from django.utils import timezone

    from django_taskq import scheduler
    from django_taskq.models import PeriodicTask

    rows = [
        PeriodicTask(
            name=str(number), task_name="tests.testapp.tasks.add", payload="[[1,2],{}]", schedule="every 6 hours"
        )
        for number in range(SCHEDULES)
    ]
    for row in rows:
        row.plan_next(timezone.now())
    PeriodicTask.objects.bulk_create(rows)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    ids = list(PeriodicTask.objects.values_list("pk", flat=True))
    idle, due = [], []
    for number in range(ROUNDS):
        with connection.execute_wrapper(look := DatabaseTime()):
            assert scheduler.run_due() == 0
            scheduler.seconds_until_due()
        idle.append(look.milliseconds)
        chosen = PeriodicTask.objects.filter(pk__in=ids[number * DUE : (number + 1) * DUE])
        chosen.update(next_start_at=timezone.now(), next_due_at=timezone.now())
        with connection.execute_wrapper(look := DatabaseTime()):
            assert scheduler.run_due() == DUE
        due.append(look.milliseconds)
    for title, found in (("idle look", idle), (f"look with {DUE} due", due)):
        print(f"{title}: {statistics.median(found):.2f} ms of database time (most: {max(found):.2f} ms)")
    PeriodicTask.objects.all().delete()


def measure_lateness() -> None:
    """From the due time to the start of the run, with one worker that idles otherwise."""
    from django.utils import timezone

    from django_taskq.models import PeriodicTask, ScheduleTick, TaskRecord

    for number in range(EACH_SECOND):
        PeriodicTask.objects.create(
            name=str(number), task_name="tests.testapp.tasks.add", payload="[[1,2],{}]", schedule="every 1 second"
        )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TASKQ_TEST_LOG_LEVEL": "WARNING"}
    command = [sys.executable, "-m", "django", "taskworker", "--processes", "1", "--verbosity", "0"]
    with subprocess.Popen(command, env=environment) as worker:
        settled = timezone.now() + timedelta(seconds=8)
        time.sleep(SECONDS)
        worker.terminate()
    started = dict(TaskRecord.objects.values_list("pk", "started_at"))
    ticks = ScheduleTick.objects.filter(due_at__gt=settled).values_list("run_id", "due_at")
    late = sorted((started[run] - due).total_seconds() for run, due in ticks if started.get(run))
    print(f"lateness of {len(late)} runs: p50 {late[len(late) // 2]:.3f} s, p99 {late[int(len(late) * 0.99)]:.3f} s")


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    measure_looks()
    measure_lateness()


if __name__ == "__main__":
    main()
