"""The page of queues: what it shows, who may pause and resume, and the commands on a worker's page."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from django_taskq.admin.waiting import why_waiting
from django_taskq.models import Command, CommandReply, Queue
from django_taskq.status import Status
from tests.admin.rows import make_record, make_user, make_worker

pytestmark = pytest.mark.django_db

PAGE = "/admin/django_taskq/queue/"
ROLES: dict[str, dict[str, Any] | None] = {
    "anonymous": None,
    "staff": {},
    "view": {"permissions": ["view_queue"]},
    "only pause": {"permissions": ["pause_queue"]},
    "view and pause": {"permissions": ["view_queue", "pause_queue"]},
    "view and control": {"permissions": ["view_queue", "control_worker"]},
    "superuser": {"is_superuser": True},
}


def browser_of(role: str) -> Client:
    client = Client(enforce_csrf_checks=True)
    how = ROLES[role]
    if how is not None:
        fields = dict(how)
        client.force_login(make_user(role, fields.pop("permissions", ()), **fields))
    return client


def post(client: Client, **data: str) -> Any:
    if data.pop("token", "yes") == "yes":
        client.cookies["csrftoken"] = "a" * 32
        data["csrfmiddlewaretoken"] = "a" * 32
    return client.post(PAGE, data)


@pytest.mark.parametrize("action", ["pause", "resume"])
@pytest.mark.parametrize("role", ROLES)
def test_only_who_may_can(role: str, action: str) -> None:
    if action == "resume":
        Queue.objects.pause("default", by="", reason="")
    client = browser_of(role)
    before = Queue.objects.paused().exists()
    assert post(client, token="no", action=action, queue="default").status_code in (302, 403)
    assert client.get(PAGE, {"action": action, "queue": "default"}).status_code in (200, 302, 403)
    assert Queue.objects.paused().exists() is before
    response = post(client, action=action, queue="default", reason="why")
    is_allowed = role in ("view and pause", "superuser")
    assert (Queue.objects.paused().exists() is not before) is is_allowed, response.status_code
    assert LogEntry.objects.exists() is is_allowed
    assert Command.objects.exists() is is_allowed


def test_what_it_shows() -> None:
    Queue.objects.pause("<script>", by="ann", reason="\u202eevil")
    page = browser_of("view").get(PAGE).content.decode()
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page
    assert "ann" in page
    assert "Paused" in page
    assert "Served" in page
    assert 'value="pause"' not in page
    assert "django_taskq.pause_queue" in page
    page = browser_of("superuser").get(PAGE).content.decode()
    assert 'value="pause"' in page
    assert 'value="resume"' in page
    assert "django_taskq.pause_queue" not in page


def test_a_bound_is_shown(settings: Any) -> None:
    client = browser_of("view")
    assert "at most" not in client.get(PAGE).content.decode()
    settings.TASKQ = {"QUEUES": {"mail": {"max_length": 500, "when_full": "drop_lowest"}}}
    assert "at most 500 (drop_lowest)" in client.get(PAGE).content.decode()


def test_who_did_it_is_kept() -> None:
    post(browser_of("superuser"), action="pause", queue="default", reason="the provider is down")
    queue = Queue.objects.get()
    assert (queue.paused_by, queue.reason) == ("superuser", "the provider is down")
    assert "the provider is down" in LogEntry.objects.get().change_message
    assert Command.objects.get().issued_by == "superuser"


@pytest.mark.parametrize(
    "data",
    [
        {"action": "explode", "queue": "default"},
        {"action": "pause", "queue": "nowhere"},
        {"action": "pause", "queue": "default", "reason": "x" * 501},
    ],
    ids=["no such action", "no such queue", "a long reason"],
)
def test_nonsense(data: dict[str, str]) -> None:
    assert post(browser_of("superuser"), **data).status_code == 400
    assert not Queue.objects.exists()


def test_a_run_says_that_its_queue_is_paused() -> None:
    record = make_record(Status.READY)
    assert "paused" not in why_waiting(record, "default")
    Queue.objects.pause(record.queue_name, by="", reason="")
    assert "has been paused since" in why_waiting(record, "default")


@pytest.mark.parametrize("sees", [True, False], ids=["may see commands", "may not"])
def test_the_commands_of_a_worker(sees: bool) -> None:
    worker = make_worker()
    (command,) = Command.objects.issue("set_processes", '{"number": 3}', [worker.pk], issued_by="ann<b>", seconds=60)
    CommandReply.objects.create(
        command=command, worker=worker, is_ok=False, reply='"<i>no</i>' + "x" * 9999, at=timezone.now()
    )
    client = Client()
    client.force_login(make_user("ann", ["view_worker", *(["view_command"] if sees else [])]))
    page = client.get(f"/admin/django_taskq/worker/{worker.pk}/change/").content.decode()
    assert ("set_processes" in page) is sees
    assert ("ann&lt;b&gt;" in page) is sees
    assert ("Not obeyed" in page) is sees
    assert "<i>" not in page
    assert "x" * 300 not in page
