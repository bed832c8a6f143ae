"""What autoscaling asks the database: how much waits, and for how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from django_taskq import registry
from django_taskq.models import TaskRecord
from django_taskq.worker import scaling
from django_taskq.worker.scaling import backlog
from tests.testapp.tasks import add

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _tasks_with_rows_only(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.TASKQ = {"QUEUES": ["mail", "bulk"]}
    monkeypatch.setattr(registry, "_tasks", {add.name: add})


def put(queue_name: str, *ages: float) -> None:
    """Runs that could have started so many seconds ago."""
    for age in ages:
        run = add.using(queue_name=queue_name).enqueue(1, 2)
        TaskRecord.objects.filter(pk=run.id).update(enqueued_at=F("enqueued_at") - timedelta(seconds=age))


def test_nothing(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        assert backlog(["mail", "bulk"]) == (0, 0.0)


def test_it_is_one_query_for_all_queues(django_assert_num_queries: Any) -> None:
    put("mail", 5, 50)
    put("bulk", 20)
    put("default", 500)
    with django_assert_num_queries(1):
        count, age = backlog(["mail", "bulk"])
    assert count == 3
    assert 50 <= age < 60


def test_a_delayed_run_waits_since_its_time(django_assert_num_queries: Any) -> None:
    put("mail", 1000)
    TaskRecord.objects.update(run_after=F("enqueued_at") + timedelta(seconds=990))
    count, age = backlog(["mail"])
    assert count == 1
    assert 10 <= age < 20


def test_what_is_not_ready_does_not_count() -> None:
    add.using(queue_name="mail").apply_async((1, 2), countdown=60)
    assert backlog(["mail"]) == (0, 0.0)


def test_only_so_many_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "MOST_COUNTED", 2)
    put("mail", 1, 2, 3, 4)
    assert backlog(["mail"])[0] == 2
