"""Brokers that declare it take part in the caller's transaction, for enqueueing and for finishing."""

from __future__ import annotations

import pytest
from django.db import transaction

from django_taskq.exceptions import EnqueueError
from django_taskq.message import Action
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.conformance.bed import QUEUE, Bed, ids
from tests.conformance.test_concurrency import in_threads
from tests.testapp.models import Effect
from tests.unit.making import make_message


class RolledBack(Exception):
    pass


def seen_from_outside(bed: Bed) -> int:
    (size,) = in_threads(1, lambda number: bed.broker.size(QUEUE))
    assert isinstance(size, int)
    return size


@pytest.mark.parametrize("count", [1, 3], ids=["one", "many"])
class TestEnqueue:
    def test_is_seen_once_it_commits(self, committed_rows: Bed, count: int) -> None:
        assert committed_rows.broker.capabilities.transactional_enqueue
        with transaction.atomic():
            committed_rows.put(count)
            assert seen_from_outside(committed_rows) == 0
        assert seen_from_outside(committed_rows) == count

    def test_is_gone_when_it_rolls_back(self, committed_rows: Bed, count: int) -> None:
        with pytest.raises(RolledBack), transaction.atomic():
            committed_rows.put(count)
            raise RolledBack
        assert committed_rows.broker.size(QUEUE) == 0

    def test_a_savepoint_takes_only_its_own_away(self, committed_rows: Bed, count: int) -> None:
        with transaction.atomic():
            kept = committed_rows.put(count)
            with pytest.raises(RolledBack), transaction.atomic():
                committed_rows.put(count)
                raise RolledBack
            kept += committed_rows.put(count)
        assert committed_rows.take_ids() == ids(kept)

    def test_many_are_all_or_none(self, committed_rows: Bed, count: int) -> None:
        (known,) = committed_rows.put()
        with pytest.raises(EnqueueError, match="exists already"):
            committed_rows.broker.enqueue([*(make_message() for _ in range(count)), known])
        assert committed_rows.broker.size(QUEUE) == 1


class TestFinish:
    @pytest.fixture(autouse=True)
    def declared(self, committed_rows: Bed) -> None:
        assert committed_rows.broker.capabilities.transactional_finish
        committed_rows.put()

    def test_commits_with_the_work(self, committed_rows: Bed) -> None:
        deliveries = committed_rows.take()
        with transaction.atomic():
            Effect.objects.create(name="done")
            assert committed_rows.settle(Action.SUCCESS, *deliveries) == []
        assert TaskRecord.objects.get().status == Status.SUCCESSFUL
        assert Effect.objects.count() == 1

    def test_rolls_back_with_the_work(self, committed_rows: Bed) -> None:
        deliveries = committed_rows.take()
        with pytest.raises(RolledBack), transaction.atomic():
            Effect.objects.create(name="done")
            committed_rows.settle(Action.SUCCESS, *deliveries)
            raise RolledBack
        assert TaskRecord.objects.get().status == Status.RUNNING
        assert committed_rows.settle(Action.SUCCESS, *deliveries) == []

    def test_what_the_task_s_own_transaction_recorded_is_not_written_again(self, committed_rows: Bed) -> None:
        (delivery,) = committed_rows.take()
        committed_rows.settle(Action.SUCCESS, delivery, result="1")
        assert committed_rows.settle(Action.SUCCESS, delivery, result="2", is_recorded=True) == []
        assert TaskRecord.objects.get().result == "1"

    def test_the_verbs_of_one_transaction_stand_and_fall_together(self, committed_rows: Bed) -> None:
        committed_rows.put()
        first = committed_rows.take(1)
        with pytest.raises(RolledBack), committed_rows.broker.transaction():
            committed_rows.settle(Action.SUCCESS, *first)
            committed_rows.take(1, first=2)
            raise RolledBack
        assert sorted(TaskRecord.objects.values_list("status", flat=True)) == [Status.READY, Status.RUNNING]
