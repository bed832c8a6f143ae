"""Every verb, by every way to it, for every role: only the cells that should change data do."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.admin.conftest import browser_of
from tests.admin.rows import LIST, detail_url, make_record, verb_url

pytestmark = pytest.mark.django_db

PERMISSIONS = {
    "retry": "retry_taskrecord",
    "run": "run_taskrecord",
    "cancel": "cancel_taskrecord",
    "delete": "delete_taskrecord",
}
STATUS = {"retry": Status.FAILED, "run": Status.SUCCESSFUL, "cancel": Status.READY, "delete": Status.SUCCESSFUL}
ROLES: dict[str, dict[str, Any] | None] = {
    "anonymous": None,
    "not staff": {"is_staff": False, "is_superuser": True},
    "staff": {},
    "view": {"permissions": ["view_taskrecord"]},
    "view and payload": {"permissions": ["view_taskrecord", "view_payload"]},
    "change": {"permissions": ["change_taskrecord", "add_taskrecord"]},
    **{f"only {verb}": {"permissions": [name]} for verb, name in PERMISSIONS.items()},
    **{f"view and {verb}": {"permissions": ["view_taskrecord", name]} for verb, name in PERMISSIONS.items()},
    "superuser": {"is_superuser": True},
}
METHODS = ("GET", "POST without token", "POST")


def send(client: Client, method: str, url: str, data: dict[str, Any]) -> Any:
    if method == "GET":
        return client.get(url, data)
    if method == "POST":
        client.cookies["csrftoken"] = "a" * 32
        data = data | {"csrfmiddlewaretoken": "a" * 32}
    return client.post(url, data)


def by_button(record: TaskRecord, verb: str) -> tuple[str, dict[str, Any]]:
    return verb_url(record, verb), {"confirmed": "yes"}


def by_action(record: TaskRecord, verb: str) -> tuple[str, dict[str, Any]]:
    return LIST, {"action": f"{verb}_selected", "_selected_action": [str(record.pk)], "index": 0, "confirmed": "yes"}


def by_action_on_all(record: TaskRecord, verb: str) -> tuple[str, dict[str, Any]]:
    return LIST, by_action(record, verb)[1] | {"select_across": "1"}


def by_delete_page(record: TaskRecord, verb: str) -> tuple[str, dict[str, Any]]:
    return f"{LIST}{record.pk}/delete/", {"confirmed": "yes", "post": "yes"}


def rows() -> list[Any]:
    return list(TaskRecord.objects.order_by("pk").values_list("pk", "status", "attempt", "cancel_requested_at"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("verb", PERMISSIONS)
def test_only_the_allowed_cell_changes_data(verb: str, role: str, method: str) -> None:
    client = browser_of(role, ROLES[role])
    ways = [by_button, by_action, by_action_on_all] + ([by_delete_page] if verb == "delete" else [])
    expected = method == "POST" and role in (f"view and {verb}", "superuser")
    for way in ways:
        TaskRecord.objects.all().delete()
        LogEntry.objects.all().delete()
        record = make_record(STATUS[verb])
        before = rows()
        response = send(client, method, *way(record, verb))
        assert (rows() != before) is expected, (way.__name__, response.status_code)
        assert LogEntry.objects.exists() is expected
        assert response.status_code < 500


@pytest.mark.parametrize("role", [role for role in ROLES if role != "superuser"])
def test_only_the_allowed_buttons_are_shown(role: str) -> None:
    record = make_record(Status.FAILED)
    client = browser_of(role, ROLES[role])
    for url in (LIST, detail_url(record)):
        response = client.get(url)
        if response.status_code != 200:
            assert not any(role.startswith(word) for word in ("view", "change"))
            continue
        page = response.content.decode()
        for verb in ("retry", "run", "delete"):
            shown = f"{verb}_selected" in page or f"/do/{verb}/" in page
            assert shown is (role == f"view and {verb}"), (url, verb)


@pytest.mark.parametrize("role", ROLES)
def test_nobody_adds_or_edits(role: str) -> None:
    record = make_record()
    client = browser_of(role, ROLES[role])
    before = TaskRecord.objects.values().get()
    for url in (f"{LIST}add/", detail_url(record), LIST):
        response = send(client, "POST", url, {"name": "other", "payload": "[]", "status": "READY", "_save": "1"})
        assert response.status_code in (200, 302, 403, 405)
    assert TaskRecord.objects.values().get() == before


def test_a_get_of_a_button_is_refused(boss: Client) -> None:
    record = make_record(Status.FAILED)
    assert boss.get(verb_url(record, "retry")).status_code == 405
    assert boss.post(verb_url(record, "explode")).status_code == 404


def test_a_selection_that_is_no_id_is_refused(boss: Client) -> None:
    make_record(Status.FAILED)
    response = boss.post(LIST, {"action": "retry_selected", "_selected_action": ["x"], "index": 0})
    assert response.status_code == 400
    response = boss.post(
        LIST, {"action": "retry_selected", "_selected_action": [str(uuid4())], "index": 0}, follow=True
    )
    assert "the runs are gone" in response.content.decode()
