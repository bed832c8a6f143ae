"""Metrics as documents: Prometheus' text format 0.0.4, and JSON for autoscalers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from django_taskq.worker.health.backlog import Backlog
from django_taskq.worker.health.families import Family, Labels

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
JSON_TYPE = "application/json"


def as_text(families: Iterable[Family]) -> bytes:
    """Prometheus' text format. Every family is named, also one without samples."""
    return "".join(line for family in families for line in _lines(family)).encode("utf-8", "replace")


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
    for sample in family.samples:
        yield f"{family.name}{sample.suffix}{_labels(sample.labels)} {_number(sample.value)}\n"


def _labels(labels: Labels) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def as_json(worker: str, state: dict[str, Any], backlog: Backlog) -> bytes:
    """What an autoscaler wants, by queue and altogether: ``load`` is running + due."""
    queues = {name: asdict(queue) | {"load": queue.due + queue.running} for name, queue in backlog.queues.items()}
    total = {
        "due": sum(queue.due for queue in backlog.queues.values()),
        "running": sum(queue.running for queue in backlog.queues.values()),
        "latency": max((queue.latency for queue in backlog.queues.values()), default=0.0),
    }
    own = {name: state[name] for name in ("slots", "busy", "lost_slots")} | {"degraded": sorted(state["degraded"])}
    document = {
        "queues": queues,
        "total": total | {"load": total["due"] + total["running"]},
        "brokers": backlog.brokers,
        "outbox": backlog.outbox,
        "schedule_lag": backlog.schedule_lag,
        "worker": {"name": worker, "processes": len(state["processes"]), **own},
    }
    return json.dumps(document, separators=(",", ":")).encode()
