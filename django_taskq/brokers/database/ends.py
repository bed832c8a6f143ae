"""What is written about attempts that did not succeed: one by one, as they are rare and each has values of its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

from django.db.models import Case, CharField, DateTimeField, F, Q, TextField, Value, When
from django.db.models.expressions import Combinable
from django.utils import timezone

from django_taskq.brokers.database.rows import UNCLAIMED, stored_time
from django_taskq.brokers.database.uniqueness import drop_outdated
from django_taskq.gates import AT_GATE
from django_taskq.message import Action, ErrorText, Outcome, with_gate
from django_taskq.models import TaskAttempt, TaskRecord
from django_taskq.models.clock import database_now, database_now_plus
from django_taskq.models.outbox import publication
from django_taskq.models.task import AttemptKind
from django_taskq.status import Status


def write_ends(using: str, process_id: int, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Write these, none of which is a success; returns those whose claim was lost."""
    lost: list[Outcome] = []
    attempts: list[TaskAttempt] = []
    # In id order, as every writer of several rows: two that meet wait for each other, and never in a circle.
    for outcome in sorted(outcomes, key=lambda o: o.delivery.id):
        if not _write(using, process_id, outcome):
            lost.append(outcome)
        elif outcome.error is not None and outcome.started_at is not None:
            attempts.append(_attempt(outcome, outcome.error))
    TaskAttempt.objects.using(using).bulk_create(attempts)
    _note_cancelled(using, [outcome for outcome in outcomes if outcome.action is Action.RETRY])
    return lost


def _note_cancelled(using: str, retried: Sequence[Outcome]) -> None:
    """A run that somebody cancelled while it ran is not retried: its outcome says so to whoever is told of it."""
    if not retried:
        return
    drop_outdated(using, retried)
    rows = TaskRecord.objects.using(using).filter(pk__in=[o.delivery.id for o in retried], status=Status.CANCELLED)
    cancelled = {str(pk) for pk in rows.values_list("pk", flat=True)}
    for outcome in retried:
        if outcome.delivery.id in cancelled:
            outcome.action = Action.CANCELLED


def _write(using: str, process_id: int, outcome: Outcome) -> int:
    delivery = outcome.delivery
    held = TaskRecord.objects.using(using).filter(
        pk=delivery.id, status=Status.RUNNING, worker_id=process_id, claim=delivery.claim
    )
    if outcome.action is Action.REPLACED:
        return int(held.update(status=Status.WAITING, **UNCLAIMED))
    if outcome.action is Action.RETRY:
        return int(held.update(**_again(using, outcome)))
    return int(
        held.update(
            status=Status.FAILED if outcome.action is Action.FAILED else Status.CANCELLED,
            started_at=stored_time(outcome.started_at),
            finished_at=stored_time(outcome.finished_at) or database_now(using),
            reason=outcome.error.summary if outcome.error else "",
        )
    )


def _again(using: str, outcome: Outcome) -> dict[str, Any]:
    """What a run that is tried again becomes; one that was cancelled meanwhile ends instead."""
    due: Any = outcome.run_after
    if outcome.delay is not None and outcome.delay > 0:
        due = database_now_plus(using, outcome.delay)
    status, others = Status.SCHEDULED, dict[str, Any]()
    if due is None and outcome.is_gated:
        # To be put at its gates, once it has left them: see let_others_pass().
        status, others = Status.WAITING, {"waits_at": AT_GATE}
        if outcome.gate is not None:
            others["headers"] = with_gate(outcome.delivery.headers, outcome.gate)
    elif due is None:
        status, others = Status.READY, publication(using, unless=Q(cancel_requested_at__isnull=False))
    reason = outcome.error.summary if outcome.error else ""
    return {
        "status": _unless_cancelled(Value(status, CharField()), Value(Status.CANCELLED, CharField())),
        "finished_at": _unless_cancelled(Value(None, DateTimeField()), database_now(using)),
        "attempt": _unless_cancelled(F("attempt") + int(outcome.is_counted), F("attempt")),
        "reason": _unless_cancelled(Value(reason, TextField()), Value("TaskCancelled", TextField())),
        "run_after": due,
        **UNCLAIMED,
        **others,
    }


def _unless_cancelled(value: Combinable, cancelled: Combinable) -> Case:
    return Case(When(cancel_requested_at__isnull=True, then=value), default=cancelled)


def _attempt(outcome: Outcome, error: ErrorText) -> TaskAttempt:
    kind = AttemptKind.RETRIED if outcome.action is Action.RETRY else AttemptKind.FAILED
    return TaskAttempt(
        task_id=outcome.delivery.id,
        attempt=outcome.delivery.attempt,
        kind=kind,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        started_at=stored_time(outcome.started_at),
        finished_at=stored_time(outcome.finished_at) or timezone.now(),
        class_path=error.class_path[:255],
        message=error.message,
        traceback=error.traceback,
    )
