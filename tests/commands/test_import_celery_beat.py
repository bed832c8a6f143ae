"""``taskq import-celery-beat``, from tables as django-celery-beat makes them and from the setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import connection
from django.utils import timezone

from django_taskq.contrib import celery_beat
from django_taskq.contrib.celery_beat import (
    TABLES,
    BeatTask,
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    SolarSchedule,
)
from django_taskq.models import PeriodicTask
from django_taskq.models.schedule import Source
from tests.commands.conftest import Output
from tests.testapp.tasks import add

pytestmark = [pytest.mark.database, pytest.mark.django_db]

Call = Callable[..., Output]
COMMAND = "import-celery-beat"


@pytest.fixture
def tables(transactional_db: None) -> Iterator[None]:
    """Not in the test's transaction: SQLite makes tables with foreign keys outside of one only."""
    with connection.schema_editor() as editor:
        for model in TABLES:
            editor.create_model(model)
    yield
    with connection.schema_editor() as editor:
        for model in reversed(TABLES):
            editor.delete_model(model)


def beat_crontab(minute: str = "0", hour: str = "3", zone: str = "Europe/Riga", **given: str) -> CrontabSchedule:
    every = {"day_of_month": "*", "month_of_year": "*", "day_of_week": "*"}
    found: CrontabSchedule = CrontabSchedule._base_manager.create(
        minute=minute, hour=hour, timezone=zone, **every | given
    )
    return found


def beat_interval(every: int = 5, period: str = "minutes") -> IntervalSchedule:
    found: IntervalSchedule = IntervalSchedule._base_manager.create(every=every, period=period)
    return found


def beat(name: str = "nightly", **given: Any) -> BeatTask:
    values: dict[str, Any] = {"task": add.name, "args": "[1, 2]"}
    if not {"crontab", "interval", "solar", "clocked"} & set(given):
        values["crontab"] = beat_crontab()
    found: BeatTask = BeatTask._base_manager.create(name=name, **values | given)
    return found


def imported(name: str = "nightly") -> PeriodicTask:
    return PeriodicTask.objects.get(name=name)


def run(call: Call, *arguments: str) -> list[str]:
    """The lines of a run; of one that left something out, its error alone."""
    try:
        return call(COMMAND, *arguments).out.splitlines()
    except CommandError as error:
        return [str(error), f"exit {error.returncode}"]


