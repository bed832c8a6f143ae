"""Rows for the admin's tests, made without a worker."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.models import Permission, User
from django.urls import reverse
from django.utils import timezone

from django_taskq.message import new_ids
from django_taskq.models import TaskAttempt, TaskRecord, Worker, WorkerProcess
from django_taskq.status import Status

TASK = "tests.testapp.tasks.add"
LIST = "/admin/django_taskq/taskrecord/"


def make_record(status: str = Status.SUCCESSFUL, **fields: Any) -> TaskRecord:
    """A run as it would be, that many seconds into its life."""
    now = timezone.now()
    values: dict[str, Any] = {
        "id": UUID(new_ids(1)[0]),
        "name": TASK,
        "queue_name": "default",
        "priority": 0,
        "status": status,
        "payload": "[[1,2],{}]",
        "enqueued_at": now - timedelta(seconds=9),
        "attempt": 1,
    }
    if status in (Status.SUCCESSFUL, Status.FAILED):
        values |= {"started_at": now - timedelta(seconds=5), "finished_at": now - timedelta(seconds=2)}
    if status == Status.CANCELLED:
        values |= {"finished_at": now, "reason": "TaskCancelled"}
    if status == Status.SUCCESSFUL:
        values["result"] = "3"
    if status == Status.FAILED:
        values["reason"] = "ValueError: no"
    if status == Status.SCHEDULED:
        values["run_after"] = now + timedelta(hours=1)
    if status == Status.RUNNING:
        values |= {"started_at": now - timedelta(seconds=1), "claim": 1}
    return TaskRecord.objects.create(**(values | fields))


def make_attempt(record: TaskRecord, **fields: Any) -> TaskAttempt:
    values: dict[str, Any] = {
        "attempt": 1,
        "kind": "FAILED",
        "worker": "1",
        "started_at": timezone.now() - timedelta(seconds=2),
        "finished_at": timezone.now(),
        "class_path": "builtins.ValueError",
        "message": "no",
        "traceback": "Traceback (most recent call last):\n  ...\nValueError: no\n",
    }
    return TaskAttempt.objects.create(task=record, **(values | fields))


def make_worker(**fields: Any) -> Worker:
    values: dict[str, Any] = {
        "hostname": "web1",
        "boot_id": "b",
        "pid_namespace": "n",
        "pid": 4242,
        "pid_started": 1,
        "table_path": "",
        "queues": "default",
        "processes": 2,
        "threads": 1,
        "version": "0.1.0",
        "lease_expires_at": timezone.now() + timedelta(seconds=30),
    }
    return Worker.objects.create(**(values | fields))


def make_process(worker: Worker, pid: int = 4243) -> WorkerProcess:
    return WorkerProcess.objects.create(worker=worker, pid=pid)


def make_user(name: str, permissions: Iterable[str] = (), **fields: Any) -> User:
    user = User.objects.create_user(name, password="x", is_staff=True, **fields)
    found = Permission.objects.filter(content_type__app_label="django_taskq", codename__in=permissions)
    assert len(found) == len(set(permissions))
    user.user_permissions.set(found)
    return user


def detail_url(record: TaskRecord, site: str = "admin") -> str:
    return reverse("admin:django_taskq_taskrecord_change", args=[record.pk], current_app=site)


def verb_url(record: TaskRecord, verb: str) -> str:
    return reverse("admin:django_taskq_taskrecord_do", args=[record.pk, verb])
