"""Named points at which a worker process, or its supervisor, kills itself: what a power cut does at the worst moment.

Workers with the settings ``tests.faults.crash_settings`` have every point built in. One is armed by a file of its name
in the directory ``TASKQ_TEST_CRASH_POINTS``, which says how often it may be passed; whoever passes it for that time
renames the file, leaves its pid in it and dies of SIGKILL. So each arming kills one process, once.
"""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.process import parent_process
from pathlib import Path
from typing import Any, Literal, NamedTuple

from django_taskq.message import Action

DIRECTORY, LEDGER = "TASKQ_TEST_CRASH_POINTS", "TASKQ_TEST_LEDGER"
BROKERS = ("database", "redis", "rabbitmq")
DEPOTS = ("redis", "rabbitmq")


class Passing(NamedTuple):
    """A call of a point's function; ``result`` is None before it."""

    args: tuple[Any, ...]
    result: Any


@dataclass(frozen=True, slots=True)
class Point:
    """``target`` is ``module:name``; ``who`` dies right before or after it, if ``is_it`` says so of the call.

    ``work`` says what brings somebody there: see test_crash_points.py. ``brokers`` are those where it comes about.
    """

    name: str
    target: str
    when: Literal["before", "after"]
    who: Literal["child", "supervisor"]
    work: str = "runs"
    is_it: Callable[[Passing], bool] = lambda passing: True
    brokers: tuple[str, ...] = BROKERS


def has(position: int) -> Callable[[Passing], bool]:
    """Calls whose argument at this position is not empty."""
    return lambda passing: bool(passing.args[position])


def gives(passing: Passing) -> bool:
    """Calls that return something."""
    return bool(passing.result)


def records(action: Action) -> Callable[[Passing], bool]:
    """Calls of ``Recorder.record_and_take`` with such an outcome."""
    return lambda passing: any(outcome.action is action for outcome in passing.args[1])


def is_over(passing: Passing) -> bool:
    """Calls of ``Holdings.commit`` that have something to tell."""
    return bool(passing.args[0]._over)


def makes_ready(passing: Passing) -> bool:
    """Calls of ``Advance._hand_on`` with something to hand on."""
    return bool(passing.args[0]._ready)


WORKER, ROWS, OUTBOX = "django_taskq.worker", "django_taskq.brokers.database.broker", "django_taskq.brokers.outbox"
ADVANCING, VERBS = "django_taskq.brokers.database.advancing", "django_taskq.brokers.database.workflow_verbs"
RECORD = f"{WORKER}.recorder:Recorder.record_and_take"
CHILD_POINTS = [
    Point("before-claim", f"{WORKER}.fetcher:Fetcher.fetch", "before", "child"),
    Point("taken-not-claimed", "django_taskq.brokers.intake:Intake._claim_rows", "before", "child", brokers=DEPOTS),
    Point("before-claim-commit", f"{WORKER}.fetcher:Fetcher.fetch", "after", "child", is_it=gives),
    Point("after-claim-commit", f"{WORKER}.courier:Courier._hand_out", "before", "child", is_it=has(1)),
    Point("before-start-mark", f"{WORKER}.table:SlotTable.start", "before", "child"),
    Point("after-start-mark", f"{WORKER}.table:SlotTable.start", "after", "child"),
    Point("after-effect", f"{WORKER}.table:SlotTable.finish", "before", "child"),
    Point("after-end-mark", f"{WORKER}.table:SlotTable.finish", "after", "child"),
    Point(
        "before-start-shown", f"{ROWS}:DatabaseBroker.mark_started", "before", "child", "long"
    ),
    Point(
        "before-finish-commit", RECORD, "after", "child", is_it=records(Action.SUCCESS)
    ),
    Point("after-finish-commit", f"{WORKER}.courier:Courier._account_for", "before", "child", is_it=has(1)),
    Point(
        "before-drop", "django_taskq.brokers.holdings:Holdings.commit", "before", "child", is_it=is_over, brokers=DEPOTS
    ),
    Point(
        "in-retry", RECORD, "after", "child", "retries", is_it=records(Action.RETRY)
    ),
    Point(
        "in-cancel", RECORD, "after", "child", "expired", is_it=records(Action.CANCELLED)
    ),
    Point(
        "before-give-back", f"{ROWS}:DatabaseBroker.release", "before", "child", "blocked",
        is_it=has(2),
    ),
    Point(
        "after-give-back", f"{ROWS}:DatabaseBroker.release", "after", "child", "blocked",
        is_it=gives,
    ),
    Point("before-advance", f"{ROWS}:move_on", "before", "child", "workflows", is_it=has(1)),
    Point("in-advance", f"{ADVANCING}:Advance._hand_on", "before", "child", "workflows", is_it=makes_ready),
    Point("after-advance", f"{ADVANCING}:Advance.after", "after", "child", "workflows"),
    Point("before-next-is-published", f"{OUTBOX}:Outbox.relay", "before", "child", "workflows", brokers=DEPOTS),
    Point("in-growth", f"{ADVANCING}:Advance.grown", "after", "child", "replaced"),
    Point("in-workflow-start", "django_taskq.workflows:_create", "after", "child", "starts"),
    Point(
        "after-workflow-start", "django_taskq.brokers.sending:Sender._publish_committed", "before", "child", "starts",
        brokers=DEPOTS,
    ),
]  # fmt: skip
SUPERVISOR_POINTS = [
    Point("after-sign-on", f"{WORKER}.presence:register", "after", "supervisor", "start"),
    Point("in-spawn", f"{WORKER}.presence:note_pid", "before", "supervisor", "start"),
    Point("before-heartbeat", f"{WORKER}.presence:Presence.work", "before", "supervisor"),
    Point("after-heartbeat", f"{WORKER}.presence:Presence.work", "after", "supervisor"),
    Point("in-promote", "django_taskq.maintenance:_promote", "after", "supervisor", "delayed", is_it=has(1)),
    Point(
        "before-relay", f"{OUTBOX}:Outbox._publish", "before", "supervisor", "delayed", has(2), DEPOTS
    ),
    Point(
        "after-relay", f"{OUTBOX}:Outbox._published", "before", "supervisor", "delayed", has(1), DEPOTS
    ),
    Point("in-charge", "django_taskq.maintenance:charge", "after", "supervisor", "death"),
    Point("after-settle", "django_taskq.maintenance:settle_death", "after", "supervisor", "death"),
    Point(
        "before-messages-rescued", "django_taskq.brokers.mixed:MixedBroker.rescue_messages", "before", "supervisor",
        "death", brokers=DEPOTS,
    ),
    Point("before-rescue", "django_taskq.maintenance:rescue_worker", "before", "supervisor", "rescue"),
    Point("in-rescue", "django_taskq.maintenance:settle_death", "after", "supervisor", "rescue"),
    Point("in-prune", "django_taskq.models.task:TaskQuerySet._raw_delete", "before", "supervisor", "old rows"),
    Point("in-schedule-tick", "django_taskq.scheduler:_write", "after", "supervisor", "schedule"),
    Point("after-schedule-tick", "django_taskq.scheduler:_decide", "after", "supervisor", "schedule", is_it=gives),
    Point("in-look-after", f"{VERBS}:_unstall", "after", "supervisor", "stalled"),
    Point("after-look-after", "django_taskq.maintenance:look_after_workflows", "after", "supervisor", "stalled", gives),
    Point("before-sign-off", f"{WORKER}.presence:Presence.sign_off", "before", "supervisor", "stop"),
]  # fmt: skip
POINTS = [*CHILD_POINTS, *SUPERVISOR_POINTS]


