"""The form: what it refuses and where it says so, what it keeps, and what it shows before anything is saved."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client, override_settings
from django.utils import timezone, translation

from django_taskq import registry, serializers, task
from django_taskq.admin.payload import MASK
from django_taskq.models import PeriodicTask
from tests.admin.periodic import GOOD, SCHEDULES, errors, make_declared, make_periodic, page_of, words_of
from tests.admin.rows import TASK, make_user

pytestmark = pytest.mark.django_db

ADD = f"{SCHEDULES}add/"


def test_one_is_added(boss: Client) -> None:
    assert errors(boss, queue_name="default", priority="-100", expires="60", is_one_off="on") == {}
    row = PeriodicTask.objects.get()
    assert (row.args, row.kwargs, row.priority, row.expires) == ([1, 2], {}, -100, 60.0)
    assert row.is_one_off
    assert row.next_due_at is not None
    assert timezone.localtime(row.next_due_at).strftime("%H:%M") == "01:30"
    assert LogEntry.objects.get().object_repr == "nightly"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schedule", "0 0 30 2 *", "never runs"),
        ("schedule", "once 2001-01-01T00:00:00+00:00", "no run that is still to come"),
        ("schedule", "*/0", "A crontab has five fields"),
        ("schedule", "*/0 * * * *", "0"),
        ("schedule", "60 * * * *", "60"),
        ("schedule", "* " * 5000, "at most 300 characters"),
        ("schedule", "1," * 140 + "1 * * * *", "at most 200 characters"),
        ("schedule", "", "required"),
        ("schedule", "once 9999-12-31T23:59:59-14:00", "a year from"),
        ("schedule", "once 0001-01-01T00:00:00+14:00", "a year from"),
        ("schedule", "every 5 parsecs", "parsecs"),
        ("schedule", "whenever", "no schedule"),
        ("timezone", "Europe/Rigga", 'Did you mean "Europe/Riga"?'),
        ("timezone", "../../etc/passwd", "No time zone is named"),
        ("task_name", "app.tasks.gone", "No task is registered here as “app.tasks.gone”."),
        ("task_name", "", "required"),
        ("args", "[1]", "missing a required argument: 'y'"),
        ("args", "[1, 2, 3]", "too many positional arguments"),
        ("args", "{}", "It takes a list"),
        ("args", "[1, ", "This is no JSON (line 1, column 5)"),
        ("args", "[" * 100_000, "This"),
        ("args", '[{"__taskq__": "nothing", "v": 1}, 2]', "is not registered"),
        ("args", '[{"__taskq__": "decimal", "v": "x"}, 2]', "cannot be read"),
        ("args", '["\\ud800", 1]', "cannot be written as JSON"),
        ("args", f'["{MASK}", 1]', "stands for no stored value"),
        ("args", f'["{"x" * (1 << 20)}", 1]', "more than 1,048,576 bytes"),
        ("kwargs", '{"z": 1}', "unexpected keyword argument 'z'"),
        ("kwargs", '{"y": 1}', "multiple values for argument 'y'"),
        ("kwargs", "[]", "It takes an object"),
        ("ends_at", "2000-01-01", "before “not before”"),
        ("queue_name", "nowhere", "nowhere"),
        ("priority", "101", "less than or equal to 100"),
        ("priority", "-101", "greater than or equal to -100"),
        ("priority", "high", "whole number"),
        ("expires", "0", "more than 0 seconds"),
        ("expires", "nan", "number"),
        ("expires", "1e300", "ten years"),
        ("jitter", "-1", "0 or more seconds"),
        ("jitter", "", "required"),
        ("max_lateness", "-5", "more than 0 seconds"),
        ("catch_up", "some", "some is not one of the available choices"),
        ("catch_up_limit", "0", "1 to 10000"),
        ("overlap", "odd", "odd"),
        ("name", "", "required"),
        ("name", "x" * 201, "at most 200 characters"),
        ("name", "taken", "Another periodic task has this name."),
    ],
)
def test_what_is_refused_is_said_at_the_field(boss: Client, field: str, value: str, message: str) -> None:
    make_periodic("taken")
    changed = {field: value}
    if field == "ends_at":
        changed = {"starts_at_0": "2030-01-01", "starts_at_1": "00:00", "ends_at_0": value, "ends_at_1": "00:00"}
    found = errors(boss, **changed)
    assert list(found) == [field], found
    assert message in " ".join(found[field]), found
    assert PeriodicTask.objects.count() == 1


@pytest.mark.parametrize("field", ["starts_at", "ends_at"])
@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
def test_a_bound_in_an_odd_year_is_refused(boss: Client, field: str, day: str) -> None:
    found = errors(boss, **{f"{field}_0": day, f"{field}_1": "23:59:59"})
    assert list(found) == [field]
    assert "a year from" in found[field][0]


def test_one_that_never_runs_is_saved_when_asked(boss: Client) -> None:
    page = boss.post(ADD, GOOD | {"schedule": "0 0 30 2 *"}).content.decode()
    assert '<input type="checkbox" name="save_although_never"' in page
    assert '<input type="checkbox" name="save_although_never"' not in boss.get(ADD).content.decode()
    assert errors(boss, schedule="0 0 30 2 *", save_although_never="on") == {}
    row = PeriodicTask.objects.get()
    assert row.next_due_at is None
    # Renaming or disabling it later asks nothing.
    assert errors(boss, page_of(row), schedule="0 0 30 2 *", name="other", is_enabled="") == {}
    assert errors(boss, page_of(row), schedule="0 0 30 2 *", is_enabled="on").keys() == {"schedule"}
    assert "no run that is still to come" in boss.get(page_of(row)).content.decode()


def test_a_preview_saves_nothing(boss: Client) -> None:
    page = boss.post(ADD, GOOD | {"timezone": "America/New_York", "_preview": "Preview"}).content.decode()
    assert PeriodicTask.objects.count() == 0
    text = words_of(page)
    assert "Next runs, as the form below says (not saved)" in text
    assert "At 01:30 AM" in text
    assert "America/New_York (of the schedule)" in text
    assert "Please correct" not in text
    assert 'value="30 1 * * *"' in page
    row = make_periodic()
    other = {"schedule": "every 5 minutes", "name": "other", "_preview": "1"}
    assert "Every 5 minutes" in boss.post(page_of(row), GOOD | other).content.decode()
    row.refresh_from_db()
    assert (row.schedule, row.name) == ("30 1 * * *", "nightly")
    bad = words_of(boss.post(ADD, GOOD | {"name": "x", "schedule": "60 * * * *", "_preview": "1"}).content.decode())
    assert "Please correct the error below" in bad
    assert "Next runs" not in bad
    # Arguments that are wrong do not hide when it would run.
    assert "At 01:30 AM" in boss.post(ADD, GOOD | {"args": "[1]", "_preview": "1"}).content.decode()


def test_stored_values_survive_a_save(boss: Client) -> None:
    for payload in (
        serializers.dumps([[Decimal("1.10"), (1, "a")], {}]),
        serializers.dumps([[1.0, True], {}]),
        '[[{"__taskq__":"of another process","v":[1]},2],{}]',
        serializers.dumps([[{1: 2}, "\u202e\x07"], {}]),
        serializers.dumps([["x" * 200, "two\nlines"], {}]),
    ):
        row = make_periodic("typed", payload=payload)
        shown = boss.get(page_of(row)).context["adminform"].form.initial
        # As a browser sends a text area.
        typed = {key: shown[key].replace("\n", "\r\n") for key in ("args", "kwargs")}
        assert errors(boss, page_of(row), name="renamed", **typed) == {}
        row.refresh_from_db()
        assert (row.payload, row.name) == (payload, "renamed")
        assert "args" not in LogEntry.objects.latest("pk").change_message
        row.delete()


def test_one_and_true_are_not_the_same(boss: Client) -> None:
    row = make_periodic(payload="[[1,2],{}]")
    assert errors(boss, page_of(row), args="[true, 2.0]") == {}
    row.refresh_from_db()
    assert row.payload == "[[true,2.0],{}]"


def test_typed_values_are_typed_in(boss: Client) -> None:
    assert errors(boss, args='[{"__taskq__": "decimal", "v": "1.10"}, 2]') == {}
    assert PeriodicTask.objects.get().args == [Decimal("1.10"), 2]


@pytest.fixture
def log_in() -> Any:
    @task(name="tests.admin.log_in_daily")
    def log_in(user: str, password: str, **more: Any) -> None: ...

    yield log_in
    registry._tasks.pop("tests.admin.log_in_daily")


def test_secrets_stay_behind_their_mask(boss: Client, log_in: Any) -> None:
    payload = serializers.dumps([["anna", "zq7"], {"options": {"api_key": "zq8", "x": [{1: {"token": "zq9"}}]}}])
    row = make_periodic(task_name=log_in.name, payload=payload)
    page = boss.get(page_of(row))
    assert "zq" not in page.content.decode()
    shown = page.context["adminform"].form.initial
    changed = shown["args"].replace("anna", "bert")
    assert errors(boss, page_of(row), task_name=log_in.name, args=changed, kwargs=shown["kwargs"]) == {}
    row.refresh_from_db()
    assert row.payload == payload.replace("anna", "bert")
    assert errors(boss, page_of(row), task_name=log_in.name, args=f'["{MASK}", "new"]', kwargs="{}").keys() == {"args"}
    assert errors(boss, page_of(row), task_name=log_in.name, args='["a", "new"]', kwargs="{}") == {}
    row.refresh_from_db()
    assert row.args == ["a", "new"]


def test_who_may_not_see_arguments_may_not_edit_them(log_in: Any) -> None:
    client = Client()
    client.force_login(make_user("planner", ["add_periodictask", "change_periodictask", "schedule_task"]))
    row = make_periodic(payload='[["zq7", 2],{}]')
    page = client.get(page_of(row)).content.decode()
    assert "zq7" not in page
    assert 'name="args"' not in page
    assert errors(client, page_of(row), args="[3, 4]", name="renamed", task_name=log_in.name) == {}
    row.refresh_from_db()
    assert (row.payload, row.name, row.task_name) == ('[["zq7", 2],{}]', "renamed", TASK)
    assert "you may not see or give any" in errors(client)["task_name"][0]


def test_an_unknown_task_of_another_process_stays(boss: Client) -> None:
    row = make_periodic(task_name="app.tasks.elsewhere", payload="[[],{}]")
    assert "app.tasks.elsewhere (not known here)" in boss.get(page_of(row)).content.decode()
    assert errors(boss, page_of(row), task_name="app.tasks.elsewhere", args="[7]", kwargs='{"a": 1}') == {}
    row.refresh_from_db()
    assert (row.task_name, row.args, row.kwargs) == ("app.tasks.elsewhere", [7], {"a": 1})


def test_unreadable_arguments_are_shown_and_kept(boss: Client) -> None:
    row = make_periodic(payload="nonsense")
    page = boss.get(page_of(row)).content.decode()
    assert "cannot be read" in page
    assert 'name="args"' not in page
    assert errors(boss, page_of(row), name="renamed") == {}
    row.refresh_from_db()
    assert (row.payload, row.name) == ("nonsense", "renamed")


def test_of_a_declared_one_only_the_timing_is_edited(boss: Client) -> None:
    row = make_declared()
    page = boss.get(page_of(row)).content.decode()
    assert 'name="task_name"' not in page
    assert 'name="schedule"' in page
    sent = {
        "name": "x",
        "task_name": "tests.testapp.tasks.nap",
        "args": "[9]",
        "priority": "5",
        "schedule": "0 4 * * *",
    }
    assert errors(boss, page_of(row), **sent, timezone="") == {}
    row.refresh_from_db()
    assert (row.name, row.task_name, row.payload, row.priority) == ("declared", TASK, "[[1,2],{}]", None)
    assert row.schedule == "0 4 * * *"
    assert row.is_overridden
    text = words_of(boss.get(page_of(row)).content.decode())
    assert "Schedule 0 3 * * * 0 4 * * *" in text
    assert "overridden" in text
    boss.post(f"{SCHEDULES}{row.pk}/do/restore/")
    row.refresh_from_db()
    assert (row.schedule, row.is_overridden) == ("0 3 * * *", False)
    assert row.next_due_at is not None
    assert timezone.localtime(row.next_due_at).hour == 3


def test_a_retired_one_is_only_looked_at(boss: Client) -> None:
    row = make_declared(is_retired=True, is_enabled=False)
    page = boss.get(page_of(row)).content.decode()
    assert "no longer in the code" in page
    assert 'name="is_enabled"' not in page
    assert 'name="schedule"' not in page
    boss.post(page_of(row), GOOD | {"is_enabled": "on", "schedule": "* * * * *"})
    row.refresh_from_db()
    assert (row.is_enabled, row.schedule) == (False, "0 3 * * *")


def test_a_schedule_that_cannot_be_read_is_shown_and_mended(boss: Client) -> None:
    row = make_periodic()
    PeriodicTask.objects.update(schedule="99 * * * *", timezone="Mars/Olympus")
    for url in (page_of(row), SCHEDULES):
        page = boss.get(url)
        assert page.status_code == 200
        assert "Mars/Olympus" in page.content.decode()
    assert "The stored schedule cannot be read" in boss.get(page_of(row)).content.decode()
    assert errors(boss, page_of(row)) == {}
    row.refresh_from_db()
    assert row.schedule == "30 1 * * *"


@pytest.mark.parametrize("zone", ["", "Europe/Riga"])
def test_bounds_are_the_admins_local_time(boss: Client, zone: str) -> None:
    sent = {"starts_at_0": "2030-07-01", "starts_at_1": "12:00:00", "ends_at_0": "2031-01-01", "ends_at_1": "00:00"}
    assert errors(boss, timezone=zone, **sent) == {}
    row = PeriodicTask.objects.get()
    assert row.starts_at is not None
    assert row.starts_at.isoformat() == "2030-07-01T09:00:00+00:00"
    assert row.next_due_at is not None
    assert timezone.localtime(row.next_due_at).isoformat() == "2030-07-02T01:30:00+03:00"
    assert errors(boss, page_of(row), timezone=zone, name="again", **sent) == {}
    row.refresh_from_db()
    assert row.next_due_at.isoformat() == "2030-07-01T22:30:00+00:00"


def test_a_save_does_not_put_back_what_schedulers_wrote(boss: Client) -> None:
    row = make_periodic()
    later = timezone.now() + timedelta(days=9)
    PeriodicTask.objects.update(next_due_at=later, next_start_at=later)
    assert errors(boss, page_of(row), name="renamed") == {}
    row.refresh_from_db()
    assert row.next_due_at == later


def test_in_another_language_and_without_time_zones(boss: Client) -> None:
    row = make_periodic()
    with translation.override("de"):
        assert boss.get(page_of(row), headers={"accept-language": "de"}).status_code == 200
        assert boss.get(SCHEDULES, headers={"accept-language": "de"}).status_code == 200
    with override_settings(USE_TZ=False):
        row = make_periodic("naive", starts_at=None)
        assert boss.get(page_of(row)).status_code == 200
        assert boss.get(SCHEDULES).status_code == 200
        assert errors(boss, name="third", starts_at_0="2030-07-01", starts_at_1="12:00") == {}


def test_numbers_json_cannot_hold_exactly(boss: Client) -> None:
    assert errors(boss, args=f"[{1 << 70}, NaN]") == {}
    row = PeriodicTask.objects.get()
    assert row.args[0] == 1 << 70
    assert json.loads(row.payload)[0][1] == {"__taskq__": "float", "v": "nan"}
