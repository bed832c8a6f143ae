"""Batches in real workers: many calls of one task at once, each with a row, a result and an end of its own."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from django.utils import timezone

from django_taskq.models import TaskAttempt, TaskRecord
from django_taskq.models.task import AttemptKind
from django_taskq.status import Status
from tests.depots.workers_bed import Start, at, on_url
from tests.faults.history import History, wait_until_finished
from tests.servers import RedisServer
from tests.testapp.tasks import (
    add,
    die_together_at_most_once,
    do_together,
    double_together,
    gather_for_long,
    let_go,
    note,
    overrun_together,
)
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def batches(history: History) -> list[str]:
    """What was called at once, in its order."""
    return [line.key for line in history.lines("batch")]


def together(history: History, *words: str) -> list[TaskRecord]:
    """Enqueue these for :func:`do_together`; their rows, to be read again."""
    results = do_together.enqueue_many([((history.path, word), {}) for word in words])
    return [TaskRecord.objects.get(pk=result.id) for result in results]


def again(*rows: TaskRecord) -> list[TaskRecord]:
    for row in rows:
        row.refresh_from_db()
    return list(rows)


def runs_of(process: WorkerProcess) -> int:
    """The pid of the one process, once a batch that lasts goes on in it."""
    started = TaskRecord.objects.filter(started_at__isnull=False, status=Status.RUNNING)
    wait_for(started.exists, 20, process.log)
    (pid,) = process.children()
    return pid


def test_whole_batches_and_a_rest_that_has_waited(worker: Start, history: History) -> None:
    results = double_together.enqueue_many([((history.path, number), {}) for number in range(250)])
    process = worker("--processes", "1")
    wait_until_finished()
    assert batches(history) == ["100", "100", "50"], process.log()
    second, third = history.lines("batch")[1:]
    assert third.at - second.at >= 0.4
    assert [result.get(timeout=5) for result in results] == [2 * number for number in range(250)]
    assert set(TaskRecord.objects.values_list("attempt", "crashes")) == {(1, 0)}


def test_each_call_has_an_end_of_its_own(worker: Start, history: History) -> None:
    good, bad, retried, stubborn = together(history, "good", "fail", "retry once", "retry")
    worker("--processes", "1")
    wait_until_finished()
    again(good, bad, retried, stubborn)
    assert [row.status for row in (good, bad, retried, stubborn)] == [
        Status.SUCCESSFUL, Status.FAILED, Status.SUCCESSFUL, Status.FAILED,
    ]  # fmt: skip
    assert (good.result, retried.result) == ('"good"', '"retry once"')
    assert [row.attempt for row in (good, bad, retried, stubborn)] == [1, 1, 2, 2]
    assert bad.reason == "ValueError: on purpose"
    assert stubborn.reason.startswith("MaxRetriesExceeded")
    assert batches(history)[0] == "good fail retry once retry"


def test_an_error_that_escapes_is_that_of_every_call_that_is_not_settled(worker: Start, history: History) -> None:
    first, guilty, last = together(history, "settled", "raise", "after")
    worker("--processes", "1")
    wait_until_finished()
    again(first, guilty, last)
    assert [row.status for row in (first, guilty, last)] == [Status.SUCCESSFUL, Status.FAILED, Status.FAILED]
    assert guilty.reason == last.reason == "OSError: for all that are left"


def test_bad_arguments_fail_alone(worker: Start, history: History) -> None:
    first, spoilt, expired, last = together(history, "first", "spoilt", "expired", "second")
    TaskRecord.objects.filter(pk=spoilt.pk).update(payload="nonsense")
    TaskRecord.objects.filter(pk=expired.pk).update(expires_at=timezone.now())
    worker("--processes", "1")
    wait_until_finished()
    again(first, spoilt, expired, last)
    assert [row.status for row in (first, spoilt, expired, last)] == [
        Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED, Status.SUCCESSFUL,
    ]  # fmt: skip
    assert batches(history) == ["first second"]


def test_what_is_cancelled_while_it_gathers_is_not_called(worker: Start, history: History) -> None:
    process = worker("--processes", "1")
    results = [gather_for_long.enqueue(history.path) for _ in range(3)]
    wait_for(lambda: TaskRecord.objects.filter(status=Status.RUNNING).count() == 3, 20, process.log)
    assert {result.status for result in results} == {Status.READY}
    results[1].cancel()
    gather_for_long.enqueue(history.path)
    wait_until_finished()
    assert batches(history) == ["3"]
    rows = TaskRecord.objects.order_by("pk").values_list("status", flat=True)
    assert list(rows) == [Status.SUCCESSFUL, Status.CANCELLED, Status.SUCCESSFUL, Status.SUCCESSFUL]


def test_others_do_not_wait_for_a_batch_that_gathers(worker: Start, history: History) -> None:
    process = worker("--processes", "1")
    gather_for_long.enqueue(history.path)
    wait_for(lambda: TaskRecord.objects.filter(status=Status.RUNNING).exists(), 20, process.log)
    assert [add.enqueue(number, 1).get(timeout=10) for number in range(20)] == list(range(1, 21))
    assert batches(history) == []


def test_a_worker_that_stops_gives_back_what_gathers(worker: Start, history: History) -> None:
    process = worker("--processes", "1")
    gather_for_long.enqueue_many([((history.path,), {})] * 3)
    wait_for(lambda: TaskRecord.objects.filter(status=Status.RUNNING).count() == 3, 20, process.log)
    process.terminate()
    assert process.wait() == 0
    assert set(TaskRecord.objects.values_list("status", "attempt", "crashes")) == {(Status.READY, 1, 0)}
    assert batches(history) == []


def test_so_does_one_whose_slots_are_busy(worker: Start, history: History) -> None:
    process = worker("--processes", "1")
    gather_for_long.enqueue(history.path)
    wait_for(lambda: TaskRecord.objects.filter(status=Status.RUNNING).exists(), 20, process.log)
    note.enqueue(history.path, "long", 60, "until-told")
    wait_for(
        lambda: TaskRecord.objects.filter(name=gather_for_long.name, status=Status.READY).exists(), 20, process.log
    )
    let_go(history.path, process.children()[0])


def test_a_crash_is_charged_to_every_call_and_each_starts_alone_after_it(worker: Start, history: History) -> None:
    """Whatever killed the process: what was innocent is done afterwards, and the guilty one is poison."""
    innocent, guilty, other = together(history, "innocent", "die", "other")
    worker("--processes", "1")
    wait_until_finished()
    again(innocent, guilty, other)
    assert [row.status for row in (innocent, guilty, other)] == [Status.SUCCESSFUL, Status.FAILED, Status.SUCCESSFUL]
    assert [row.crashes for row in (innocent, guilty, other)] == [1, 3, 1]
    assert guilty.reason.startswith("PoisonTask")
    assert Counter(batches(history)) == Counter({"innocent die other": 1, "die": 2, "innocent": 1, "other": 1})
    crashed = TaskAttempt.objects.filter(kind=AttemptKind.CRASHED)
    assert Counter(crashed.values_list("task_id", flat=True)) == {innocent.pk: 1, guilty.pk: 3, other.pk: 1}


def test_a_process_that_is_killed_in_one_of_several_slots(worker: Start, history: History) -> None:
    """Only what was in the batch is charged: what gathers beside it is given back as it was."""
    process = worker("--processes", "1", "--threads", "2")
    rows = together(history, "one", "two", "three", "last")
    pid = runs_of(process)
    gathering = gather_for_long.enqueue(history.path)
    wait_for(lambda: TaskRecord.objects.filter(pk=gathering.id, status=Status.RUNNING).exists(), 20, process.log)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: process.children() not in ([], [pid]), 20, process.log)
    let_go(history.path, process.children()[0])
    wait_for(lambda: {row.status for row in again(*rows)} == {Status.SUCCESSFUL}, 20, process.log)
    assert {row.crashes for row in rows} == {1}
    assert TaskRecord.objects.get(pk=gathering.id).crashes == 0
    assert len(batches(history)) == 5


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_hard_limit_is_that_of_the_whole_call(worker: Start, history: History, threads: str) -> None:
    overrun_together.enqueue_many([((history.path,), {})] * 3)
    worker("--processes", "1", "--threads", threads)
    wait_until_finished()
    assert batches(history) == ["3"]
    for row in TaskRecord.objects.all():
        assert (row.status, row.crashes) == (Status.FAILED, 1)
        assert row.reason.startswith("TimeLimitExceeded: the hard time limit of 0.5 s passed")


def test_at_most_once(worker: Start, history: History) -> None:
    die_together_at_most_once.enqueue_many([((history.path,), {})] * 3)
    worker("--processes", "1")
    wait_until_finished()
    assert batches(history) == ["3"]
    for row in TaskRecord.objects.all():
        assert row.status == Status.FAILED
        assert row.reason.startswith("WorkerLost")


@pytest.mark.parametrize("number", [0, 3], ids=["its first", "its last"])
def test_cancelling_one_call_leaves_the_others_alone(worker: Start, history: History, number: int) -> None:
    process = worker("--processes", "1")
    rows = together(history, "one", "two", "three", "last")
    pid = runs_of(process)
    TaskRecord.objects.filter(pk=rows[number].pk).cancel()
    # The supervisor interrupts what is cancelled within a second and kills its process a second later.
    marked = add.using(countdown=2.5).enqueue(1, 2)
    wait_for(lambda: TaskRecord.objects.get(pk=marked.id).status == Status.READY, 20, process.log)
    assert process.children() == [pid]
    let_go(history.path, pid)
    wait_until_finished()
    assert {row.status for row in again(*rows)} == {Status.SUCCESSFUL}
    assert len(batches(history)) == 1


def test_on_redis(redis_server: RedisServer, worker: Start, history: History) -> None:
    with at(worker, on_url(redis_server.url)) as place:
        results = double_together.enqueue_many([((history.path, number), {}) for number in range(250)])
        process = place.start("--processes", "1")
        wait_until_finished()
        assert batches(history) == ["100", "100", "50"], process.log()
        assert [result.get(timeout=5) for result in results] == [2 * number for number in range(250)]
        first, guilty = together(history, "innocent", "die")
        wait_until_finished()
        assert [row.status for row in again(first, guilty)] == [Status.SUCCESSFUL, Status.FAILED]
