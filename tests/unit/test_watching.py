"""What a supervisor makes of a slot table over time. The clock is the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connections

from django_taskq.worker import memory, table, watching
from django_taskq.worker.table import SlotTable
from django_taskq.worker.watching import MemoryWatch, Progress

PATIENCE = 20.0


class Watched:
    """A process that does what the test says, second by second."""

    def __init__(self, path: Path, slots: int = 1) -> None:
        self.table = SlotTable.create(path, slots)
        self.progress = Progress(self.table, PATIENCE)
        self.now = 1000.0
        self.table.words[table.READY] = self.table.words[table.SOUND] = 1

    def missing_after(self, seconds: int, *, ticks: bool = False, pulses: bool = False, works: bool = False) -> str:
        """What is said at the end of so many seconds in which only this happened."""
        said = ""
        for _ in range(seconds):
            self.now += 1
            if ticks:
                self.table.times[table.TICK] = self.now
            if pulses:
                self.table.times[table.PULSE] = self.now
            if works:
                self.table.words[table.DONE] += 1
            said = self.progress.missing(self.table.running(), self.now)
        return said


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path / "1.slots")
    yield made
    made.table.close(remove=True)


class TestProgress:
    def test_an_idle_process_that_turns_is_fine(self, watched: Watched) -> None:
        assert watched.missing_after(100, ticks=True, pulses=True) == ""

    def test_bookkeeping_that_stands_still(self, watched: Watched) -> None:
        assert watched.missing_after(20, pulses=True) == ""
        assert "its bookkeeping has stood still for 20 s" in watched.missing_after(1, pulses=True)

    def test_a_process_in_which_nothing_moves(self, watched: Watched) -> None:
        assert watched.missing_after(20) == ""
        assert "nothing in it has run for 20 s" in watched.missing_after(1)

    def test_a_run_that_holds_the_interpreter_has_a_right_to_it(self, watched: Watched) -> None:
        watched.table.start(0, 5, None)
        assert watched.missing_after(300) == ""
        # Afterwards everything counts from its end.
        watched.table.finish(0)
        assert watched.missing_after(19) == ""
        assert watched.missing_after(2) != ""

    def test_bookkeeping_that_stands_still_beside_a_run(self, watched: Watched) -> None:
        watched.table.start(0, 5, None)
        assert "its bookkeeping has stood still" in watched.missing_after(21, pulses=True)

    def test_runs_that_are_held_and_not_started(self, watched: Watched) -> None:
        watched.table.words[table.HELD] = 3
        assert watched.missing_after(20, ticks=True, pulses=True) == ""
        assert "holds 3 run(s) and has started none" in watched.missing_after(1, ticks=True, pulses=True)

    def test_what_is_held_while_the_database_is_away_is_not_held_against_it(self, watched: Watched) -> None:
        watched.table.words[table.HELD] = 3
        watched.table.words[table.SOUND] = 0
        assert watched.missing_after(100, ticks=True, pulses=True) == ""

    def test_short_runs_between_two_looks_are_progress(self, watched: Watched) -> None:
        watched.table.words[table.HELD] = 3
        assert watched.missing_after(100, ticks=True, pulses=True, works=True) == ""

    def test_a_process_that_is_still_starting_is_not_watched(self, watched: Watched) -> None:
        watched.table.words[table.READY] = 0
        assert watched.missing_after(100) == ""

    def test_a_pause_of_the_watcher_proves_nothing(self, watched: Watched) -> None:
        """The host was suspended, or the supervisor stopped with its processes."""
        assert watched.missing_after(15) == ""
        watched.now += 3600
        assert watched.missing_after(19) == ""

    def test_stalled_behind_a_run_that_holds_the_interpreter(self, watched: Watched) -> None:
        watched.table.words[table.LAST_CLAIM] = 9
        watched.table.start(0, 5, None)
        (running,) = watched.table.running()
        assert not watched.progress.is_stalled([running], running.started + 0.2)
        assert watched.progress.is_stalled([running], running.started + 0.3)
        watched.table.times[table.TICK] = running.started + 0.3
        assert not watched.progress.is_stalled([running], running.started + 0.4)


class TestPatience:
    def test_it_is_longer_than_sqlite_itself_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connection = connections["other"]  # SQLite, whatever the session's database is
        monkeypatch.setattr(watching, "connections", {"default": connection})
        for timeout, patience in ((5, 20.0), (20, 25.0), (60, 65.0)):
            monkeypatch.setitem(connection.settings_dict, "OPTIONS", {"timeout": timeout})
            assert watching.patience() == patience


class TestMemoryWatch:
    @pytest.fixture
    def taken(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
        """What the process takes, by what is asked."""
        said = {"taken": 0, "peak": 0, "walks": 0}

        def walk(pid: int) -> list[object]:
            said["walks"] += 1
            return []

        monkeypatch.setattr(memory, "taken_by", lambda pid, others, limit: said["taken"])
        monkeypatch.setattr(memory, "peak", lambda pid: said["peak"])
        monkeypatch.setattr(watching.reaping, "family", walk)
        return said

    def test_the_run_with_the_least_limit_that_began_last(self, watched: Watched, taken: dict[str, int]) -> None:
        runs = [table.Running(1, 1.0, None, 200), table.Running(2, 2.0, None, 200), table.Running(3, 3.0, None, 900)]
        watch = MemoryWatch(1)
        taken["taken"] = 199
        assert watch.look(runs, 10.0) is None
        taken["taken"] = 200
        assert watch.look(runs, 10.1) == (runs[1], 200)
        assert watch.peak == 200

    def test_without_limits_only_the_peak_is_looked_at_and_that_seldom(
        self, watched: Watched, taken: dict[str, int]
    ) -> None:
        runs = [table.Running(1, 1.0, None, 0)]
        watch = MemoryWatch(1)
        taken.update(taken=1 << 40, peak=7)
        assert watch.look(runs, 10.0) is None
        taken["peak"] = 8
        watch.look(runs, 10.5)
        assert watch.peak == 7
        watch.look(runs, 11.0)
        assert (watch.peak, taken["walks"]) == (8, 0)

    def test_nothing_is_asked_while_nothing_runs(self, watched: Watched, taken: dict[str, int]) -> None:
        taken["peak"] = 7
        watch = MemoryWatch(1)
        watch.look([], 10.0)
        assert watch.peak == 0


class TestMemory:
    def test_this_process(self) -> None:
        now, peak = memory.resident(os.getpid()), memory.peak(os.getpid())
        assert now is not None
        assert peak is not None
        assert 1 << 20 < now <= peak * 1.1
        assert memory.own_peak() == pytest.approx(peak, rel=0.2)

    def test_a_process_that_is_gone(self) -> None:
        assert memory.resident(1 << 30) is None
        assert memory.peak(1 << 30) is None
        assert memory.taken_by(1 << 30, [1 << 29], 5) == 0

    def test_what_is_shared_counts_once_where_it_matters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "_statm", lambda pid: (pid, 1))
        monkeypatch.setattr(memory, "resident", lambda pid: 100)
        monkeypatch.setattr(memory, "proportional", lambda pid: 60)
        assert memory.taken_by(1, [2], limit=300) == 200
        assert memory.taken_by(1, [2], limit=200) == 120
        assert memory.taken_by(1, [], limit=50) == 100
        monkeypatch.setattr(memory, "_statm", lambda pid: (7, 1))  # just forked, it is its parent still
        assert memory.taken_by(1, [2], limit=50) == 100

    @pytest.mark.parametrize(
        ("group", "file", "text"),
        [
            ("0::/shop.slice\n", "shop.slice/memory.events", "low 0\noom 3\noom_kill 2\n"),
            ("4:memory:/shop\n0::/\n", "memory/shop/memory.oom_control", "under_oom 0\noom_kill 2\n"),
            ("4:memory:/of/the/host\n", "memory/memory.oom_control", "oom_kill_disable 0\noom_kill 2\n"),
        ],
        ids=["v2", "v1", "v1 in a container"],
    )
    def test_the_kernel_s_count(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, file: str, text: str
    ) -> None:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
        (tmp_path / "own").write_text(group)
        monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path)
        monkeypatch.setattr(memory, "OWN_GROUP", tmp_path / "own")
        assert memory.kills_in_control_group() == 2

    def test_no_count(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path)
        assert memory.kills_in_control_group() is None


class TestWear:
    def test_by_runs(self, watched: Watched) -> None:
        wear = memory.Wear(watched.table, 10, None)
        watched.table.words[table.DONE] = 9
        wear.look()
        assert watched.table.words[table.WORN] == 0
        watched.table.words[table.DONE] = 10
        wear.look()
        assert watched.table.words[table.WORN] == table.WORN_OUT

    @pytest.mark.parametrize(("most", "worn"), [(1 << 50, 0), (1 << 20, table.GROWN)])
    def test_by_memory(self, watched: Watched, most: int, worn: int) -> None:
        memory.Wear(watched.table, None, most).look()
        assert watched.table.words[table.WORN] == worn

    def test_memory_is_not_asked_for_all_the_time(self, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[int] = []
        monkeypatch.setattr(memory, "resident", lambda pid: asked.append(pid) or 1)
        wear = memory.Wear(watched.table, None, 1 << 50)
        for _ in range(100):
            wear.look()
        assert len(asked) < 5