@pytest.mark.usefixtures("tables")
class TestTables:
    def test_a_crontab(self, call: Call) -> None:
        beat(args="[1]", kwargs='{"y": 2}', queue="default", expire_seconds=60)
        assert run(call) == [f"imported   nightly: 0 3 * * * (Europe/Riga)  {add.name}", "1 imported"]
        row = imported()
        assert (row.task_name, row.schedule, row.timezone) == (add.name, "0 3 * * *", "Europe/Riga")
        assert (row.args, row.kwargs, row.queue_name, row.expires) == ([1], {"y": 2}, "default", 60.0)
        assert (row.is_enabled, row.source, row.priority) == (True, Source.DATABASE, None)
        assert row.next_due_at
        assert row.next_due_at > timezone.now()

    def test_intervals(self, call: Call) -> None:
        beat("short", interval=beat_interval(), last_run_at=datetime(2026, 1, 1, 14, 37, 5, 123, tzinfo=UTC))
        beat("daily", interval=beat_interval(1, "days"), last_run_at=datetime(2026, 1, 1, 14, 37, 5, 123, tzinfo=UTC))
        start = datetime(2026, 1, 1, 7, tzinfo=UTC)
        beat("started", interval=beat_interval(2, "hours"), start_time=start, last_run_at=timezone.now())
        run(call)
        assert imported("short").schedule == "every 5 minutes"
        assert imported("daily").schedule == "every 1 day from 2026-01-01T14:37:05+00:00"
        assert (imported("started").schedule, imported("started").starts_at) == ("every 2 hours", start)
        following = imported("daily").next_due_at
        assert following
        assert following.astimezone(UTC).strftime("%H:%M:%S") == "14:37:05"

    def test_the_sun(self, call: Call) -> None:
        beat(solar=SolarSchedule._base_manager.create(event="sunset", latitude="56.950000", longitude="24.100000"))
        run(call)
        assert imported().schedule == "solar sunset 56.95 24.1"

    def test_clocked(self, call: Call) -> None:
        at = timezone.now().replace(microsecond=0) + timedelta(days=1)
        beat(clocked=ClockedSchedule._base_manager.create(clocked_time=at), one_off=True)
        run(call)
        assert imported().schedule == f"once {at.astimezone(UTC).isoformat()}"
        assert (imported().next_due_at, imported().is_one_off) == (at, True)

    def test_bounds(self, call: Call) -> None:
        start, end = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
        beat(start_time=start, expires=end)
        run(call)
        assert (imported().starts_at, imported().ends_at) == (start, end)

    def test_what_differs_is_said(self, call: Call) -> None:
        beat(priority=9, exchange="x", routing_key="y", headers='{"a": 1}', expires=datetime(2020, 1, 1, tzinfo=UTC))
        _, *notes, _ = run(call)
        assert [note.split(" was left out")[0].split(" were left out")[0].strip() for note in notes] == [
            "it has no run any more: its time is over", "exchange 'x'", "routing_key 'y'", "priority 9", "headers",
        ]  # fmt: skip
        assert imported().priority is None

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ({"task": "tests.testapp.tasks.ad"}, f'.tasks.ad\' here. Did you mean "{add.name}"?'),
            ({"args": "[1]"}, "missing a required argument: 'y'"),
            ({"queue": "mail"}, "no queue is named 'mail'."),
            ({"queue": "mail & more"}, "no queue is named 'mail & more'."),
            ({"one_off": True, "total_run_count": 1}, "it is one-off and has run"),
        ],
    )  # fmt: skip
    def test_what_cannot_run_yet_is_disabled(self, call: Call, given: dict[str, Any], why: str) -> None:
        beat(**given)
        lines = run(call)
        assert lines[0].startswith("imported   nightly")
        assert lines[1].strip().startswith("disabled: ")
        assert why in lines[1]
        assert not imported().is_enabled
        assert imported().queue_name == ("mail" if given.get("queue") == "mail" else "")

    def test_celery_s_default_queue_is_the_task_s_own(self, call: Call, settings: Any) -> None:
        beat("a", queue="celery")
        settings.CELERY_TASK_DEFAULT_QUEUE = "work"
        beat("b", queue="work")
        (disabled,) = [line.strip() for line in run(call) if "disabled: " in line]
        assert disabled.startswith("disabled: no queue is named 'celery'.")
        assert imported("b").queue_name == ""

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ({"interval": ("microseconds", 5)}, "an interval of 5 microseconds; the shortest one here is a second."),
            ({"interval": ("days", 99999)}, "takes from one second to ten years"),
            ({"crontab": {"day_of_month": "13", "day_of_week": "fri"}}, "Celery wants both the day of the month (13)"),
            ({"crontab": {"hour": "25"}}, "hour is 25"),
            ({"crontab": {"zone": "Europe/Rga"}}, 'Did you mean "Europe/Riga"?'),
            ({"args": "[1"}, "its args are not JSON: '[1'"),
            ({"kwargs": "[]"}, "its kwargs are '[]'; a JSON object belongs there"),
            (
                {"interval": ("minutes", 1), "crontab": {}},
                "it has interval and crontab where Celery takes exactly one.",
            ),
        ],
    )
    def test_what_cannot_be_said_here_is_left_out(self, call: Call, given: dict[str, Any], why: str) -> None:
        if "crontab" in given:
            given = given | {"crontab": beat_crontab(**given["crontab"])}
        if "interval" in given:
            period, every = given["interval"]
            given = given | {"interval": beat_interval(every, period)}
        beat("bad", **given)
        beat("good")
        (found,) = [found for found in celery_beat.read_tables() or [] if found.refusal]
        assert why in found.refusal
        assert run(call) == ["1 schedule(s) not imported", "exit 1"]
        assert list(PeriodicTask.objects.values_list("name", flat=True)) == ["good"]

    def test_what_celery_never_ran_is_disabled(self, call: Call) -> None:
        beat(crontab=beat_crontab(day_of_week="7"))
        assert "disabled: day_of_week is '7', which Celery does not accept, so it never ran" in run(call)[1]
        assert (imported().schedule, imported().is_enabled) == ("0 3 * * 7", False)

    def test_celery_s_own_cleaning_is_not_needed(self, call: Call) -> None:
        beat("celery.backend_cleanup", task="celery.backend_cleanup", args="[]")
        assert run(call) == [
            "not needed celery.backend_cleanup: celery.backend_cleanup",
            "             workers prune finished runs by themselves",
            "1 not needed",
        ]
        assert not PeriodicTask.objects.exists()

    def test_a_second_time_changes_nothing(self, call: Call) -> None:
        beat("a", priority=3), beat("b", interval=beat_interval(1, "days"), last_run_at=timezone.now())
        beat("off", enabled=False)
        run(call)
        before = list(PeriodicTask.objects.order_by("pk").values())
        assert run(call)[-1] == "3 exists"
        assert run(call, "--overwrite")[-1] == "3 exists"
        assert list(PeriodicTask.objects.order_by("pk").values()) == before
        assert not imported("off").is_enabled

    def test_what_was_changed_since(self, call: Call) -> None:
        task = beat()
        run(call)
        task.crontab.minute = "30"
        task.crontab.save()
        assert "it differs and stays as it is (schedule); --overwrite changes it" in run(call)[1]
        assert imported().schedule == "0 3 * * *"
        assert run(call, "--overwrite")[-1] == "1 overwritten"
        row = imported()
        assert row.schedule == "30 3 * * *"
        assert row.next_due_at
        assert row.next_due_at.minute == 30

    def test_what_code_declares_stays(self, call: Call) -> None:
        beat()
        PeriodicTask.objects.create(name="nightly", task_name=add.name, schedule="@daily", source=Source.CODE)
        assert "declared in the project's code or settings" in run(call, "--overwrite")[1]
        assert imported().schedule == "@daily"

    def test_dry_run(self, call: Call) -> None:
        beat()
        assert run(call, "--dry-run")[-1] == "1 imported (nothing was written)"
        assert not PeriodicTask.objects.exists()

    def test_disabled(self, call: Call) -> None:
        beat()
        assert "disabled: --disabled was given" in run(call, "--disabled")[1]
        assert not imported().is_enabled
        assert run(call)[-1] == "1 exists"

    def test_the_row_is_stronger_than_the_setting(self, call: Call, settings: Any) -> None:
        settings.CELERY_BEAT_SCHEDULE = {
            "nightly": {"task": add.name, "schedule": 60, "args": (1, 2)},
            "other": {"task": add.name, "schedule": 60, "args": (1, 2)},
        }
        beat()
        lines = run(call)
        assert "CELERY_BEAT_SCHEDULE has another schedule" in lines[1]
        assert lines[-1] == "2 imported"
        assert imported().schedule == "0 3 * * *"

    def test_old_tables(self, call: Call) -> None:
        with connection.schema_editor() as editor:
            editor.remove_field(BeatTask, BeatTask._meta.get_field("priority"))
        try:
            with pytest.raises(
                (CommandError, ImproperlyConfigured), match="periodictask .* lacks priority: it is of an old"
            ):
                call(COMMAND)
        finally:
            with connection.schema_editor() as editor:
                editor.add_field(BeatTask, BeatTask._meta.get_field("priority"))


