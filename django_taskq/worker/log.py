"""Logging as one more receiver of the signals, through the project's own ``LOGGING``.

Every record emitted in a worker carries ``task_id``, ``task_name``, ``queue_name``, ``attempt`` and ``worker``; the
one line for each run also ``outcome``, ``duration`` and ``wait``. Lines about successful runs are only built where the
logger ``django_taskq`` lets INFO through.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from multiprocessing.process import parent_process
from typing import Any

from django.conf import settings

from django_taskq import context, signals
from django_taskq.logging import JsonFormatter, TextFormatter, one_line
from django_taskq.message import Action, Delivery, Outcome
from django_taskq.worker.equipping import CLASS_PATH

logger = logging.getLogger("django_taskq")


def configure_for_terminal(log_format: str = "text") -> bool:
    """Show INFO on stderr when the project configured nothing for us; otherwise leave everything alone.

    Where it has no ``LOGGING`` at all, what tasks log to loggers of their own is shown as well. Returns whether
    ``log_format`` holds.
    """
    if logger.hasHandlers():
        return False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    # With a LOGGING the project has decided what of its own loggers is to be seen, and where.
    above = logger if getattr(settings, "LOGGING", None) else logger.root
    if above is not logger:
        handler.addFilter(_is_not_django_s)
    above.addHandler(handler)
    above.setLevel(logging.INFO)
    return True


def _is_not_django_s(record: logging.LogRecord) -> bool:
    """Django's own loggers have a handler for terminals already."""
    return record.name.partition(".")[0] != "django"


def connect(*, in_worker: bool) -> None:
    """Listen, and have records of this process carry the task's fields. Calling it twice is fine."""
    signals.task_failed.connect(_on_failed, dispatch_uid="django_taskq.log")
    signals.task_retried.connect(_on_retried, dispatch_uid="django_taskq.log")
    if logger.isEnabledFor(logging.INFO):
        signals.task_snoozed.connect(_on_snoozed, dispatch_uid="django_taskq.log")
        signals.task_finished.connect(_on_finished, dispatch_uid="django_taskq.log")
    if in_worker and not isinstance(logging.getLogRecordFactory(), _TaskRecordFactory):
        logging.setLogRecordFactory(_TaskRecordFactory(logging.getLogRecordFactory()))


class _TaskRecordFactory:
    """Adds the current task's fields to each record; empty outside of tasks, so that formats may always name them."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        parent = parent_process()
        self._worker = f"{socket.gethostname()}:{os.getpid() if parent is None else parent.pid}"

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._inner(*args, **kwargs)
        current = context.current_context()
        _describe(record, current.delivery if current else None)
        record.worker = self._worker
        return record


def _describe(record: logging.LogRecord, delivery: Delivery | None) -> None:
    record.task_id = delivery.id if delivery else ""
    record.task_name = delivery.name if delivery else ""
    record.queue_name = delivery.queue_name if delivery else ""
    record.attempt = delivery.attempt if delivery else 0


def _on_finished(delivery: Delivery, outcome: Outcome, **kwargs: Any) -> None:
    if outcome.action is Action.SUCCESS:
        _write(logging.INFO, outcome, "ok")
    elif outcome.action is Action.CANCELLED:
        _write(logging.INFO, outcome, "cancelled")


def _on_retried(delivery: Delivery, outcome: Outcome, **kwargs: Any) -> None:
    when = f"at {outcome.run_after}" if outcome.run_after else f"in {outcome.delay or 0:.1f}s"
    # That a resource is missing is said once by the process that misses it, not for each run that it leaves to others.
    is_left = not outcome.is_counted and outcome.error is not None and outcome.error.class_path == CLASS_PATH
    _write(logging.DEBUG if is_left else logging.WARNING, outcome, f"tries again {when}, ran")


def _on_snoozed(delivery: Delivery, outcome: Outcome, **kwargs: Any) -> None:
    _write(logging.INFO, outcome, f"runs again in {outcome.delay or 0:.1f}s, ran")


def _on_failed(delivery: Delivery, outcome: Outcome, **kwargs: Any) -> None:
    _write(logging.ERROR, outcome, "failed")


def _write(level: int, outcome: Outcome, what: str) -> None:
    """The one line of a run. The bookkeeping thread writes it, where no task is current."""
    if not logger.isEnabledFor(level):
        return
    delivery, error = outcome.delivery, outcome.error
    duration, wait = _times(delivery, outcome)
    times = "(not started"
    if duration is not None and wait is not None:
        times = f"{1000 * duration:.0f}ms (waited {1000 * wait:.0f}ms"
    why = f": {one_line(error.summary)}" if error else ""
    text = f"{what} {times}, attempt {delivery.attempt}, queue {delivery.queue_name}){why}"
    args = (one_line(delivery.name), delivery.id, text)
    record = logger.makeRecord(logger.name, level, __file__, 0, "%s %s %s", args, None, _write.__name__)
    _describe(record, delivery)
    record.outcome, record.duration, record.wait = outcome.action.value, duration, wait
    if error and outcome.action is Action.FAILED:
        # Indented, so that no line of an error's text can pass for a record of its own, whatever the formatter.
        record.exc_text = "\n".join(f"  {one_line(line)}" for line in error.traceback.splitlines())
    logger.handle(record)


def _times(delivery: Delivery, outcome: Outcome) -> tuple[float | None, float | None]:
    """Seconds that it ran, and that it had waited for that since it was due."""
    if outcome.started_at is None or outcome.finished_at is None:
        return None, None
    due_at = max(delivery.enqueued_at, delivery.run_after or 0.0)
    return outcome.finished_at - outcome.started_at, max(0.0, outcome.started_at - due_at)
