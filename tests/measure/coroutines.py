"""How many runs a second the coroutines of one process make: ``python -m tests.measure.coroutines``.

Every run waits for 100 ms on the loop, as for a network. ``TASKQ_TEST_DB`` and its kin choose the database, which must
be empty and may be thrown away.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

SLOTS, RUNS, SECONDS, ROUNDS = 1_000, 20_000, 0.1, 3


def measure() -> float:
    """Runs a second, from the start of the first to the end of the last."""
    from django.db.models import Max, Min

    from django_taskq.models import TaskRecord
    from django_taskq.status import Status
    from tests.testapp.tasks import nap_on_loop

    TaskRecord.objects.all().delete()
    nap_on_loop.enqueue_many([((SECONDS,), {})] * RUNS)
    command = [sys.executable, "-m", "django", "taskworker", "--processes", "1", "--coroutines", str(SLOTS), "--burst"]
    env = os.environ | {"TASKQ_TEST_LOG_LEVEL": "WARNING"}  # a line for each run would be what is measured
    began = time.monotonic()
    subprocess.run([*command, "--verbosity", "0"], env=env, check=True)
    runs = TaskRecord.objects.filter(status=Status.SUCCESSFUL)
    assert runs.count() == RUNS
    times = runs.aggregate(first=Min("started_at"), last=Max("finished_at"))
    print(f"  {time.monotonic() - began:.1f} s with start and stop")
    return RUNS / float((times["last"] - times["first"]).total_seconds())


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    rates = [measure() for _ in range(ROUNDS)]
    print(f"{statistics.median(rates):,.0f} runs/s: {', '.join(f'{rate:,.0f}' for rate in rates)}")


if __name__ == "__main__":
    main()
