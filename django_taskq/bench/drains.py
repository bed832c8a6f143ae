"""Rates: how fast runs go in, and how fast they come out."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from django_taskq import Task
from django_taskq.bench import history, rows
from django_taskq.bench.plan import Figure, Plan
from django_taskq.bench.raw import connect
from django_taskq.bench.raw.store import INSERT_SIZE
from django_taskq.bench.raw.worker import drain_rate
from django_taskq.bench.stage import Stage, raw_rows
from django_taskq.bench.tasks import batched, keyed, limited_to_3, limited_to_100, noop
from django_taskq.bench.workers import BenchWorker, WorkerFailed


def measure_enqueue(stage: Stage) -> dict[str, Figure]:
    """One by one, and in bulk; the bare store's single-row commits, and its batches."""
    single, bulk = Figure("enqueue, one by one", "runs/s"), Figure("enqueue_many of 5000", "runs/s")
    for number in range(stage.plan.repeat):
        stage.tell(f"enqueue {number + 1}/{stage.plan.repeat}")
        _clear(stage)
        single.all.append(enqueue_singly(noop, stage.plan.single_runs))
        single.raw_all.append(insert_singly(stage))
        _clear(stage)
        _, seconds = rows.fill(stage.plan.runs)
        bulk.all.append(stage.plan.runs / seconds)
        bulk.raw_all.append(stage.plan.runs / _insert_in_batches(stage))
    _clear(stage)
    return {"enqueue": single, "enqueue_many": bulk}


def measure_drain(stage: Stage) -> dict[str, Figure]:
    """A full queue and an otherwise empty table."""
    figure, wall = Figure("drain", "runs/s"), Figure("drain, by the wall clock", "runs/s")
    for number in range(stage.plan.repeat):
        stage.tell(f"drain {number + 1}/{stage.plan.repeat}")
        _clear(stage)
        _drain_once(stage, figure, wall)
    return {"drain": figure, "drain_wall": wall}


def measure_drain_beside(stage: Stage) -> dict[str, Figure]:
    """The same beside many finished and waiting rows."""
    plan = stage.plan
    stage.tell(f"making {plan.history:,} finished and {plan.waiting:,} waiting rows")
    _clear(stage)
    history.make(plan.history, plan.waiting, time.time())
    stage.tell("copying them to the raw table")
    stage.raw.copy_rows()
    history.rest()
    figure = Figure("drain, beside history", "runs/s")
    for number in range(plan.repeat):
        stage.tell(f"drain beside history {number + 1}/{plan.repeat}")
        _drain_once(stage, figure, Figure("", ""))
    return {"drain_history": figure}


LIMITED: dict[str, tuple[str, Task[[int], int]]] = {
    "limited_to_3": ("drain, 3 at once", limited_to_3),
    "limited_to_100": ("drain, 100 at once", limited_to_100),
    "keyed": ("drain, 3 at once of 1,000 keys", keyed),
    "batched": ("drain, in batches of 100", batched),
}


def measure_limits(stage: Stage, clear: Callable[[], None] | None = None) -> dict[str, Figure]:
    """Runs of limited tasks, and of one in batches, beside the same of a plain task.

    ``clear`` is for where there is more to empty than tables.
    """
    clear = clear or partial(_clear, stage)
    figures = {name: Figure(title, "runs/s", beside="plain") for name, (title, _) in LIMITED.items()}
    for number in range(stage.plan.repeat):
        for name, (_, task) in LIMITED.items():
            stage.tell(f"drain {name} {number + 1}/{stage.plan.repeat}")
            plain, unused = Figure("", ""), Figure("", "")
            for chosen, figure in ((noop, plain), (task, figures[name])):
                clear()
                first_id, _ = rows.fill(stage.plan.runs, chosen)
                drain_rows(stage.plan, first_id, figure, unused, chosen)
            figures[name].raw_all += plain.all
    clear()
    return figures


def losses(figures: dict[str, Figure]) -> dict[str, float]:
    """What part of the rate is lost beside history, here and with the bare store."""
    plain, beside = figures["drain"], figures["drain_history"]
    found = {}
    for name, before, after in (("drain", plain.value, beside.value), ("raw", plain.raw, beside.raw)):
        if before and after is not None:
            found[name] = 1 - after / before
    return found


def _drain_once(stage: Stage, figure: Figure, wall: Figure) -> None:
    plan = stage.plan
    first_id, _ = rows.fill(plan.runs)
    _insert_in_batches(stage)
    drain_rows(plan, first_id, figure, wall)
    figure.raw_all.append(drain_rate(partial(connect, stage.access), plan.processes))


def drain_rows(plan: Plan, first_id: str, figure: Figure, wall: Figure, task: Task[[int], int] = noop) -> None:
    """Have a worker do the runs that were enqueued, from ``first_id`` on, and note both rates."""
    rows.settle()
    with BenchWorker(plan.processes, plan.threads, "--burst") as worker:
        took = worker.wait(60 + plan.runs / 100)
    done = rows.drained_since(first_id, task)
    if done.successful != plan.runs:
        raise WorkerFailed(f"only {done.successful:,} of {plan.runs:,} runs are successful with a result")
    figure.all.append((plan.runs - 1) / done.seconds)
    wall.all.append(plan.runs / took)


def _clear(stage: Stage) -> None:
    rows.empty()
    stage.raw.empty()
    rows.settle()


def enqueue_singly(task: Task[[int], int], count: int) -> float:
    """Calls per second, each waiting for the one before it."""
    began = time.perf_counter()
    for number in range(count):
        task.enqueue(number)
    return count / (time.perf_counter() - began)


def insert_singly(stage: Stage) -> float:
    """Rows per second of the bare store, each in a commit of its own."""
    made = raw_rows(stage.plan.single_runs)
    began = time.perf_counter()
    for row in made:
        stage.raw.insert_one(row)
    return len(made) / (time.perf_counter() - began)


def _insert_in_batches(stage: Stage) -> float:
    made = raw_rows(stage.plan.runs)
    began = time.perf_counter()
    for start in range(0, len(made), INSERT_SIZE):
        stage.raw.insert_many(made[start : start + INSERT_SIZE])
    return time.perf_counter() - began
