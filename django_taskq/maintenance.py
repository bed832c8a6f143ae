"""What keeps the rows true without a task asking: due runs promoted, dead workers' runs rescued, history pruned.

Everything here may run in any number of supervisors at once, at any time, and may be killed at any point.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from django.db import connections, transaction
from django.utils import timezone

from django_taskq import clock, conf, registry
from django_taskq.brokers import get_broker
from django_taskq.brokers.database import workflow_verbs
from django_taskq.brokers.database.broker import UNCLAIMED, get_dialect, give_back, to_delivery
from django_taskq.conflicts import persist
from django_taskq.exceptions import PoisonTask, TaskCancelled, TaskqError, WorkerLost
from django_taskq.message import Action, ErrorText, Outcome
from django_taskq.models import Command, CommandReply, ScheduleTick, TaskAttempt, TaskRecord, Worker, WorkerProcess
from django_taskq.models.clock import database_now, stored
from django_taskq.models.outbox import publication
from django_taskq.models.task import AttemptKind, TaskQuerySet
from django_taskq.status import Status
from django_taskq.worker import identity, reaping
from django_taskq.worker.recorder import tell

MAX_CRASHES = 3
PROMOTED_AT_ONCE = 1000
PRUNED_AT_ONCE, PRUNED_UNDER_LOCK = 1000, 200


def records(using: str | None = None) -> TaskQuerySet:
    """All runs, on the database that holds them."""
    found: TaskQuerySet = TaskRecord.objects.using(using or conf.get_settings().database)
    return found


def promote_due() -> int:
    """SCHEDULED -> READY for what is due; returns how many. Several supervisors share the work."""
    using = conf.get_settings().database
    connection = connections[using]
    due = records(using).due().order_by("run_after")
    if not connection.features.has_select_for_update_skip_locked:
        # SQLite: the look takes no lock, and the write is the first statement of its own transaction.
        return _promote(using, list(due.values_list("pk", "queue_name")[:PROMOTED_AT_ONCE]))
    with transaction.atomic(using=using):
        locked = due.select_for_update(skip_locked=True)
        return _promote(using, list(locked.values_list("pk", "queue_name")[:PROMOTED_AT_ONCE]))


def _promote(using: str, rows: Sequence[tuple[object, str]]) -> int:
    if not rows:
        return 0
    chosen = records(using).filter(pk__in=[pk for pk, _ in rows], status=Status.SCHEDULED)
    count = chosen.update(status=Status.READY, **publication(using))
    get_dialect(using).wake(connections[using], sorted({name for _, name in rows}))
    return count


def seconds_until_due() -> float | None:
    """Seconds until the next delayed run is due (0 for overdue); None when there is none."""
    using = conf.get_settings().database
    scheduled = records(using).filter(status=Status.SCHEDULED).order_by("run_after")
    row = scheduled.annotate(now=database_now(using)).values_list("run_after", "now").first()
    return None if row is None else max(0.0, (row[0] - row[1]).total_seconds())


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker process ended: ``running`` are the claims it had started, None when nobody knows.

    ``errors`` are what some of them end with, such as those that ran into their hard limit; with a
    :exc:`TaskCancelled` it is charged nothing. ``is_charged`` is False when the process was killed for reasons that
    are not its runs' fault.
    """

    process_id: int
    cause: str
    running: Collection[int] | None
    errors: Mapping[int, TaskqError] = field(default_factory=dict)
    is_charged: bool = True


def settle_death(death: Death) -> None:
    """Charge a dead process's started runs, give back the others, and close its registry row."""
    using, broker = conf.get_settings().database, get_broker()
    if death.running:
        broker.adopt(death.process_id, death.running)
    verdicts = persist(using, lambda: _write_death(death, using))
    broker.rescue_messages(death.process_id, is_suspect=death.running is None)
    for outcome in verdicts:
        if outcome is not None:
            tell(outcome)


def _write_death(death: Death, using: str) -> list[Outcome | None]:
    with transaction.atomic(using=using):
        # The write comes first: SQLite refuses a transaction that read before another one wrote.
        WorkerProcess.objects.using(using).filter(pk=death.process_id).update(stopped_at=timezone.now())
        held = records(using).held_by([death.process_id])
        if death.running is None:
            started = held.filter(started_at__isnull=False)
        else:
            started = held.filter(claim__in=list(death.running))
        verdicts = [charge(record, death) for record in started.order_by("id")]
        wake = {outcome.delivery.queue_name for outcome in verdicts if outcome and outcome.action is Action.RELEASED}
        get_dialect(using).wake(connections[using], sorted(wake))
        give_back(records(using).held_by([death.process_id]), using, is_suspect=death.running is None)
    return verdicts


