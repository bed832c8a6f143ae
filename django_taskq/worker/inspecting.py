"""What a worker answers when it is asked what it does and knows. Arguments of runs and secrets are not among it."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any, Protocol

from django.db.models import Q

from django_taskq import __version__, conf_shown, maintenance, registry
from django_taskq.models import TaskRecord
from django_taskq.models.task import TaskQuerySet
from django_taskq.worker.options import WorkerOptions
from django_taskq.worker.shutter import Shutter
from django_taskq.worker.state import snapshot

if TYPE_CHECKING:
    from django_taskq.worker.crew import Crew

SHOWN_RUNS, SHOWN_TASKS = 100, 2000
STARTED_AT = time.monotonic()


class Subject(Protocol):
    """What is asked of the supervisor."""

    crew: Crew
    shutter: Shutter
    options: WorkerOptions


def ping() -> dict[str, Any]:
    """Who answers."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "version": __version__, "up_seconds": _up()}


def inspect(subject: Subject, what: list[str]) -> dict[str, Any]:
    """By the words of :data:`django_taskq.control.catalogue.INSPECTED`."""
    found: dict[str, Any] = {}
    for word in what:
        match word:
            case "active":
                found[word] = active(subject.crew)
            case "reserved":
                found[word] = reserved(subject.crew)
            case "registered":
                found[word] = sorted(task.name for task in registry.all_tasks())[:SHOWN_TASKS]
            case "stats":
                found[word] = stats(subject)
            case "settings":
                rows = conf_shown.of_project().items()
                found[word] = {name: {"value": value, "source": source} for name, (value, source) in rows}
    return found


def active(crew: Crew) -> list[dict[str, Any]]:
    """What runs now, the longest first. A run that has no row yet is shown by its claim alone."""
    running = _running(crew)
    chosen = sorted(running, key=lambda held: -running[held]["seconds"])[:SHOWN_RUNS]
    rows = {(row.worker_id, row.claim): row for row in _held(crew).filter(_any_of(chosen))} if chosen else {}
    return [running[held] | (_described(rows[held]) if held in rows else {}) for held in chosen]


def reserved(crew: Crew) -> list[dict[str, Any]]:
    """What is claimed and has not begun, in the order it will."""
    running = list(_running(crew))
    rows = _held(crew).exclude(_any_of(running)) if running else _held(crew)
    return [_described(row) for row in rows.order_by("claim")[:SHOWN_RUNS]]


def stats(subject: Subject) -> dict[str, Any]:
    """Size, queues, what is closed and why, and each process."""
    options, shutter = subject.options, subject.shutter
    return {
        **ping(),
        "queues": options.served,
        "threads": options.threads,
        "autoscale": list(options.autoscale) if options.autoscale else None,
        "is_quiet": shutter.is_quiet,
        "closed": {reason: sorted(names) for reason, names in shutter.reasons.items()},
        **snapshot(subject.crew),
    }


def _running(crew: Crew) -> dict[tuple[int, int], dict[str, Any]]:
    return {
        (process["process_id"], run["claim"]): {"pid": process["pid"], **run}
        for process in snapshot(crew)["processes"]
        for run in process["running"]
    }


def _held(crew: Crew) -> TaskQuerySet:
    fields = ("name", "queue_name", "attempt", "worker_id", "claim")
    return maintenance.records().held_by([child.process_id for child in list(crew.children)]).only(*fields)


def _any_of(held: list[tuple[int, int]]) -> Q:
    found = Q()
    for process_id, claim in held:
        found |= Q(worker_id=process_id, claim=claim)
    return found


def _described(row: TaskRecord) -> dict[str, Any]:
    return {"id": str(row.pk), "name": row.name, "queue_name": row.queue_name, "attempt": row.attempt}


def _up() -> float:
    return round(time.monotonic() - STARTED_AT, 3)
