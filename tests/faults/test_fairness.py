"""A short run never waits behind a long one while another process is free, whatever they have prefetched."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.faults.history import History, wait_until_finished
from tests.faults.processes import waited_for_processor
from tests.testapp.tasks import note
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

SHORT = 200


def longest_pause(history: History, since: float) -> float:
    """The longest time after ``since`` in which no short run was under way, up to the last of them."""
    lines = [line for line in history.lines() if line.key.isdigit() and line.at > since]
    times = [since, *sorted(line.at for line in lines)]
    return max((after - before for before, after in pairwise(times)), default=0)


@pytest.mark.parametrize("how", ["sleep", pytest.param("gil", marks=pytest.mark.one_database)])
@pytest.mark.parametrize("place", [0, pytest.param(SHORT // 2, marks=pytest.mark.whole), SHORT])
def test_short_runs_do_not_wait_behind_a_long_one(
    worker: Callable[..., WorkerProcess], history: History, place: int, how: str
) -> None:
    # Given two processes that have learnt that runs are short
    process = worker("--processes", "2")
    wait_for(lambda: len(process.children()) == 2)
    note.enqueue_many([((history.path, f"warm{number}", 0.0005), {}) for number in range(1000)])
    wait_until_finished()
    assert len({line.pid for line in history.lines()}) == 2, "both of them have learnt"

    # When a long one comes among many short ones
    waited = waited_for_processor(process)
    calls = [((history.path, str(number), 0.001), {}) for number in range(SHORT)]
    calls.insert(place, ((history.path, "long", 5, how), {}))
    note.enqueue_many(calls)

    # Then it keeps nobody
    wait_for(lambda: len([key for key in history.counts("end") if key.isdigit()]) == SHORT, 20, process.log)
    waited = waited_for_processor(process) - waited
    long = history.wait_for("start", "long")
    assert not history.count("end", "long"), "it ended before the short ones"
    idle = longest_pause(history, since=long.at)
    print(f"\n{how}, {place} before it: nothing started for {idle:.2f} s; {waited:.2f} s lacked a processor")
    assert idle - waited < 0.5
    process.kill_tree()
    assert all(count == 1 for count in history.counts("start").values())