def end_runs(process_id: int, errors: Mapping[int, TaskqError]) -> list[Outcome]:
    """End runs with these errors, by claim, while their process lives: what they still return is refused.

    Returns those that had not ended by themselves.
    """
    using, broker = conf.get_settings().database, get_broker()
    broker.adopt(process_id, list(errors))
    death = Death(process_id, "", list(errors), errors)
    # Read outside: SQLite refuses a transaction that read before another one wrote.
    held = list(records(using).held_by([process_id]).filter(claim__in=list(errors)).order_by("id"))
    with transaction.atomic(using=using):
        outcomes = [outcome for record in held if (outcome := charge(record, death)) is not None]
    for outcome in outcomes:
        tell(outcome)
    return outcomes


def charge(record: TaskRecord, death: Death) -> Outcome | None:
    """Count a crash against a run that had started, and say what comes of it; None when nothing is to be written."""
    using = record._state.db or conf.get_settings().database
    error = _verdict(record, death)
    if error is None:
        return None
    cls = type(error)
    text = ErrorText(f"{cls.__module__}.{cls.__qualname__}", str(error))
    outcome = Outcome(to_delivery(record), Action.RELEASED, finished_at=time.time(), error=text)
    mine = records(using).filter(pk=record.pk, status=Status.RUNNING, worker_id=death.process_id, claim=record.claim)
    crashes = record.crashes + (not isinstance(error, TaskCancelled))
    # The row first: whoever finds that the claim was lost meanwhile has nothing to say.
    if isinstance(error, WorkerLost) and _starts_again(record):
        is_mine = mine.update(status=Status.READY, crashes=crashes, **UNCLAIMED, **publication(using))
    else:
        is_cancelled = record.cancel_requested_at is not None or isinstance(error, TaskCancelled)
        outcome.action = Action.CANCELLED if is_cancelled else Action.FAILED
        is_mine = mine.update(
            status=Status.CANCELLED if is_cancelled else Status.FAILED,
            crashes=crashes,
            started_at=record.started_at or timezone.now(),
            finished_at=database_now(using),
            reason="TaskCancelled" if is_cancelled else text.summary,
        )
    if not is_mine:
        return None
    if not isinstance(error, TaskCancelled):
        record.attempt_set.add(_crash(record, text, death), bulk=False)
    return outcome


def _verdict(record: TaskRecord, death: Death) -> Exception | None:
    if record.claim is not None and record.claim in death.errors:
        return death.errors[record.claim]
    if not _is_repeatable(record):
        return WorkerLost(f"{death.cause}; acks_late=False, so it is not started again")
    if not death.is_charged:
        return None
    if record.crashes + 1 >= MAX_CRASHES:
        return PoisonTask(f"it took its worker process down {MAX_CRASHES} times, the last time: {death.cause}")
    return WorkerLost(death.cause)


def _is_repeatable(record: TaskRecord) -> bool:
    task = registry.find(record.name)
    return task is None or task.options.acks_late


def _starts_again(record: TaskRecord) -> bool:
    return _is_repeatable(record) and record.cancel_requested_at is None


def _crash(record: TaskRecord, error: ErrorText, death: Death) -> TaskAttempt:
    process = WorkerProcess.objects.using(record._state.db).filter(pk=death.process_id).first()
    return TaskAttempt(
        attempt=record.attempt,
        kind=AttemptKind.CRASHED,
        worker=str(process) if process else f"#{death.process_id}",
        started_at=record.started_at,
        finished_at=timezone.now(),
        class_path=error.class_path,
        message=error.message,
    )


ReadTable = Callable[[Path], Collection[int] | None]


def rescue_dead_workers(own_id: int, read_table: ReadTable, *, include_remote: bool = True) -> int:
    """Settle every worker that is certainly dead (same host) or whose lease has ended (others); returns how many.

    ``read_table`` gives the started claims from a dead process's slot table, or None where there is none.
    """
    using = conf.get_settings().database
    here = identity.current()
    rescued = 0
    for worker in Worker.objects.using(using).filter(stopped_at=None).exclude(pk=own_id):
        if here.shares_processes_with(worker.boot_id, worker.pid_namespace):
            # On one host the process table tells; a lease may end while a task holds SQLite's write lock.
            if identity.is_alive(worker.pid, worker.pid_started):
                continue
        elif not include_remote or not Worker.objects.using(using).lapsed().filter(pk=worker.pk).exists():
            continue
        is_local = here.shares_processes_with(worker.boot_id, worker.pid_namespace)
        rescue_worker(worker, read_table if is_local else (lambda path: None), is_local=is_local)
        rescued += 1
    return rescued


