"""Coroutine slots: a loop of its own kind of lane beside the threads, around a broker in memory."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.dispatch import receiver
from django.test import override_settings
from django.utils import translation

from django_taskq import current_task, signals
from django_taskq.exceptions import SoftTimeLimitExceeded
from django_taskq.message import Action, Headers, Outcome
from django_taskq.worker.orders import CANCEL, STOP, Order
from tests.unit.making import a_moment, forever, in_c, make_task
from tests.waiting import wait_for

VARIABLE: ContextVar[int] = ContextVar("variable", default=0)


@pytest.fixture
def outcomes() -> Any:
    """What is announced, by the task's name."""
    found: list[Outcome] = []

    def note(outcome: Outcome, **kwargs: Any) -> None:
        found.append(outcome)

    signals.task_finished.connect(note)
    yield found
    signals.task_finished.disconnect(note)


def results(outcomes: list[Outcome]) -> list[Any]:
    return [outcome.result for outcome in outcomes]


def test_they_run_side_by_side_beside_a_thread(bench: Any, outcomes: list[Outcome]) -> None:
    together = 0
    most = 0

    async def meets() -> str:
        nonlocal together, most
        together += 1
        most = max(most, together)
        deadline = time.monotonic() + 10
        while most < 50 and time.monotonic() < deadline:
            await a_moment()
        together -= 1
        return threading.current_thread().name

    make_task(meets)
    make_task(lambda: threading.current_thread().name, name="plain")
    worker = bench(coroutines=50, quota=104)
    worker.put("meets", 100)
    worker.put("plain", 4)
    worker.start()
    assert worker.has_ended()
    assert most == 50
    assert len({o.result for o in outcomes if o.delivery.name == "meets"}) == 1
    assert {o.result for o in outcomes if o.delivery.name == "meets"}.isdisjoint(
        {o.result for o in outcomes if o.delivery.name == "plain"}
    )
    assert worker.broker.rescue(1) == 0, "something was neither recorded nor given back"


def test_each_has_its_own_context(bench: Any, outcomes: list[Outcome]) -> None:
    async def looks() -> list[Any]:
        before = VARIABLE.get(), translation.get_language()
        VARIABLE.set(1)
        translation.activate("de")
        await a_moment()
        return [*before, current_task.name, await sync_to_async(lambda: current_task.name)()]

    make_task(looks)
    worker = bench(coroutines=2, quota=6)
    worker.put("looks", 6)
    worker.start()
    assert worker.has_ended()
    assert set(results(outcomes)) == {'[0,"en-us","looks","looks"]'}


@override_settings(TASKQ={"COROUTINE_CONNECTIONS": 3})
def test_sync_calls_of_different_runs_are_made_side_by_side_and_those_of_one_in_one_thread(
    bench: Any, outcomes: list[Outcome]
) -> None:
    barrier = threading.Barrier(3)
    threads: set[int] = set()

    def first() -> int:
        barrier.wait(10)
        threads.add(threading.get_ident())
        return threading.get_ident()

    async def calls() -> bool:
        one = await sync_to_async(first)()
        await a_moment()
        return one == await sync_to_async(threading.get_ident)()

    make_task(calls)
    worker = bench(coroutines=9, quota=9)
    worker.put("calls", 9)
    worker.start()
    assert worker.has_ended()
    assert results(outcomes) == ["true"] * 9
    assert len(threads) == 3


def test_a_run_without_sync_calls_needs_no_thread(bench: Any) -> None:
    async def nothing() -> None: ...

    make_task(nothing)
    worker = bench(coroutines=2, quota=2)
    worker.put("nothing", 2)
    worker.start()
    assert worker.has_ended()
    assert not worker.courier.coroutines.threads._loads


def test_a_soft_limit_lets_a_sync_call_finish_and_is_then_seen(bench: Any, outcomes: list[Outcome]) -> None:
    finished: list[int] = []

    def query() -> None:
        in_c(0.1)
        finished.append(1)

    async def waits() -> str:
        try:
            await sync_to_async(query)()
        except SoftTimeLimitExceeded as error:
            return f"{error}: {finished}"
        return "never"

    make_task(waits)
    worker = bench(coroutines=1, quota=1)
    worker.put("waits", headers=Headers(soft_time_limit=0.02).dumps())
    worker.start()
    assert worker.has_ended()
    assert results(outcomes) == ['"the soft time limit of 0.02 s passed: [1]"']


