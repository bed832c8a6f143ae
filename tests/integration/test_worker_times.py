"""Due times, expiry, retries and time limits, kept by real workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from django.utils import timezone

from django_taskq.exceptions import TaskExpired, TimeLimitExceeded
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.faults.history import History, assert_no_orphans, assert_registry_is_clean, wait_until_finished
from tests.faults.processes import waited_for_processor
from tests.testapp.tasks import nap, note, note_until_attempt, note_with_hard_limit, note_with_soft_limit
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def test_due_times(worker: Start, history: History) -> None:
    process = worker("--processes", "1")
    now = time.monotonic()
    note.using(countdown=1).enqueue(history.path, "countdown")
    note.using(run_after=timezone.now() + timedelta(seconds=1.5)).enqueue(history.path, "run_after")
    note.using(run_after=timezone.now() - timedelta(seconds=5)).enqueue(history.path, "past")
    note.using(countdown=3600).enqueue(history.path, "much later")
    starts = {key: history.wait_for("start", key).at - now for key in ("past", "countdown", "run_after")}
    late = waited_for_processor(process) + 0.3
    print(f"\n{starts}")
    assert starts["past"] < 0.5 + late
    assert 1 <= starts["countdown"] < 1.2 + late
    assert 1.4 <= starts["run_after"] < 1.7 + late
    assert not history.count("start", "much later")


def test_what_is_due_before_anything_known(worker: Start, history: History) -> None:
    """The promoter sleeps until a distant due time, and is told of a nearer one."""
    worker("--processes", "1")
    note.using(countdown=3600).enqueue(history.path, "much later")
    time.sleep(1)  # it has looked, and knows nothing sooner
    before = time.monotonic()
    note.using(countdown=0.1).enqueue(history.path, "soon")
    assert history.wait_for("start", "soon").at - before < 2


def test_expired_runs_do_not_start(worker: Start, history: History) -> None:
    expired = note.using(expires=0.01).enqueue(history.path, "expired")
    in_time = note.using(expires=3600).enqueue(history.path, "in time")
    time.sleep(0.05)  # the time of the case, not a wait
    worker("--processes", "1")
    assert in_time.get(10) is None
    with pytest.raises(TaskExpired):
        expired.get(10)
    expired.refresh()
    assert expired.status == Status.CANCELLED
    assert history.counts("start") == {"in time": 1}


def test_retries_with_back_off(worker: Start, history: History) -> None:
    worker("--processes", "1")
    good = note_until_attempt.enqueue(history.path, "good", 4)
    bad = note_until_attempt.enqueue(history.path, "bad", 5)
    assert good.get(20) == 4
    with pytest.raises(OSError, match="attempt 4"):
        bad.get(20)
    at = [line.at for line in history.lines("start") if line.key == "good"]
    pauses = [after - before for before, after in pairwise(at)]
    print(f"\npauses of {pauses}")
    assert all(pause >= wanted for pause, wanted in zip(pauses, (0.2, 0.4, 0.8), strict=True))
    assert [error.message for error in bad.errors] == [f"attempt {number}" for number in range(1, 5)]
    assert TaskRecord.objects.get(pk=good.id).attempt == 4


@pytest.mark.one_database
def test_a_soft_limit_lets_the_task_tidy_up(worker: Start, history: History) -> None:
    """By a signal, so that it also ends a blocking call."""
    process = worker("--processes", "1")
    child = wait_for(process.children)
    slow = note_with_soft_limit.enqueue(history.path, "slow", 30)
    quick = note_with_soft_limit.enqueue(history.path, "quick", 0)
    assert quick.get(20) == "in time"
    slow.refresh()
    assert slow.status == Status.FAILED
    assert slow.errors[-1].exception_class_path.endswith("SoftTimeLimitExceeded")
    took = history.wait_for("tidied", "slow").at - history.wait_for("start", "slow").at
    print(f"\nafter {took:.2f} s")
    # The start is noted on the wall clock, a moment after the limit began to count.
    assert 0.48 <= took < 1.0 + waited_for_processor(process)
    # Nobody's limit is left over for the next run.
    nap.enqueue(1).get(10)
    assert process.children() == child


@pytest.mark.parametrize("how", ["signals", "gil"])
@pytest.mark.one_database
def test_a_hard_limit_ends_the_process(worker: Start, history: History, how: str) -> None:
    """A run that ignores its soft limit, or holds the interpreter, with neighbours in the same process."""
    process = worker("--processes", "1")
    (child,) = wait_for(process.children)
    note.enqueue_many([((history.path, f"before{number}"), {}) for number in range(50)])
    wait_until_finished()
    slow = note_with_hard_limit.enqueue(history.path, "slow", 30, how)
    note.enqueue_many([((history.path, f"after{number}"), {}) for number in range(50)])
    with pytest.raises(TimeLimitExceeded):
        slow.get(20)

    start = history.wait_for("start", "slow")
    again = history.wait_for("start", "after0")
    waited = waited_for_processor(process)
    print(f"\nthe next run started {again.at - start.at:.2f} s after it, {waited:.2f} s of it for lack of processors")
    assert again.at - start.at < 1 + 2 + waited
    wait_until_finished()
    assert start.pid == child not in process.children()
    row = TaskRecord.objects.get(pk=slow.id)
    assert row.status == Status.FAILED
    assert row.reason.startswith("TimeLimitExceeded: ")
    assert history.count("start", "slow") == 1
    neighbours = TaskRecord.objects.exclude(pk=slow.id)
    assert neighbours.filter(status=Status.SUCCESSFUL, crashes=0, attempt=1).count() == 100
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()
