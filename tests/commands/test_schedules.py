"""``taskq schedules``, on real rows, called in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.utils import timezone

from django_taskq import scheduler
from django_taskq.models import PeriodicTask, SchedulerLease, ScheduleTick, TaskRecord
from django_taskq.models.schedule import Decision, Source, call_of
from tests.commands.conftest import Output, Project
from tests.testapp.tasks import add

pytestmark = [pytest.mark.database, pytest.mark.django_db]

Call = Callable[..., Output]
ERROR, USAGE = 1, 2
NOBODY = "Nobody runs the schedules. Start one of: python manage.py taskworker, python manage.py taskbeat\n"


def make(name: str = "nightly", **given: Any) -> PeriodicTask:
    values = {"task_name": add.name, "schedule": "30 1 * * *", "timezone": "America/New_York", "payload": "[[1,2],{}]"}
    return PeriodicTask.objects.create(name=name, **values | given)


def declared(name: str, **given: Any) -> PeriodicTask:
    row = make(name, source=Source.CODE)
    row.declared = json.dumps(call_of(row))
    for field, value in given.items():
        setattr(row, field, value)
    row.save()
    return row


class TestList:
    def test_nothing(self, call: Call) -> None:
        output = call("schedules")
        assert output.out.splitlines()[1:] == ["scheduler: none"]
        assert output.err == NOBODY

    def test_it_says_who_schedules(self, call: Call) -> None:
        SchedulerLease.objects.take("box:7", 30)
        SchedulerLease.objects.take("box:7", 30)
        output = call("schedules", "list")
        assert output.out.endswith("scheduler: box:7\n")
        assert output.err == ""

    def test_text(self, call: Call) -> None:
        make("every minute or so", schedule="every 1 minute", timezone="")
        declared("from code")
        declared("changed", schedule="0 2 * * *")
        declared("gone", is_retired=True)
        make("off", is_enabled=False)
        heading, changed, _, code, gone, off, _ = call("schedules").out.splitlines()
        assert heading.split() == ["NAME", "TASK", "SCHEDULE", "ZONE", "NEXT", "RUN", "LAST", "RUN"]
        assert changed.endswith("declared, overridden")
        assert code.endswith(" declared")
        assert gone.endswith("declared, retired")
        assert off.endswith("disabled")
        assert " 02:00:00 E" in changed  # by the clocks of New York
        assert "America/New_York" in changed
        assert changed.index(add.name) == code.index(add.name) == heading.index("TASK")

    def test_the_project_s_zone_is_named(self, call: Call) -> None:
        make(schedule="every 1 minute", timezone="")
        assert " Europe/Riga " in call("schedules").out

    def test_json(self, call: Call) -> None:
        row = make(last_due_at=timezone.now())
        found = json.loads(call("schedules", "--json").out)
        assert found["scheduler"] is None
        (one,) = found["schedules"]
        assert one["next_due_at"] == row.next_due_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        assert {key: value for key, value in one.items() if not key.endswith("_at")} == {
            "name": "nightly",
            "task": add.name,
            "schedule": "30 1 * * *",
            "timezone": "America/New_York",
            "is_enabled": True,
            "is_declared": False,
            "is_overridden": False,
            "is_retired": False,
        }

    def test_names_cannot_drive_the_terminal(self, call: Call) -> None:
        make("x\x1b[31m\ny")
        assert "x\\x1b[31m\\x0ay" in call("schedules").out

    def test_one_that_cannot_be_read(self, call: Call) -> None:
        row = make()
        PeriodicTask.objects.filter(pk=row.pk).update(schedule="every now and then")
        assert "unreadable" in call("schedules").out
        assert "(cannot be read here)" in call("schedules", "show", row.name).out
        assert "nightly is left out, as its schedule cannot be read" in call("schedules", "next").err
        with pytest.raises(CommandError, match="1 schedule") as caught:
            PeriodicTask.objects.filter(pk=row.pk).update(is_enabled=False)
            call("schedules", "enable", row.name)
        assert caught.value.returncode == ERROR


class TestNext:
    def test_in_the_order_of_time(self, call: Call) -> None:
        make("a", schedule="every 1 hour")
        make("b", schedule="every 90 minutes")
        make("off", schedule="every 1 second", is_enabled=False)
        once = timezone.now() + timedelta(minutes=1)
        make("c", schedule=f"once {once.isoformat()}")
        make("d", schedule="every 1 minute", is_one_off=True)
        found = json.loads(call("schedules", "next", "--count", "30", "--json").out)
        assert len(found) == 30
        times = [datetime.fromisoformat(one["due_at"]) for one in found]
        assert times == sorted(times)
        names = [one["name"] for one in found]
        assert (names.count("c"), names.count("d"), names.count("off")) == (1, 1, 0)
        assert abs(names.count("a") - 1.5 * names.count("b")) < 2
        assert set(found[0]) == {"due_at", "name", "task"}

    def test_hours(self, call: Call) -> None:
        make(schedule="every 1 minute")
        lines = call("schedules", "next", "--hours", "1").out.splitlines()
        assert len(lines) in (59, 60)
        assert len(call("schedules", "next", "--hours", "1", "--count", "3").out.splitlines()) == 3
        assert len(call("schedules", "next").out.splitlines()) == 20

    def test_none(self, call: Call) -> None:
        make(schedule="once 2020-01-01T00:00:00Z")
        assert call("schedules", "next") == Output("", NOBODY)
        assert call("schedules", "next", "--json").out == "[]\n"


class TestShow:
    def test_text(self, call: Call) -> None:
        row = make(queue_name="default", priority=3)
        run_id = scheduler.run_now(row)
        due = timezone.now() - timedelta(days=1)
        ScheduleTick.objects.create(
            periodic_task=row, due_at=due, decision=Decision.MISSED, count=7, first_due_at=due - timedelta(days=6)
        )
        out = call("schedules", "show", "nightly").out
        words = dict(line.split(None, 1) for line in out.splitlines() if " " in line.strip())
        assert words["args"] == "[1, 2]"
        assert words["queue_name"] == "default"
        assert words["source"] == "DATABASE"
        assert "01:30" in words["words"]
        following = out.partition("Next runs\n")[2].partition("\n\n")[0].splitlines()
        assert len(following) == 5
        for line in following:
            local, utc = line.split("   ")
            assert " 01:30:00 E" in local
            assert utc.endswith(("05:30:00 UTC", "06:30:00 UTC"))
        assert f"run by hand  run {run_id}" in out
        assert "missed: nobody was there to run it, 7 since " in out

    def test_json(self, call: Call) -> None:
        make(starts_at=datetime(2026, 1, 1, tzinfo=UTC), expires=5)
        found = json.loads(call("schedules", "show", "nightly", "--json").out)
        assert found["starts_at"] == "2026-01-01T00:00:00Z"
        assert (found["expires"], found["max_lateness"], found["catch_up"]) == (5.0, None, "last")
        assert len(found["next_runs"]) == 5
        assert found["due_times"] == []
        assert found["args"] == [1, 2]

    def test_nothing_to_come(self, call: Call) -> None:
        make(schedule="once 2020-01-01T00:00:00Z")
        assert "Next runs\n  none\n\nRecent due times\n  none\n" in call("schedules", "show", "nightly").out


class TestActing:
    def test_run(self, call: Call) -> None:
        make()
        record = TaskRecord.objects.get(pk=call("schedules", "run", "nightly").out.strip())
        assert (record.name, record.args) == (add.name, [1, 2])
        assert ScheduleTick.objects.get().decision == Decision.BY_HAND

    def test_run_that_is_refused(self, call: Call) -> None:
        make(queue_name="defualt")
        with pytest.raises(CommandError, match="nightly: no queue is named 'defualt'") as caught:
            call("schedules", "run", "nightly")
        assert caught.value.returncode == USAGE
        assert not ScheduleTick.objects.exists()

    def test_enable_and_disable(self, call: Call) -> None:
        make("a"), make("b", is_enabled=False)
        assert call("schedules", "disable", "a", "b") == Output("a disabled\n", "b is disabled already\n")
        assert not PeriodicTask.objects.active().exists()
        assert call("schedules", "enable", "a", "a", "b") == Output("a enabled\nb enabled\n", "")
        assert PeriodicTask.objects.active().count() == 2

    def test_enable_what_is_retired(self, call: Call) -> None:
        make(is_retired=True, is_enabled=False)
        assert call("schedules", "enable", "nightly").err == "nightly is declared no more, so it does not run\n"

    def test_skip(self, call: Call) -> None:
        row = make()
        assert row.next_due_at
        out = call("schedules", "skip", "nightly").out
        assert out.startswith("nightly: ")
        assert " 01:30:00 E" in out
        assert ScheduleTick.objects.get().due_at == row.next_due_at
        row.refresh_from_db()
        assert ScheduleTick.objects.get().due_at < row.next_due_at

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ({"is_enabled": False}, "it is disabled"),
            ({"is_retired": True}, "it is declared no more"),
            ({"schedule": "once 2020-01-01T00:00:00Z"}, "it is over"),
        ],
    )
    def test_nothing_to_skip(self, call: Call, given: dict[str, Any], why: str) -> None:
        make(**given)
        with pytest.raises(CommandError, match=f"nightly has no next run to skip: {why}") as caught:
            call("schedules", "skip", "nightly")
        assert caught.value.returncode == ERROR


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["show", "nigthly"], "no schedule is named 'nigthly'. Did you mean \"nightly\"?"),
        (["disable", "nightly", "weekly"], "no schedule is named 'weekly'."),
        (["run"], "run takes the NAME of a schedule: python manage.py taskq schedules run NAME"),
        (["run", "a", "b"], "run takes one NAME, and got 2; quote a name that has blanks"),
        (["list", "nightly"], "list takes no NAME, and got 'nightly'; show, run, enable, disable, skip do"),
        (["list", "--count", "3"], "argument --count: it goes with next"),
        (["show", "nightly", "--hours", "3"], "argument --hours: it goes with next"),
        (["run", "nightly", "--json"], "argument --json: it goes with list, next, show"),
        (["shwo"], "'shwo' is none of list, next, show, run, enable, disable, skip. Did you mean \"show\"?"),
        (["next", "--count", "0"], "argument --count: '0' is not usable: it takes a whole number of at least 1"),
        (["next", "--hours", "nan"], "argument --hours: 'nan' is not usable: it takes a number of hours above 0"),
        (["next", "--hours", "1e9"], "argument --hours: '1e9' is not usable"),
    ],
)
def test_wrong_use(call: Call, arguments: list[str], error: str) -> None:
    make()
    with pytest.raises(CommandError) as caught:
        call("schedules", *arguments)
    assert error in str(caught.value)
    assert PeriodicTask.objects.active().count() == 1


def test_without_time_zones(project: Project) -> None:
    """``USE_TZ = False``: rows hold naive local time."""
    project.settings(
        "USE_TZ = False\nTIME_ZONE = 'Europe/Riga'\nTASKQ = {'SCHEDULE': {'x': {'task': 'shop.tasks.add', "
        "'schedule': '@daily', 'args': [1, 2]}}}\nCELERY_BEAT_SCHEDULE = {'y': {'task': 'shop.tasks.add', "
        "'schedule': 60, 'args': [1, 2], 'options': {'expires': __import__('datetime').datetime(2031, 1, 1)}}}"
    )
    assert project.manage("migrate", "-v0").returncode == 0
    done = project.manage("taskq", "import-celery-beat")
    assert done.returncode == 0, done.stderr
    for arguments in (["next", "--hours", "48"], ["list"], ["show", "y"], ["skip", "y"], ["run", "y"], ["show", "y"]):
        done = project.manage("taskq", "schedules", *arguments)
        assert done.returncode == 0, done.stderr
    assert "ends_at         2031-01-01 00:00:00 EET" in done.stdout
    assert json.loads(project.manage("taskq", "schedules", "show", "y", "--json").stdout)["ends_at"] == (
        "2030-12-31T22:00:00Z"
    )
