"""Runs that follow others in a process that runs one at a time: they share one place of their limit."""

from __future__ import annotations

import random
from collections import deque
from itertools import count
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_taskq import maintenance, registry
from django_taskq.brokers import get_broker
from django_taskq.brokers.database.broker import give_back
from django_taskq.charging import Death
from django_taskq.control.runs import retry
from django_taskq.exceptions import TaskCancelled, TimeLimitExceeded
from django_taskq.message import Action, Delivery, Outcome
from django_taskq.models import Permit, TaskRecord
from django_taskq.models.flow import PermitState
from django_taskq.status import Status
from django_taskq.worker.fetcher import Fetcher, QueueOrder
from tests.unit.making import make_outcome, make_task

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))


class Process:
    """A worker process by hand: what it has claimed, what of it runs, and what has ended and is not recorded yet."""

    ids = count(1)

    def __init__(self, queues: tuple[str, ...] = ("default",), *, runs_singly: bool = True) -> None:
        self.id = next(self.ids)
        self.broker = get_broker()
        self.fetcher = Fetcher(self.broker, self.id, QueueOrder(queues), runs_singly=runs_singly)
        self.waiting: deque[Delivery] = deque()
        self.running: Delivery | None = None
        self.ended: list[Outcome] = []

    def fetch(self, limit: int = 100) -> list[int]:
        taken = self.fetcher.fetch(limit, look_first=False)
        self.waiting += taken
        return numbers(taken)

    def start(self) -> None:
        self.running = self.waiting.popleft()

    def end(self, action: Action = Action.SUCCESS) -> None:
        assert self.running is not None
        self.ended.append(make_outcome(action, self.running))
        self.running = None

    def record(self) -> list[Outcome]:
        ended, self.ended = self.ended, []
        return self.broker.settle(self.id, ended)

    def work(self, number: int = 1) -> None:
        """Run so many, one after the other, and record them together."""
        for _ in range(number):
            self.start()
            self.end()
        assert self.record() == []

    def give_back_waiting(self) -> None:
        self.broker.release(self.id, [delivery.claim for delivery in self.waiting])
        self.waiting.clear()


def limited(count: int, **options: Any) -> Any:
    task = make_task(lambda number: number, **({"concurrency": 1} | options))
    task.enqueue_many([((number,), {}) for number in range(count)])
    maintenance.tend_limits()
    return task


def numbers(deliveries: list[Delivery]) -> list[int]:
    rows = {str(row.pk): row.args[0] for row in TaskRecord.objects.filter(pk__in=[each.id for each in deliveries])}
    return [rows[each.id] for each in deliveries]


def permits(state: PermitState) -> list[int]:
    """The numbers of the runs that have one in this state, in the order of arrival."""
    ids = list(Permit.objects.filter(state=state).order_by("id").values_list("task_id", flat=True))
    rows = TaskRecord.objects.in_bulk(ids)
    return [rows[id].args[0] for id in ids if id in rows]


def test_one_place_is_enough_for_all_that_a_process_claims() -> None:
    limited(6)
    one, other = Process(), Process()
    assert one.fetch(4) == [0, 1, 2, 3]
    assert (permits(PermitState.HELD), permits(PermitState.FOLLOWING)) == ([0], [1, 2, 3])
    assert other.fetch() == []
    one.work(2)
    assert (permits(PermitState.HELD), permits(PermitState.FOLLOWING)) == ([2], [3])
    assert other.fetch() == []
    one.work(2)
    assert other.fetch() == [4, 5]
    other.work(2)
    assert not Permit.objects.exists()


def test_each_of_several_processes_has_a_place() -> None:
    limited(20, concurrency=3)
    one, other = Process(), Process()
    assert one.fetch(2) == [0, 1]
    assert other.fetch(5) == [2, 3, 4, 5, 6]
    assert permits(PermitState.HELD) == [0, 1, 2]
    one.work(2)
    other.work(1)
    # One's places are free, the other's is with those who follow.
    assert permits(PermitState.HELD) == [3, 7, 8]


def test_the_room_is_shared_by_the_keys() -> None:
    task = make_task(lambda number: number, concurrency=1, concurrency_key=lambda number: str(number % 3))
    task.enqueue_many([((number,), {}) for number in range(30)])
    maintenance.tend_limits()
    assert Process().fetch(13) == [0, 1, 2, 3, 6, 9, 4, 7, 10, 5, 8, 11]


