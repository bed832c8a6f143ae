"""Every named crash point, with kill -9 of the process that comes by, on every broker.

After each kill everything goes on: nothing is lost, nothing is recorded as finished twice, no claim starts twice, and
only what a killed process had begun is started again. By default each point is tried on one broker; with
``TASKQ_FAULT_ROUNDS`` above its default on each of them, at two passings.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from django_taskq.canvas import chord
from django_taskq.models import PeriodicTask, ScheduleTick, TaskAttempt, TaskRecord, Workflow
from django_taskq.models.schedule import Decision
from django_taskq.status import Status
from tests.depots.tasks import retry_at_once
from tests.depots.workers_bed import Place, Start, at, on_url, shared_server
from tests.faults.conftest import ROUNDS
from tests.faults.crash_points import (
    BROKERS,
    CHILD_POINTS,
    DIRECTORY,
    LEDGER,
    POINTS,
    SUPERVISOR_POINTS,
    Point,
    arm,
    resolve,
    victim,
)
from tests.faults.history import History, assert_no_orphans, assert_registry_is_clean, crashes, unfinished
from tests.faults.loads import Load, assert_empty
from tests.testapp.fault_canvas_tasks import PLAIN, REPLACE, STEP, WRITE, made
from tests.testapp.fault_canvas_tasks import start as start_workflow
from tests.testapp.models import Effect
from tests.testapp.tasks import nap, note
from tests.unit.making import make_message
from tests.waiting import wait_for
from tests.workers import WorkerProcess

IS_WHOLE = ROUNDS > 2
PATIENCE = 60.0  # seconds; on a busy machine everything takes long, and nothing here is about times
FAST = {"HEARTBEAT_INTERVAL": 0.5, "LEASE_DURATION": 10}


def test_every_point_exists() -> None:
    """A renamed function must not leave a point that nobody ever comes by."""
    assert len({point.name for point in POINTS}) == len(POINTS) >= 15
    for point in POINTS:
        assert callable(getattr(*resolve(point.target)))


def chosen(points: list[Point], broker: str) -> list[tuple[Point, int]]:
    """What to try on this broker, and at which passing."""
    mine = [(place, point) for place, point in enumerate(points) if broker in point.brokers]
    if IS_WHOLE:
        return [(point, nth) for nth in (1, 2) for _, point in mine if nth == 1 or can_be_passed(point)]
    # SQLite and PostgreSQL take different parts.
    turn = connection.vendor == "postgresql"
    return [(point, 1) for place, point in mine if point.brokers[(place + turn) % len(point.brokers)] == broker]


def can_be_passed(point: Point) -> bool:
    """Whether its work brings somebody there more than once."""
    return point.work in ("runs", "long", "delayed", "workflows")


@dataclass(slots=True)
class Sweep:
    """One worker after the other, with some work for whatever point is to be reached, and all that was killed."""

    place: Place
    directory: Path
    load: Load
    others: History
    ledger: History
    workflows: History
    process: WorkerProcess = field(init=False)
    killed: set[int] = field(default_factory=set)
    struck: list[str] = field(default_factory=list)
    expired: int = 0
    retried: int = 0
    started: int = 0
    may_start_twice: set[str] = field(default_factory=set)

    def start(self) -> None:
        env = {
            "DJANGO_SETTINGS_MODULE": "tests.faults.crash_settings",
            DIRECTORY: str(self.directory),
            LEDGER: self.ledger.path,
        }
        self.process = self.place.start("--processes", "2", ready=False, env=env, **FAST)

    def strike(self, point: Point, nth: int) -> None:
        """Have it kill somebody, and everything done all the same."""
        self.load.add(10)
        self.load.wait_until_done(PATIENCE, self.process.log)
        children = self.process.children()
        if point.work == "start":
            self.end()
        elif point.work == "rescue":
            before = self.load.history.count("start")
            self.load.add(2, 0.7)
            self.load.history.wait_for("start", count=before + 1)
            children = self.process.children()
            self.process.kill_tree()
            self.killed.update(children)
        arm(self.directory, point.name, nth)
        if point.work in ("start", "rescue"):
            self.start()
        self.bring(point.work, nth)
        pid = wait_for(
            lambda: victim(self.directory, point.name), PATIENCE, lambda: f"{point.name}\n{self.process.log()}"
        )
        self.killed.add(pid)
        self.struck.append(f"{point.name}/{nth}")
        if point.who == "supervisor":
            assert self.process.wait(PATIENCE) == -9
            self.killed.update(children, self.process.children(), {line.pid for line in self.load.history.lines()})
            self.start()
        PeriodicTask.objects.update(is_enabled=False)
        self.load.wait_until_done(PATIENCE, lambda: f"{self.struck}\n{self.process.log()}")
        self.check()

    def bring(self, work: str, nth: int) -> None:
        """Give cause for coming by the point."""
        if work == "long":
            self.load.add(2 * nth, 0.5)
        elif work == "blocked":
            for _ in range(3):
                self.load.add(150, 0.001)
                self.load.add(1, 1)
            self.load.add(100, 0.001)
        elif work == "retries":
            self.retried += 1
            retry_at_once.enqueue(self.others.path, f"retried{self.retried}", 2)
        elif work == "expired":
            self.expired += 1
            # It has taken longer than this by the time anybody looks at it.
            nap.using(expires=0.000001).enqueue(0)
        elif work == "delayed":
            for _ in range(nth + 1):
                key = f"delayed{len(self.load.tracked)}"
                note.using(countdown=0.05).enqueue(self.load.history.path, key)
                self.load.tracked.append(key)
        elif work == "death":
            arm(self.directory, "after-effect")
            self.load.add(20)
            self.killed.add(wait_for(lambda: victim(self.directory, "after-effect"), PATIENCE, self.process.log))
        elif work == "old rows":
            old = timezone.now() - timedelta(days=400)
            rows = [as_row(number, old) for number in range(30)]
            TaskRecord.objects.bulk_create(rows)
            error = {"attempt": 1, "kind": "FAILED", "class_path": "builtins.OSError", "finished_at": old}
            TaskAttempt.objects.bulk_create([TaskAttempt(task=row, **error) for row in rows])
        elif work == "schedule":
            PeriodicTask.objects.update_or_create(
                name="tick",
                defaults={
                    "task_name": "tests.testapp.tasks.leave_effect",
                    "schedule": "every 1 second",
                    "payload": '[["tick"],{}]',
                    "is_enabled": True,
                },
            )
        elif work in ("workflows", "replaced", "starts", "stalled"):
            self.bring_workflow(work)
        elif work == "stop":
            self.process.wait_ready(PATIENCE)
            self.process.terminate()
        self.load.add(10 * nth)

    def bring_workflow(self, work: str) -> None:
        """A workflow whose last step must have its effect once."""
        self.started += 1
        key, path = f"workflow{self.started}", self.workflows.path
        if work == "starts":
            # If it is killed after that, its successor starts another.
            self.may_start_twice.add(key)
            start_workflow.enqueue(path, key)
            return
        how = REPLACE if work == "replaced" else PLAIN
        first = made(STEP, key, path=path, how=how).set(countdown=3600 if work == "stalled" else 0)
        header = [made(STEP, f"{key}/a{number}", path=path) for number in range(4)]
        result: Any = (first | chord(header, made(WRITE, f"{key}/end", path=path))).enqueue()
        if work == "stalled":
            # It has ended, and whoever ended it has not moved its workflow on.
            ended = {"status": Status.SUCCESSFUL, "started_at": timezone.now(), "finished_at": timezone.now()}
            TaskRecord.objects.filter(workflow_id=result.id, status=Status.SCHEDULED).update(**ended, result="1")

    def check_workflows(self) -> None:
        """Each step was started again only if its process was killed, and each callback left its effect once."""
        assert not Workflow.objects.exclude(status="SUCCESSFUL").exists()
        callbacks = TaskRecord.objects.filter(name=WRITE)
        assert Effect.objects.filter(name__startswith="workflow").count() == callbacks.count()
        seen: dict[str, int] = {}
        for line in self.workflows.lines("start"):
            pid = seen.get(line.key)
            is_excused = pid in self.killed or line.key.partition("/")[0] in self.may_start_twice
            assert pid is None or is_excused, f"{line} was started again"
            seen[line.key] = line.pid

    def check(self) -> None:
        """What must hold after every kill."""
        wait_for(lambda: not TaskRecord.objects.filter(finished_at__lt=year_ago()).exists(), PATIENCE, "pruning")
        assert not TaskAttempt.objects.filter(finished_at__lt=year_ago()).exists()
        cancelled = TaskRecord.objects.filter(status=Status.CANCELLED, name=nap.name)
        assert cancelled.count() == self.expired
        cancelled.delete()
        self.expired = 0
        self.load.assert_done(killed=self.killed)
        self.check_workflows()
        doubled = {key: count for key, count in self.ledger.counts("claim").items() if count > 1}
        assert not doubled, f"claims that started twice: {doubled}"
        doubled = {key: count for key, count in self.ledger.counts("finished").items() if count > 1}
        assert not doubled, f"runs that finished twice: {doubled}"

    def end(self) -> None:
        self.process.wait_ready(PATIENCE)  # until it listens to signals
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0, self.process.log()
        assert_no_orphans(self.process)

    def assert_over(self) -> None:
        """What must hold when all is over, for the work beside the load as well."""
        self.end()
        assert_registry_is_clean()
        assert unfinished() == 0
        assert not TaskRecord.objects.exclude(status=Status.SUCCESSFUL).exists()
        last = Counter(line.key for line in self.others.lines("start"))
        assert set(last) == {f"retried{number + 1}" for number in range(self.retried)}
        assert all(2 <= count <= 3 for count in last.values())
        ticks = ScheduleTick.objects.filter(decision=Decision.ENQUEUED)
        runs = TaskRecord.objects.filter(name="tests.testapp.tasks.leave_effect", status=Status.SUCCESSFUL)
        assert ticks.count() == runs.count() == len(set(ticks.values_list("due_at", flat=True)))
        assert Effect.objects.filter(name="tick").count() >= runs.count()
        if self.place.taskq:
            assert_empty(self.place.depot)


def as_row(number: int, old: object) -> TaskRecord:
    """A run that ended long ago."""
    message = make_message(name="tests.testapp.tasks.add")
    times = {"enqueued_at": old, "started_at": old, "finished_at": old}
    return TaskRecord(
        id=message.id, name=message.name, queue_name="default", status=Status.FAILED, payload="[[],{}]", **times
    )


def year_ago() -> object:
    return timezone.now() - timedelta(days=365)


@pytest.fixture
def sweep(request: pytest.FixtureRequest, worker: Start, tmp_path: Path, broker: str) -> Iterator[Sweep]:
    taskq = {} if broker == "database" else on_url(shared_server(request, broker).url)
    directory = tmp_path / "points"
    directory.mkdir()
    with at(worker, taskq) as place:
        made = Sweep(place, directory, Load(History(tmp_path / "history")), History(tmp_path / "others"),
                     History(tmp_path / "ledger"), History(tmp_path / "workflows"))  # fmt: skip
        made.start()
        yield made


@contextmanager
def timed(sweep: Sweep, broker: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    runs = len(sweep.load.keys)
    again = sum(sweep.load.history.counts("start").values()) - runs
    print(
        f"\n{broker}: {len(sweep.struck)} kills at {', '.join(sweep.struck)}; {runs} runs, {again} started again, "
        f"0 lost, 0 finished twice, 0 claims started twice; {time.monotonic() - began:.0f} s"
    )


ON_BROKERS: Callable[..., pytest.MarkDecorator] = pytest.mark.parametrize(
    "broker",
    [
        pytest.param(name, marks=[] if name == "database" or IS_WHOLE else [pytest.mark.one_database])
        for name in BROKERS
    ],
)


@pytest.mark.django_db(transaction=True)
@ON_BROKERS
def test_a_worker_process_dies(sweep: Sweep, broker: str) -> None:
    with timed(sweep, broker):
        for point, nth in chosen(CHILD_POINTS, broker):
            sweep.strike(point, nth)
        sweep.assert_over()
    assert {kind for _, kind in crashes()} <= {"WorkerLost"}


@pytest.mark.django_db(transaction=True)
@ON_BROKERS
def test_a_supervisor_dies(sweep: Sweep, broker: str) -> None:
    with timed(sweep, broker):
        for point, nth in chosen(SUPERVISOR_POINTS, broker):
            sweep.strike(point, nth)
        sweep.assert_over()