def resolve(target: str) -> tuple[Any, str]:
    """The module or class of a point's function, and its name there. Raises ``AttributeError`` when it is gone."""
    module, _, path = target.partition(":")
    *parents, name = path.split(".")
    holder = functools.reduce(getattr, parents, import_module(module))
    getattr(holder, name)
    return holder, name


def install() -> None:
    """Build all points in, and note what is claimed and what is finished in the ledger."""
    from django_taskq import signals

    directory = Path(os.environ[DIRECTORY])
    for point in POINTS:
        holder, name = resolve(point.target)
        setattr(holder, name, watched(point, getattr(holder, name), directory))
    signals.process_started.connect(_note_process, weak=False)
    signals.task_started.connect(_note_start, weak=False)
    signals.task_finished.connect(_note_end, weak=False)


def watched(point: Point, inner: Callable[..., Any], directory: Path) -> Callable[..., Any]:
    """The function with the point built in."""

    @functools.wraps(inner)
    def passed(*args: Any, **kwargs: Any) -> Any:
        if point.when == "before" and point.is_it(Passing(args, None)):
            come_by(point, directory)
        result = inner(*args, **kwargs)
        if point.when == "after" and point.is_it(Passing(args, result)):
            come_by(point, directory)
        return result

    return passed


_passed: Counter[str] = Counter()


def come_by(point: Point, directory: Path) -> None:
    """Die, if it is armed, enough have passed and nobody else was faster."""
    try:
        allowed = int((directory / point.name).read_text())
    except FileNotFoundError:
        _passed.pop(point.name, None)
        return
    if (parent_process() is None) is (point.who == "child"):
        return
    _passed[point.name] += 1
    if _passed[point.name] < allowed:
        return
    try:
        (directory / point.name).rename(directory / f"{point.name}.claimed")
    except FileNotFoundError:
        return
    (directory / f"{point.name}.claimed").write_text(str(os.getpid()))
    (directory / f"{point.name}.claimed").rename(directory / f"{point.name}.fired")
    os.kill(os.getpid(), signal.SIGKILL)


def arm(directory: Path, name: str, nth: int = 1) -> None:
    """Kill whoever passes this point for the ``nth`` time from now on."""
    (directory / f"{name}.fired").unlink(missing_ok=True)
    draft = directory / f"{name}.draft"
    draft.write_text(str(nth))
    draft.rename(directory / name)


def victim(directory: Path, name: str) -> int:
    """The pid of the process that it killed; 0 as long as there is none."""
    fired = directory / f"{name}.fired"
    return int(fired.read_text()) if fired.exists() else 0


_process_id = 0


def _note_process(process_id: int, **kwargs: object) -> None:
    global _process_id
    _process_id = process_id


def _note_start(delivery: Any, **kwargs: object) -> None:
    _write("claim", f"{_process_id}:{delivery.claim}")


def _note_end(delivery: Any, outcome: Any, **kwargs: object) -> None:
    _write("finished", delivery.id)


def _write(*words: str) -> None:
    from tests.testapp.tasks import write_line

    write_line(os.environ[LEDGER], *words)