@pytest.mark.parametrize(
    ("options", "singly"),
    [({}, False), ({"batch_size": 5}, True), ({"rate_limit": "5/s", "concurrency": 5}, True)],
)
def test_nobody_follows_where_several_may_run_or_starts_are_counted(options: dict[str, Any], singly: bool) -> None:
    limited(10, **options)
    process = Process(runs_singly=singly)
    assert process.fetch() == [0]
    assert permits(PermitState.FOLLOWING) == []


def test_who_cannot_be_followed_costs_no_look() -> None:
    limited(3, rate_limit="5/s", concurrency=5)
    process = Process()
    leaders = process.broker.claim("default", 5, process.id, 1)
    assert leaders
    with CaptureQueriesContext(connection) as queries:
        assert process.broker.follow(process.id, leaders, 100, 50) == []
    assert queries.captured_queries == []


def test_another_queue_is_not_fetched_from() -> None:
    with override_settings(TASKQ={"QUEUES": ["mail"]}):
        task = limited(1)
        task.using(queue_name="mail").enqueue(1)
        task.enqueue(2)
        assert Process().fetch() == [0, 2]
        assert Process(("mail",)).fetch() == []


def test_higher_priority_first() -> None:
    task = limited(2)
    task.using(priority=5).enqueue(9)
    assert Process().fetch() == [0, 9, 1]


def test_what_is_given_back_is_at_its_place_in_line_again() -> None:
    limited(6)
    process, other = Process(), Process()
    process.fetch(4)
    process.start()
    process.give_back_waiting()
    assert (permits(PermitState.HELD), permits(PermitState.NEW)) == ([0], [1, 2, 3])
    waiting = TaskRecord.objects.filter(status=Status.WAITING)
    assert waiting.filter(worker=None, claim=None).count() == 5
    process.end()
    process.record()
    maintenance.tend_limits()
    assert other.fetch() == [1, 2, 3, 4, 5]


def test_a_place_that_others_follow_is_not_given_back_with_its_run() -> None:
    limited(4)
    process, other = Process(), Process()
    process.fetch(3)
    process.start()
    process.end(Action.RELEASED)
    process.start()
    process.record()
    assert (permits(PermitState.HELD), permits(PermitState.NEW)) == ([1], [0])
    maintenance.tend_limits()
    assert other.fetch() == []
    process.end()
    process.record()
    process.work()
    assert other.fetch() == [0, 3]


def test_a_run_that_was_cancelled_before_it_is_given_back_leaves_its_place_to_its_followers() -> None:
    limited(3)
    process = Process()
    process.fetch(2)
    process.start()
    TaskRecord.objects.filter(pk=process.running and process.running.id).cancel()
    process.end(Action.RELEASED)
    process.start()
    process.record()
    maintenance.tend_limits()
    assert permits(PermitState.HELD) == [1]
    process.end()
    process.record()
    assert permits(PermitState.HELD) == [2]


@pytest.mark.parametrize("started", [None, 0, 1])
def test_the_end_of_a_process_puts_those_who_followed_at_their_gate(started: int | None) -> None:
    limited(4)
    process = Process()
    process.fetch(3)
    claims = [delivery.claim for delivery in process.waiting]
    running = None if started is None else [claims[started]]
    maintenance.settle_death(Death(process.id, "killed", running))
    maintenance.tend_limits()
    rows = TaskRecord.objects.order_by("pk")
    assert [row.status for row in rows] == [Status.READY] + [Status.WAITING] * 3
    assert [row.crashes for row in rows] == [int(number == started) for number in range(4)]
    assert (permits(PermitState.HELD), permits(PermitState.FOLLOWING)) == ([0], [])
    assert sorted(Process().fetch()) == [0, 1, 2, 3]


def test_who_waits_behind_what_stalls_its_process_goes_back() -> None:
    limited(3)
    process = Process()
    process.fetch()
    process.start()
    give_back("default", process.id, is_suspect=False, after=process.running.claim if process.running else 0)
    assert (permits(PermitState.HELD), permits(PermitState.NEW)) == ([0], [1, 2])


