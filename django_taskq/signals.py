"""The one seam for whoever wants to watch: Django signals with documented keyword arguments.

The core sends; logging, metrics, tracing and dashboards receive. A signal without receivers costs one attribute
look-up per run. ``sender`` is always the task's name (a string), or None for worker signals.

=================  ===========================================================================================
signal             keyword arguments
=================  ===========================================================================================
task_enqueued      ``message`` (:class:`~django_taskq.message.Message`); sent once the row is written, which may
                   be before the surrounding transaction commits
enqueue_entered    ``messages`` (a list, whose items a receiver may replace by others of the same id) and ``token`` (a
                   dict, empty at first, for the receiver's own use); before they are handed to the broker
enqueue_left       ``messages``, ``token`` (the same dict), ``error`` (an exception or None); after that
task_entered       ``delivery``, ``headers`` (:class:`~django_taskq.message.Headers`); before the call, in the context
                   of the run: a context variable that is set then is set for the task
task_left          ``delivery``, ``outcome`` (:class:`~django_taskq.message.Outcome`); after it, in the same context
task_started       ``delivery`` (:class:`~django_taskq.message.Delivery`); in the slot, right before the call
task_retried       ``delivery``, ``outcome``; after the retry was recorded
task_snoozed       the same, for a run that asked to run again later: no attempt has failed
task_finished      ``delivery``, ``outcome``; after a final status was recorded
task_failed        the same, for FAILED only, so that listening for failures costs successes nothing
worker_started     ``worker`` (a :class:`~django_taskq.models.Worker`); in the supervisor, before it serves
worker_stopped     ``worker``, ``exit_code`` (int)
process_started    ``worker_id`` (int), ``process_id`` (int); in a worker process, before its first run
process_stopped    ``worker_id``, ``process_id``; in a worker process that stops in order
resource_degraded  ``worker_id``, ``process_id``, ``resource`` (its name), ``reason`` (text); in a worker process, once
                   when it cannot be opened or its check fails
resource_recovered ``worker_id``, ``process_id``, ``resource``, ``seconds`` (float: how long it was missing); there, too
command_executed   ``worker_id``, ``command`` (its name), ``arguments`` (dict), ``is_ok`` (bool), ``issued_by``
                   (text); in the supervisor, once a command was obeyed, failed or was refused
queue_paused       ``queue_name``, ``reason`` (text), ``by`` (a user, a text or None); where it was asked for, once
                   it is stored, which may be before the surrounding transaction commits
queue_resumed      ``queue_name``, ``by``; there, too
=================  ===========================================================================================

Receivers of ``task_finished``, ``task_failed``, ``task_retried`` and ``task_snoozed`` run in the worker's bookkeeping
thread: they should be brief. Those of the four signals that end in ``_entered`` and ``_left`` are plain functions that
wait for nothing: on the loop of coroutines they run on the loop itself. An error in a receiver is logged and never
touches the run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from django.dispatch import Signal

enqueue_entered = Signal()
enqueue_left = Signal()
task_entered = Signal()
task_left = Signal()
task_enqueued = Signal()
task_started = Signal()
task_retried = Signal()
task_snoozed = Signal()
task_finished = Signal()
task_failed = Signal()
worker_started = Signal()
worker_stopped = Signal()
process_started = Signal()
process_stopped = Signal()
resource_degraded = Signal()
resource_recovered = Signal()
command_executed = Signal()
queue_paused = Signal()
queue_resumed = Signal()

logger = logging.getLogger("django_taskq")


def send(signal: Signal, sender: str | None, **payload: Any) -> None:
    """Send to every receiver; a receiver that raises is logged by name and the others still hear it."""
    if signal.receivers:
        _log_errors(signal.send_robust(sender, **payload))


async def asend(signal: Signal, sender: str | None, **payload: Any) -> None:
    """:func:`send` from a coroutine: receivers that are not coroutines are called in a thread, where the ORM works."""
    if signal.receivers:
        _log_errors(await signal.asend_robust(sender, **payload))


def _log_errors(answers: Iterable[tuple[Any, Any]]) -> None:
    for receiver, answer in answers:
        if isinstance(answer, Exception):
            name = getattr(receiver, "__qualname__", repr(receiver))
            logger.error("signal receiver %s failed", name, exc_info=answer)
