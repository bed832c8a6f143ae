"""Real workers whose queues are kept on Redis and on RabbitMQ: what runs do there is what they do in the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from django.db import transaction

from django_taskq.models import PeriodicTask, TaskRecord
from django_taskq.status import FINAL, Status
from tests.depots.tasks import fail_untracked, fan_out, note_async, note_late, note_untracked, retry_at_once
from tests.depots.workers_bed import SERVERS, Place, Start, at, on_url, shared_server
from tests.faults.history import (
    History,
    assert_no_orphans,
    assert_registry_is_clean,
    crashes,
    unfinished,
    wait_until_finished,
)
from tests.testapp.models import Effect
from tests.testapp.tasks import add, fail, let_go, note, note_exactly_once, note_until_attempt
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


@pytest.fixture(params=SERVERS)
def place(request: pytest.FixtureRequest, worker: Start) -> Iterator[Place]:
    with at(worker, on_url(shared_server(request, request.param).url)) as found:
        yield found


def starts(history: History) -> list[str]:
    return [line.key for line in history.lines("start")]


def test_runs_from_end_to_end(place: Place, history: History) -> None:
    process = place.start()
    good, bad = add.enqueue(2, 3), fail.enqueue("on purpose")
    at_once = retry_at_once.enqueue(history.path, "at once", 3)
    later = note_until_attempt.enqueue(history.path, "later", 3)
    coroutine = note_async.enqueue(history.path, "async")
    exactly_once = note_exactly_once.enqueue(history.path, "exactly once")

    assert good.get(20) == 5
    with pytest.raises(ValueError, match="on purpose"):
        bad.get(20)
    assert (at_once.get(20), later.get(20)) == (3, 3)
    assert coroutine.get(20) == "async"
    assert exactly_once.get(20) is None
    assert Effect.objects.filter(name="exactly once").count() == 1
    assert starts(history).count("at once") == starts(history).count("later") == 3
    at = [line.at for line in history.lines("start") if line.key == "later"]
    assert at[1] - at[0] >= 0.2
    assert at[2] - at[1] >= 0.4
    row = TaskRecord.objects.get(pk=good.id)
    assert row.status == Status.SUCCESSFUL
    assert row.enqueued_at <= row.started_at <= row.finished_at
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()
    assert TaskRecord.objects.filter(publish_after__isnull=False).count() == 0


@pytest.mark.one_database
def test_due_times_and_cancelled_runs(place: Place, history: History) -> None:
    # Given one that is due soon, one much later, and two that are cancelled while they wait
    soon = note.using(countdown=1).enqueue(history.path, "soon")
    note.using(countdown=3600).enqueue(history.path, "much later")
    ready, delayed = note.enqueue(history.path, "ready"), note.using(countdown=1).enqueue(history.path, "delayed")
    assert ready.cancel()
    assert delayed.cancel()
    expired = note.using(expires=0.001).enqueue(history.path, "expired")

    place.start()

    assert soon.get(20) is None
    wait_for(lambda: expired.refresh() or expired.status == Status.CANCELLED)
    assert starts(history) == ["soon"]
    row = TaskRecord.objects.get(pk=soon.id)
    assert row.started_at >= row.run_after
    assert {TaskRecord.objects.get(pk=result.id).status for result in (ready, delayed)} == {Status.CANCELLED}


@pytest.mark.one_database
def test_urgent_runs_first(place: Place, history: History) -> None:
    for priority in (-50, 0, 50):
        calls = [((history.path, str(priority)), {}) for _ in range(10)]
        note.using(priority=priority).enqueue_many(calls)
        note_untracked.using(priority=priority).enqueue_many(calls)
    place.start()
    history.wait_for("start", count=60)
    found, wanted = starts(history), ["50"] * 20 + ["0"] * 20 + ["-50"] * 20
    if place.depot.capabilities.priority_levels == 201:
        assert found == wanted
    else:
        # The server sends each band by itself: the next urgent one may be under way when another is here already.
        assert sum(one != other for one, other in zip(found, wanted, strict=True)) <= 4


@pytest.mark.parametrize("task", [note, note_untracked], ids=["tracked", "untracked"])
@pytest.mark.one_database
def test_running_is_shown_soon_and_keeps_nobody(place: Place, history: History, task: object) -> None:
    process = place.start("--processes", "2")
    wait_for(lambda: len(process.children()) == 2)
    result = task.enqueue(history.path, "long", 60, "until-told")  # type: ignore[attr-defined]
    row = TaskRecord.objects.filter(pk=result.id)
    wait_for(lambda: row.filter(status=Status.RUNNING, started_at__isnull=False).exists(), 10, process.log)
    result.refresh()
    assert result.status == Status.RUNNING
    # The other process does what comes meanwhile, also what the server had sent ahead to this one.
    task.enqueue_many([((history.path, f"short{number}"), {}) for number in range(50)])  # type: ignore[attr-defined]
    history.wait_for("end", count=50)
    assert not history.count("end", "long")
    let_go(history.path, history.wait_for("start", "long").pid)
    wait_until_finished(20)
    assert set(history.counts("start").values()) == {1}


@pytest.mark.one_database
def test_runs_without_a_row(place: Place, history: History) -> None:
    process = place.start()
    late = note_late.enqueue(history.path, "late")
    forgotten = note_untracked.enqueue(history.path, "forgotten")
    bad = fail_untracked.enqueue("on purpose")
    assert late.get(20) == "late"
    wait_for(lambda: TaskRecord.objects.filter(pk=bad.id, status=Status.FAILED).exists(), 20, process.log)
    assert TaskRecord.objects.get(pk=bad.id).reason == "ValueError: on purpose"
    history.wait_for("end", "forgotten")
    # What it held is dropped with its end: nothing is left of it once the worker has stopped.
    process.terminate()
    assert process.wait() == 0
    rows = dict(TaskRecord.objects.values_list("name", "status"))
    assert rows == {note_late.name: Status.SUCCESSFUL, fail_untracked.name: Status.FAILED}
    assert not TaskRecord.objects.filter(pk=forgotten.id).exists()
    assert (place.depot.size("default"), place.depot.holders()) == (0, {})
    assert place.start("--burst", ready=False).wait() == 0
    assert set(history.counts("start").values()) == {1}


def test_transactions_of_the_caller(place: Place, history: History) -> None:
    place.start()
    with transaction.atomic():
        note.enqueue(history.path, "committed")
        note_untracked.enqueue(history.path, "committed too")
        Effect.objects.create(name="with them")
    with suppress(ZeroDivisionError), transaction.atomic():
        note.enqueue(history.path, "rolled back")
        note_untracked.enqueue(history.path, "rolled back too")
        raise ZeroDivisionError
    last = note.enqueue(history.path, "last")
    last.get(20)
    wait_until_finished(20)
    assert sorted(starts(history)) == ["committed", "committed too", "last"]


@pytest.mark.one_database
def test_tasks_that_enqueue_tasks(place: Place, history: History) -> None:
    place.start("--processes", "2")
    results = fan_out.enqueue_many([((history.path, 50), {}) for _ in range(4)])
    assert [result.get(20) for result in results] == [50] * 4
    history.wait_for("end", count=200)
    wait_until_finished(20)
    assert history.counts("start") == {f"child{number}": 4 for number in range(50)}


@pytest.mark.one_database
def test_a_stop_gives_back_and_burst_does_the_rest(place: Place, history: History) -> None:
    process = place.start()
    keys = [str(number) for number in range(100)]
    for some, task in ((keys[::2], note), (keys[1::2], note_untracked)):
        task.enqueue_many([((history.path, key, 0.05), {}) for key in some])
    history.wait_for("end", count=10)
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()
    assert history.count("start") == history.count("end") < len(keys)
    assert unfinished() > 0

    assert place.start("--processes", "2", "--burst", ready=False).wait() == 0
    assert history.counts("start") == dict.fromkeys(keys, 1)
    assert unfinished() == 0
    assert not crashes()


@pytest.mark.one_database
def test_schedules(place: Place, history: History) -> None:
    entry = {"task": "tests.testapp.tasks.note", "schedule": "every 1 second", "args": [history.path, "tick"]}
    place.start(SCHEDULE={"tick": entry})
    history.wait_for("end", "tick", count=3)
    PeriodicTask.objects.update(is_enabled=False)
    wait_until_finished()
    assert history.count("start") == TaskRecord.objects.filter(status=Status.SUCCESSFUL).count()


@pytest.mark.one_database
def test_several_brokers_in_one_worker(request: pytest.FixtureRequest, worker: Start, history: History) -> None:
    taskq = on_url("database://")
    for name in SERVERS:
        taskq["BROKERS"] |= {name: {"URL": shared_server(request, name).url, "PREFIX": "several"}}
    taskq["QUEUES"] = {name: {"broker": name} for name in SERVERS}
    with at(worker, taskq) as place:
        process = place.start("--processes", "2")
        for queue in ("default", *SERVERS):
            for task in (note, note_untracked):
                calls = [((history.path, queue), {}) for _ in range(50)]
                task.using(queue_name=queue).enqueue_many(calls)
        retried = retry_at_once.using(queue_name="rabbitmq").enqueue(history.path, "retried", 3)
        assert retried.get(20) == 3
        history.wait_for("end", count=300, timeout=30)
        wait_until_finished(20)
        assert history.counts("end") == dict.fromkeys(("default", *SERVERS), 100)
        assert history.count("start") == 303
        process.terminate()
        assert process.wait() == 0
        assert_registry_is_clean()
    # In the database there is nothing to be spared; elsewhere what left no row was done all the same.
    queues = TaskRecord.objects.filter(status__in=FINAL, name__endswith="note_untracked").values_list("queue_name")
    assert {name for (name,) in queues} == {"default"}
