"""The one seam for whoever wants to watch: Django signals with documented keyword arguments.

The core sends; logging, metrics, tracing and dashboards receive. A signal without receivers costs one attribute
look-up per run. ``sender`` is always the task's name (a string), or None for worker signals.

=================  ===========================================================================================
signal             keyword arguments
=================  ===========================================================================================
task_enqueued      ``message`` (:class:`~django_taskq.message.Message`); sent once the row is written, which may
                   be before the surrounding transaction commits
task_started       ``delivery`` (:class:`~django_taskq.message.Delivery`); in the slot, right before the call
task_retried       ``delivery``, ``outcome``; after the retry was recorded
task_finished      ``delivery``, ``outcome``; after a final status was recorded
task_failed        the same, for FAILED only, so that listening for failures costs successes nothing
worker_started     ``worker`` (a :class:`~django_taskq.models.Worker`); in the supervisor, before it serves
worker_stopped     ``worker``, ``exit_code`` (int)
process_started    ``worker_id`` (int), ``process_id`` (int); in a worker process, before its first run
process_stopped    ``worker_id``, ``process_id``; in a worker process that stops in order
=================  ===========================================================================================

Receivers of ``task_finished``, ``task_failed`` and ``task_retried`` run in the worker's bookkeeping thread: they should
be brief. An error in a receiver is logged and never touches the run.
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

task_enqueued = Signal()
task_started = Signal()
task_retried = Signal()
task_finished = Signal()
task_failed = Signal()
worker_started = Signal()
worker_stopped = Signal()
process_started = Signal()
process_stopped = Signal()

logger = logging.getLogger("django_taskq")


def send(signal: Signal, sender: str | None, **payload: Any) -> None:
    """Send to every receiver; a receiver that raises is logged by name and the others still hear it."""
    if not signal.receivers:
        return
    for receiver, answer in signal.send_robust(sender, **payload):
        if isinstance(answer, Exception):
            name = getattr(receiver, "__qualname__", repr(receiver))
            logger.error("signal receiver %s failed", name, exc_info=answer)
