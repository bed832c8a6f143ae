"""Schedules from code and settings: rows that follow them, with room for what the admin decides."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_taskq import crontab, declared, every, registry
from django_taskq.exceptions import InvalidSchedule, InvalidTask
from django_taskq.models import PeriodicTask
from django_taskq.models.schedule import Source
from django_taskq.task import Task, task
from tests.testapp.tasks import add

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def nightly() -> Iterator[Task[[], None]]:
    """A task with a schedule, for the length of a test."""

    @task(name="tests.nightly", schedule=crontab(hour=3, timezone="Europe/Oslo", overlap="skip"))
    def nightly() -> None: ...

    yield nightly
    registry._tasks.pop("tests.nightly")


def entry(**more: Any) -> dict[str, Any]:
    return {"add": {"task": add.name, "schedule": "every 5 minutes", "args": [1, 2]} | more}


class TestSync:
    def test_code(self, nightly: Task[[], None]) -> None:
        declared.sync()
        row = PeriodicTask.objects.get()
        assert (row.name, row.task_name, row.source) == ("tests.nightly", "tests.nightly", Source.CODE)
        assert row.get_schedule() == nightly.options.schedule
        assert row.next_due_at is not None
        assert not row.is_overridden

    def test_settings(self, settings: Any) -> None:
        settings.TASKQ = {
            "SCHEDULE": entry(
                queue_name="default", priority=3, expires=timedelta(minutes=1), kwargs={}, catch_up="all", jitter=4
            )
        }
        declared.sync()
        row = PeriodicTask.objects.get()
        assert (row.name, row.source, row.args, row.priority, row.expires) == ("add", Source.SETTINGS, [1, 2], 3, 60)
        assert row.get_schedule() == every(minutes=5, catch_up="all", jitter=4)

    def test_every_field_survives(self, settings: Any) -> None:
        schedule = crontab(
            "30 1 * * mon",
            timezone="America/New_York",
            start=datetime(2026, 1, 1, tzinfo=UTC),
            end=datetime(2027, 1, 1, tzinfo=UTC),
            jitter=5,
            catch_up="all",
            catch_up_limit=7,
            overlap="queue_one",
            max_lateness=60,
        )
        settings.TASKQ = {"SCHEDULE": entry(schedule=schedule)}
        declared.sync()
        assert PeriodicTask.objects.get().get_schedule() == schedule

    def test_twice_changes_nothing(self, settings: Any, nightly: Task[[], None]) -> None:
        settings.TASKQ = {"SCHEDULE": entry()}
        declared.sync()
        before = list(PeriodicTask.objects.order_by("pk").values())
        declared.sync()
        assert list(PeriodicTask.objects.order_by("pk").values()) == before

    def test_a_change_is_taken_over(self, settings: Any) -> None:
        settings.TASKQ = {"SCHEDULE": entry()}
        declared.sync()
        settings.TASKQ = {"SCHEDULE": entry(schedule="once 2400-01-01T12:00:00+00:00", args=[3, 4])}
        declared.sync()
        row = PeriodicTask.objects.get()
        assert (row.schedule, row.args) == ("once 2400-01-01T12:00:00+00:00", [3, 4])
        assert row.next_due_at == datetime(2400, 1, 1, 12, tzinfo=UTC)

    def test_disabled_stays_disabled(self, settings: Any) -> None:
        settings.TASKQ = {"SCHEDULE": entry()}
        declared.sync()
        PeriodicTask.objects.update(is_enabled=False)
        settings.TASKQ = {"SCHEDULE": entry(args=[3, 4])}
        declared.sync()
        assert not PeriodicTask.objects.get().is_enabled

    def test_an_overridden_timing_stays_and_has_a_way_back(self, settings: Any) -> None:
        settings.TASKQ = {"SCHEDULE": entry()}
        declared.sync()
        row = PeriodicTask.objects.get()
        row.schedule = "every 7 minutes"
        row.save()
        assert row.is_overridden
        settings.TASKQ = {"SCHEDULE": entry(schedule="every 1 hour", args=[3, 4])}
        declared.sync()
        row.refresh_from_db()
        assert (row.schedule, row.args, row.is_overridden) == ("every 7 minutes", [3, 4], True)
        row.restore_declared()
        row.save()
        row = PeriodicTask.objects.get()
        assert (row.schedule, row.is_overridden) == ("every 1 hour", False)

    def test_what_is_gone_from_the_code_rests_and_may_come_back(self, settings: Any) -> None:
        settings.TASKQ = {"SCHEDULE": entry()}
        declared.sync()
        settings.TASKQ = {}
        declared.sync()
        row = PeriodicTask.objects.get()
        assert row.is_retired
        assert not PeriodicTask.objects.active().exists()
        settings.TASKQ = {"SCHEDULE": entry()}
        declared.sync()
        row.refresh_from_db()
        assert not row.is_retired
        assert row.next_due_at is not None

    def test_one_of_the_admin_s_own_is_left_alone(self, settings: Any, caplog: pytest.LogCaptureFixture) -> None:
        PeriodicTask.objects.create(name="add", task_name=add.name, schedule="every 1 day", payload="[[1,2],{}]")
        settings.TASKQ = {"SCHEDULE": entry()}
        declared.sync()
        row = PeriodicTask.objects.get()
        assert (row.schedule, row.source) == ("every 1 day", Source.DATABASE)
        assert "another of this name" in caplog.text
        settings.TASKQ = {}
        declared.sync()
        row.refresh_from_db()
        assert not row.is_retired


def test_a_declaration_edited_by_hand_holds_up_nobody(settings: Any) -> None:
    settings.TASKQ = {"SCHEDULE": entry()}
    declared.sync()
    PeriodicTask.objects.update(declared="{rubbish", schedule="every 7 minutes")
    declared.sync()
    row = PeriodicTask.objects.get()
    assert (row.schedule, row.is_overridden) == ("every 7 minutes", True)


class TestBadInput:
    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"task": "tests.testapp.tasks.ad"}, 'no task is named .* Did you mean "tests.testapp.tasks.add"'),
            ({"args": [1]}, "missing a required argument: 'y'"),
            ({"args": [1, object()]}, "object"),
            ({"schedule": "60 * * * *"}, "minute"),
            ({"schedule": 5}, "it takes crontab"),
            ({"schedule": "every 5 minutes", "timezone": "Europe/Rigaa"}, "Europe/Riga"),
            ({"queue_name": "nowhere"}, "no queue is named 'nowhere'"),
            ({"priority": 1000}, "-100 to 100"),
            ({"expires": -1}, "above 0"),
        ],
    )
    def test_an_entry_that_cannot_work(self, settings: Any, more: dict[str, Any], message: str) -> None:
        settings.TASKQ = {"SCHEDULE": entry(**more)}
        with pytest.raises(InvalidSchedule, match=message) as caught:
            declared.declared()
        assert str(caught.value).startswith("TASKQ['SCHEDULE']['add']: ")

    def test_a_task_that_needs_arguments(self) -> None:
        with pytest.raises(InvalidTask, match="a schedule calls it without arguments"):

            @task(name="tests.needy", schedule="@daily")
            def needy(x: int) -> None: ...

    def test_a_text_that_is_no_schedule(self) -> None:
        with pytest.raises(InvalidTask, match=r"@task\(schedule='every blue moon'\)"):

            @task(name="tests.moon", schedule="every blue moon")
            def moon() -> None: ...
