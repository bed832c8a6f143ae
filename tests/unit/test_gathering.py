"""Where the calls of batch tasks wait: when a batch goes, what that does to fetching, and what is given back."""

from __future__ import annotations

import os
import threading
from itertools import count
from typing import Any

import pytest

from django_taskq.message import Action, Delivery
from django_taskq.worker.fetcher import MOST_HELD
from django_taskq.worker.gathering import Gathering
from django_taskq.worker.lane import Lane
from django_taskq.worker.orders import STOP
from django_taskq.worker.table import HELD, IDLE, REVOKED
from tests.unit.making import make_delivery, make_outcome, make_task
from tests.waiting import wait_for

_claims = count(1)


@pytest.fixture(autouse=True)
def tasks() -> None:
    make_task(lambda calls: None, name="fours", batch_size=4, batch_wait=2)
    make_task(lambda calls: None, name="hundreds", batch_size=100, batch_wait=10)
    make_task(lambda calls: None, name="thousands", batch_size=5000, batch_wait=10)
    make_task(lambda calls: None, name="at_once", batch_size=100, batch_wait=0)
    make_task(lambda: None, name="single")


def deliveries(name: str, number: int = 1, **changes: Any) -> list[Delivery]:
    return [make_delivery(name, claim=next(_claims), **changes) for _ in range(number)]


def shape(units: Any) -> list[int]:
    """How many are in each unit; 0 for what is no batch."""
    return [0 if isinstance(unit, Delivery) else len(unit) for unit in units]


class TestGathering:
    def test_others_pass(self) -> None:
        gathering = Gathering()
        given = deliveries("single", 2) + deliveries("nobody.knows")
        assert list(gathering.add(given, 0.0)) == given
        assert len(gathering) == 0

    def test_a_batch_goes_when_it_is_whole_and_in_its_order(self) -> None:
        gathering = Gathering()
        given = deliveries("fours", 9)
        assert list(gathering.add(given[:3], 0.0)) == []
        assert list(gathering.add(given[3:], 0.0)) == [given[:4], given[4:8]]
        assert len(gathering) == 1

    def test_or_when_its_first_call_has_waited(self) -> None:
        gathering = Gathering()
        given = deliveries("fours", 2)
        list(gathering.add(given[:1], 10.0))
        list(gathering.add(given[1:], 11.5))
        assert gathering.due_at == 12.0
        assert list(gathering.due(11.9)) == []
        assert list(gathering.due(12.0)) == [given]
        assert (list(gathering.due(99.0)), gathering.due_at, len(gathering)) == ([], None, 0)

    def test_each_task_has_its_own(self) -> None:
        gathering = Gathering()
        mixed = [each for pair in zip(deliveries("fours", 5), deliveries("hundreds", 5), strict=True) for each in pair]
        (batch,) = gathering.add(mixed, 0.0)
        assert {delivery.name for delivery in batch} == {"fours"}
        assert (shape(gathering.due(2.0)), shape(gathering.due(10.0))) == ([1], [5])

    @pytest.mark.parametrize("changes", [{"crashes": 1}, {"is_suspect": True}], ids=str)
    def test_what_may_have_killed_a_process_goes_alone_and_at_once(self, changes: Any) -> None:
        gathering = Gathering()
        suspect = deliveries("fours", **changes)
        assert list(gathering.add(deliveries("fours", 2) + suspect + suspect, 0.0)) == [suspect, suspect]
        assert len(gathering) == 2

    def test_it_asks_for_what_is_missing_by_steps_of_four(self) -> None:
        gathering, asked = Gathering(), []
        assert gathering.missing == 0
        list(gathering.add(deliveries("hundreds"), 0.0))
        while gathering.missing:
            asked.append(gathering.missing)
            list(gathering.add(deliveries("hundreds", asked[-1]), 0.0))
        assert asked == [4, 20, 75]

    def test_taken_back_it_is_empty(self) -> None:
        gathering = Gathering()
        given = deliveries("fours", 3) + deliveries("hundreds", 2)
        list(gathering.add(given, 0.0))
        assert gathering.take_back() == given
        assert (len(gathering), gathering.due_at, gathering.take_back()) == (0, None, [])


