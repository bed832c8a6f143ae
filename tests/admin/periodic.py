"""Periodic tasks for the admin's tests, and what its form sends."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

from django.test import Client
from django.utils import timezone

from django_taskq.models import PeriodicTask, SchedulerLease
from django_taskq.models.schedule import Source, call_of
from tests.admin.rows import TASK

SCHEDULES = "/admin/django_taskq/periodictask/"
GOOD = {
    "name": "nightly", "task_name": TASK, "args": "[1, 2]", "kwargs": "{}", "queue_name": "", "priority": "",
    "expires": "", "schedule": "30 1 * * *", "timezone": "Europe/Riga", "starts_at_0": "", "starts_at_1": "",
    "ends_at_0": "", "ends_at_1": "", "jitter": "0", "catch_up": "last", "catch_up_limit": "100", "overlap": "allow",
    "max_lateness": "", "is_enabled": "on",
}  # fmt: skip


def make_periodic(name: str = "nightly", **fields: Any) -> PeriodicTask:
    values: dict[str, Any] = {
        "task_name": TASK, "schedule": "30 1 * * *", "timezone": "Europe/Riga", "payload": "[[1,2],{}]"
    }  # fmt: skip
    return PeriodicTask.objects.create(name=name, **(values | fields))


def make_declared(name: str = "declared", source: str = Source.CODE, **fields: Any) -> PeriodicTask:
    row = PeriodicTask(name=name, task_name=TASK, schedule="0 3 * * *", payload="[[1,2],{}]", source=source)
    row.declared = json.dumps(call_of(row))
    for field, value in fields.items():
        setattr(row, field, value)
    row.save()
    return row


def make_scheduler() -> None:
    SchedulerLease.objects.create(pk=1, holder="web:1", expires_at=timezone.now() + timedelta(minutes=5))


def page_of(row: PeriodicTask) -> str:
    return f"{SCHEDULES}{row.pk}/change/"


def verb_of(row: PeriodicTask, verb: str) -> str:
    return f"{SCHEDULES}{row.pk}/do/{verb}/"


def errors(client: Client, url: str = f"{SCHEDULES}add/", **changed: Any) -> dict[str, list[str]]:
    """What the form says to this, by field; empty when it was saved."""
    response = client.post(url, GOOD | changed)
    if response.status_code == 302:
        return {}
    assert response.status_code == 200
    return dict(response.context["adminform"].form.errors)


def words_of(page: str) -> str:
    """The page without its markup."""
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())
