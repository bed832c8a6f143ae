"""Due times become runs: once each, by the policies of their schedule, with every decision on record."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.db.utils import Error
from django.utils import timezone

from django_taskq import conf, maintenance, scheduler
from django_taskq.exceptions import EnqueueError, InvalidSchedule
from django_taskq.models import PeriodicTask, SchedulerLease, ScheduleTick, TaskRecord
from django_taskq.models.schedule import Decision
from django_taskq.status import Status
from tests.testapp.tasks import add
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., PeriodicTask]


@pytest.fixture
def make() -> Make:
    """A schedule that is overdue since ``overdue``; every minute, unless said otherwise."""

    def create(overdue: timedelta = timedelta(0), **given: Any) -> PeriodicTask:
        values = {"name": f"schedule {PeriodicTask.objects.count()}", "task_name": add.name, "payload": "[[1,2],{}]"}
        # Half a minute away from now on both sides: no due time comes while a test looks.
        anchor = timezone.now() - timedelta(seconds=30)
        row = PeriodicTask.objects.create(**values | {"schedule": f"every 1 minute from {anchor.isoformat()}"} | given)
        first = timezone.now() - overdue - timedelta(minutes=1)
        row.plan_next(first)
        row.save(update_fields=["next_due_at", "next_start_at"])
        return row

    return create


def decisions(row: PeriodicTask) -> dict[str, int]:
    found: Counter[str] = Counter()
    for tick in row.ticks.all():
        found[tick.decision] += tick.count
    return dict(found)


def finish_all() -> None:
    TaskRecord.objects.update(status=Status.SUCCESSFUL, finished_at=timezone.now())


class TestRuns:
    def test_a_due_time_becomes_a_run(self, make: Make, settings: Any) -> None:
        settings.TASKQ = {"QUEUES": ["mail"]}
        row = make(queue_name="mail", priority=7, expires=30)
        due = row.next_due_at
        assert due is not None
        assert scheduler.run_due() == 1
        run = TaskRecord.objects.get()
        assert (run.name, run.queue_name, run.priority, run.args, run.status) == (add.name, "mail", 7, [1, 2], "READY")
        assert run.expires_at == due + timedelta(seconds=30)
        tick = row.ticks.get()
        assert (tick.due_at, tick.decision, tick.run_id) == (due, Decision.ENQUEUED, run.pk)
        row.refresh_from_db()
        assert (row.last_due_at, row.last_run_id) == (due, run.pk)
        assert row.next_due_at == due + timedelta(minutes=1)
        assert scheduler.run_due() == 0

    def test_what_is_left_open_is_the_task_s_business(self, make: Make) -> None:
        make()
        scheduler.run_due()
        run = TaskRecord.objects.get()
        assert (run.queue_name, run.priority, run.expires_at) == ("default", 0, None)

    def test_a_task_unknown_here_is_left_to_workers_that_know_it(self, make: Make) -> None:
        make(task_name="some.other.task")
        scheduler.run_due()
        assert TaskRecord.objects.get().name == "some.other.task"

    def test_disabled_and_retired_ones_rest(self, make: Make) -> None:
        for state in ({"is_enabled": False}, {"is_retired": True}):
            row = make()
            PeriodicTask.objects.filter(pk=row.pk).update(**state)
        assert scheduler.run_due() == 0
        assert scheduler.seconds_until_due() is None

    def test_a_one_off_runs_once(self, make: Make) -> None:
        row = make(timedelta(minutes=5), is_one_off=True, catch_up="all")
        scheduler.run_due()
        row.refresh_from_db()
        assert not row.is_enabled
        assert TaskRecord.objects.count() == 1

    def test_once_has_no_next(self) -> None:
        at = timezone.now() + timedelta(seconds=0.1)
        row = PeriodicTask.objects.create(name="once", task_name=add.name, schedule=f"once {at.isoformat()}")
        assert 0 < (scheduler.seconds_until_due() or 0) <= 0.1
        PeriodicTask.objects.update(next_start_at=timezone.now())
        assert scheduler.run_due() == 1
        row.refresh_from_db()
        assert row.next_due_at is None
        assert scheduler.run_due() == 0

    def test_jitter_moves_the_start_and_not_the_due_time(self, make: Make) -> None:
        row = make(jitter=30)
        assert row.next_due_at is not None
        assert row.next_start_at is not None
        assert row.next_due_at < row.next_start_at <= row.next_due_at + timedelta(seconds=30)
        PeriodicTask.objects.update(next_start_at=timezone.now() + timedelta(seconds=5))
        assert scheduler.run_due() == 0
        PeriodicTask.objects.update(next_start_at=timezone.now())
        row.refresh_from_db()
        due, before = row.next_due_at, timezone.now()
        assert due is not None
        if row.get_schedule().starts_at(due, row.name) <= before:
            assert scheduler.run_due() == 1
            assert row.ticks.get().due_at == due

    def test_what_cannot_be_enqueued_is_on_record_and_holds_up_nobody(self, make: Make) -> None:
        bad, large, good = make(queue_name="nowhere"), make(payload=f'[["{"x" * (1 << 20)}"],{{}}]'), make()
        assert scheduler.run_due() == 3
        assert decisions(bad) == {Decision.REFUSED: 1}
        assert bad.ticks.get().reason.startswith("UnknownQueue: no queue is named 'nowhere'")
        assert large.ticks.get().reason.startswith("PayloadTooLarge: ")
        assert decisions(good) == {Decision.ENQUEUED: 1}
        assert TaskRecord.objects.count() == 1

    def test_a_schedule_that_cannot_be_read_is_disabled_and_holds_up_nobody(
        self, make: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        broken, good = make(), make()
        PeriodicTask.objects.filter(pk=broken.pk).update(schedule="every blue moon")
        scheduler.run_due()
        broken.refresh_from_db()
        assert not broken.is_enabled
        assert broken.name in caplog.text
        assert broken.ticks.get().reason.startswith("disabled: ")
        assert decisions(good) == {Decision.ENQUEUED: 1}


class TestOnce:
    """One run for each due time, whoever looks and whatever happens."""

    def test_a_due_time_that_was_decided_is_never_decided_again(self, make: Make) -> None:
        """As after a backup of one table was restored."""
        row, other = make(), make()
        scheduler.run_due()
        PeriodicTask.objects.filter(pk=row.pk).update(next_due_at=row.next_due_at, next_start_at=row.next_start_at)
        make()
        scheduler.run_due()
        assert decisions(row) == {Decision.ENQUEUED: 1}
        assert decisions(other) == {Decision.ENQUEUED: 1}
        assert TaskRecord.objects.count() == 3
        row.refresh_from_db()
        assert row.next_due_at is not None
        assert row.next_due_at > timezone.now()

    def test_run_and_tick_are_written_together(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        row = make()

        def lose(*args: object, **options: object) -> None:
            raise EnqueueError("the database went away")

        with monkeypatch.context() as patch:
            patch.setattr("django_taskq.client.enqueue", lose)
            with pytest.raises(EnqueueError):
                scheduler.run_due()
        assert not ScheduleTick.objects.exists()
        assert scheduler.run_due() == 1
        assert decisions(row) == {Decision.ENQUEUED: 1}

    def test_many_schedulers_at_once(self, make: Make) -> None:
        rows = [make(schedule="every 1 second", catch_up="all", catch_up_limit=1000) for _ in range(30)]
        barrier = threading.Barrier(4)
        errors: list[BaseException] = []

        def look() -> None:
            try:
                barrier.wait()
                for _ in range(10):
                    scheduler.run_due()
            except BaseException as error:
                errors.append(error)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        for row in rows:
            dues = sorted(row.ticks.values_list("due_at", flat=True))
            assert len(dues) >= 60
            assert dues == [dues[0] + timedelta(seconds=number) for number in range(len(dues))]
        assert TaskRecord.objects.count() == ScheduleTick.objects.count()

    def test_two_ticks_for_a_due_time_are_refused_by_the_database(self, make: Make) -> None:
        row = make()
        now = timezone.now()
        ScheduleTick.objects.create(periodic_task=row, due_at=now, decision=Decision.ENQUEUED)
        with pytest.raises(IntegrityError):
            ScheduleTick.objects.create(periodic_task=row, due_at=now, decision=Decision.SKIPPED)


class TestPolicies:
    @pytest.mark.parametrize(("catch_up", "runs"), [("none", 0), ("last", 1), ("all", 50)])
    def test_three_hours_of_downtime(self, make: Make, catch_up: str, runs: int) -> None:
        """Every five minutes, and 45 seconds after the last of them: 37 due times."""
        row = make(schedule="every 5 minutes", catch_up=catch_up, catch_up_limit=50)
        newest = timezone.now() - timedelta(seconds=45)
        PeriodicTask.objects.update(schedule=f"every 5 minutes from {newest.isoformat()}")
        row.refresh_from_db()
        row.plan_next(newest - timedelta(hours=3, seconds=1))
        row.save(update_fields=["next_due_at", "next_start_at"])
        scheduler.run_due()
        runs = min(runs, 37)
        expected = {Decision.ENQUEUED: runs, Decision.MISSED: 37 - runs}
        assert decisions(row) == {decision: count for decision, count in expected.items() if count}
        assert TaskRecord.objects.count() == runs

    def test_the_bound_holds(self, make: Make) -> None:
        row = make(timedelta(hours=3), catch_up="all", catch_up_limit=7)
        scheduler.run_due()
        assert TaskRecord.objects.count() == 7
        found = decisions(row)
        assert found[Decision.MISSED] in (173, 174)
        missed = row.ticks.get(decision=Decision.MISSED)
        assert missed.first_due_at is not None
        assert missed.due_at - missed.first_due_at == timedelta(minutes=missed.count - 1)

    def test_too_late_is_not_started(self, make: Make) -> None:
        row = make(timedelta(minutes=3), catch_up="all", max_lateness=90)
        scheduler.run_due()
        found = decisions(row)
        assert found[Decision.LATE] >= 2
        assert found[Decision.ENQUEUED] in (1, 2)
        for run in TaskRecord.objects.all():
            assert run.expires_at == row.ticks.get(run_id=run.pk).due_at + timedelta(seconds=90)

    def test_allow(self, make: Make) -> None:
        row = make(timedelta(minutes=3), catch_up="all")
        scheduler.run_due()
        assert TaskRecord.objects.filter(status=Status.READY).count() == decisions(row)[Decision.ENQUEUED] > 2

    def test_skip(self, make: Make) -> None:
        row = make(overlap="skip")
        scheduler.run_due()
        _make_due(row)
        scheduler.run_due()
        assert decisions(row) == {Decision.ENQUEUED: 1, Decision.OVERLAP: 1}
        finish_all()
        _make_due(row)
        scheduler.run_due()
        assert decisions(row) == {Decision.ENQUEUED: 2, Decision.OVERLAP: 1}

    def test_queue_one(self, make: Make) -> None:
        row = make(overlap="queue_one")
        scheduler.run_due()
        for _ in range(3):
            _make_due(row)
            scheduler.run_due()
        row.refresh_from_db()
        # The second waits for the first to end, the others are too many.
        assert decisions(row) == {Decision.ENQUEUED: 1, Decision.OVERLAP: 2}
        queued = row.pending_due_at
        finish_all()
        assert scheduler.run_due() == 1
        assert decisions(row) == {Decision.ENQUEUED: 2, Decision.OVERLAP: 2}
        assert row.ticks.filter(due_at=queued, decision=Decision.ENQUEUED).exists()
        row.refresh_from_db()
        assert row.pending_due_at is None

    def test_cancel_the_previous(self, make: Make) -> None:
        row = make(overlap="cancel_previous")
        scheduler.run_due()
        first = TaskRecord.objects.get()
        _make_due(row)
        scheduler.run_due()
        first.refresh_from_db()
        assert first.status == Status.CANCELLED
        assert TaskRecord.objects.get(status=Status.READY)
        assert decisions(row) == {Decision.ENQUEUED: 2}

    def test_cancel_the_previous_when_several_are_due_at_once(self, make: Make) -> None:
        make(timedelta(minutes=3), catch_up="all", overlap="cancel_previous")
        scheduler.run_due()
        statuses = list(TaskRecord.objects.order_by("pk").values_list("status", flat=True))
        assert statuses == [Status.CANCELLED] * 3 + [Status.READY]


def _make_due(row: PeriodicTask) -> None:
    """Have the next due time come, without waiting for it."""
    row.refresh_from_db()
    assert row.next_due_at is not None
    latest = row.next_due_at
    now = timezone.now()
    # All that was decided so far moves into the past by as much.
    by = latest - now + timedelta(milliseconds=1)
    for tick in row.ticks.order_by("due_at"):
        ScheduleTick.objects.filter(pk=tick.pk).update(due_at=tick.due_at - by)
    anchor = (latest - by).isoformat()
    PeriodicTask.objects.filter(pk=row.pk).update(
        schedule=f"every 1 minute from {anchor}", next_due_at=latest - by, next_start_at=latest - by
    )


class TestEditing:
    def test_a_new_timing_plans_from_now_on(self, make: Make) -> None:
        row = make(timedelta(hours=3))
        row.schedule = "every 1 hour"
        row.save()
        row.refresh_from_db()
        assert row.next_due_at is not None
        assert row.next_due_at > timezone.now()

    def test_another_edit_does_not_put_back_what_schedulers_wrote(self, make: Make) -> None:
        row = make()
        scheduler.run_due()
        planned = PeriodicTask.objects.get().next_due_at
        row.priority = 5
        row.save()
        row.refresh_from_db()
        assert (row.priority, row.next_due_at) == (5, planned)
        assert row.last_run_id is not None

    def test_what_fell_due_while_disabled_is_not_caught_up(self, make: Make) -> None:
        make(timedelta(hours=3), catch_up="all")
        assert scheduler.set_enabled(scheduler.periodic_tasks(), False) == 1
        assert scheduler.set_enabled(scheduler.periodic_tasks(), True) == 1
        assert scheduler.set_enabled(scheduler.periodic_tasks(), True) == 0
        assert scheduler.run_due() == 0

    def test_one_that_cannot_be_read_does_not_keep_the_others(self, make: Make) -> None:
        broken, good = make(), make()
        PeriodicTask.objects.filter(pk=broken.pk).update(schedule="every blue moon")
        assert scheduler.set_enabled(scheduler.periodic_tasks(), False) == 2
        with pytest.raises(InvalidSchedule, match=f"{broken.name} cannot be enabled"):
            scheduler.set_enabled(scheduler.periodic_tasks().order_by("pk"), True)
        good.refresh_from_db()
        assert good.is_enabled

    def test_run_now(self, make: Make) -> None:
        row = make()
        planned = row.next_due_at
        id = scheduler.run_now(row)
        assert str(TaskRecord.objects.get().pk) == id
        row.refresh_from_db()
        assert row.next_due_at == planned
        assert decisions(row) == {Decision.BY_HAND: 1}

    def test_run_now_into_an_unknown_queue(self, make: Make) -> None:
        row = make(queue_name="nowhere")
        with pytest.raises(EnqueueError, match="nowhere"):
            scheduler.run_now(row)
        assert not row.ticks.exists()

    def test_skip_next(self, make: Make) -> None:
        row = make(-timedelta(hours=1))
        planned = row.next_due_at
        assert planned is not None
        assert scheduler.skip_next(row) == planned
        row.refresh_from_db()
        assert row.next_due_at == planned + timedelta(minutes=1)
        assert decisions(row) == {Decision.SKIPPED: 1}
        PeriodicTask.objects.update(is_enabled=False)
        assert scheduler.skip_next(row) is None


def test_a_project_without_time_zones(settings: Any) -> None:
    settings.USE_TZ = False
    row = PeriodicTask.objects.create(name="naive", task_name=add.name, schedule="every 1 second", jitter=0.1)
    wait_for(lambda: scheduler.run_due() == 1, 3)
    row.refresh_from_db()
    assert row.next_due_at is not None
    assert row.next_due_at.tzinfo is None
    assert decisions(row) == {Decision.ENQUEUED: 1}
    scheduler.run_now(row)
    assert scheduler.skip_next(row) is not None


class TestLease:
    def test_one_holds_it(self) -> None:
        lease = scheduler.lease()
        assert lease.take("a", 30)
        assert lease.take("a", 30)
        assert not lease.take("b", 30)
        assert lease.holder() == "a"
        lease.release("b")
        assert lease.holder() == "a"
        lease.release("a")
        assert lease.holder() is None
        assert lease.take("b", 30)

    def test_a_lapsed_one_is_free(self) -> None:
        SchedulerLease.objects.create(pk=1, holder="dead", expires_at=timezone.now() - timedelta(seconds=1))
        assert scheduler.lease().take("b", 30)


def test_old_due_times_are_pruned(make: Make) -> None:
    row = make()
    long_ago = timezone.now() - conf.get_settings().failure_expires - timedelta(days=1)  # type: ignore[operator]
    for number in range(2):
        ScheduleTick.objects.create(
            periodic_task=row, due_at=long_ago + number * timedelta(days=30), decision="ENQUEUED",
            decided_at=long_ago + number * timedelta(days=30),
        )  # fmt: skip
    maintenance.prune()
    assert row.ticks.count() == 1


@pytest.fixture
def frozen_look(make: Make) -> Iterator[PeriodicTask]:
    """A schedule whose row a scheduler holds that does not go on, on a connection of its own."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite knows no locks on rows")
    row = make()
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                assert scheduler._lock("default", [row.pk])
                held.set()
                let_go.wait(30)
        except Error:
            pass  # ended by the database, which is the point
        finally:
            connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    yield row
    let_go.set()
    thread.join()


def test_a_scheduler_that_is_frozen_inside_its_transaction_holds_a_schedule_for_seconds_only(
    frozen_look: PeriodicTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scheduler.run_due() == 0
    wait_for(lambda: scheduler.run_due() == 1, scheduler.MOST_FROZEN + 5)
    assert decisions(frozen_look) == {Decision.ENQUEUED: 1}
