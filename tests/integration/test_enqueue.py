"""From the call to the row: what is stored, when, and what is refused before anything is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import override_settings
from django.utils import timezone, translation

from django_taskq import TaskResult, registry, signals
from django_taskq.exceptions import (
    EnqueueError,
    InvalidArguments,
    PayloadTooLarge,
    ResultNotFound,
    ResultUnavailable,
    SerializationError,
    UnknownQueue,
)
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.testapp.models import Effect
from tests.testapp.tasks import add
from tests.unit.making import make_task
from tests.unit.working import work


class RolledBack(Exception):
    pass


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))


def value_of(result: TaskResult[Any]) -> Any:
    """Without waiting: these tests are inside a transaction, where ``get()`` would refuse to."""
    result.refresh()
    return result.return_value


@pytest.mark.django_db
class TestRow:
    def test_a_plain_call(self) -> None:
        result = add.enqueue(1, y=2)
        row = TaskRecord.objects.get(pk=result.id)
        assert (row.name, row.queue_name, row.priority, row.status) == (add.name, "default", 0, Status.READY)
        assert (row.args, row.kwargs, row.headers, row.run_after) == ([1], {"y": 2}, None, None)
        assert abs(timezone.now() - row.enqueued_at) < timedelta(seconds=5)

    @pytest.mark.parametrize(
        "call",
        [
            lambda: add.enqueue(1, 2),
            lambda: add.delay(1, 2),
            lambda: add.apply_async((1, 2)),
            lambda: add.apply_async([1], {"y": 2}),
            lambda: add.using(priority=0).enqueue(1, 2),
            lambda: add.enqueue_many([((1, 2), {})])[0],
            lambda: async_to_sync(add.aenqueue)(1, 2),
            lambda: async_to_sync(add.aenqueue_many)([((1,), {"y": 2})])[0],
        ],
    )
    def test_every_spelling_enqueues_one_run(self, call: Any) -> None:
        result = call()
        assert isinstance(result, TaskResult)
        assert result.status == Status.READY
        work()
        assert value_of(result) == 3
        assert TaskRecord.objects.count() == 1

    def test_what_a_call_changes_is_in_the_row(self) -> None:
        id, later = uuid4(), timezone.now() + timedelta(hours=1)
        with override_settings(TASKQ={"QUEUES": ["mail"]}):
            changed = add.using(queue_name="mail", priority=9, run_after=later, expires=60, task_id=id, max_retries=0)
            result = changed.enqueue(1, 2)
        row = TaskRecord.objects.get()
        assert (result.id, result.status) == (str(id), Status.SCHEDULED)
        assert (row.pk, row.queue_name, row.priority, row.run_after) == (id, "mail", 9, later)
        assert row.expires_at - row.enqueued_at == timedelta(seconds=60)
        assert row.headers_read.max_retries == 0

    def test_the_task_s_own_options_are_in_the_row(self) -> None:
        make_task(lambda: None, name="own", queue_name="mail", priority=3, expires=5).enqueue()
        row = TaskRecord.objects.get()
        assert (row.queue_name, row.priority) == ("mail", 3)
        assert row.expires_at - row.enqueued_at == timedelta(seconds=5)

    def test_celery_s_names(self) -> None:
        when = datetime(2990, 1, 1, tzinfo=UTC)
        with override_settings(TASKQ={"QUEUES": ["mail"]}):
            add.apply_async((1, 2), queue="mail", eta=when, priority=5)
        row = TaskRecord.objects.get()
        assert (row.queue_name, row.run_after, row.priority) == ("mail", when, 5)

    def test_countdown(self) -> None:
        add.apply_async((1, 2), countdown=60)
        row = TaskRecord.objects.get()
        assert row.run_after - row.enqueued_at == timedelta(seconds=60)

    def test_many_keep_their_order(self) -> None:
        results = add.enqueue_many([((number, 0), {}) for number in range(50)])
        assert [result.id for result in results] == sorted(result.id for result in results)
        work()
        assert [value_of(result) for result in results] == list(range(50))
        assert add.enqueue_many([]) == []

    def test_language_and_zone_travel(self) -> None:
        def where() -> list[Any]:
            return [translation.get_language(), timezone.get_current_timezone_name()]

        made = make_task(where)
        with translation.override("de"), timezone.override("Asia/Tokyo"):
            abroad = made.enqueue()
        home = made.enqueue()
        work()
        assert (value_of(abroad), value_of(home)) == (["de", "Asia/Tokyo"], where())

    def test_the_signal_has_the_message(self) -> None:
        seen: list[Any] = []

        def note(sender: str, message: Any, **kwargs: Any) -> None:
            seen.append((sender, message.id))

        signals.task_enqueued.connect(note)
        try:
            results = add.enqueue_many([((1, 2), {}), ((3, 4), {})])
        finally:
            signals.task_enqueued.disconnect(note)
        assert seen == [(add.name, result.id) for result in results]


@pytest.mark.django_db
class TestRefused:
    """Each with an error of its own, and nothing stored."""

    @pytest.fixture(autouse=True)
    def nothing_stored(self) -> Iterator[None]:
        yield
        assert not TaskRecord.objects.exists()

    @pytest.mark.parametrize(
        ("args", "kwargs"), [((), {}), ((1,), {}), ((1, 2, 3), {}), ((1,), {"z": 2}), ((1, 2), {"x": 1})]
    )
    def test_arguments_that_do_not_bind(self, args: Any, kwargs: Any) -> None:
        with pytest.raises(InvalidArguments, match=r"tests\.testapp\.tasks\.add\(x"):
            add.enqueue(*args, **kwargs)
        with pytest.raises(InvalidArguments):
            add.enqueue_many([((1, 2), {}), (args, kwargs)])

    def test_an_argument_that_cannot_travel_is_named(self) -> None:
        with pytest.raises(SerializationError, match=r"add: argument 'y': a model instance \(Effect\).*primary key"):
            add.enqueue(1, Effect())

    def test_an_unknown_queue(self) -> None:
        with pytest.raises(UnknownQueue, match='Did you mean "default"'):
            add.using(queue_name="defalt").enqueue(1, 2)

    def test_a_payload_over_the_limit(self) -> None:
        with override_settings(TASKQ={"MAX_PAYLOAD": 1000}):
            with pytest.raises(PayloadTooLarge, match=r"add take 1,\d+ bytes.*1,000"):
                add.enqueue("ž" * 500, 1)
            with pytest.raises(EnqueueError):
                add.enqueue_many([((1, 2), {}), (("x" * 1000, 1), {})])

    def test_a_naive_time(self) -> None:
        with pytest.raises(ValueError, match="aware datetime, as USE_TZ is on"):
            add.apply_async((1, 2), eta=datetime(2030, 1, 1))  # noqa: DTZ001


@pytest.mark.django_db
def test_a_payload_at_the_limit_is_taken() -> None:
    with override_settings(TASKQ={"MAX_PAYLOAD": 1000}):
        add.enqueue("x" * (1000 - len('[["",1],{}]')), 1)
    assert TaskRecord.objects.count() == 1


@pytest.mark.django_db(transaction=True)
class TestTransactions:
    def test_an_id_of_one_s_own_is_taken_once(self) -> None:
        id = uuid4()
        add.using(task_id=id).enqueue(1, 2)
        with pytest.raises(EnqueueError, match="exists already"):
            add.using(task_id=str(id)).enqueue(1, 2)
        assert TaskRecord.objects.get().pk == id

    def test_rolled_back_runs_are_not_to_be_found(self) -> None:
        with pytest.raises(RolledBack), transaction.atomic():
            result = add.enqueue(1, 2)
            raise RolledBack
        assert not TaskRecord.objects.exists()
        with pytest.raises(ResultNotFound, match=result.id):
            result.get(timeout=0)

    def test_a_savepoint_takes_its_own_away(self) -> None:
        with transaction.atomic():
            kept = add.enqueue(1, 2)
            with pytest.raises(RolledBack), transaction.atomic():
                lost = add.enqueue(3, 4)
                raise RolledBack
        work()
        assert kept.get(timeout=0) == 3
        with pytest.raises(ResultNotFound):
            lost.get(timeout=0)

    @pytest.mark.parametrize("depth", [1, 2])
    def test_waiting_inside_the_transaction_that_enqueued_raises_at_once(self, depth: int) -> None:
        with transaction.atomic():
            if depth == 2:
                with transaction.atomic():
                    result = add.enqueue(1, 2)
            else:
                (result,) = add.enqueue_many([((1, 2), {})])
            with pytest.raises(ResultUnavailable, match="after the atomic block"):
                result.get()
        work()
        assert result.get(timeout=0) == 3

    def test_an_older_run_may_be_waited_for_in_a_transaction(self) -> None:
        result = add.enqueue(1, 2)
        work()
        with transaction.atomic():
            assert result.get(timeout=0) == 3


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
class TestSecondAlias:
    @pytest.fixture(autouse=True)
    def elsewhere(self) -> Iterator[None]:
        with override_settings(TASKQ={"DATABASE": "other"}):
            yield

    def test_rows_and_results_live_there(self) -> None:
        result = add.enqueue(1, 2)
        assert TaskRecord.objects.using("other").get().pk == UUID(result.id)
        assert not TaskRecord.objects.using("default").exists()
        work()
        assert result.get(timeout=0) == 3

    def test_errors_and_cancelling_too(self) -> None:
        def fails() -> None:
            raise ValueError("there")

        result, delayed = make_task(fails).enqueue(), add.using(countdown=60).enqueue(1, 2)
        work()
        with pytest.raises(ValueError, match="there"):
            result.get(timeout=0)
        assert delayed.cancel()

    def test_the_transaction_that_counts_is_that_of_the_other_alias(self) -> None:
        with pytest.raises(RolledBack), transaction.atomic(using="default"):
            add.enqueue(1, 2)
            raise RolledBack
        assert TaskRecord.objects.using("other").count() == 1
        with pytest.raises(RolledBack), transaction.atomic(using="other"):
            add.enqueue(1, 2)
            raise RolledBack
        assert TaskRecord.objects.using("other").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_project_without_time_zones() -> None:
    with override_settings(USE_TZ=False):
        plain = add.using(expires=60).enqueue(1, 2)
        late = add.using(expires=timezone.now() - timedelta(seconds=60)).enqueue(1, 2)
        due = add.using(run_after=timezone.now() - timedelta(seconds=1)).enqueue(3, 4)
        later = add.using(run_after=timezone.now() + timedelta(seconds=60)).enqueue(3, 4)
        work()
        assert (plain.get(timeout=0), due.get(timeout=0)) == (3, 7)
        late.refresh(), later.refresh()
        assert (late.status, later.status) == (Status.CANCELLED, Status.SCHEDULED)
        assert abs(plain.finished_at - timezone.now()) < timedelta(seconds=30)
