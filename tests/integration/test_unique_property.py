"""Random calls, starts and ends of unique runs, held against a model of ten lines."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from django_taskq import Unique, clock, maintenance, registry, testing
from django_taskq.message import Delivery
from django_taskq.models import TaskRecord
from django_taskq.status import FINAL, Status
from tests.unit.making import make_task
from tests.unit.working import claim, run

pytestmark = [pytest.mark.one_database, pytest.mark.django_db]

STEPS = 80
# Seconds: next to them, and to the shortest wait, what the test itself takes is nothing.
QUIET = 1000
POLICIES = {
    "return": Unique(by=["key"]),
    "replace": Unique(by=["key"], on_duplicate="replace"),
    "latest": Unique(by=["key"], on_duplicate="latest"),
    "debounce": Unique(by=["key"], debounce=QUIET),
}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))


@dataclass(slots=True)
class Model:
    """What one key's calls are to come to: the arguments of the run that waits, since when it may start, who runs."""

    policy: str
    waiting: int | None = None
    due: int = 0
    running: int | None = None
    began: list[int] = field(default_factory=list)

    def call(self, number: int, now: int) -> None:
        if self.policy in ("return", "replace") and self.running is not None:
            return
        if self.waiting is None or self.policy != "return":
            self.waiting = number
        if self.policy == "debounce":
            self.due = now + QUIET

    def start(self, now: int) -> None:
        if self.waiting is not None and self.running is None and self.due <= now:
            self.running, self.waiting = self.waiting, None
            self.began.append(self.running)

    def end(self) -> None:
        self.running = None


class Real:
    """The same with rows."""

    def __init__(self, policy: str) -> None:
        self.began: dict[int, list[int]] = {0: [], 1: []}
        self.task = make_task(lambda key, number: None, name="noted", unique=POLICIES[policy])
        self.held: dict[int, Delivery] = {}

    def start(self) -> None:
        maintenance.promote_due()
        maintenance.tend_limits()
        for delivery in claim():
            key, number = TaskRecord.objects.get(pk=delivery.id).args
            assert key not in self.held
            self.held[key] = delivery
            self.began[key].append(number)

    def end(self, key: int) -> None:
        if key in self.held:
            assert run([self.held.pop(key)]) == []

    def live(self, key: int) -> dict[str, Any]:
        rows = [row for row in TaskRecord.objects.exclude(status__in=FINAL) if row.args[0] == key]
        found: dict[str, Any] = {"waiting": None, "running": None}
        for row in rows:
            name = "running" if row.status == Status.RUNNING else "waiting"
            assert found[name] is None, "two of a kind"
            found[name] = row.args[1]
        return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("policy", list(POLICIES))
def test_whatever_comes_in_whatever_order(policy: str, seed: int) -> None:
    rng, now = random.Random(f"{policy} {seed}"), 0
    real, models = Real(policy), [Model(policy), Model(policy)]
    with testing.clock():
        for step in range(STEPS):
            key = rng.randrange(2)
            match rng.choice(("call", "many", "start", "start", "end", "wait", "wait")):
                case "call":
                    real.task.enqueue(key, step)
                    models[key].call(step, now)
                case "many":
                    calls = [(rng.randrange(2), step * 1000 + number) for number in range(3)]
                    real.task.enqueue_many([(args, {}) for args in calls])
                    for some, number in calls:
                        models[some].call(number, now)
                case "start":
                    real.start()
                    for model in models:
                        model.start(now)
                case "end":
                    real.end(key)
                    models[key].end()
                case "wait":
                    now += rng.choice((100, QUIET // 2, QUIET))
                    clock.move(timedelta(seconds=now))
            for number, model in enumerate(models):
                assert real.live(number) == {"waiting": model.waiting, "running": model.running}
    assert [real.began[number] for number in (0, 1)] == [model.began for model in models]
    assert all(model.began for model in models)
