"""What keeps the rows true without a task asking: due runs promoted, dead workers' runs rescued, history pruned.

Everything here may run in any number of supervisors at once, at any time, and may be killed at any point.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Min
from django.utils import timezone

from django_taskq import clock, conf, flow, registry
from django_taskq.brokers import get_broker
from django_taskq.brokers.database import limit_verbs, uniqueness, workflow_verbs
from django_taskq.brokers.database.admission import tend
from django_taskq.brokers.database.broker import DatabaseBroker, get_dialect, give_back
from django_taskq.brokers.database.following import hand_over
from django_taskq.charging import Death, charge
from django_taskq.conflicts import persist
from django_taskq.exceptions import TaskqError
from django_taskq.gates import AT_GATE, is_gated
from django_taskq.message import Action, Outcome
from django_taskq.models import (
    Command,
    CommandReply,
    Limit,
    Permit,
    ScheduleTick,
    TaskAttempt,
    TaskRecord,
    Worker,
    WorkerProcess,
)
from django_taskq.models.clock import database_now, stored
from django_taskq.models.outbox import publication
from django_taskq.models.task import TaskQuerySet
from django_taskq.status import Status
from django_taskq.worker import identity, reaping
from django_taskq.worker.recorder import tell

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
        return _promote(using, list(due.values_list(*_PROMOTED)[:PROMOTED_AT_ONCE]))
    with transaction.atomic(using=using):
        locked = due.select_for_update(skip_locked=True)
        return _promote(using, list(locked.values_list(*_PROMOTED)[:PROMOTED_AT_ONCE]))


_PROMOTED = ("pk", "queue_name", "headers")


def _promote(using: str, rows: Sequence[tuple[UUID, str, str | None]]) -> int:
    if not rows:
        return 0
    free = [pk for pk, _, headers in rows if not is_gated(headers)]
    due = records(using).filter(status=Status.SCHEDULED)
    count = due.filter(pk__in=free).update(status=Status.READY, **publication(using)) if free else 0
    if len(free) < len(rows):
        gated = [pk for pk, _, headers in rows if is_gated(headers)]
        with transaction.atomic(using=using):
            count += due.filter(pk__in=gated).update(status=Status.WAITING, waits_at=AT_GATE)
            Permit.objects.using(using).put_at_gates(gated)
    get_dialect(using).wake(connections[using], sorted({name for _, name, _ in rows}))
    return count


def seconds_until_due() -> float | None:
    """Seconds until the next delayed run is due (0 for overdue); None when there is none."""
    using = conf.get_settings().database
    scheduled = records(using).filter(status=Status.SCHEDULED).order_by("run_after")
    row = scheduled.annotate(now=database_now(using)).values_list("run_after", "now").first()
    return None if row is None else max(0.0, (row[0] - row[1]).total_seconds())


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
            death = _with_whole_batches(death, held)
            started = held.filter(claim__in=list(death.running or ()))
        verdicts = [charge(record, death) for record in started.order_by("id")]
        wake = {outcome.delivery.queue_name for outcome in verdicts if outcome and outcome.action is Action.RELEASED}
        get_dialect(using).wake(connections[using], sorted(wake))
        give_back(using, death.process_id, is_suspect=death.running is None)
    return verdicts


def _with_whole_batches(death: Death, held: TaskQuerySet) -> Death:
    """Whose slot table names the last call of each batch alone: the others were started in the same moment."""
    names = registry.batch_names()
    if not names or not death.running:
        return death
    running, errors = set(death.running), dict(death.errors)
    batches = held.filter(claim__in=list(running), name__in=names, started_at__isnull=False)
    for last, name, started_at in list(batches.values_list("claim", "name", "started_at")):
        members = held.filter(name=name, started_at=started_at).values_list("claim", flat=True)
        others = {claim for claim in members if claim is not None}
        running |= others
        if last is not None and last in death.errors:
            errors |= dict.fromkeys(others, death.errors[last])
    return replace(death, running=running, errors=errors)


def end_runs(process_id: int, errors: Mapping[int, TaskqError]) -> list[Outcome]:
    """End runs with these errors, by claim, while their process lives: what they still return is refused.

    Returns those that had not ended by themselves.
    """
    using, broker = conf.get_settings().database, get_broker()
    broker.adopt(process_id, list(errors))
    # Read outside: SQLite refuses a transaction that read before another one wrote.
    mine = records(using).held_by([process_id])
    death = _with_whole_batches(Death(process_id, "", list(errors), errors), mine)
    held = list(mine.filter(claim__in=list(death.errors)).order_by("id"))
    with transaction.atomic(using=using):
        outcomes = [outcome for record in held if (outcome := charge(record, death)) is not None]
        hand_over(DatabaseBroker(using), process_id, [outcome.delivery.id for outcome in outcomes])
    for outcome in outcomes:
        tell(outcome)
    return outcomes


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


def admit_arrivals() -> int:
    """Let past limits whoever may of those that are new there; returns how many. Cheap where nobody is."""
    return DatabaseBroker(conf.get_settings().database).admit()


def tend_limits() -> float | None:
    """Let past limits whoever may by now, and take back permits of runs that are gone.

    Returns the seconds until the next one opens; None where nobody waits for that.
    """
    return tend(DatabaseBroker(conf.get_settings().database))


def declare_limits(at_most: int | None = None) -> int:
    """Have the limits be as the code declares that starts now, ``at_most`` so many; returns how many that changed."""
    return limit_verbs.declare(conf.get_settings().database, flow.all_declared(), at_most=at_most)


def next_opening() -> float | None:
    """When the next limit opens that somebody waits for, in POSIX seconds."""
    limits = Limit.objects.using(conf.get_settings().database)
    opens_at: float | None = limits.aggregate(next=Min("opens_at"))["next"]
    return opens_at


def look_after_workflows() -> int:
    """Move on the workflows that should have moved and have not; returns for how many steps that was tried."""
    return workflow_verbs.look_after(conf.get_settings().database)


def prune(*, at_most: int | None = None, dry_run: bool = False) -> int:
    """Delete finished runs past their retention, oldest first, in short transactions; returns how many.

    Registry rows of workers that stopped, due times decided, and commands issued longer ago than the longest retention
    go too, and so do keys of unique runs that have ended, and limits that nobody stands at.
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
    uniqueness.prune(using)
    limit_verbs.prune(using, keep=[gate.key for gate in flow.all_declared()])
    longest = max(settings.result_expires or timedelta(0), settings.failure_expires or timedelta(0), timedelta(days=1))
    Worker.objects.using(using).filter(stopped_at__lt=now - longest).delete()
    ScheduleTick.objects.using(using).filter(decided_at__lt=now - longest)._raw_delete(using)
    old_commands = Command.objects.using(using).filter(issued_at__lt=now - longest)
    with transaction.atomic(using=using):
        CommandReply.objects.using(using).filter(command__in=old_commands)._raw_delete(using)
        old_commands._raw_delete(using)
    return count
