"""Logging as one more receiver of the signals, through the project's own ``LOGGING``.

Every record emitted inside a task carries ``task_id``, ``task_name``, ``queue_name`` and ``attempt``. Lines about
successful runs are only built where the logger ``django_taskq`` lets INFO through.
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import Any

from django_taskq import context, signals
from django_taskq.message import Action, Delivery, Outcome

logger = logging.getLogger("django_taskq")

_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def configure_for_terminal() -> None:
    """Show INFO on stderr when the project configured nothing for us; otherwise leave everything alone."""
    if not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(_FORMAT, "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def connect(*, in_worker: bool) -> None:
    """Listen, and have records of this process carry the task's fields. Calling it twice is fine."""
    signals.task_failed.connect(_on_failed, dispatch_uid="django_taskq.log")
    signals.task_retried.connect(_on_retried, dispatch_uid="django_taskq.log")
    if logger.isEnabledFor(logging.INFO):
        signals.task_finished.connect(_on_finished, dispatch_uid="django_taskq.log")
    if in_worker and not isinstance(logging.getLogRecordFactory(), _TaskRecordFactory):
        logging.setLogRecordFactory(_TaskRecordFactory(logging.getLogRecordFactory()))


# Our own lines are written in the bookkeeping thread, where no task is current.
_subject: ContextVar[Delivery | None] = ContextVar("django_taskq_log_subject", default=None)


class _TaskRecordFactory:
    """Adds the current task's fields to each record; empty outside of tasks, so that formats may always name them."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._inner(*args, **kwargs)
        current = context.current_context()
        delivery = current.delivery if current else _subject.get()
        record.task_id = delivery.id if delivery else ""
        record.task_name = delivery.name if delivery else ""
        record.queue_name = delivery.queue_name if delivery else ""
        record.attempt = delivery.attempt if delivery else 0
        return record


def _on_finished(delivery: Delivery, outcome: Outcome, **kwargs: Any) -> None:
    if outcome.action is Action.SUCCESS:
        _write(logging.INFO, delivery, f"ok {_times(delivery, outcome)}")
    elif outcome.action is Action.CANCELLED:
        _write(logging.INFO, delivery, f"cancelled: {_summary(outcome)}")


def _on_retried(delivery: Delivery, outcome: Outcome, **kwargs: Any) -> None:
    when = f"at {outcome.run_after}" if outcome.run_after else f"in {outcome.delay or 0:.1f}s"
    _write(logging.WARNING, delivery, f"tries again {when}: {_summary(outcome)}")


def _on_failed(delivery: Delivery, outcome: Outcome, **kwargs: Any) -> None:
    # Indented, so that no line of an error's text can pass for a record of its own.
    lines = outcome.error.traceback.splitlines() if outcome.error else []
    trace = "".join(f"\n  {_clean(line)}" for line in lines)
    _write(logging.ERROR, delivery, f"failed {_times(delivery, outcome)}: {_summary(outcome)}", trace)


def _write(level: int, delivery: Delivery, text: str, more: str = "") -> None:
    token = _subject.set(delivery)
    try:
        logger.log(level, "%s %s %s%s", _clean(delivery.name), delivery.id, _clean(text), more)
    finally:
        _subject.reset(token)


def _summary(outcome: Outcome) -> str:
    return outcome.error.summary if outcome.error else ""


def _times(delivery: Delivery, outcome: Outcome) -> str:
    if outcome.started_at is None or outcome.finished_at is None:
        return "(not started)"
    ran = 1000 * (outcome.finished_at - outcome.started_at)
    due_at = max(delivery.enqueued_at, delivery.run_after or 0.0)
    waited = 1000 * max(0.0, outcome.started_at - due_at)
    return f"{ran:.0f}ms (waited {waited:.0f}ms, attempt {delivery.attempt}, queue {delivery.queue_name})"


def _clean(text: str) -> str:
    """One line: a task's name or error must not be able to forge another."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
