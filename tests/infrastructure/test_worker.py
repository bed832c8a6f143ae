"""The ``worker`` fixture: tests that kill things rely on its naming every process, and leaving none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.testapp.models import Effect
from tests.testapp.tasks import leave_effect
from tests.waiting import wait_for
from tests.workers import WorkerProcess, is_alive

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]


def test_it_serves_and_stops(worker: Callable[..., WorkerProcess]) -> None:
    process = worker("--processes", "2")
    wait_for(lambda: len(process.children()) == 2, message=process.log)
    leave_effect.enqueue("done")
    effect = wait_for(lambda: Effect.objects.filter(name="done").first(), message=process.log)
    assert effect.pid in process.children()
    process.terminate()
    assert process.wait() == 0
    wait_for(lambda: not process.tree(), 5, "the end of multiprocessing's helpers")


def test_all_of_it_can_be_killed(worker: Callable[..., WorkerProcess]) -> None:
    process = worker("--processes", "1")
    pids = process.tree()
    assert pids[0] == process.pid
    assert {process.pid, *process.children()} <= set(pids)
    process.kill_tree()
    wait_for(lambda: not [pid for pid in pids if is_alive(pid)], 5, "the end of what only wrote its last words")


def test_orphans_are_found(worker: Callable[..., WorkerProcess]) -> None:
    process = worker("--processes", "1")
    process.kill()
    assert process.pid not in process.tree()
    wait_for(lambda: not process.tree(), 15, "the end of the orphans by themselves")
