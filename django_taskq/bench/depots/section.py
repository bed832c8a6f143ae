"""One section: the parts of a plan on the broker that the settings of this process name."""

from __future__ import annotations

from functools import partial
from typing import Any

from django_taskq import conf
from django_taskq.bench import drains
from django_taskq.bench.depots import rates, waiting
from django_taskq.bench.depots.base import connect
from django_taskq.bench.depots.targets import shown
from django_taskq.bench.plan import Figure
from django_taskq.bench.stage import DepotStage, Stage
from django_taskq.conf_brokers import DEFAULT_BROKER


def measure(stage: Stage) -> tuple[dict[str, Any], dict[str, Figure]]:
    """The section's settings and figures. ``history`` and ``waiting`` are questions to the database alone."""
    plan, config = stage.plan, conf.get_settings().broker(DEFAULT_BROKER)
    server = connect(config)
    there = DepotStage(plan, stage.access, stage.raw, stage.tell, server)
    figures: dict[str, Figure] = {}
    if plan.wants("enqueue"):
        figures |= rates.measure_enqueue(there)
    if plan.wants("latency", "idle", "memory"):
        figures |= waiting.measure_idle_worker(there)
    if plan.wants("startup"):
        figures |= waiting.measure_startup(there)
    if plan.wants("limits"):
        figures |= drains.measure_limits(there, partial(rates.clear, there))
    if plan.wants("drain"):
        figures |= rates.measure_drain(there)
    found = {"broker": shown(config.url), **server.about()}
    server.close()
    return found, figures
