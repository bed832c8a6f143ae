"""Rates on a depot: how fast runs go in, and how fast they come out, with rows and without."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

from django_taskq import Task, conf
from django_taskq.bench import drains, rows, tally
from django_taskq.bench.depots.base import connect, envelopes
from django_taskq.bench.plan import Figure
from django_taskq.bench.raw.worker import drain_rate
from django_taskq.bench.stage import DepotStage
from django_taskq.bench.tasks import noop, noop_without_row
from django_taskq.bench.workers import BenchWorker, WorkerFailed
from django_taskq.brokers import get_broker
from django_taskq.conf_brokers import DEFAULT_BROKER


def measure_enqueue(stage: DepotStage) -> dict[str, Figure]:
    """One by one, beside what such a call cannot do without; and in bulk."""
    titles, plan = stage.server.titles, stage.plan
    single = Figure("enqueue, one by one", "runs/s", beside="single-row commits of the database")
    single_without = Figure("enqueue without rows, one by one", "runs/s", beside=titles["one"])
    bulk = Figure(f"enqueue_many of {rows.BULK}", "runs/s", beside=titles["many"])
    bulk_without = Figure(f"enqueue_many of {rows.BULK} without rows", "runs/s", beside=titles["many"])
    for number in range(plan.repeat):
        stage.tell(f"enqueue {number + 1}/{plan.repeat}")
        clear(stage)
        single.all.append(drains.enqueue_singly(noop, plan.single_runs))
        single.raw_all.append(drains.insert_singly(stage))
        clear(stage)
        single_without.all.append(drains.enqueue_singly(noop_without_row, plan.single_runs))
        single_without.raw_all.append(_publish_singly(stage))
        clear(stage)
        bulk.all.append(_fill(stage, noop))
        clear(stage)
        bulk_without.all.append(_fill(stage, noop_without_row))
        rate = _publish_many(stage)
        bulk.raw_all.append(rate)
        bulk_without.raw_all.append(rate)
    clear(stage)
    return {
        "enqueue": single,
        "enqueue_without_rows": single_without,
        "enqueue_many": bulk,
        "enqueue_many_without_rows": bulk_without,
    }


def measure_drain(stage: DepotStage) -> dict[str, Figure]:
    """A full queue, its runs with rows and stored results, and without anything that is stored."""
    take, plan = stage.server.titles["take"], stage.plan
    figure = Figure("drain", "runs/s", beside=take)
    wall = Figure("drain, by the wall clock", "runs/s")
    without = Figure("drain without rows", "runs/s", beside=take)
    for number in range(plan.repeat):
        stage.tell(f"drain {number + 1}/{plan.repeat}")
        clear(stage)
        first_id, _ = rows.fill(plan.runs)
        drains.drain_rows(plan, first_id, figure, wall)
        clear(stage)
        without.all.append(_drain_without_rows(stage))
        _publish_many(stage)
        rate = drain_rate(partial(connect, conf.get_settings().broker(DEFAULT_BROKER)), plan.processes)
        figure.raw_all.append(rate)
        without.raw_all.append(rate)
    clear(stage)
    return {"drain": figure, "drain_wall": wall, "drain_without_rows": without}


def clear(stage: DepotStage) -> None:
    """Leave no row and no message."""
    get_broker().purge(conf.DEFAULT_QUEUE)
    rows.empty()
    stage.raw.empty()
    stage.server.empty()
    rows.settle()


def _drain_without_rows(stage: DepotStage) -> float:
    plan = stage.plan
    rows.fill(plan.runs, noop_without_row)
    with tempfile.TemporaryDirectory(prefix="tally-") as directory:
        environment = {tally.VARIABLE: directory}
        with BenchWorker(plan.processes, plan.threads, "--burst", environment=environment) as worker:
            worker.wait(60 + plan.runs / 100)
        done = tally.read(Path(directory))
    if done.runs != plan.runs:
        raise WorkerFailed(f"{done.runs:,} of {plan.runs:,} runs without rows were run")
    return (plan.runs - 1) / done.seconds


def _fill(stage: DepotStage, task: Task[[int], int]) -> float:
    _, seconds = rows.fill(stage.plan.runs, task)
    return stage.plan.runs / seconds


def _publish_singly(stage: DepotStage) -> float:
    texts = envelopes(stage.plan.single_runs)
    began = time.perf_counter()
    for text in texts:
        stage.server.publish_one(text)
    return len(texts) / (time.perf_counter() - began)


def _publish_many(stage: DepotStage) -> float:
    texts = envelopes(stage.plan.runs)
    began = time.perf_counter()
    for start in range(0, len(texts), rows.BULK):
        stage.server.publish_many(texts[start : start + rows.BULK])
    return len(texts) / (time.perf_counter() - began)
