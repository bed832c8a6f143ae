"""The measuring process: runs the parts of a plan in turn, each beside the bare store or server."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from django.db import connections

from django_taskq import conf
from django_taskq.bench import drains, environment, idling, processes, rows
from django_taskq.bench.depots import section
from django_taskq.bench.plan import Figure, Plan
from django_taskq.bench.raw import connect
from django_taskq.bench.stage import Stage
from django_taskq.brokers import get_depots


def measure(plan: Plan) -> dict[str, Any]:
    """Everything the plan asks for, as the JSON report: of the database, or of the depot that the settings name."""
    before, load = processes.machine_ticks(), os.getloadavg()[0]
    rows.migrate()
    access = environment.raw_access(connections[conf.get_settings().database])
    raw = connect(access)
    raw.create_table()
    stage = Stage(plan, access, raw, _teller(plan))
    losses: dict[str, float] = {}
    if get_depots():
        about, figures = section.measure(stage)
    else:
        about = environment.describe(plan)
        figures, losses = _measure_database(stage)
    raw.close()
    return {
        "settings": about | _noise(before, load),
        "figures": {name: figure.to_json() for name, figure in figures.items()},
        "losses": losses,
    }


def _measure_database(stage: Stage) -> tuple[dict[str, Figure], dict[str, float]]:
    plan = stage.plan
    figures: dict[str, Figure] = {}
    if plan.wants("enqueue"):
        figures |= drains.measure_enqueue(stage)
    if plan.wants("latency", "idle", "memory"):
        figures |= idling.measure_idle_worker(stage)
    if plan.wants("startup"):
        figures |= idling.measure_startup(stage)
    if plan.wants("limits"):
        figures |= drains.measure_limits(stage)
    losses: dict[str, float] = {}
    if plan.wants("drain"):
        figures |= drains.measure_drain(stage)
        if plan.history or plan.waiting:
            figures |= drains.measure_drain_beside(stage)
            losses = drains.losses(figures)
    return figures, losses


def _noise(before: tuple[int, int], load: float) -> dict[str, Any]:
    """How far to trust the figures: others who want the processors make all of them smaller."""
    ticks, stolen = (now - then for now, then in zip(processes.machine_ticks(), before, strict=True))
    return {
        "load before": round(load, 2),
        "stolen by the hypervisor": f"{100 * stolen / max(1, ticks):.1f} % of the processors' time",
    }


def _teller(plan: Plan) -> Callable[[str], None]:
    began = time.monotonic()

    def tell(text: str) -> None:
        if not plan.is_quiet:
            print(f"[{time.monotonic() - began:5.1f} s] {text}", file=sys.stderr, flush=True)

    return tell
