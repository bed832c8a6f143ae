"""Errors raised in tasks from outside: they strike the task, once, and nobody else."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_taskq import current_task
from django_taskq.exceptions import SoftTimeLimitExceeded, TaskCancelled
from django_taskq.message import Action, Headers, Outcome
from django_taskq.worker import slots
from django_taskq.worker.interrupting import Drive, Watch, forget_in_thread, raise_in_thread
from django_taskq.worker.lane import Lane
from django_taskq.worker.slots import Slot
from django_taskq.worker.table import SlotTable
from tests.unit.making import a_moment, forever, in_c, make_delivery, make_task
from tests.waiting import wait_for

LIMIT = SoftTimeLimitExceeded("2 s passed")
CANCEL = TaskCancelled("not needed any more")


def spin(until: Callable[[], bool] = lambda: False, seconds: float = 10) -> None:
    """Busy in Python, where an asynchronous exception gets through at once."""
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        in_c(0.0005)


class TestThreads:
    def test_the_very_error_is_raised(self) -> None:
        caught: list[BaseException] = []

        def run() -> None:
            try:
                spin()
            except SoftTimeLimitExceeded as error:
                caught.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert thread.ident is not None
        raise_in_thread(thread.ident, LIMIT)
        thread.join(10)
        assert caught == [LIMIT]
        assert caught[0] is LIMIT

    def test_also_where_another_is_handled(self) -> None:
        handles = threading.Event()
        caught: list[BaseException] = []

        def run() -> None:
            try:
                try:
                    raise KeyError
                except KeyError:
                    handles.set()
                    spin()
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert handles.wait(10)
        assert thread.ident is not None
        raise_in_thread(thread.ident, LIMIT)
        thread.join(10)
        assert len(caught) == 1
        assert caught[0] is LIMIT

    def test_what_was_not_seen_can_be_forgotten(self) -> None:
        may_call, has_called, ends = threading.Lock(), threading.Event(), []
        may_call.acquire()

        def run() -> None:
            has_called.set()
            may_call.acquire()  # in C, where nothing strikes
            spin(seconds=0.01)
            ends.append("peacefully")

        thread = threading.Thread(target=run)
        thread.start()
        assert has_called.wait(10)
        assert thread.ident is not None
        raise_in_thread(thread.ident, LIMIT)
        forget_in_thread(thread.ident)
        may_call.release()
        thread.join(10)
        assert ends == ["peacefully"]


class TestWatch:
    def test_strikes_in_the_order_of_the_deadlines_and_not_what_was_cleared(self) -> None:
        struck: list[str] = []
        watch = Watch()
        watch.set("late", 0.06, lambda: struck.append("late"))
        watch.set("cleared", 0.02, lambda: struck.append("cleared"))
        watch.set("soon", 0.01, lambda: struck.append("soon"))
        watch.clear("cleared")
        wait_for(lambda: "late" in struck)
        assert struck == ["soon", "late"]

    def test_has_one_thread_and_only_once_it_is_needed(self) -> None:
        before = threading.active_count()
        watch = Watch()
        assert threading.active_count() == before
        for number in range(3):
            watch.set(number, 60, lambda: None)
        assert threading.active_count() == before + 1


async def drive_on_loop(coroutine: Any, error: BaseException, after: float = 0.1) -> Any:
    drive = Drive(coroutine)
    asyncio.get_running_loop().call_later(after, drive.interrupt, error)
    return await drive.run()


def on_loop(coroutine: Any, error: BaseException) -> Any:
    return asyncio.run(drive_on_loop(coroutine, error))


def in_thread(coroutine: Any, error: BaseException) -> Any:
    drive = Drive(coroutine)

    def interrupt() -> None:
        wait_for(lambda: coroutine.cr_await is not None or coroutine.cr_frame is None, interval=0.001)
        drive.interrupt(error)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        return drive.run_here()
    finally:
        thread.join(10)


@pytest.mark.parametrize("run", [on_loop, in_thread])
class TestDrive:
    def test_the_coroutine_sees_the_error_where_it_waits(self, run: Any) -> None:
        async def waits() -> str:
            try:
                await forever()
            except SoftTimeLimitExceeded as error:
                await a_moment()  # it may go on waiting
                return str(error)
            return "never"

        assert run(waits(), LIMIT) == "2 s passed"

    def test_left_alone_it_is_the_error_that_comes_out(self, run: Any) -> None:
        with pytest.raises(SoftTimeLimitExceeded) as caught:
            run(forever(), LIMIT)
        assert caught.value is LIMIT

    def test_what_cleans_up_after_a_cancellation_does(self, run: Any) -> None:
        ended: list[str] = []

        async def member() -> None:
            try:
                await forever()
            finally:
                ended.append("member")

        async def waits() -> None:
            async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                group.create_task(member())
                await forever()

        with pytest.raises(SoftTimeLimitExceeded) as caught:
            run(waits(), LIMIT)
        assert caught.value is LIMIT
        assert ended == ["member"]

    def test_a_sync_call_is_let_finish(self, run: Any) -> None:
        calls: list[str] = []

        def query() -> None:
            in_c(0.1)
            calls.append("finished")

        async def waits() -> str:
            try:
                await sync_to_async(query)()
            except SoftTimeLimitExceeded:
                return f"interrupted when {calls}"
            return "never"

        if run is on_loop:
            pytest.skip("the loop's slot counts the calls; see test_coroutines.py")
        assert run(waits(), LIMIT) == "interrupted when ['finished']"

    def test_a_plain_cancellation_of_its_own_stays_one(self, run: Any) -> None:
        async def cancels() -> str:
            sleeper = asyncio.create_task(forever())
            sleeper.cancel()
            try:
                await sleeper
            except asyncio.CancelledError as error:
                return type(error).__name__
            return "never"

        drive = Drive(cancels())
        assert (asyncio.run(drive.run()) if run is on_loop else drive.run_here()) == "CancelledError"

    def test_a_child_that_swallows_the_cancellation_does_not_swallow_the_error(self, run: Any) -> None:
        async def stubborn() -> None:
            try:
                await forever()
            except asyncio.CancelledError:
                return

        async def waits() -> str:
            try:
                await asyncio.create_task(stubborn())
            except SoftTimeLimitExceeded:
                return "seen"
            return "never"

        assert run(waits(), LIMIT) == "seen"


def test_an_error_that_comes_before_the_coroutine_keeps_it_from_starting() -> None:
    started: list[int] = []

    async def starts() -> None:
        started.append(1)

    drive = Drive(starts())
    drive.interrupt(CANCEL)
    with pytest.raises(TaskCancelled):
        asyncio.run(drive.run())
    assert not started


def test_an_interruption_leaves_the_asyncio_task_uncancelled() -> None:
    async def waits() -> None:
        try:
            await forever()
        except SoftTimeLimitExceeded:
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            async with asyncio.timeout(10):
                await a_moment()

    on_loop(waits(), LIMIT)


class FakeCourier:
    """What a slot needs of it."""

    is_stopping = False

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def done(self, outcome: Outcome, lane: Lane) -> None:
        self.outcomes.append(outcome)


class SlotBench:
    """One slot, in the main thread or in one of its own."""

    def __init__(self, path: Path, *, is_main: bool) -> None:
        self.courier = FakeCourier()
        self.lane = Lane(1)
        self.table = SlotTable.create(path, 1)
        self.slot = Slot(0, self.table, self.courier, self.lane)  # type: ignore[arg-type]
        self.is_main = is_main

    def run(self, *deliveries: Any, meanwhile: Callable[[], object] = lambda: None) -> list[Outcome]:
        """Run these, while another thread does something else."""
        for delivery in (*deliveries, None):
            self.lane.inbox.put(delivery)
        ours, other = (self.slot.run, meanwhile) if self.is_main else (meanwhile, self.slot.run)
        thread = threading.Thread(target=other)
        thread.start()
        ours()
        thread.join(20)
        assert not thread.is_alive()
        return self.courier.outcomes


@pytest.fixture(params=["main", "thread"])
def bench(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlotBench]:
    # The connections of this thread are other tests'.
    monkeypatch.setattr(slots, "_thread", threading.local())
    monkeypatch.setattr(slots.connections, "close_all", lambda: None)
    handler = signal.getsignal(signal.SIGALRM)
    made = SlotBench(tmp_path / "slots", is_main=request.param == "main")
    yield made
    signal.signal(signal.SIGALRM, handler)
    assert not made.table.running()
    made.table.close()


def soft(seconds: float) -> str | None:
    return Headers(soft_time_limit=seconds).dumps()


class TestSlot:
    def test_a_soft_limit_is_an_error_of_the_task(self, bench: SlotBench) -> None:
        def tidies() -> str:
            try:
                spin()
            except SoftTimeLimitExceeded as error:
                return str(error)
            return "never"

        make_task(tidies)
        outcomes = bench.run(*(make_delivery("tidies", headers=soft(seconds)) for seconds in (0.05, 0.02)))
        assert [outcome.result for outcome in outcomes] == [
            '"the soft time limit of 0.05 s passed"',
            '"the soft time limit of 0.02 s passed"',
        ]

    def test_it_strikes_nobody_but_the_run_whose_limit_it_is(self, bench: SlotBench) -> None:
        """Runs that end within microseconds of their limits, with such as have none between them."""
        make_task(lambda seconds: spin(seconds=seconds), name="spins")
        make_task(lambda: spin(seconds=0.001), name="free", autoretry_for=(SoftTimeLimitExceeded,))
        deliveries = []
        for number in range(100):
            deliveries.append(make_delivery("spins", 0.004 + number * 0.00002, headers=soft(0.005)))
            deliveries.append(make_delivery("free"))
        outcomes = bench.run(*deliveries)
        assert len(outcomes) == 200
        assert {outcome.action for outcome in outcomes[1::2]} == {Action.SUCCESS}
        errors = {o.error.class_path.rpartition(".")[2] for o in outcomes[::2] if o.error is not None}
        assert errors <= {"SoftTimeLimitExceeded"}

    def test_cancelling_ends_the_run_with_that_reason(self, bench: SlotBench) -> None:
        starts = threading.Event()

        def waits() -> None:
            starts.set()
            spin()

        make_task(waits, autoretry_for=(Exception,))
        tried: list[bool] = []

        def cancel() -> None:
            assert starts.wait(10)
            tried.append(bench.slot.interrupt(CANCEL, claim=8))
            tried.append(bench.slot.interrupt(CANCEL, claim=7))

        (outcome,) = bench.run(make_delivery("waits", claim=7), meanwhile=cancel)
        assert outcome.action is Action.CANCELLED
        assert outcome.error is not None
        assert outcome.error.summary == "TaskCancelled: not needed any more"
        assert tried == [False, True]

    def test_a_run_that_swallows_it_can_see_that_it_was_asked_to_stop(self, bench: SlotBench) -> None:
        starts = threading.Event()

        def stubborn() -> bool:
            starts.set()
            try:
                spin()
            except TaskCancelled:
                return bool(current_task.stop_requested())
            return False

        make_task(stubborn)

        def cancel() -> None:
            assert starts.wait(10)
            bench.slot.interrupt(CANCEL)

        asked, free = bench.run(make_delivery("stubborn"), meanwhile=cancel), make_task(lambda: 1, name="free")
        assert (asked[0].action, asked[0].result) == (Action.SUCCESS, "true")
        assert not bench.slot.interrupt(CANCEL), f"nothing runs, {free} neither"

    def test_somebody_else_s_cancellation_is_a_failure(self, bench: SlotBench) -> None:
        def raises() -> None:
            raise TaskCancelled("the run I waited for")

        make_task(raises)
        assert bench.run(make_delivery("raises"))[0].action is Action.FAILED

    def test_a_coroutine_is_interrupted_where_it_waits(self, bench: SlotBench) -> None:
        async def waits() -> str:
            try:
                await forever()
            except SoftTimeLimitExceeded:
                return "tidied"
            return "never"

        make_task(waits)
        assert bench.run(make_delivery("waits", headers=soft(0.02)))[0].result == '"tidied"'

    def test_a_task_may_give_itself_back(self, bench: SlotBench) -> None:
        def gives_back() -> None:
            try:
                current_task.give_back()
            except Exception:
                pytest.fail("an except Exception must not swallow it")

        make_task(gives_back)
        assert bench.run(make_delivery("gives_back"))[0].action is Action.RELEASED


def test_outside_of_a_worker() -> None:
    def asks() -> None:
        assert not current_task.stop_requested()
        current_task.give_back()

    made = make_task(asks, takes_context=False)
    assert current_task.stop_requested() is False
    with pytest.raises(RuntimeError, match="no task is running"):
        made()
    with pytest.raises(RuntimeError, match="not run by a worker"):
        make_task(lambda context: context.give_back(), name="gives", takes_context=True)()