def rescue_strays() -> int:
    """Settle what was claimed under the name of a process after that was settled; returns for how many processes.

    A host that was frozen goes on for a moment before it learns that it was taken for dead. And a database may carry
    out a claim that had been waiting for a lock when its process was killed.
    """
    settings = conf.get_settings()
    long_ago = timezone.now() - timedelta(seconds=settings.lease_duration)
    running = records().filter(status=Status.RUNNING, worker__stopped_at__lt=long_ago)
    strays = list(running.order_by().values_list("worker_id", flat=True).distinct())
    for process_id in strays:
        settle_death(Death(process_id, "its process had been given up", None))
    return len(strays)


def rescue_worker(worker: Worker, read_table: ReadTable, *, is_local: bool) -> None:
    """End what is left of a worker and settle each of its processes."""
    using = conf.get_settings().database
    for process in WorkerProcess.objects.using(using).filter(worker=worker, stopped_at=None):
        if is_local and process.pid is not None and process.pid_started is not None:
            _kill_survivor(process.pid, process.pid_started)
        path = Path(worker.table_path) / f"{process.pk}.slots"
        settle_death(Death(process.pk, f"worker {worker} died", read_table(path) if is_local else None))
        if is_local:
            path.unlink(missing_ok=True)
    Worker.objects.using(using).filter(pk=worker.pk, stopped_at=None).update(stopped_at=timezone.now())
    if is_local:
        # Never recursively: the path is what a row says.
        with suppress(OSError):
            Path(worker.table_path).rmdir()


def _kill_survivor(pid: int, started: int) -> None:
    """A child outlives its supervisor for a moment, or longer while a task holds the GIL: two must not run at once."""
    if identity.is_alive(pid, started):
        left = reaping.family(pid)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        identity.wait_until_gone(pid, started, seconds=5)
        reaping.end(left)
        reaping.end_session(pid)


def look_after_workflows() -> int:
    """Move on the workflows that should have moved and have not; returns for how many steps that was tried."""
    return workflow_verbs.look_after(conf.get_settings().database)


def prune(*, at_most: int | None = None, dry_run: bool = False) -> int:
    """Delete finished runs past their retention, oldest first, in short transactions; returns how many.

    Registry rows of workers that stopped, due times decided, and commands issued longer ago than the longest retention
    go too.
    """
    settings = conf.get_settings()
    using, now = settings.database, stored(clock.now())
    results_before = now - settings.result_expires if settings.result_expires else None
    failures_before = now - settings.failure_expires if settings.failure_expires else None
    doomed = records(using).prunable(results_before, failures_before).order_by("finished_at")
    if dry_run:
        return int(doomed.count())
    count = 0
    # SQLite's one lock is held for as long as a step takes, and its commits cost little.
    step = PRUNED_UNDER_LOCK if get_dialect(using).commits_cheaply else PRUNED_AT_ONCE
    while at_most is None or count < at_most:
        began = time.monotonic()
        room = step if at_most is None else min(step, at_most - count)
        ids = list(doomed.values_list("pk", flat=True)[:room])
        if not ids:
            break
        with transaction.atomic(using=using):
            TaskAttempt.objects.using(using).filter(task_id__in=ids)._raw_delete(using)
            records(using).filter(pk__in=ids, finished_at__isnull=False)._raw_delete(using)
        count += len(ids)
        if len(ids) == step:
            # More follow. Whoever waits for that lock asks for it only now and then, and is to find it free.
            time.sleep(time.monotonic() - began)
    left = None if at_most is None else at_most - count
    count += workflow_verbs.prune(using, results_before, failures_before, at_most=left)
    longest = max(settings.result_expires or timedelta(0), settings.failure_expires or timedelta(0), timedelta(days=1))
    Worker.objects.using(using).filter(stopped_at__lt=now - longest).delete()
    ScheduleTick.objects.using(using).filter(decided_at__lt=now - longest)._raw_delete(using)
    old_commands = Command.objects.using(using).filter(issued_at__lt=now - longest)
    with transaction.atomic(using=using):
        CommandReply.objects.using(using).filter(command__in=old_commands)._raw_delete(using)
        old_commands._raw_delete(using)
    return count
