"""The framework's signals of a run, sent where it happens: by whoever enqueues it, and by the worker.

``task_finished`` follows the write: whoever hears it finds the row final. A receiver that raises is logged, and
neither the run nor the other receivers notice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.dispatch import Signal

from django_taskq import context, signals
from django_taskq import result as own
from django_taskq.backend import framework, results
from django_taskq.backend.twins import Twin
from django_taskq.message import Action, Message, Outcome

logger = logging.getLogger("django_taskq")

_held: ContextVar[list[Message] | None] = ContextVar("django_taskq_backend_held", default=None)


@contextmanager
def held() -> Iterator[list[Message]]:
    """Collect ``task_enqueued`` instead of sending it, for a caller that sends it itself."""
    messages: list[Message] = []
    token = _held.set(messages)
    try:
        yield messages
    finally:
        _held.reset(token)


class Sender:
    """Told of the runs of the framework's tasks."""

    def enqueued(self, message: Message) -> None:
        """The row is written."""
        collected = _held.get()
        if collected is not None:
            collected.append(message)
        else:
            self._send(framework.task_enqueued, results.of_message(message))

    async def aenqueued(self, message: Message) -> None:
        """Async :meth:`enqueued`, on the caller's loop."""
        result = results.of_message(message)
        answers = await framework.task_enqueued.asend_robust(backend_class(result.backend), task_result=result)
        for receiver, answer in answers:
            if isinstance(answer, Exception):
                name = getattr(receiver, "__qualname__", repr(receiver))
                logger.error("signal receiver %s failed", name, exc_info=answer)

    def started(self, twin: Twin, run: context.TaskContext) -> results.TaskqResult:
        """An attempt begins."""
        result = results.of_run(run)
        self._send(framework.task_started, result)
        return result

    def concluded(self, outcome: Outcome) -> None:
        """An attempt ended, and that is written."""
        if outcome.action is Action.RETRY:
            return
        try:
            result = results.of_outcome(outcome)
        except Exception:
            logger.exception("task_finished of run %s was not sent", outcome.delivery.id)
            return
        if outcome.action is Action.SUCCESS:
            self._send(framework.task_finished, result)
            return
        try:
            # Receivers ask sys.exc_info(), the framework's own logging among them.
            raise outcome.exception or _remade(outcome)
        except BaseException:
            self._send(framework.task_finished, result)

    def _send(self, signal: Signal, result: results.TaskqResult) -> None:
        sender: Any = backend_class(result.backend)
        signals.send(signal, sender, task_result=result)


def _remade(outcome: Outcome) -> BaseException:
    error = outcome.error
    if error is None:
        return own.TaskError(0, "django_taskq.exceptions.TaskCancelled", "", "").exception()
    return own.TaskError(0, error.class_path, error.message, error.traceback).exception()


def backend_class(alias: str) -> type[framework.BaseTaskBackend] | None:
    """The class behind an alias; None once the settings do not have it any more."""
    try:
        return type(framework.task_backends[alias])
    except framework.InvalidTaskBackend:
        return None
