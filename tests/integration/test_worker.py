"""A real worker does what its command line says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.faults.history import History, assert_no_orphans, assert_registry_is_clean, unfinished, wait_until_finished
from tests.testapp.models import Effect
from tests.testapp.tasks import add, fail, leave_effect, nap, note
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]
QUEUES = {"QUEUES": ["a", "b"]}


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def order(history: History) -> str:
    """The first letters of the keys, in the order in which their runs started."""
    return "".join(line.key[0] for line in history.lines("start"))


def test_a_run_from_end_to_end(worker: Start) -> None:
    process = worker("--processes", "1")
    good, bad = add.enqueue(2, 3), fail.enqueue("on purpose")
    assert good.get(10) == 5
    with pytest.raises(ValueError, match="on purpose"):
        bad.get(10)
    row = TaskRecord.objects.get(pk=good.id)
    assert row.status == Status.SUCCESSFUL
    assert row.enqueued_at <= row.started_at <= row.finished_at
    assert row.worker.pid in process.children()
    (error,) = bad.errors
    assert "tests/testapp/tasks.py" in error.traceback
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()


def test_burst_ends_with_the_work(worker: Start) -> None:
    leave_effect.enqueue_many([((str(number),), {}) for number in range(50)])
    later = add.using(countdown=3600).enqueue(1, 1)
    process = worker("--processes", "2", "--burst", ready=False)
    assert process.wait() == 0
    assert Effect.objects.count() == 50
    later.refresh()
    assert later.status == Status.SCHEDULED


@pytest.mark.one_database
def test_burst_with_nothing_to_do(worker: Start) -> None:
    assert worker("--processes", "2", "--burst", ready=False).wait() == 0


@pytest.mark.parametrize(("processes", "most"), [("1", 5), ("2", 7), ("4", 3)])
def test_max_tasks_is_exact(worker: Start, history: History, processes: str, most: int) -> None:
    note.enqueue_many([((history.path, str(number)), {}) for number in range(20)])
    process = worker("--processes", processes, "--max-tasks", str(most), ready=False)
    assert process.wait() == 0
    assert history.count("end") == most
    assert unfinished() == 20 - most
    assert TaskRecord.objects.filter(status=Status.READY).count() == 20 - most
    assert " ERROR " not in process.log()


def test_max_tasks_holds_when_some_are_given_back(worker: Start, history: History) -> None:
    """What waits behind a long run is given back, and does not count."""
    note.enqueue_many([((history.path, f"warm{number}"), {}) for number in range(30)])
    note.enqueue(history.path, "long", 1)
    note.enqueue_many([((history.path, str(number)), {}) for number in range(30)])
    process = worker("--processes", "1", "--max-tasks", "50", ready=False)
    assert process.wait() == 0
    assert history.count("end") == 50
    assert " ERROR " not in process.log()


def test_queues_in_strict_order(worker: Start, history: History, settings: object) -> None:
    settings.TASKQ = QUEUES  # type: ignore[attr-defined]
    for number in range(20):
        for queue in "ba":
            note.using(queue_name=queue).enqueue(history.path, f"{queue}{number}")
    note.enqueue(history.path, "not served")
    assert worker("--queues", "a,b", "--processes", "1", "--burst", taskq=QUEUES, ready=False).wait() == 0
    assert order(history) == "a" * 20 + "b" * 20
    assert TaskRecord.objects.get(queue_name="default").status == Status.READY


def test_queues_by_weight(worker: Start, history: History, settings: object) -> None:
    """Three to one while both have work; runs that last, so that each is a choice of its own."""
    settings.TASKQ = QUEUES  # type: ignore[attr-defined]
    for queue in "ab":
        note.using(queue_name=queue).enqueue_many([((history.path, queue, 0.26), {}) for _ in range(40)])
    process = worker("--queues", "a=9,b=1", "--processes", "4", taskq=QUEUES)
    history.wait_for("start", count=40)
    process.kill_tree()
    first = order(history)[:40]
    assert first.count("a") > 2 * first.count("b")
    assert "b" in first


def test_threads(worker: Start, history: History) -> None:
    """Four at a time in one process."""
    process = worker("--processes", "1", "--threads", "4")
    note.enqueue_many([((history.path, str(number), 1), {}) for number in range(4)])
    starts = [history.wait_for("start", str(number)) for number in range(4)]
    assert len({line.pid for line in starts}) == 1
    assert not history.lines("end")
    note.enqueue_many([((history.path, str(number)), {}) for number in range(4, 200)])
    leave_effect.enqueue_many([((str(number),), {}) for number in range(20)])
    wait_until_finished()
    assert history.count("end") == 200
    assert Effect.objects.count() == 20
    process.terminate()
    assert process.wait() == 0


def test_running_is_shown_soon(worker: Start) -> None:
    process = worker("--processes", "1")
    result = nap.enqueue(5)
    row = TaskRecord.objects.filter(pk=result.id)
    wait_for(lambda: row.filter(status=Status.RUNNING, started_at__isnull=False).exists(), 2, process.log)
    result.refresh()
    assert result.status == Status.RUNNING
    process.kill_tree()
