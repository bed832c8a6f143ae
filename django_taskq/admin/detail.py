"""What the page of one run shows. Without ``sees_payload`` nothing is handed out that arguments may have got into."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.contrib.admin.utils import quote
from django.utils.html import format_html
from django.utils.translation import gettext as _

from django_taskq import registry
from django_taskq.admin import payload, words
from django_taskq.admin.flow_words import SHOWN_HOLDERS, at_gate
from django_taskq.admin.related import workflow_of
from django_taskq.admin.waiting import why_waiting
from django_taskq.models import TaskAttempt, TaskRecord, WorkerProcess
from django_taskq.models.standing import standing_of
from django_taskq.status import Status

SHOWN_ATTEMPTS = 100  # newest first; a run that is retried for ever has more


def detail_context(record: TaskRecord, *, sees_payload: bool, sees_limits: bool) -> dict[str, Any]:
    """Everything the template needs. Queries: attempts, their workers, who could take it, and its workflow."""
    using = record._state.db or "default"
    standing = standing_of(using, record, SHOWN_HOLDERS + 1)
    attempts = list(TaskAttempt.objects.using(using).filter(task_id=record.pk).order_by("-id")[: SHOWN_ATTEMPTS + 1])
    reason = words.visible(record.reason) if sees_payload else words.reason_class(record.reason)
    context: dict[str, Any] = {
        "original": record,
        "badge": words.badge(words.status_look(record)),
        "task_name": words.one_line(record.name),
        "is_registered": registry.find(record.name) is not None,
        "queue_name": words.one_line(record.queue_name),
        "reason": reason,
        "why": at_gate(standing, shows_keys=sees_limits) if standing else why_waiting(record, using),
        "limit_address": quote(standing.gate.key) if standing and standing.limit and sees_limits else "",
        "facts": _facts(record),
        "process_name": words.one_line(words.process_name(record)),
        "rerun_of": _rerun_of(record),
        "workflow": workflow_of(record, using),
        "sees_payload": sees_payload,
        "attempts": _attempts(attempts[:SHOWN_ATTEMPTS], using, sees_payload=sees_payload),
        "has_more_attempts": len(attempts) > SHOWN_ATTEMPTS,
    }
    if sees_payload:
        context["arguments"] = payload.arguments(record.name, record.payload)
        context["result"] = None if record.result is None else payload.result(record.result)
    return context


def _facts(record: TaskRecord) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [
        (_("Enqueued"), words.moment(record.enqueued_at)),
        (_("Not before"), words.moment(record.run_after)),
        (_("Not after"), words.moment(record.expires_at)),
        (_("Started"), words.moment(record.started_at)),
        (_("Finished"), words.moment(record.finished_at)),
        (_("Waited"), words.duration(words.waited(record))),
        (_("Ran"), words.duration(words.ran(record))),
        (_("Attempt"), record.attempt),
        (_("Priority"), record.priority),
    ]
    if record.crashes:
        facts.append((_("Worker crashes"), record.crashes))
    if record.cancel_requested_at is not None:
        facts.append((_("Cancellation asked for"), words.moment(record.cancel_requested_at)))
    if record.parent_id is not None:
        facts.append((_("Copied from"), format_html('<span class="tq-id">{}</span>', record.parent_id)))
    if record.status == Status.READY and record.publish_after is not None:
        facts.append((_("Published again after"), words.moment(record.publish_after)))
    # Times that most runs do not have.
    optional = {_("Not before"), _("Not after")}
    return [(label, value) for label, value in facts if value != words.NONE or label not in optional]


def _rerun_of(record: TaskRecord) -> str:
    """The id of the run this one repeats; "" when there is none, or when the headers cannot be read."""
    try:
        return str(UUID(record.headers_read.rerun_of or ""))
    except (ValueError, TypeError, AttributeError):
        return ""


def _attempts(rows: Iterable[TaskAttempt], using: str, *, sees_payload: bool) -> list[dict[str, Any]]:
    rows = list(rows)
    ids = {int(row.worker) for row in rows if row.worker.isascii() and row.worker.isdecimal() and len(row.worker) < 19}
    known = WorkerProcess.objects.using(using).select_related("worker").in_bulk(ids) if ids else {}
    return [_attempt(row, known, sees_payload=sees_payload) for row in rows]


def _attempt(row: TaskAttempt, known: dict[int, WorkerProcess], *, sees_payload: bool) -> dict[str, Any]:
    process = known.get(int(row.worker)) if row.worker.isascii() and row.worker.isdecimal() else None
    took = None if row.started_at is None else max(0.0, (row.finished_at - row.started_at).total_seconds())
    shown = {
        "attempt": row.attempt,
        "kind": row.get_kind_display(),
        "class_path": words.one_line(row.class_path),
        "worker": words.one_line(str(process) if process else row.worker or words.NONE),
        "worker_id": process.worker_id if process else None,
        "started": words.moment(row.started_at),
        "finished": words.moment(row.finished_at),
        "ran": words.duration(took),
    }
    if sees_payload:
        shown |= {"message": words.visible(row.message), "traceback": words.visible(row.traceback)}
    return shown
