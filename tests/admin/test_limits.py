"""The page of time limits: what it shows, who may set and clear them, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from django_taskq.models import Command, TaskLimits
from tests.admin.conftest import browser_of
from tests.admin.rows import TASK

pytestmark = pytest.mark.django_db

PAGE = "/admin/django_taskq/tasklimits/"
ROLES: dict[str, dict[str, Any] | None] = {
    "anonymous": None,
    "not staff": {"is_staff": False, "is_superuser": True},
    "staff": {},
    "view": {"permissions": ["view_tasklimits"]},
    "only set": {"permissions": ["set_limits"]},
    "view and set": {"permissions": ["view_tasklimits", "set_limits"]},
    "view and control": {"permissions": ["view_tasklimits", "control_worker", "pause_queue"]},
    "superuser": {"is_superuser": True},
}
HINT = "django_taskq.set_limits"


def post(client: Client, *, has_token: bool = True, **data: Any) -> Any:
    if has_token:
        client.cookies["csrftoken"] = "a" * 32
        data["csrfmiddlewaretoken"] = "a" * 32
    return client.post(PAGE, data)


def stored() -> list[Any]:
    return list(TaskLimits.objects.values_list("task_name", "soft_time_limit", "time_limit"))


@pytest.mark.parametrize("action", ["set", "clear"])
@pytest.mark.parametrize("role", ROLES)
def test_only_who_may_can(role: str, action: str) -> None:
    if action == "clear":
        TaskLimits.objects.put(TASK, None, 7, by="ann")
    client, before = browser_of(role, ROLES[role]), stored()
    data = {"action": action, "task": TASK, "hard": "30"}
    assert post(client, has_token=False, **data).status_code in (302, 403)
    assert client.get(PAGE, data).status_code in (200, 302, 403)
    assert stored() == before
    response = post(client, **data)
    is_allowed = role in ("view and set", "superuser")
    assert (stored() != before) is is_allowed, response.status_code
    assert LogEntry.objects.exists() is is_allowed
    assert Command.objects.exists() is is_allowed


def test_setting_them() -> None:
    boss = browser_of("boss", {"is_superuser": True})
    post(boss, action="set", task=TASK, soft="2.5", hard="30")
    row = TaskLimits.objects.get()
    assert (row.task_name, row.soft_time_limit, row.time_limit, row.set_by) == (TASK, 2.5, 30, "boss")
    assert (Command.objects.get().name, Command.objects.get().issued_by) == ("set_time_limits", "boss")
    said = f"Limits of {TASK} for runs that start from now on: soft 2.5 s, hard 30 s."
    entry = LogEntry.objects.get()
    assert (entry.object_repr, entry.change_message) == (TASK, said)
    assert said in boss.get(PAGE).content.decode()
    # The form has them, to be changed.
    page = boss.get(PAGE, {"task": TASK}).content.decode()
    assert 'value="2.5"' in page
    assert f'<option value="{TASK}" selected>' in page

    post(boss, action="clear", task=TASK)
    assert not stored()
    assert f"The limits of {TASK} are those in the code again." in boss.get(PAGE).content.decode()
    assert "No limits are set" in boss.get(PAGE).content.decode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"task": "tests.nothing"}, "not one of the available choices"),
        ({"hard": "-1"}, "A number of seconds above 0"),
        ({"hard": "0"}, "A number of seconds above 0"),
        ({"hard": "1e30"}, "A number of seconds above 0"),
        ({"hard": "nan"}, "Enter a number."),
        ({"soft": "30"}, "The soft limit must be below the hard one"),
        ({"hard": ""}, "Give one limit or both."),
        ({"task": ""}, "This field is required."),
    ],
    ids=["unknown task", "negative", "zero", "enormous", "no number", "soft above hard", "neither", "no task"],
)
def test_what_is_refused(data: dict[str, str], why: str) -> None:
    boss = browser_of("boss", {"is_superuser": True})
    response = post(boss, **({"action": "set", "task": TASK, "soft": "", "hard": "30"} | data))
    assert response.status_code == 200
    assert why in response.content.decode()
    assert not stored()
    assert not Command.objects.exists()


def test_other_orders() -> None:
    boss = browser_of("boss", {"is_superuser": True})
    assert post(boss, action="explode", task=TASK).status_code == 400
    assert post(boss, action="clear", task=TASK).status_code == 302
    assert "No limits of this task are set any more." in boss.get(PAGE).content.decode()
    assert boss.put(PAGE).status_code in (403, 405)
    assert boss.get(f"{PAGE}1/change/").status_code == 302


def test_what_a_viewer_sees() -> None:
    TaskLimits.objects.put("<script>\u202e", 1.5, None, by="<b>ann")
    page = browser_of("viewer", ROLES["view"]).get(PAGE).content.decode()
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;ann" in page
    assert "\u202e" not in page
    assert "1.5 s" in page
    assert "not registered here" in page
    assert 'name="action"' not in page
    assert HINT in page
    assert HINT not in browser_of("boss", {"is_superuser": True}).get(PAGE).content.decode()


def test_those_of_a_task_that_is_no_more_can_be_cleared() -> None:
    TaskLimits.objects.put("shop.gone", None, 3, by="")
    post(browser_of("boss", {"is_superuser": True}), action="clear", task="shop.gone")
    assert not stored()