@pytest.mark.parametrize("is_async", [True, False], ids=["coroutine", "thread"])
def test_an_order_cancels_what_runs(bench: Any, outcomes: list[Outcome], is_async: bool) -> None:
    starts: list[int] = []

    async def waits() -> None:
        starts.append(current_task.delivery.claim)
        await forever()

    def spins() -> None:
        starts.append(current_task.delivery.claim)
        while True:
            in_c(0.001)

    make_task(waits if is_async else spins, name="lasts")
    worker = bench(coroutines=1, quota=1)
    worker.put("lasts")
    worker.start()
    wait_for(lambda: starts)
    os.write(worker.orders, Order(CANCEL, str(starts[0])).dumps())
    assert worker.has_ended()
    (outcome,) = outcomes
    assert outcome.action is Action.CANCELLED
    assert outcome.error is not None
    assert outcome.error.summary == "TaskCancelled: cancelled while it ran"


def test_a_full_thread_keeps_nothing_from_the_coroutines(bench: Any) -> None:
    """Nor are its runs held: they go back, and their queue is left alone until it can take them."""
    may_end, ran = threading.Event(), []

    async def quick() -> None:
        ran.append(1)

    make_task(lambda: may_end.wait(20), name="lasts")
    make_task(quick)
    worker = bench(coroutines=2, quota=45, queues=("slow", "quick"))
    worker.put("lasts", 5, queue_name="slow")
    worker.put("quick", 40, queue_name="quick")
    worker.start()
    try:
        wait_for(lambda: len(ran) == 40)
        wait_for(lambda: worker.broker.size("slow") == 4, message="what the thread cannot take is for others")
    finally:
        may_end.set()
    assert worker.has_ended()
    assert worker.broker.size("slow") == 0


def test_behind_a_coroutine_that_blocks_the_loop_nothing_waits(bench: Any) -> None:
    may_end, blocks = threading.Event(), threading.Event()

    async def blocking() -> None:
        blocks.set()
        may_end.wait(20)

    make_task(blocking)
    worker = bench(coroutines=5)
    worker.put("blocking", 1)
    worker.start()
    try:
        assert blocks.wait(10)
        worker.put("blocking", 1)
        os.write(worker.orders, b"r")
        wait_for(lambda: worker.broker.size("default") == 0, message="it was fetched")
        wait_for(lambda: worker.broker.size("default") == 1, message="and given back")
    finally:
        may_end.set()


def test_what_a_run_has_started_ends_with_it(bench: Any, caplog: Any) -> None:
    ended: list[str] = []

    async def forgotten() -> None:
        try:
            await forever()
        finally:
            ended.append("forgotten")

    async def forgets() -> None:
        asyncio.create_task(forgotten())  # noqa: RUF006 - the point
        await a_moment()

    make_task(forgets)
    worker = bench(coroutines=1, quota=1)
    worker.put("forgets")
    worker.start()
    assert worker.has_ended()
    assert ended == ["forgotten"]
    assert "left 1 asyncio task(s) unfinished" in caplog.text


def test_asked_to_stop_a_run_can_give_itself_back(bench: Any) -> None:
    starts = threading.Event()

    async def saves() -> None:
        starts.set()
        while not current_task.stop_requested():
            await a_moment()
        current_task.give_back()

    make_task(saves)
    worker = bench(coroutines=1)
    worker.put("saves")
    worker.start()
    assert starts.wait(10)
    os.write(worker.orders, STOP)
    assert worker.has_ended()
    assert worker.broker.size("default") == 1


def test_a_start_that_must_be_committed_first_holds_up_no_other(bench: Any, outcomes: list[Outcome]) -> None:
    async def once() -> int:
        return 1

    make_task(once, acks_late=False)
    worker = bench(coroutines=3, quota=3)
    worker.put("once", 3)
    worker.start()
    assert worker.has_ended()
    assert results(outcomes) == ["1"] * 3


def test_receivers_of_the_start_may_use_the_database(bench: Any, outcomes: list[Outcome]) -> None:
    """That is, they are not called on the loop."""
    in_loop: list[bool] = []

    @receiver(signals.task_started)
    def note(**kwargs: Any) -> None:
        try:
            asyncio.get_running_loop()
            in_loop.append(True)
        except RuntimeError:
            in_loop.append(False)

    async def nothing() -> None: ...

    make_task(nothing)
    worker = bench(coroutines=1, quota=1)
    worker.put("nothing")
    try:
        worker.start()
        assert worker.has_ended()
    finally:
        signals.task_started.disconnect(note)
    assert in_loop == [False]
    assert len(outcomes) == 1


def test_as_many_are_held_as_there_are_slots(bench: Any) -> None:
    may_end = threading.Event()
    running: list[int] = []

    async def lasts() -> None:
        running.append(1)
        while not may_end.is_set():
            await a_moment(0.01)

    make_task(lasts)
    worker = bench(coroutines=1500, quota=1500)
    worker.put("lasts", 1500)
    worker.start()
    try:
        wait_for(lambda: len(running) == 1500, 20, lambda: str(len(running)))
    finally:
        may_end.set()
    assert worker.has_ended()
