"""Many callers of few keys at once, whose transactions are rolled back now and then: never two live runs of one key."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections, transaction

from django_taskq import TaskResult, Unique, maintenance, registry
from django_taskq.models import TaskRecord, UniqueKey
from django_taskq.status import FINAL, PENDING, Status
from django_taskq.task import Task
from tests.unit.making import make_task

pytestmark = pytest.mark.django_db(transaction=True)

KEYS = 4
ROUNDS = 5


class RolledBack(Exception):
    pass


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))


def callers() -> int:
    """SQLite lets one of them write at a time, whoever they are."""
    return 64 if connection.vendor == "postgresql" else 16


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    def alone(number: int) -> Any:
        try:
            return work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(alone, range(count)))


def report(key: int, text: str = "") -> None:
    pass


def live_runs(key: int) -> Counter[str]:
    """How many of one key wait and run, by one statement."""
    rows = TaskRecord.objects.filter(payload__startswith=f"[[{key},").exclude(status__in=FINAL)
    return Counter("waits" if status in PENDING else "runs" for status in rows.values_list("status", flat=True))


def call(task: Task[Any, Any], number: int) -> list[TaskResult[Any]]:
    """What one caller's transactions have committed."""
    rng = random.Random(number)
    results: list[TaskResult[Any]] = []
    for _ in range(ROUNDS):
        keys = rng.choices(range(KEYS), k=rng.choice((1, 1, 1, 3)))
        try:
            with transaction.atomic():
                made = task.enqueue_many([((key, "some text"), {}) for key in keys])
                if rng.random() < 0.4:
                    raise RolledBack
        except RolledBack:
            continue
        results += made
        for key in keys:
            found = live_runs(key)
            assert found["runs"] <= 1
            assert found["waits"] <= 1
    return results


class Work:
    """What workers do: runs start and end, one of a key at a time, as its gate would have it; and keys are pruned."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def go_on(self, rng: random.Random) -> list[TaskResult[Any]]:
        for _ in range(ROUNDS * 3):
            ours = TaskRecord.objects.filter(payload__startswith=f"[[{rng.randrange(KEYS)},")
            with self._lock:
                if not ours.filter(status=Status.RUNNING).update(status=Status.SUCCESSFUL):
                    ours.filter(status__in=PENDING).update(status=Status.RUNNING)
            maintenance.prune()
        return []


def test_exactly_one_live_run_a_key() -> None:
    task = make_task(report, unique=["key"])
    made = [result for some in in_threads(callers(), lambda number: call(task, number)) for result in some]
    assert [live_runs(key) for key in range(KEYS)] == [Counter(waits=1)] * KEYS
    rows = {str(pk) for pk in TaskRecord.objects.values_list("pk", flat=True)}
    assert {result.id for result in made} == rows
    assert len([result for result in made if not result.is_duplicate]) == len(rows) == KEYS


@pytest.mark.parametrize("policy", ["return", "replace", "latest"])
def test_also_while_runs_end_and_keys_are_pruned(policy: str) -> None:
    task = make_task(report, unique=Unique(by=["key"], on_duplicate=policy))

    work = Work()

    def act(number: int) -> list[TaskResult[Any]]:
        return call(task, number) if number % 8 else work.go_on(random.Random(number))

    made = [result for some in in_threads(callers(), act) for result in some if not result.is_duplicate]
    rows = TaskRecord.objects.all()
    assert {str(pk) for pk in rows.values_list("pk", flat=True)} == {result.id for result in made}
    assert len(made) == rows.count() >= KEYS
    # The key is that of the run that waits, or else of the one that goes on.
    held = set(UniqueKey.objects.values_list("task_id", flat=True))
    for key in range(KEYS):
        live = rows.filter(payload__startswith=f"[[{key},").exclude(status__in=FINAL)
        last = live.filter(status__in=PENDING).first() or live.first()
        assert last is None or last.pk in held
