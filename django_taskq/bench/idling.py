"""A worker with nothing to do: how fast it wakes, what it costs, how soon it is there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from statistics import quantiles

from django_taskq import TaskResult
from django_taskq.bench import processes, rows
from django_taskq.bench.plan import Figure
from django_taskq.bench.raw.worker import bare_worker
from django_taskq.bench.stage import Stage, raw_rows
from django_taskq.bench.tasks import clock
from django_taskq.bench.workers import BenchWorker, WorkerFailed

INTERVAL = 0.05  # seconds between calls whose latency is measured, give or take half
PATIENCE = 60.0
STARTUP_RUNS = 100


def measure_idle_worker(stage: Stage) -> dict[str, Figure]:
    """Memory, then CPU, then latency of one worker; then the same of the smallest possible one."""
    plan = stage.plan
    figures = watch_worker(stage)
    stage.tell("an idle bare process")
    stage.raw.empty()
    with bare_worker(stage.access, stage.raw) as pid:
        _raw_latencies(stage, 1)
        watch(stage, lambda: processes.tree(pid), figures, lambda figure: figure.raw_all)
        if plan.wants("latency"):
            add_latencies(figures, _raw_latencies(stage, plan.latency_runs), lambda figure: figure.raw_all)
    return figures


def watch_worker(stage: Stage) -> dict[str, Figure]:
    """Our half of it."""
    plan = stage.plan
    figures = _figures()
    rows.empty()
    stage.tell("an idle worker")
    with BenchWorker(plan.processes, plan.threads) as worker:
        _first_result(worker, clock.enqueue())
        watch(stage, worker.tree, figures, lambda figure: figure.all)
        if plan.wants("latency"):
            stage.tell(f"latency of {plan.latency_runs} calls")
            add_latencies(figures, _latencies(worker, plan.latency_runs), lambda figure: figure.all)
    return {name: figure for name, figure in figures.items() if figure.all}


def measure_startup(stage: Stage) -> dict[str, Figure]:
    """From the start of the command to the first task of a queue that is full already."""
    figure = Figure("start to first task", "s")
    for number in range(stage.plan.repeat):
        stage.tell(f"start {number + 1}/{stage.plan.repeat}")
        stage.raw.empty()
        figure.all.append(start_worker(stage))
        stage.raw.insert_one(raw_rows(1)[0])
        spawned_at = time.time()
        with bare_worker(stage.access, stage.raw):
            (result,) = _raw_results(stage, 1).values()
        figure.raw_all.append(float(result) - spawned_at)
    return {"startup": figure}


def start_worker(stage: Stage) -> float:
    """Seconds until the first task of one worker."""
    rows.empty()
    first_id, _ = rows.fill(STARTUP_RUNS)
    with BenchWorker(stage.plan.processes, stage.plan.threads, "--burst") as worker:
        worker.wait(PATIENCE)
    return rows.drained_since(first_id).first_started - worker.spawned_at


def _figures() -> dict[str, Figure]:
    return {
        "latency_p50": Figure("latency, p50", "ms"),
        "latency_p95": Figure("latency, p95", "ms"),
        "latency_p99": Figure("latency, p99", "ms"),
        "idle": Figure("idle CPU", "% of a core"),
        "memory": Figure("memory (PSS)", "MB"),
    }


def watch(
    stage: Stage, tree: Callable[[], list[int]], figures: dict[str, Figure], side: Callable[[Figure], list[float]]
) -> None:
    """Add what these processes take while nothing happens."""
    plan = stage.plan
    if plan.wants("memory"):
        side(figures["memory"]).append(processes.pss_megabytes(tree()))
    if plan.wants("idle"):
        time.sleep(1)  # whatever starting has left to do
        pids = tree()
        used, began = processes.cpu_seconds(pids), time.monotonic()
        time.sleep(plan.idle_seconds)
        used = processes.cpu_seconds(pids) - used
        side(figures["idle"]).append(100 * used / (time.monotonic() - began))


def add_latencies(figures: dict[str, Figure], latencies: list[float], side: Callable[[Figure], list[float]]) -> None:
    """Add the percentiles of these, given in seconds."""
    cuts = quantiles(latencies, n=100, method="inclusive")
    for percentile in (50, 95, 99):
        side(figures[f"latency_p{percentile}"]).append(1000 * cuts[percentile - 1])


def pause() -> None:
    """Between two calls whose latency is measured."""
    time.sleep(INTERVAL * random.uniform(0.5, 1.5))


def _latencies(worker: BenchWorker, count: int) -> list[float]:
    called: list[tuple[float, TaskResult[float]]] = []
    for _ in range(count):
        pause()
        now = time.time()
        called.append((now, clock.enqueue()))
    return [_first_result(worker, result) - now for now, result in called]


def _raw_latencies(stage: Stage, count: int) -> list[float]:
    called: dict[str, float] = {}
    before = len(stage.raw.results())
    for row in raw_rows(count):
        pause()
        called[row.id.replace("-", "")] = time.time()
        stage.raw.insert_and_wake(row)
    results = _raw_results(stage, before + count)
    return [float(results[id]) - now for id, now in called.items()]


def _first_result(worker: BenchWorker, result: TaskResult[float]) -> float:
    deadline = time.monotonic() + PATIENCE
    while not result.is_finished:
        worker.check()
        if time.monotonic() > deadline:
            raise WorkerFailed(f"the worker has not run a task for {PATIENCE:.0f} s")
        time.sleep(0.02)
        result.refresh()
    return result.return_value


def _raw_results(stage: Stage, count: int) -> dict[str, str]:
    deadline = time.monotonic() + PATIENCE
    while len(results := stage.raw.results()) < count:
        if time.monotonic() > deadline:
            raise WorkerFailed(f"the bare process has not run a task for {PATIENCE:.0f} s")
        time.sleep(0.02)
    return results
