"""Which calls of a task are the same: the keys of messages on their way to the rows.

:func:`keyed` is asked for every message that is enqueued, whoever built it. The rows decide who has a key
(:mod:`django_taskq.brokers.database.uniqueness`).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

from django_taskq import registry, serializers
from django_taskq.exceptions import EnqueueError, InvalidTask
from django_taskq.flow import lock
from django_taskq.gates import bounded, gates_of, written
from django_taskq.keys import Key
from django_taskq.message import Headers, Message
from django_taskq.unique_keys import KeyedCall
from django_taskq.unique_options import Unique

if TYPE_CHECKING:
    from django_taskq.options import TaskOptions


class Uniqueness:
    """What makes runs of one task unique."""

    def __init__(self, task: str, rule: Unique, signature: inspect.Signature) -> None:
        """Raises :exc:`InvalidTask` for keys of unknown arguments."""
        self._task = task
        self.rule = rule
        if isinstance(rule.by, str) and rule.by in signature.parameters:
            raise InvalidTask(
                f"{task}: unique={rule.by!r} is the same key for all calls, and the name of an argument. Write "
                f"unique=[{rule.by!r}] or unique='{task.rpartition('.')[2]}:{{{rule.by}}}'."
            )
        self._key = Key(task, "unique", rule.by, signature)

    @classmethod
    def of(cls, task: str, options: TaskOptions, signature: inspect.Signature) -> Uniqueness | None:
        """That of a task; None for one whose calls are all different. Raises :exc:`InvalidTask`."""
        if options.unique is None:
            return None
        if not options.track_pending:
            raise InvalidTask(f"{task}: unique needs a row for each run, and track_pending=False spares it.")
        return cls(task, options.unique, signature)

    def call(self, message: Message) -> KeyedCall:
        """The message with its key, as it is to be stored. Raises what :meth:`.Key.of` raises."""
        args, kwargs = serializers.loads(message.payload)
        key = f"{self._task}:{bounded(self._key.of(args, kwargs))}"
        headers = Headers.loads(message.headers)._replace(unique=key)
        if self.rule.wants_latest:
            # In front of locks that are shared with others: what waits for its own kind is not to keep those.
            gates = sorted((lock(f"unique:{key}"), *gates_of(message.headers)), key=lambda gate: gate.rank)
            headers = headers._replace(gates=written(gates))
        message = replace(message, headers=headers.dumps(), run_after=self._run_after(message))
        return KeyedCall(message, key, self.rule)

    def _run_after(self, message: Message) -> datetime | None:
        if self.rule.debounce is None:
            return message.run_after
        quiet = message.enqueued_at + timedelta(seconds=cast(float, self.rule.debounce))
        return quiet if message.run_after is None else max(quiet, message.run_after)


def keyed(messages: Sequence[Message]) -> list[KeyedCall]:
    """Those of the messages whose runs are to be unique. Steps of workflows are not: their graph needs each of them.

    Raises :exc:`EnqueueError` where a key cannot be worked out, or where an exchange would make copies.
    """
    if not registry.is_unique():
        return []
    return [call for message in messages if (call := _keyed(message)) is not None]


def _keyed(message: Message) -> KeyedCall | None:
    task = registry.find(message.name)
    if task is None or task.uniqueness is None or message.workflow_id is not None:
        return None
    if message.exchange is not None:
        raise EnqueueError(
            f"{message.name} is unique, and an exchange makes any number of copies. Enqueue it to a queue, or have the "
            f"copies' task enqueue it."
        )
    return task.uniqueness.call(message)
