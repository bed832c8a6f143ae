"""Three supervisors on a schedule of one second; one is frozen past its lease, goes on, and is killed.

``TASKQ_SCHEDULE_SECONDS`` is how long that takes: 15 by default, 600 for a release.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from django_taskq import scheduler
from django_taskq.models import PeriodicTask, ScheduleTick, TaskRecord
from django_taskq.models.schedule import Decision
from django_taskq.worker import scheduling
from tests.faults.history import History, wait_until_finished
from tests.testapp.tasks import let_go
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = int(os.environ.get("TASKQ_SCHEDULE_SECONDS", "15"))


def test_one_run_for_each_due_time(worker: Callable[..., WorkerProcess], history: History) -> None:
    entry = {"task": "tests.testapp.tasks.note", "schedule": "every 1 second", "args": [history.path, "tick"]}
    team = [worker("--processes", "1", taskq={"SCHEDULE": {"tick": entry}}) for _ in range(3)]
    began = time.monotonic()
    history.wait_for("start", "tick", count=2)
    (leader,) = [process for process in team if scheduler.lease().holder().endswith(f":{process.pid}")]  # type: ignore[union-attr]

    # When the one that schedules is frozen for longer than its lease, goes on, and is killed a while later
    os.kill(leader.pid, signal.SIGSTOP)
    time.sleep(scheduling.LEASE + 2 * scheduling.STANDBY_INTERVAL)
    os.kill(leader.pid, signal.SIGCONT)
    time.sleep(max(1.0, SECONDS / 2 - (time.monotonic() - began)))
    leader.kill_tree()
    time.sleep(max(1.0, SECONDS - (time.monotonic() - began)))
    ended = timezone.now()
    PeriodicTask.objects.update(is_enabled=False)
    wait_until_finished()

    # Then every second of that time has its tick, its run, and one start
    dues = list(ScheduleTick.objects.order_by("due_at").values_list("due_at", flat=True))
    assert dues == [dues[0] + timedelta(seconds=number) for number in range(len(dues))]
    assert abs(dues[-1] - ended) < timedelta(seconds=2)
    assert set(ScheduleTick.objects.values_list("decision", flat=True)) == {Decision.ENQUEUED}
    assert TaskRecord.objects.count() == len(dues)
    starts = history.count("start", "tick")
    print(f"\n{len(dues)} due times, {TaskRecord.objects.count()} runs, {starts} starts")
    assert len(dues) <= starts <= len(dues) + 1  # the one that the kill may have cut


def test_a_change_takes_effect_within_two_seconds(worker: Callable[..., WorkerProcess], history: History) -> None:
    worker("--processes", "1")
    row = PeriodicTask.objects.create(
        name="edited",
        task_name="tests.testapp.tasks.note",
        schedule="@yearly",
        payload=f'[["{history.path}","x"],{{}}]',
    )
    wait_for(lambda: scheduler.lease().holder())
    time.sleep(1)  # it has looked, and found nothing for a year
    row.schedule = "every 1 second"
    row.save()
    saved = time.monotonic()
    assert history.wait_for("start", "x").at - saved < 2 + 1  # the first due time may be a second away
    row.is_enabled = False
    row.save()
    wait_until_finished()
    count = history.count("start", "x")
    time.sleep(1.5)
    assert history.count("start", "x") == count


@pytest.mark.one_database
def test_no_scheduler(worker: Callable[..., WorkerProcess], history: History) -> None:
    entry = {"task": "tests.testapp.tasks.note", "schedule": "every 1 second", "args": [history.path, "tick"]}
    process = worker("--processes", "1", "--no-scheduler", taskq={"SCHEDULE": {"tick": entry}})
    time.sleep(2.5)
    assert scheduler.lease().holder() is None
    assert not PeriodicTask.objects.exists()
    process.terminate()
    assert process.wait() == 0
    with_one = worker("--processes", "1", taskq={"SCHEDULE": {"tick": entry}})
    history.wait_for("start", "tick")
    with_one.terminate()
    assert with_one.wait() == 0
    assert scheduler.lease().holder() is None, "signed off"


def test_a_queued_run_starts_when_the_one_before_it_ends(
    worker: Callable[..., WorkerProcess], history: History
) -> None:
    """Also when another scheduler had queued it."""
    entry = {
        "task": "tests.testapp.tasks.note",
        "schedule": "every 1 second",
        "args": [history.path, "long", 60, "until-told"],
        "overlap": "queue_one",
    }
    process = worker("--processes", "1", taskq={"SCHEDULE": {"long": entry}})
    first = history.wait_for("start", "long")
    wait_for(lambda: PeriodicTask.objects.filter(pending_due_at__isnull=False).exists())
    with_another = worker("--processes", "1", taskq={"SCHEDULE": {"long": entry}})
    let_go(history.path, first.pid)
    second = history.wait_for("start", "long", count=2)
    process.terminate()  # its scheduler goes at once, its run has a while to end
    wait_for(lambda: PeriodicTask.objects.filter(pending_due_at__isnull=False).exists())
    let_go(history.path, second.pid)
    history.wait_for("start", "long", count=3)
    PeriodicTask.objects.update(is_enabled=False)
    words = [line.what for line in history.lines()]
    assert words == ["start", "end"] * (len(words) // 2) + ["start"] * (len(words) % 2), "one at a time"
    process.kill_tree()
    with_another.kill_tree()
