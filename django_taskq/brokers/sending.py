"""Enqueueing where queues are kept by depots: the row first, then the message, and what to do when that fails."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

from django.db import connections, transaction

from django_taskq import conf
from django_taskq.brokers.database.broker import DatabaseBroker
from django_taskq.brokers.depot import Depot
from django_taskq.brokers.outbox import GRACE, Outbox
from django_taskq.exceptions import BrokerUnavailable, DepotError, EnqueueUncertain, MessageRefused
from django_taskq.gates import is_gated
from django_taskq.message import Message, Tracking
from django_taskq.models.clock import database_now
from django_taskq.status import Status


class Sender:
    """Brings messages to the queues they are for, wherever those are kept."""

    def __init__(
        self, rows: DatabaseBroker, depots: Mapping[str, Depot], alias_of: Callable[[str], str], outbox: Outbox
    ) -> None:
        self._rows = rows
        self._using = rows.using
        self._depots = depots
        self._alias_of = alias_of
        self._outbox = outbox

    def enqueue(self, messages: Sequence[Message]) -> None:
        """See :meth:`.base.Broker.enqueue`. Of those for several brokers some may be on their way when one fails."""
        if len(messages) == 1:
            self._enqueue_on(self._destination(messages[0]), messages)
            return
        by_alias: dict[str, list[Message]] = defaultdict(list)
        for message in messages:
            by_alias[self._destination(message)].append(message)
        for alias, some in by_alias.items():
            self._enqueue_on(alias, some)

    def _destination(self, message: Message) -> str:
        """The alias of its depot, or '' for the database.

        What is due later, waits for other steps or has gates is a row wherever its queue is kept; whoever makes it
        ready puts it into the outbox.
        """
        is_delayed = message.run_after is not None and message.run_after > message.enqueued_at
        if is_delayed or message.is_waiting or is_gated(message.headers):
            return ""
        alias = self._alias_of(message.queue_name)
        return alias if alias in self._depots else ""

    def _enqueue_on(self, alias: str, messages: Sequence[Message]) -> None:
        if not alias:
            self._rows.enqueue(messages)
            return
        if connections[self._using].in_atomic_block:
            # Without a row of its own transaction it would be lost with this process, or run without its data.
            messages = [_with_row(message) for message in messages]
            self._write(messages)
            transaction.on_commit(partial(self._publish_committed, alias, messages), using=self._using)
            return
        with_row = [message for message in messages if _has_row(message)]
        self._write(with_row)
        try:
            self._depots[alias].publish(messages)
        except DepotError as error:
            self._on_unpublished(alias, messages, error)
        else:
            if with_row:
                self._outbox.published.note([message.id for message in with_row])

    def _write(self, messages: Sequence[Message]) -> None:
        if messages:
            self._rows.insert(messages, messages[0].enqueued_at + timedelta(seconds=GRACE))

    def _publish_committed(self, alias: str, messages: Sequence[Message]) -> None:
        """The caller has committed and cannot be told of a failure any more: supervisors will publish it."""
        if self._outbox.is_resting(alias):
            return
        try:
            self._depots[alias].publish(messages)
        except MessageRefused:
            return  # which of them it is, and what comes of it, is found out by whoever relays them
        except DepotError as error:
            self._outbox.note_failure(alias, error)
            return
        copied = [message.id for message in messages if message.exchange is not None]
        if copied:
            self._rows.records.filter(pk__in=copied, status=Status.READY).delete()
        self._outbox.published.note(message.id for message in messages if message.exchange is None)

    def _on_unpublished(self, alias: str, messages: Sequence[Message], error: DepotError) -> None:
        is_refused = isinstance(error, MessageRefused)
        if conf.get_settings().enqueue_fallback == "outbox" and not is_refused:
            self._outbox.note_failure(alias, error)
            self._write([_with_row(message) for message in messages if not _has_row(message)])
            return
        ids, said = tuple(message.id for message in messages if _has_row(message)), str(error).rstrip(".")
        if not error.is_certain:
            kept = "their rows stay, so they will run" if ids else "nothing else is known of them"
            raise EnqueueUncertain(
                f"broker {alias!r} did not say whether it took {_count(messages)}: {said}. If not, {kept}.", ids
            ) from error
        unpublished = self._rows.records.filter(pk__in=ids, status=Status.READY)
        unpublished.update(
            status=Status.CANCELLED,
            finished_at=database_now(self._using),
            publish_after=None,
            reason="BrokerUnavailable: the call that enqueued this failed",
        )
        advice = "" if is_refused else ' TASKQ["ENQUEUE_FALLBACK"] = "outbox" would keep it until the broker is back.'
        raise BrokerUnavailable(
            f"broker {alias!r} could not be given {_count(messages)}: {said}. Nothing will run.{advice}"
        ) from error


def _has_row(message: Message) -> bool:
    return message.tracking is Tracking.ROW and message.exchange is None


def _with_row(message: Message) -> Message:
    """The message as one whose run has a row; what an exchange copies has one for each copy."""
    return message if message.tracking is Tracking.ROW else replace(message, tracking=Tracking.ROW)


def _count(messages: Sequence[Message]) -> str:
    return f"run {messages[0].id} of {messages[0].name}" if len(messages) == 1 else f"{len(messages)} runs"