@pytest.mark.parametrize("again", [False, True], ids=["", "and-retried"])
def test_a_place_stays_with_followers_whose_leader_was_ended_by_the_supervisor(again: bool) -> None:
    limited(4)
    process, other = Process(), Process()
    process.fetch(3)
    process.start()
    assert process.running is not None
    maintenance.end_runs(process.id, {process.running.claim: TimeLimitExceeded("too long")})
    if again:
        assert retry(TaskRecord.objects.filter(pk=process.running.id)) == 1
    process.start()
    maintenance.tend_limits()
    assert other.fetch() == []
    process.end()
    process.record()
    process.work()
    maintenance.tend_limits()
    assert other.fetch() == [3] + [0] * again


def test_a_place_stays_with_followers_until_their_process_records_the_end_before_them() -> None:
    """As that of a run which recorded itself, in a transaction of its own, or of one that was refused."""
    limited(4)
    process, other = Process(), Process()
    process.fetch(3)
    process.start()
    assert process.running is not None
    assert process.broker.reject(process.id, process.running.claim, "spoilt")
    process.start()
    maintenance.tend_limits()
    assert other.fetch() == []
    process.end()
    process.record()
    process.work()
    maintenance.tend_limits()
    assert other.fetch() == [3]


def test_who_ends_without_its_process_follows_no_longer() -> None:
    limited(4)
    process, other = Process(), Process()
    process.fetch(3)
    maintenance.end_runs(process.id, {each.claim: TimeLimitExceeded("no") for each in list(process.waiting)[1:]})
    maintenance.tend_limits()
    assert permits(PermitState.FOLLOWING) == []
    process.work()
    assert other.fetch() == [3]


class World:
    """Processes that do what a random choice says; never do more runs start than the limit lets."""

    def __init__(self, rng: random.Random, limit: int, runs: int) -> None:
        self.rng, self.limit = rng, limit
        self.processes = [Process() for _ in range(3)]
        self.done: list[int] = []
        limited(runs, concurrency=limit)

    def step(self) -> None:
        place = self.rng.randrange(len(self.processes))
        process = self.processes[place]
        for action in self.rng.sample(self.actions(process), 1):
            action(process)
        if process.id == 0:
            self.processes[place] = Process()
        running = sum(each.running is not None for each in self.processes)
        assert running <= self.limit

    def actions(self, process: Process) -> list[Any]:
        possible = [self.fetch, self.record, self.tend, self.give_back, self.die]
        if process.running is None and process.waiting:
            possible += [self.start] * 8
        if process.running is not None:
            possible += [self.end] * 8 + [self.leave, self.stall, self.end_run]
        return possible + [self.fetch, self.record] * 3

    def fetch(self, process: Process) -> None:
        process.fetch(self.rng.choice([1, 3, 10]))

    def start(self, process: Process) -> None:
        process.start()

    def end(self, process: Process) -> None:
        process.end(self.rng.choice([Action.SUCCESS] * 8 + [Action.RETRY]))

    def leave(self, process: Process) -> None:
        """The task gives itself back."""
        process.end(Action.RELEASED)

    def record(self, process: Process) -> None:
        # Nothing starts in a process while it records only where its bookkeeping is as quick; here it may.
        assert process.record() == []

    def tend(self, process: Process) -> None:
        maintenance.tend_limits()

    def give_back(self, process: Process) -> None:
        process.give_back_waiting()

    def stall(self, process: Process) -> None:
        assert process.running is not None
        give_back("default", process.id, is_suspect=False, after=process.running.claim)
        process.waiting.clear()

    def end_run(self, process: Process) -> None:
        """Its supervisor ends the run, and a process whose only slot is lost with it."""
        assert process.running is not None
        maintenance.end_runs(process.id, {process.running.claim: TaskCancelled("by hand")})
        retry(TaskRecord.objects.filter(pk=process.running.id))
        process.running = None
        if self.rng.random() < 0.5:
            self.die(process)

    def die(self, process: Process) -> None:
        running = [process.running.claim] if process.running else []
        maintenance.settle_death(Death(process.id, "killed", running, is_charged=False))
        process.id = 0

    def finish(self) -> None:
        for process in self.processes:
            self.die(process)
        last = Process()
        while TaskRecord.objects.exclude(status=Status.SUCCESSFUL).exists():
            maintenance.promote_due()
            maintenance.tend_limits()
            last.fetch()
            last.work(len(last.waiting))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("limit", [1, 2])
def test_whatever_happens_no_more_run_than_the_limit_lets(seed: int, limit: int) -> None:
    world = World(random.Random(seed), limit, 40)
    for _ in range(150):
        world.step()
    world.finish()
    assert not Permit.objects.exists()
