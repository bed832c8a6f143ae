"""The delivery promises, kept under kill -9: at most once, exactly once, and unknown tasks kept for those who know."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from django_taskq import client
from django_taskq.message import Message, new_ids
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.conftest import ROOT
from tests.faults.conftest import ROUNDS
from tests.faults.history import History, unfinished, wait_until_finished
from tests.testapp.models import Effect
from tests.testapp.tasks import note_at_most_once, note_exactly_once, see_own_start
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def test_at_most_once_commits_its_start_first(worker: Start, history: History) -> None:
    # Given a run that is at it, and others of its process that have not started
    process = worker("--processes", "1")
    (child,) = wait_for(process.children)
    note_at_most_once.enqueue_many([((history.path, f"before{number}"), {}) for number in range(20)])
    wait_until_finished()
    running = note_at_most_once.enqueue(history.path, "running", 30)
    others = note_at_most_once.enqueue_many([((history.path, f"after{number}"), {}) for number in range(20)])
    history.wait_for("start", "running")
    row = TaskRecord.objects.get(pk=running.id)
    assert row.status == Status.RUNNING
    assert row.started_at

    # When the process dies
    os.kill(child, signal.SIGKILL)
    wait_until_finished()

    # Then it is not started again, and they are
    row.refresh_from_db()
    assert row.status == Status.FAILED
    assert row.reason.startswith("WorkerLost: ")
    assert history.count("start", "running") == 1
    assert TaskRecord.objects.filter(pk__in=[other.id for other in others], status=Status.SUCCESSFUL).count() == 20
    assert set(history.counts("start").values()) == {1}


def test_a_plain_run_does_not_pay_for_a_committed_start(worker: Start) -> None:
    worker("--processes", "1")
    assert see_own_start.enqueue().get(10) is False


@pytest.mark.parametrize("what", ["child", "everything"])
def test_transactional_effects_happen_exactly_once(worker: Start, history: History, what: str) -> None:
    process = worker("--processes", "2")
    names = [str(number) for number in range(300)]
    note_exactly_once.enqueue_many([((history.path, name, 0.002), {}) for name in names])
    for round_number in range(ROUNDS):
        goal = (round_number + random.random()) / (ROUNDS + 1) * len(names)
        wait_for(lambda goal=goal: history.count("start") > goal or not unfinished(), 60, interval=0.001)
        time.sleep(random.uniform(0, 0.01))  # the point at which to strike
        if what == "child":
            wait_for(process.children)
            os.kill(random.choice(process.children()), signal.SIGKILL)
        else:
            process.kill_tree()
            process = worker("--processes", "2", ready=False)
    wait_until_finished()
    assert TaskRecord.objects.filter(status=Status.SUCCESSFUL).count() == len(names)
    assert sorted(Effect.objects.values_list("name", flat=True)) == sorted(names)
    print(f"\n{history.count('start') - len(names)} of {len(names)} started again")


# An application that a newer release has and an older one has not.
NEW_TASKS = """
from django_taskq import task

@task(name="shop.tasks.brand_new")
def brand_new(x):
    return x + 1
"""


def test_unknown_tasks_wait_for_a_worker_that_knows_them(worker: Start, tmp_path: Path) -> None:
    # Given a run that the worker of an old release cannot do
    from django.utils import timezone

    old = worker("--processes", "1")
    (id,) = new_ids(1)
    client.enqueue([Message(id, "shop.tasks.brand_new", "default", 0, "[[41],{}]", None, timezone.now())])
    row = TaskRecord.objects.filter(pk=id)
    wait_for(lambda: row.filter(status=Status.SCHEDULED).exists(), 10, old.log)
    found = row.get()
    assert found.reason.startswith("UnknownTask: ")
    assert "shop.tasks.brand_new" in found.reason
    assert found.attempt == 1
    assert see_own_start.enqueue().get(10) is False  # others go on
    old.terminate()
    assert old.wait() == 0

    # When one of the new release comes
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "tasks.py").write_text(NEW_TASKS)
    (tmp_path / "new_settings.py").write_text("from tests.settings import *\nINSTALLED_APPS += ['shop']\n")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    worker("--processes", "1", env={"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "new_settings"})

    # Then it does it
    wait_for(lambda: row.filter(status=Status.SUCCESSFUL).exists(), 15)
    assert row.get().return_value == 42
    assert not row.get().reason
