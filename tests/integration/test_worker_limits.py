"""Soft limits and cancellations of real workers: they strike the task, wherever it runs, and leave the rest whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection

from django_taskq.exceptions import TaskCancelled
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.faults.history import History, assert_registry_is_clean, wait_until_finished
from tests.testapp.models import Effect
from tests.testapp.tasks import (
    add,
    interrupted,
    interrupted_coroutine,
    leave_effect,
    leave_effect_on_loop,
    query_until_told,
    save_place,
)
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]
KINDS = [
    pytest.param(("--threads", "1"), interrupted, leave_effect, id="main thread"),
    pytest.param(("--threads", "2"), interrupted, leave_effect, id="threads"),
    pytest.param(("--threads", "2"), interrupted_coroutine, leave_effect_on_loop, id="coroutines in threads"),
    pytest.param(("--coroutines", "4"), interrupted_coroutine, leave_effect_on_loop, id="coroutines"),
]
WHERE = ("except", "finally", "transaction", "query")
RUNS = 100


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


@pytest.mark.parametrize(("options", "task", "next_task"), KINDS)
def test_a_soft_limit_leaves_slot_and_connection_usable(
    worker: Start, options: tuple[str, ...], task: object, next_task: object
) -> None:
    """Fault case F13: a hundred runs, each struck somewhere in what it does with the database, and one after each."""
    process = worker("--processes", "1", *options)
    (child,) = wait_for(process.children)
    struck, after = [], []
    for number in range(RUNS):
        # Between 20 and 40 ms, so that it strikes anywhere in a round of queries.
        limit = 0.02 + 0.0002 * number
        struck.append(task.using(soft_time_limit=limit).enqueue(WHERE[number % len(WHERE)], number))  # type: ignore[attr-defined]
        after.append(next_task.enqueue(f"after {number}"))  # type: ignore[attr-defined]
    wait_until_finished(60)
    rows = TaskRecord.objects.filter(pk__in=[result.id for result in after])
    assert set(rows.values_list("status", "attempt", "reason")) == {(Status.SUCCESSFUL, 1, "")}
    ends = TaskRecord.objects.filter(pk__in=[result.id for result in struck])
    seen = set(ends.values_list("status", "reason"))
    assert {status for status, _ in seen} <= {Status.SUCCESSFUL, Status.FAILED}
    assert {reason.partition(":")[0] for _, reason in seen} <= {"", "SoftTimeLimitExceeded"}, seen
    # No half of a transaction was committed, and nothing of one run got into another's.
    assert not Effect.objects.filter(name__startswith="half").exists()
    assert Effect.objects.filter(name__startswith="after").count() == RUNS
    # What a task wrote to tidy up was committed.
    if task is interrupted:
        tidied = ends.filter(status=Status.SUCCESSFUL, result='"tidied"').count()
        assert tidied
        assert Effect.objects.filter(name__startswith="tidied").count() == tidied
    assert process.children() == [child]
    assert "left a transaction open" not in process.log()
    process.terminate()
    assert process.wait() == 0
    assert_registry_is_clean()


@pytest.mark.parametrize(
    "options", [("--threads", "1"), ("--threads", "2"), ("--pool", "gevent", "--threads", "4")], ids=" ".join
)
def test_a_query_that_lasts_is_cut_short(worker: Start, history: History, options: tuple[str, ...]) -> None:
    """And the task goes on to use the connection, after its transaction was rolled back."""
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL can be told to")
    process = worker("--processes", "1", *options)
    query_until_told.enqueue(history.path, "first", 0).get(20)
    result = query_until_told.using(soft_time_limit=0.5).enqueue(history.path, "long", 30)
    assert result.get(20) == "the soft time limit of 0.5 s passed"
    took = history.wait_for("struck", "long").at - history.wait_for("start", "long").at
    print(f"\nstruck after {took:.3f} s")
    assert took < 5
    assert sorted(Effect.objects.values_list("name", flat=True)) == ["half first", "tidied long"]
    cancelled = query_until_told.enqueue(history.path, "cancelled", 30)
    history.wait_for("start", "cancelled")
    cancelled.cancel()
    with pytest.raises(TaskCancelled):
        cancelled.get(20)
    assert add.enqueue(1, 2).get(20) == 3
    # Nothing had to be ended by force.
    assert "cannot be ended" not in process.log()
    assert "was killed" not in process.log()
    process.terminate()
    assert process.wait() == 0
    assert_registry_is_clean()


@pytest.mark.parametrize("options", [("--threads", "1"), ("--threads", "2"), ("--coroutines", "2")], ids=" ".join)
def test_asked_to_stop_a_run_saves_its_place_and_goes_on_elsewhere(
    worker: Start, history: History, options: tuple[str, ...]
) -> None:
    process = worker("--processes", "1", "--grace", "20", *options)
    result = save_place.enqueue(history.path, "long")
    history.wait_for("start", "long")
    other = worker("--processes", "1")
    process.terminate()
    assert process.wait() == 0
    assert result.get(10) == "went on from there"
    starts = [line for line in history.lines("start") if line.key == "long"]
    stopped = history.wait_for("saved", "long")
    assert len(starts) == 2
    assert starts[1].pid in other.children()
    print(f"\nstarted again after {starts[1].at - stopped.at:.3f} s")
    row = TaskRecord.objects.get(pk=result.id)
    assert (row.attempt, row.crashes, row.attempt_set.count()) == (1, 0, 0)
