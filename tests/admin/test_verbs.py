"""What the actions do, what they pass over, and what they say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_taskq.admin import verbs
from django_taskq.brokers.database.sqlite import SQLite
from django_taskq.models import TaskAttempt, TaskRecord
from django_taskq.status import Status
from tests.admin.rows import LIST, detail_url, make_attempt, make_record, verb_url

pytestmark = pytest.mark.django_db


def act(client: Client, verb: str, *records: TaskRecord, query: str = "", **extra: Any) -> str:
    """The page after an action on the list."""
    data = {"action": f"{verb}_selected", "_selected_action": [str(r.pk) for r in records], "index": 0} | extra
    return client.post(f"{LIST}{query}", data, follow=True).content.decode()


def one_of_each() -> dict[str, TaskRecord]:
    return {status: make_record(status) for status in Status.values if status != "WAITING"}


def test_retry(boss: Client) -> None:
    each = one_of_each()
    page = act(boss, "retry", *each.values())
    assert "2 runs are to be tried again." in page
    assert "4 runs were passed over (" in page
    assert "Successful: 1" in page
    assert "Running: 1" in page
    failed, cancelled = each["FAILED"], each["CANCELLED"]
    failed.refresh_from_db()
    cancelled.refresh_from_db()
    assert (failed.status, failed.attempt, failed.reason) == ("READY", 2, "")
    assert (cancelled.status, cancelled.attempt) == ("READY", 1)
    entries = LogEntry.objects.all()
    assert {entry.object_id for entry in entries} == {str(failed.pk), str(cancelled.pk)}


@pytest.mark.skipif(connection.vendor != "sqlite", reason="replaces the SQLite dialect's doorbell")
def test_retry_rings_the_doorbell(boss: Client) -> None:
    record = make_record(Status.FAILED, queue_name="mail")
    with mock.patch.object(SQLite, "wake") as wake:
        boss.post(verb_url(record, "retry"))
    assert wake.call_args[0][1] == ["mail"]


def test_run_again(boss: Client) -> None:
    old = make_record(priority=7, payload="[[4,5],{}]", headers='{"time_limit":9}', expires_at=None)
    TaskRecord.objects.filter(pk=old.pk).update(expires_at=old.enqueued_at + timedelta(hours=1))
    response = boss.post(verb_url(old, "run"), follow=True)
    new = TaskRecord.objects.exclude(pk=old.pk).get()
    assert response.redirect_chain[-1][0] == detail_url(new)
    assert (new.status, new.name, new.priority, new.payload) == ("READY", old.name, 7, old.payload)
    assert (new.headers_read.rerun_of, new.headers_read.time_limit) == (str(old.pk), 9)
    assert new.expires_at - new.enqueued_at == timedelta(hours=1)
    page = response.content.decode()
    assert "1 new run was enqueued." in page
    assert f'href="{detail_url(old)}"' in page


def test_run_again_passes_over_what_it_cannot(boss: Client) -> None:
    gone = make_record(name="app.tasks.gone")
    lost = make_record(queue_name="nowhere")
    odd = make_record(headers="{")
    big = make_record(payload=f'[["{"x" * (1 << 20)}"],{{}}]')
    good = make_record()
    page = act(boss, "run", gone, lost, odd, big, good)
    assert "1 new run was enqueued." in page
    assert "4 runs were passed over (" in page
    assert "the task app.tasks.gone is not registered here: 1" in page
    assert "no queue is named nowhere any more: 1" in page
    assert "its options cannot be read: 1" in page
    assert TaskRecord.objects.count() == 6


def test_cancel(boss: Client) -> None:
    each = one_of_each()
    page = act(boss, "cancel", *each.values())
    assert "2 runs were cancelled." in page
    assert "1 run that a worker has was marked" in page
    assert "3 runs were passed over (" in page
    statuses = dict(TaskRecord.objects.values_list("pk", "status"))
    assert statuses[each["READY"].pk] == statuses[each["SCHEDULED"].pk] == "CANCELLED"
    assert statuses[each["RUNNING"].pk] == "RUNNING"
    assert "asked before: 1" in act(boss, "cancel", each["RUNNING"])


def test_delete_asks_first_and_keeps_what_runs(boss: Client) -> None:
    each = one_of_each()
    make_attempt(each["FAILED"])
    kept = make_attempt(each["RUNNING"])
    asked = act(boss, "delete", *each.values())
    assert "Selected: 6." in asked
    assert TaskRecord.objects.count() == 6
    page = act(boss, "delete", *each.values(), confirmed="yes")
    assert "5 records were deleted." in page
    assert "Running: 1" in page
    assert list(TaskRecord.objects.all()) == [each["RUNNING"]]
    assert list(TaskAttempt.objects.all()) == [kept]
    assert LogEntry.objects.filter(action_flag=DELETION).count() == 5


def test_a_running_run_is_not_deleted_by_any_way(boss: Client) -> None:
    record = make_record(Status.RUNNING)
    boss.post(verb_url(record, "delete"), {"confirmed": "yes"})
    boss.post(f"{LIST}{record.pk}/delete/", {"confirmed": "yes"})
    assert TaskRecord.objects.filter(pk=record.pk).exists()
    assert "/do/delete/" not in boss.get(detail_url(record)).content.decode()


def test_all_pages_asks_first_and_works_without_loading(boss: Client) -> None:
    for _ in range(130):
        make_record(Status.FAILED)
    other = make_record(Status.FAILED, queue_name="mail")
    first = TaskRecord.objects.first()
    query = "?status=failed&queue=default"
    page = act(boss, "retry", first, query=query, select_across="1")
    assert "All that match are selected: 130." in page
    assert "status = failed" in page
    assert TaskRecord.objects.filter(status="READY").count() == 0
    with CaptureQueriesContext(
        connection,
    ) as queries:
        page = act(boss, "retry", first, query=query, select_across="1", confirmed="yes")
    assert "130 runs are to be tried again." in page
    other.refresh_from_db()
    assert other.status == "FAILED"
    assert len([q for q in queries if q["sql"].startswith("UPDATE") and "taskq_task" in q["sql"]]) == 1
    assert LogEntry.objects.count() == 1


def test_run_again_of_everything_does_not_run_what_it_made(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "AT_ONCE", 10)
    for _ in range(35):
        make_record()
    first = TaskRecord.objects.first()
    page = act(boss, "run", first, select_across="1", confirmed="yes")
    assert "35 new runs were enqueued." in page
    assert TaskRecord.objects.count() == 70
    act(boss, "delete", first, select_across="1", confirmed="yes")
    assert TaskRecord.objects.count() == 0


def test_a_run_claimed_while_it_is_deleted_stays(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_record(Status.READY)
    make_attempt(record)

    def chunks(records: Any) -> Any:
        found = list(records)
        TaskRecord.objects.update(status=Status.RUNNING, claim=1)
        yield found

    monkeypatch.setattr(verbs, "_chunks", chunks)
    boss.post(verb_url(record, "delete"), {"confirmed": "yes"})
    assert TaskRecord.objects.count() == TaskAttempt.objects.count() == 1