def celery_crontab(*fields: Any, **more: Any) -> Any:
    """As Celery's: known by what it has."""
    names = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
    return SimpleNamespace(
        **{f"_orig_{name}": value for name, value in zip(names, fields, strict=True)}, nowfun=None, **more
    )


class TestSetting:
    @pytest.mark.parametrize(
        ("schedule", "text", "zone"),
        [
            (celery_crontab("*/5", 3, "*", "*", "monday"), "*/5 3 * * 1", "UTC"),
            (celery_crontab({0, 30}, "*", "*", "*", "*", tz="Asia/Tokyo"), "0,30 * * * *", "Asia/Tokyo"),
            (timedelta(hours=2), "every 2 hours", ""),
            (30.0, "every 30 seconds", ""),
            (90, "every 90 seconds", ""),
            (1.5, "every 1.5 seconds", ""),
            (SimpleNamespace(run_every=timedelta(days=1), nowfun=None), "every 1 day", ""),
            (SimpleNamespace(event="sunset", lat=56.95, lon=24.1, nowfun=None), "solar sunset 56.95 24.1", ""),
            (
                SimpleNamespace(clocked_time=datetime(2030, 1, 1, tzinfo=UTC), nowfun=None),
                "once 2030-01-01T00:00:00+00:00",
                "",
            ),
        ],
    )
    def test_schedules(self, call: Call, settings: Any, schedule: Any, text: str, zone: str) -> None:
        settings.CELERY_BEAT_SCHEDULE = {"x": {"task": add.name, "schedule": schedule, "args": (1, 2)}}
        assert run(call)[-1] == "1 imported"
        assert (imported("x").schedule, imported("x").timezone) == (text, zone)

    def test_the_zone_of_celery(self, call: Call, settings: Any) -> None:
        settings.CELERY_BEAT_SCHEDULE = {
            "x": {"task": add.name, "schedule": celery_crontab(0, 3, "*", "*", "*"), "args": (1, 2)}
        }
        settings.CELERY_TIMEZONE = "Asia/Tokyo"
        run(call)
        assert imported("x").timezone == "Asia/Tokyo"
        del settings.CELERY_TIMEZONE
        settings.CELERY_ENABLE_UTC = False
        run(call, "--overwrite")
        assert imported("x").timezone == "Europe/Riga"

    def test_options(self, call: Call, settings: Any) -> None:
        entry = {"task": add.name, "schedule": 60, "kwargs": {"x": 1, "y": 2}, "relative": True}
        settings.CELERY_BEAT_SCHEDULE = {
            "x": entry | {"options": {"queue": "default", "expires": 30, "priority": 0, "headers": {"a": 1}}},
            "y": entry | {"relative": False, "options": {"expires": datetime(2031, 1, 1, tzinfo=UTC), "countdown": 3}},
        }
        lines = run(call)
        assert [line.strip().split(":")[0] for line in lines] == [
            "imported   x", "relative was left out", "priority 0 was left out", "headers {'a'",
            "imported   y", "countdown 3 was left out", "2 imported",
        ]  # fmt: skip
        assert (imported("x").expires, imported("x").queue_name, imported("x").kwargs) == (
            30,
            "default",
            {"x": 1, "y": 2},
        )
        assert (imported("y").expires, imported("y").ends_at) == (None, datetime(2031, 1, 1, tzinfo=UTC))

    @pytest.mark.parametrize(
        ("entry", "why"),
        [
            ({"schedule": 60}, "names no task"),
            ({"task": add.name}, "its schedule is None; this reads Celery's crontab"),
            ({"task": add.name, "schedule": "0 3 * * *"}, "its schedule is '0 3 * * *'"),
            ({"task": add.name, "schedule": 0.5}, "takes from one second to ten years"),
            ({"task": add.name, "schedule": 60, "args": [object]}, ""),
            ({"task": add.name, "schedule": 60, "args": 3}, "not iterable"),
        ],
    )
    def test_what_is_left_out(self, call: Call, settings: Any, entry: dict[str, Any], why: str) -> None:
        settings.CELERY_BEAT_SCHEDULE = {"x": entry}
        assert run(call) == ["1 schedule(s) not imported", "exit 1"]
        assert why in celery_beat.read_setting()[0].refusal
        assert not PeriodicTask.objects.exists()

    def test_neither(self, call: Call) -> None:
        assert run(call)[0].startswith("found neither the tables of django-celery-beat nor CELERY_BEAT_SCHEDULE")

    def test_not_a_dict(self, settings: Any) -> None:
        settings.CELERY_BEAT_SCHEDULE = [1]
        with pytest.raises(ImproperlyConfigured, match="CELERY_BEAT_SCHEDULE is list; it takes a dict"):
            celery_beat.read_setting()
