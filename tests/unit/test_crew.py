"""The crew, with processes that are only tables: who is started, told to stop, killed and replaced, and why."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_taskq.exceptions import MemoryLimitExceeded, TaskCancelled, TaskqError, TimeLimitExceeded
from django_taskq.maintenance import Death
from django_taskq.worker import crew as crews
from django_taskq.worker import table
from django_taskq.worker.child import Child
from django_taskq.worker.crew import Crew
from django_taskq.worker.fetcher import QueueOrder
from django_taskq.worker.options import Post, WorkerOptions
from django_taskq.worker.orders import STOP, Order
from django_taskq.worker.table import SlotTable
from django_taskq.worker.watching import MemoryWatch, Progress

MAIL, BULK = Post(QueueOrder(("mail",)), 1), Post(QueueOrder(("bulk",)), 2)
HOUR = 3600.0


class FakeChild(Child):
    """Its table is real, and it does what the test writes there."""

    def __init__(self, process_id: int, plan: Any, start: Any, patience: float, totals: Any = None) -> None:
        self.process_id = process_id
        self.post = plan.post
        self.table = SlotTable(plan.table, SlotTable.slots_in(plan.table))
        self.pid = (1 << 23) + process_id  # more than any system gives out
        self.process = SimpleNamespace(sentinel=object(), exitcode=0)  # type: ignore[assignment]
        self.progress, self.memory = Progress(self.table, patience), MemoryWatch(self.pid)
        self.born_at = 0.0
        self.errors: dict[int, TaskqError] = {}
        self.lost: set[int] = set()
        self.killed_for = ""
        self.is_blameless = self.is_stopping = self.is_leaving = False
        self.successor = None
        self.told: list[bytes] = []

    def flush(self) -> None:
        """All of it was read at once."""

    def order(self, order: Order) -> None:
        self.told.append(order.word)

    def kill(self, why: str, *, is_blameless: bool = False, among: Any = None) -> None:
        self.killed_for, self.is_blameless = self.killed_for or why, is_blameless

    def bury(self, was_out_of_memory: Any) -> Death:
        running = [entry.claim for entry in self.table.running()]
        self.table.close()
        return Death(self.process_id, self.killed_for, running, self.errors, is_charged=not self.is_blameless)


class FakeKeeper:
    """Notes what is to be settled."""

    is_settled = True

    def __init__(self) -> None:
        self.deaths: list[Death] = []
        self.ended: dict[int, TaskqError] = {}

    def settle(self, death: Death, path: Path) -> None:
        self.deaths.append(death)

    def end_runs(self, process_id: int, errors: dict[int, TaskqError]) -> None:
        self.ended.update(errors)

    def give_back(self, *which: int) -> None: ...


class Bench:
    """A crew, and its clock."""

    def __init__(self, path: Path) -> None:
        self.keeper = FakeKeeper()
        options = WorkerOptions(QueueOrder(("mail",)), 1, 1, 30)
        self.crew = Crew(options, None, 1, path, self.keeper)  # type: ignore[arg-type]
        self.now = 100.0

    def start(self, *posts: Post) -> list[FakeChild]:
        """Their processes, which serve."""
        before = len(self.crew.children)
        self.crew.fill(posts)
        return [self.serve(child) for child in self.crew.children[before:]]

    def serve(self, child: Any) -> FakeChild:
        child.table.words[table.READY] = child.table.words[table.SOUND] = 1
        assert isinstance(child, FakeChild)
        return child

    def run(self, child: FakeChild, slot: int, claim: int, hard: float | None = None, memory: int = 0) -> None:
        child.table.start(slot, claim, hard, memory)
        # The table's clock is the system's, and this one's is the test's.
        at = table._HEADER + table._ENTRY * slot
        child.table.times[at + table.STARTED] = self.now
        child.table.times[at + table.DEADLINE] = self.now + hard if hard else 0.0
        child.table.words[table.HELD] += 1

    def end(self, child: FakeChild, slot: int) -> None:
        child.table.finish(slot)
        child.table.words[table.HELD] -= 1

    def look(self, *dead: Child, after: float = 0.1) -> None:
        self.now += after
        self.crew.look({child.process.sentinel for child in dead}, self.now)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    ids = count(1)
    monkeypatch.setattr(Crew, "child_class", FakeChild)
    monkeypatch.setattr(crews.presence, "register_process", lambda worker_id: next(ids))
    monkeypatch.setattr(crews.presence, "note_pid", lambda process_id, pid: None)
    made = Bench(tmp_path)
    monkeypatch.setattr(crews, "time", SimpleNamespace(monotonic=lambda: made.now))
    yield made
    for child in made.crew.children:
        child.table.close()


class TestReplacing:
    def test_the_successor_serves_first(self, bench: Bench) -> None:
        (old,) = bench.start(MAIL)
        bench.crew.replace(old, "a test")
        _, new = bench.crew.children
        assert new.post == MAIL
        bench.look()
        assert old.told == []
        new.table.words[table.READY] = 1
        bench.look()
        assert old.told == [], "it has started, and not looked for work yet"
        bench.serve(new)
        bench.look()
        assert old.told == [STOP]
        bench.look(old)
        assert bench.crew.children == [new]
        assert new.told == []  # type: ignore[attr-defined]

    def test_twice_is_once(self, bench: Bench) -> None:
        (old,) = bench.start(MAIL)
        for _ in range(3):
            bench.crew.replace(old, "a test")
        assert len(bench.crew.children) == 2
        bench.serve(bench.crew.children[1])
        bench.look()
        bench.crew.replace(old, "a test")
        assert len(bench.crew.children) == 2

    def test_a_successor_that_dies_is_followed_by_another_after_a_while(self, bench: Bench) -> None:
        (old,) = bench.start(MAIL)
        for _ in range(crews.MOST_BOOT_FAILURES + 1):
            bench.crew.replace(old, "a test")
            bench.look(bench.crew.children[1])
            assert bench.crew.children == [old]
            bench.crew.replace(old, "a test")
            assert bench.crew.children == [old], "at once"
            bench.look(after=crews.SUCCESSION_PAUSE)
        assert not bench.crew.is_hopeless, "the old one serves"

    def test_who_dies_before_its_successor_serves_leaves_no_vacancy(self, bench: Bench) -> None:
        (old,) = bench.start(MAIL)
        bench.crew.replace(old, "a test")
        bench.look(old)
        bench.look(after=60)
        assert len(bench.crew.children) == 1

    def test_without_a_registry_it_goes_on_and_tries_again(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        (old,) = bench.start(MAIL)
        with monkeypatch.context() as patch:
            patch.setattr(crews.presence, "register_process", lambda worker_id: 1 / 0)
            bench.crew.replace(old, "a test")
        assert bench.crew.children == [old]
        bench.look(after=crews.SUCCESSION_PAUSE)
        bench.crew.replace(old, "a test")
        assert len(bench.crew.children) == 2

    def test_with_a_quota_the_rest_of_it_comes_after(self, bench: Bench) -> None:
        (old,) = bench.start(Post(MAIL.order, 1, quota=10))
        old.table.words[table.DONE] = 4
        bench.crew.replace(old, "a test")
        bench.look()
        assert (old.told, len(bench.crew.children)) == ([STOP], 1)
        old.table.words[table.READY] = 0  # as it is while it closes what it has open
        bench.look(old)
        assert [child.post.quota for child in bench.crew.children] == [6]

    def test_worn_ones_are_replaced_one_at_a_time(self, bench: Bench) -> None:
        old = bench.start(MAIL, MAIL, MAIL)
        for child in old:
            child.table.words[table.WORN] = table.WORN_OUT
        for left in (2, 1, 0):
            bench.look()
            assert len(bench.crew.children) == 4
            bench.serve(bench.crew.children[-1])
            bench.look()
            (gone,) = [child for child in old if child.told and child in bench.crew.children]
            bench.look(gone)
            assert sum(child in bench.crew.children for child in old) == left
        bench.look()
        assert len(bench.crew.children) == 3


class TestReshaping:
    def test_only_what_changes_is_touched(self, bench: Bench) -> None:
        mail, bulk = bench.start(MAIL, BULK)
        bench.crew.reshape([MAIL, MAIL])
        bench.look()
        assert [child.post for child in bench.crew.children] == [MAIL, BULK, MAIL]
        assert (mail.told, bulk.told) == ([], [STOP])
        bench.look(bulk)
        bench.look(after=60)
        assert [child.post for child in bench.crew.children] == [MAIL, MAIL]

    def test_the_idle_go_first(self, bench: Bench) -> None:
        idle, busy = bench.start(MAIL, MAIL)
        idle.table.words[table.IDLE] = 1
        bench.crew.reshape([MAIL])
        assert (idle.told, busy.told) == ([STOP], [])

    def test_a_successor_counts_and_its_predecessor_does_not(self, bench: Bench) -> None:
        (old,) = bench.start(MAIL)
        bench.crew.replace(old, "a test")
        bench.crew.reshape([MAIL])
        assert len(bench.crew.children) == 2
        assert bench.crew.children[1].told == []  # type: ignore[attr-defined]

    def test_vacancies_are_taken_into_account(self, bench: Bench) -> None:
        first, second = bench.start(MAIL, MAIL)
        first.table.words[table.DONE] = 1
        bench.crew._on_death(first, bench.now)
        bench.crew.reshape([MAIL, BULK])
        bench.look(after=60)
        assert [child.post for child in bench.crew.children] == [MAIL, BULK]
        assert second.told == []

    def test_who_retires_is_not_followed_even_if_it_dies(self, bench: Bench) -> None:
        (child,) = bench.start(MAIL)
        bench.crew.retire(child)
        bench.look(child)
        bench.look(after=60)
        assert bench.crew.is_gone


class TestLimits:
    def test_alone_it_is_killed(self, bench: Bench) -> None:
        (child,) = bench.start(MAIL)
        bench.run(child, 0, 5, hard=2)
        bench.look(after=1.9)
        assert not child.killed_for
        bench.look()
        assert child.killed_for
        bench.look(child)
        (death,) = bench.keeper.deaths
        assert isinstance(death.errors[5], TimeLimitExceeded)
        assert "2 s" in str(death.errors[5])
        bench.look(after=1)
        assert [other.post for other in bench.crew.children] == [MAIL]

    def test_a_thread_is_lost_and_its_neighbour_is_not(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        (child,) = bench.start(BULK)
        bench.run(child, 0, 5, hard=2)
        bench.run(child, 1, 6, hard=HOUR)
        bench.look(after=2)
        # At once: the record, the count, the alarm and a successor.
        assert list(bench.keeper.ended) == [5]
        assert isinstance(bench.keeper.ended[5], TimeLimitExceeded)
        assert child.table.words[table.LOST] == 1
        assert "lost 1 of its 2 slots" in caplog.text
        _, new = bench.crew.children
        bench.serve(new)
        bench.look()
        assert child.told == [STOP]
        assert not child.killed_for, "its neighbour runs"
        child.table.finish(1)
        bench.look()
        assert not child.killed_for, "its neighbour is not recorded"
        child.table.words[table.HELD] = 1
        bench.look()
        assert child.killed_for
        assert child.is_blameless
        bench.look(child)
        assert bench.crew.children == [new]
        assert len(bench.keeper.ended) == 1

    def test_a_process_full_of_lost_slots_goes_at_once(self, bench: Bench) -> None:
        (child,) = bench.start(BULK)
        bench.run(child, 0, 5, hard=2)
        bench.run(child, 1, 6, hard=2)
        bench.look(after=2)
        assert child.killed_for

    def test_a_lost_run_that_ends_after_all_frees_its_slot(self, bench: Bench) -> None:
        (child,) = bench.start(BULK)
        bench.run(child, 0, 5, hard=2)
        bench.look(after=2)
        assert child.table.words[table.LOST] == 1
        bench.end(child, 0)
        bench.look()
        assert child.table.words[table.LOST] == 0
        assert not child.killed_for

    def test_a_worker_that_stops_does_not_wait_for_it(self, bench: Bench) -> None:
        (child,) = bench.start(BULK)
        bench.run(child, 0, 5, hard=2)
        bench.crew.close()
        bench.look(after=2)
        assert child.killed_for

    def test_memory(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        (child,) = bench.start(BULK)
        bench.run(child, 0, 5, memory=1 << 20)
        bench.run(child, 1, 6)
        bench.look()
        assert not child.killed_for, "nobody can tell how much it takes"
        monkeypatch.setattr(crews.memory, "taken_by", lambda *args: 3 << 20)
        bench.look()
        assert child.killed_for
        assert child.is_blameless
        assert list(child.errors) == [5]
        assert isinstance(child.errors[5], MemoryLimitExceeded)
        assert "limit is 1 MB" in str(child.errors[5])
        assert "peak was 3 MB" in str(child.errors[5])


class TestProgress:
    def test_without_runs_it_is_killed(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        (child,) = bench.start(MAIL)
        for _ in range(31):
            bench.look(after=1)
        assert child.is_blameless
        assert "makes no progress" in caplog.text
        assert child.killed_for
        # Again and again, which is no sign of processes that cannot start.
        for _ in range(crews.MOST_BOOT_FAILURES + 1):
            bench.look(*bench.crew.children)
            bench.look(after=crews.SUCCESSION_PAUSE)
            (child,) = [bench.serve(child) for child in bench.crew.children]
            child.killed_for = "a test"
        assert not bench.crew.is_hopeless

    def test_with_runs_another_takes_over_and_they_may_end(self, bench: Bench) -> None:
        (child,) = bench.start(MAIL)
        bench.run(child, 0, 5)
        for _ in range(31):
            bench.look(after=1)
            child.table.times[table.PULSE] = bench.now
        assert not child.killed_for
        assert child.successor is not None
        bench.serve(child.successor)
        bench.look()
        child.table.finish(0)
        bench.look()
        assert child.killed_for


class TestCancelling:
    def test_a_run_that_is_alone(self, bench: Bench) -> None:
        (child,) = bench.start(MAIL)
        bench.run(child, 0, 5)
        assert bench.crew.end_cancelled(child.process_id, 5)
        bench.look(child)
        (death,) = bench.keeper.deaths
        assert isinstance(death.errors[5], TaskCancelled)
        assert not death.is_charged
        assert not bench.keeper.ended

    def test_beside_others_it_is_lost_and_they_finish(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        (child,) = bench.start(BULK)
        bench.run(child, 0, 6)
        bench.run(child, 1, 7)
        assert bench.crew.end_cancelled(child.process_id, 6)
        assert isinstance(bench.keeper.ended[6], TaskCancelled)
        assert not child.killed_for
        assert "has lost 1 of its" in caplog.text
        assert child.successor is not None
        bench.serve(child.successor)
        bench.look()
        assert child.is_stopping
        # Lost once: its own limit and another word change nothing.
        bench.keeper.ended.clear()
        assert bench.crew.end_cancelled(child.process_id, 6)
        assert not bench.keeper.ended
        child.is_stopping = True
        bench.end(child, 1)
        bench.look()
        assert child.killed_for
        assert child.is_blameless

    def test_all_of_them_lost(self, bench: Bench) -> None:
        (child,) = bench.start(BULK)
        for slot in range(child.table.slots):
            bench.run(child, slot, 6 + slot)
        for slot in range(child.table.slots):
            assert not child.killed_for
            assert bench.crew.end_cancelled(child.process_id, 6 + slot)
        assert child.killed_for

    def test_not_another_run_nor_the_unknown(self, bench: Bench) -> None:
        alone, shared = bench.start(MAIL, BULK)
        bench.run(alone, 0, 5)
        bench.run(shared, 0, 6)
        assert not bench.crew.end_cancelled(alone.process_id, 4)
        assert not bench.crew.end_cancelled(shared.process_id, 5)
        assert not bench.crew.end_cancelled(99, 5)
        assert not alone.killed_for
        assert not shared.killed_for
        assert not bench.keeper.ended
