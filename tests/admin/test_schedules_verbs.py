"""The verbs of periodic tasks by every way and for every role: only the cells that should change data do."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from django_taskq.exceptions import InvalidSchedule
from django_taskq.models import PeriodicTask, ScheduleTick, TaskRecord
from django_taskq.models.schedule import Decision
from tests.admin.periodic import (
    GOOD,
    SCHEDULES,
    make_declared,
    make_periodic,
    page_of,
    verb_of,
    words_of,
)
from tests.admin.rows import detail_url, make_user
from tests.admin.test_permissions import send

pytestmark = pytest.mark.django_db

NEEDED = {
    "enable": {"change_periodictask", "schedule_task"},
    "disable": {"change_periodictask", "schedule_task"},
    "skip": {"change_periodictask", "schedule_task"},
    "restore": {"change_periodictask", "schedule_task"},
    "run": {"run_periodictask", "view_periodictask"},
    "delete": {"delete_periodictask", "view_periodictask"},
    "add": {"add_periodictask", "schedule_task"},
    "change": {"change_periodictask", "schedule_task"},
}
ROLES: dict[str, list[str]] = {
    "staff": [],
    "view": ["view_periodictask", "view_payload"],
    "view and run": ["view_periodictask", "run_periodictask"],
    "only run": ["run_periodictask"],
    "run of runs": ["view_periodictask", "run_taskrecord"],
    "change": ["change_periodictask", "view_periodictask"],
    "schedule": ["schedule_task", "view_periodictask"],
    "add": ["add_periodictask", "view_periodictask", "view_payload"],
    "add and schedule": ["add_periodictask", "view_periodictask", "view_payload", "schedule_task"],
    "change and schedule": ["change_periodictask", "schedule_task"],
    "view and delete": ["view_periodictask", "delete_periodictask"],
}


def row_for(verb: str) -> PeriodicTask:
    if verb == "restore":
        return make_declared(schedule="0 4 * * *")
    return make_periodic(is_enabled=verb != "enable")


def ways(row: PeriodicTask, verb: str) -> list[tuple[str, dict[str, Any]]]:
    chosen = {"action": f"{verb}_selected", "_selected_action": [str(row.pk)], "index": 0}
    if verb == "add":
        return [(f"{SCHEDULES}add/", GOOD | {"name": "new"})]
    if verb == "change":
        return [(page_of(row), GOOD | {"name": "renamed"})]
    if verb == "delete":
        return [(f"{SCHEDULES}{row.pk}/delete/", {"post": "yes"}), (SCHEDULES, chosen | {"post": "yes"})]
    return [
        (verb_of(row, verb), {}),
        (SCHEDULES, chosen),
        (SCHEDULES, chosen | {"select_across": "1", "confirmed": "yes"}),
    ]


def state() -> Any:
    rows = list(PeriodicTask.objects.order_by("pk").values())
    return rows, ScheduleTick.objects.count(), TaskRecord.objects.count()


@pytest.mark.parametrize("role", [*ROLES, "superuser", "anonymous"])
@pytest.mark.parametrize("verb", NEEDED)
def test_only_the_allowed_cell_changes_data(verb: str, role: str) -> None:
    client = Client(enforce_csrf_checks=True)
    if role != "anonymous":
        client.force_login(make_user("user", ROLES.get(role, ()), is_superuser=role == "superuser"))
    may = role == "superuser" or set(ROLES.get(role, ())) >= NEEDED[verb]
    row = row_for(verb)
    for method in ("GET", "POST without token", "POST"):
        for number in range(len(ways(row, verb))):
            PeriodicTask.objects.all().delete()
            row = row_for(verb)
            before = state()
            response = send(client, method, *ways(row, verb)[number])
            assert response.status_code < 500
            # Without view_payload the arguments cannot be given, and are not needed for a change.
            assert (state() != before) is (may and method == "POST"), (method, number, response.status_code)


def test_only_the_allowed_buttons_are_shown() -> None:
    row = make_declared(schedule="0 4 * * *")
    for role, permissions in ROLES.items():
        client = Client()
        client.force_login(make_user(role, permissions))
        page = client.get(page_of(row))
        if page.status_code != 200:
            assert not {"view_periodictask", "change_periodictask"} & set(permissions)
            continue
        for verb in ("disable", "skip", "run", "restore"):
            shown = f"/do/{verb}/" in page.content.decode()
            assert shown is (set(permissions) | {"view_periodictask"} >= NEEDED[verb]), (role, verb)
        assert ('name="_save"' in page.content.decode()) is (set(permissions) >= NEEDED["change"])
        assert ('name="_preview"' in page.content.decode()) is (set(permissions) >= NEEDED["change"])


def act(client: Client, verb: str, *rows: PeriodicTask, **more: str) -> str:
    chosen = {"action": f"{verb}_selected", "_selected_action": [str(row.pk) for row in rows], "index": 0}
    return words_of(client.post(SCHEDULES, chosen | more, follow=True).content.decode())


def test_run_now_links_its_run(boss: Client) -> None:
    row = make_periodic()
    page = boss.post(verb_of(row, "run"), follow=True).content.decode()
    run = TaskRecord.objects.get()
    assert "1 run was enqueued." in page
    assert page.count(f'href="{detail_url(run)}"') == 2  # in the message and among the due times
    assert ScheduleTick.objects.get().decision == Decision.BY_HAND
    assert LogEntry.objects.get().object_id == str(row.pk)


def test_what_cannot_be_run_says_why(boss: Client) -> None:
    lost, good = make_periodic("lost", queue_name="nowhere"), make_periodic("good")
    text = act(boss, "run", lost, good)
    assert "1 run was enqueued." in text
    assert "Passed over: no queue is named" in text
    assert TaskRecord.objects.count() == 1


def test_enable_and_disable(boss: Client) -> None:
    off, on = make_periodic("off", is_enabled=False), make_periodic("on")
    retired = make_declared("retired", is_retired=True, is_enabled=False)
    text = act(boss, "enable", off, on, retired)
    assert "1 periodic task was enabled." in text
    assert "Passed over: it has no use there: 2." in text
    assert act(boss, "disable", off, on).count("2 periodic tasks were disabled.") == 1
    assert set(PeriodicTask.objects.values_list("is_enabled", flat=True)) == {False}
    boss.post(verb_of(retired, "enable"))
    retired.refresh_from_db()
    assert not retired.is_enabled


def test_skip_next(boss: Client) -> None:
    row = make_periodic()
    due = row.next_due_at
    assert "1 due time is left out." in act(boss, "skip", row)
    row.refresh_from_db()
    assert due is not None
    assert row.next_due_at is not None
    assert row.next_due_at > due
    assert ScheduleTick.objects.get().decision == Decision.SKIPPED
    over = make_periodic("over", schedule="once 2001-01-01T00:00:00+00:00")
    assert "Passed over" in act(boss, "skip", over)


def test_a_row_that_cannot_be_read_stops_no_other(boss: Client) -> None:
    bad, good = make_periodic("bad", is_enabled=False), make_periodic("good", is_enabled=False)
    PeriodicTask.objects.filter(pk=bad.pk).update(schedule="99 * * * *")
    with pytest.raises(InvalidSchedule):
        PeriodicTask.objects.get(pk=bad.pk).get_schedule()
    text = act(boss, "enable", bad, good)
    assert "1 periodic task was enabled." in text
    assert "99" in text
    PeriodicTask.objects.filter(pk=bad.pk).update(is_enabled=True)
    assert "1 periodic task was disabled." in act(boss, "disable", bad)


def test_the_whole_list_asks_first(boss: Client) -> None:
    rows = [make_periodic(f"row {number}") for number in range(7)]
    text = act(boss, "disable", rows[0], select_across="1")
    assert "All that match are selected: 7." in text
    assert "… and others" in text
    assert PeriodicTask.objects.filter(is_enabled=True).count() == 7
    assert "7 periodic tasks were disabled." in act(boss, "disable", rows[0], select_across="1", confirmed="yes")


def test_only_what_would_not_come_back_is_deleted(boss: Client) -> None:
    free, declared, retired = make_periodic(), make_declared(), make_declared("retired", is_retired=True)
    ScheduleTick.objects.create(periodic_task=free, due_at="2026-01-01T00:00Z", decision=Decision.ENQUEUED)
    asked = act(boss, "delete", free, declared, retired)
    assert "Are you sure" in asked
    assert PeriodicTask.objects.count() == 3
    text = act(boss, "delete", free, declared, retired, post="yes")
    assert "1 was passed over: code declares it, so it would come back." in text
    assert list(PeriodicTask.objects.all()) == [declared]
    assert ScheduleTick.objects.count() == 0
    assert boss.post(f"{SCHEDULES}{declared.pk}/delete/", {"post": "yes"}).status_code == 403
    assert "deletelink" not in boss.get(page_of(declared)).content.decode()
    assert "1 was passed over" in act(boss, "delete", declared)
    assert PeriodicTask.objects.count() == 1


def test_a_get_of_a_button_is_refused(boss: Client) -> None:
    row = make_periodic()
    assert boss.get(verb_of(row, "run")).status_code == 405
    assert boss.post(verb_of(row, "explode")).status_code == 404