class TestInACourier:
    """With a broker in memory and a slot in a thread."""

    @pytest.fixture
    def sizes(self) -> list[int]:
        found: list[int] = []
        make_task(lambda calls: found.append(len(calls)), name="noted", batch_size=100, batch_wait=0.3)
        make_task(lambda calls: found.append(len(calls)), name="patient", batch_size=100, batch_wait=60)
        return found

    @pytest.mark.parametrize("slots", [1, 3])
    def test_whole_batches_and_a_rest(self, bench: Any, sizes: list[int], slots: int) -> None:
        worker = bench(slots=slots, quota=250)
        worker.put("noted", 250)
        worker.start()
        assert worker.has_ended()
        assert sizes == [100, 100, 50]
        assert worker.broker.size("default") == 0

    def test_with_coroutines_beside_it(self, bench: Any, sizes: list[int]) -> None:
        worker = bench(coroutines=5, quota=250)
        worker.put("noted", 250)
        worker.start()
        assert worker.has_ended()
        assert sum(sizes) == 250
        assert sizes[0] == 100

    def test_no_more_than_it_was_told(self, bench: Any, sizes: list[int]) -> None:
        worker = bench(quota=7)
        worker.put("noted", 10)
        worker.start()
        assert worker.has_ended()
        assert sizes == [7]
        assert worker.broker.size("default") == 3

    def test_others_run_meanwhile(self, bench: Any, sizes: list[int]) -> None:
        ran: list[int] = []
        make_task(lambda: ran.append(1), name="other")
        worker = bench()
        for _ in range(30):
            worker.put("patient")
            worker.put("other")
        worker.start()
        wait_for(lambda: len(ran) == 30)
        wait_for(lambda: worker.broker.size("default") == 0)
        assert sizes == []
        # What only gathers does not count as work that is not begun: a process without progress is replaced.
        wait_for(lambda: worker.table.words[HELD] == 0)
        assert not worker.table.words[IDLE]

    def test_told_to_stop_it_gives_back_what_gathers(self, bench: Any, sizes: list[int]) -> None:
        worker = bench()
        worker.put("patient", 60)
        worker.start()
        wait_for(lambda: worker.broker.size("default") == 0)
        os.write(worker.orders, STOP)
        assert worker.has_ended()
        assert (sizes, worker.broker.size("default"), worker.broker.rescue(1)) == ([], 60, 0)

    def test_so_it_does_while_all_slots_are_busy(self, bench: Any, sizes: list[int]) -> None:
        may_end = threading.Event()
        make_task(lambda: may_end.wait(10) and None, name="long")
        worker = bench()
        worker.put("patient", 20)
        worker.start()
        wait_for(lambda: worker.broker.size("default") == 0)
        worker.put("long")
        wait_for(lambda: worker.broker.size("default") == 20)
        may_end.set()
        wait_for(lambda: worker.broker.size("default") == 0)
        assert sizes == []

    def test_a_batch_that_is_revoked_is_given_back(self, bench: Any, sizes: list[int]) -> None:
        worker = bench()
        worker.put("noted", 5)
        worker.start()
        wait_for(lambda: worker.broker.size("default") == 0)
        worker.table.revoke_unstarted()
        wait_for(lambda: sizes == [5])
        assert worker.table.last_started() > worker.table.words[REVOKED]


class FakeSlot:
    def __init__(self) -> None:
        self.delivery: Delivery | None = None
        self.started = 0.0


class TestLane:
    @pytest.fixture
    def lane(self) -> Lane:
        made = Lane(1)
        made.slots = [FakeSlot()]
        return made

    def waiting(self, lane: Lane) -> list[int]:
        return shape([lane.inbox.get_nowait() for _ in range(lane.inbox.qsize())])

    def test_what_gathers_needs_no_slot(self, lane: Lane) -> None:
        assert lane.room() == 1
        lane.put(deliveries("hundreds", 3))
        assert (lane.held, lane.load, self.waiting(lane)) == (3, 0, [])
        assert lane.room() == 1 + 12

    def test_a_batch_counts_once(self, lane: Lane) -> None:
        lane.put(deliveries("fours", 6) + deliveries("single"))
        assert (lane.held, lane.load, self.waiting(lane)) == (7, 2, [4, 0])
        assert lane.room() == 0

    def test_and_is_over_with_the_last_of_its_calls(self, lane: Lane) -> None:
        batch = deliveries("fours", 4)
        lane.put(batch)
        outcomes = [make_outcome(Action.SUCCESS, delivery) for delivery in batch]
        assert lane.load_of(outcomes) == 1
        assert lane.room() == 0
        assert lane.room(lane.load_of(outcomes)) == 1
        assert lane.account_for(outcomes) == 4
        assert (lane.held, lane.load) == (0, 0)

    def test_calls_that_ended_before_the_last_leave_no_trace(self, lane: Lane) -> None:
        batch = deliveries("fours", 4)
        lane.put(batch)
        for delivery in (batch[3], batch[0], batch[1], batch[2]):
            lane.account_for([make_outcome(Action.RELEASED, delivery)])
        assert (lane.held, lane.load, lane.room()) == (0, 0, 1)

    def test_batches_that_are_due_go_to_the_slots(self, lane: Lane) -> None:
        lane.put(deliveries("hundreds", 3) + deliveries("at_once", 3))
        lane.hand_on()
        assert (lane.held, lane.load, self.waiting(lane)) == (6, 1, [3])

    def test_a_huge_batch_is_filled_and_nothing_is_fetched_ahead_of_it(self, lane: Lane) -> None:
        lane.put(deliveries("thousands", MOST_HELD + 1))
        assert lane.room() == 5000 - MOST_HELD  # and one for the slot
        lane.put(deliveries("single"))
        assert lane.room() == 0

    def test_all_is_given_back(self, lane: Lane) -> None:
        given = deliveries("hundreds", 2) + deliveries("fours", 5) + deliveries("single")
        lane.put(given)
        lane.close()
        assert sorted(lane.take_back()) == sorted(given)
        assert (lane.held, lane.load, len(lane.gathering)) == (0, 0, 0)
        assert lane.inbox.get_nowait() is None

    def test_the_last_ones_are_given_back_once_more_waits_than_ends_in_time(self, lane: Lane) -> None:
        given = deliveries("single", 40) + deliveries("fours", 4) + deliveries("single", 9) + deliveries("hundreds", 3)
        lane.put(given)
        lane._prefetch.observe(0.001, 100)
        assert (lane.load, lane.excess) == (50, 0)
        lane._prefetch.observe(1.0, 10)  # on the average 0.03 s by now, seven of which fill a quarter of a second
        assert lane.excess == 43
        taken = lane.take_back(lane.excess)
        assert taken == given[7:-3]
        assert (lane.load, lane.held, len(lane.gathering), lane.excess) == (7, 10, 3, 0)
        assert [lane.inbox.get_nowait() for _ in range(7)] == given[:7]

    def test_a_lane_that_only_gathers_is_not_slow(self, lane: Lane) -> None:
        lane.put(deliveries("hundreds", 3))
        assert not lane.is_slow
