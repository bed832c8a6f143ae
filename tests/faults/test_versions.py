"""F49 and F50: workers whose code, or whose tables, are not those of whoever enqueues."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client

from django_taskq import task
from django_taskq.models import TaskRecord
from django_taskq.result import TaskResult
from django_taskq.status import Status
from tests.faults.history import History, assert_no_orphans, assert_registry_is_clean, wait_until_finished
from tests.faults.next_release.tasks import KINDS, name
from tests.testapp.tasks import add, fail, note, note_until_attempt
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]
PATIENT = 20.0  # seconds, for workers on a loaded machine


@task(name=name("missing"))
def missing(number: int) -> None:
    """As it was; a worker of the next release wants another argument."""


@task(name=name("extra"))
def extra(number: int) -> None: ...


@task(name=name("renamed"))
def renamed(number: int) -> None: ...


@task(name=name("keyword"))
def keyword(number: int) -> None: ...


@task(name=name("typed"))
def typed(number: str) -> None: ...


def release(which: str) -> dict[str, str]:
    return {"DJANGO_SETTINGS_MODULE": "tests.faults.next_release_settings", "TASKQ_TEST_RELEASE": which}


def enqueue_all() -> dict[str, TaskResult[None]]:
    return {
        "missing": missing.enqueue(7),
        "extra": extra.enqueue(7),
        "renamed": renamed.enqueue(number=7),
        "keyword": keyword.enqueue(7),
        "typed": typed.enqueue("7"),
    }


def retry_in_admin(results: list[TaskResult[None]]) -> None:
    """As somebody does who has seen them in the list."""
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("ann"))
    for result in results:
        answer = client.post(f"/admin/django_taskq/taskrecord/{result.id}/do/retry/")
        assert answer.status_code == 302, answer.content


def test_calls_of_an_old_signature(worker: Start) -> None:
    # Given runs that old code has enqueued, and a worker that has the new code
    results = enqueue_all()
    process = worker("--processes", "1", env=release("new"))
    wait_until_finished()

    # Then each has failed, and says why; though their tasks retry whatever comes, none was tried twice or at all.
    assert [results[kind].id for kind in KINDS] == [
        str(row.pk) for row in TaskRecord.objects.filter(status=Status.FAILED, attempt=1).order_by("pk")
        if "does not accept these arguments" in row.reason and row.reason.startswith("InvalidArguments: ")
    ]  # fmt: skip
    texts = {kind: results[kind].errors[0].message for kind in results}
    assert "missing a required argument: 'factor'" in texts["missing"]
    assert "extra() -> 'int' does not accept these arguments: too many positional arguments" in texts["extra"]
    assert "renamed(amount: 'int')" in texts["renamed"]
    assert "keyword(*, number" in texts["keyword"]
    assert all(len(result.errors) == 1 for result in results.values())
    # What has the right shape and another type is the task's own affair.
    assert results["typed"].errors[0].exception_class_path == "builtins.AttributeError"
    assert process.children()
    process.terminate()
    assert process.wait() == 0

    # When the code takes such calls again, they can be retried.
    process = worker("--processes", "1", env=release("mended"))
    retry_in_admin(list(results.values()))
    assert [result.get(PATIENT) for result in results.values()] == [1] * 5
    print(f"\n{len(KINDS)} of {len(KINDS)} say so after one attempt, 5 of 5 are done when retried with mended code")
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)


NEWEST = MigrationRecorder.Migration.objects.filter(app="django_taskq")


def test_migrations_that_were_not_applied(worker: Start) -> None:
    newest = NEWEST.order_by("-name")[0]
    newest.delete()
    try:
        before = time.monotonic()
        process = worker("--processes", "1", ready=False)
        assert process.wait() == 1
        took = time.monotonic() - before
    finally:
        newest.save(force_insert=True)
    log = process.log()
    assert f"({newest.name} not applied)" in log
    assert "python manage.py migrate" in log
    assert "Traceback" not in log
    assert_no_orphans(process)
    assert_registry_is_clean()
    print(f"\nrefused to start after {took:.1f} s")


@contextmanager
def next_schema() -> Iterator[None]:
    """The tables as a later release may have them: with a column more, which has a default."""
    recorder = MigrationRecorder(connection)
    with connection.cursor() as cursor:
        for table in ("taskq_task", "taskq_worker"):
            cursor.execute(f"ALTER TABLE {table} ADD COLUMN colour varchar(20) NULL DEFAULT 'blue'")
    recorder.record_applied("django_taskq", "9999_colours")
    try:
        yield
    finally:
        recorder.record_unapplied("django_taskq", "9999_colours")
        connection.close()
        with connection.cursor() as cursor:
            for table in ("taskq_task", "taskq_worker"):
                cursor.execute(f"ALTER TABLE {table} DROP COLUMN colour")


def test_tables_of_a_later_release(worker: Start, history: History) -> None:
    """A worker that was not replaced yet goes on, and one of the old code may start."""
    process = worker("--processes", "1")
    assert add.enqueue(1, 2).get(PATIENT) == 3
    with next_schema():
        keys = [str(number) for number in range(50)]
        note.enqueue_many([((history.path, key), {}) for key in keys])
        later = worker("--processes", "1")
        retried = note_until_attempt.enqueue(history.path, "retried", 2)
        failed, due = fail.enqueue("as it should"), add.using(countdown=0.2).enqueue(3, 4)
        never = add.using(countdown=60).enqueue(0, 0)
        assert never.cancel()
        with pytest.raises(ValueError, match="as it should"):
            failed.get(PATIENT)
        assert (retried.get(PATIENT), due.get(PATIENT)) == (2, 7)
        wait_until_finished()
        assert set(history.counts("end")) == set(keys)
        with connection.cursor() as cursor:
            cursor.execute("SELECT DISTINCT colour FROM taskq_task WHERE name = %s", [note.name])
            assert cursor.fetchall() == [("blue",)]
        for each in (process, later):
            assert len(each.children()) == 1
            assert "bookkeeping failed" not in each.log()
            each.terminate()
            assert each.wait() == 0
            assert_no_orphans(each)
    print(f"\n{TaskRecord.objects.count()} runs under the tables of a later release")
    wait_for(lambda: not process.tree())
