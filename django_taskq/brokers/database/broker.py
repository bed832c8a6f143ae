"""The database broker: contract verbs on rows, through the dialect's hot statements and the ORM for the rest."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connections, transaction
from django.db.models import Case, CharField, DateTimeField, F, Max, Min, Q, TextField, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce
from django.utils import timezone

from django_taskq.brokers.base import Broker, Capabilities
from django_taskq.brokers.database.advancing import move_on
from django_taskq.brokers.database.dialect import Dialect, Finished
from django_taskq.brokers.database.feeding import feed
from django_taskq.brokers.database.postgresql import PostgreSQL
from django_taskq.brokers.database.sqlite import SQLite
from django_taskq.conflicts import persist
from django_taskq.exceptions import EnqueueError
from django_taskq.message import EXCHANGE, NO_ROOM, Action, Delivery, ErrorText, Message, Outcome, Room
from django_taskq.models import TaskAttempt, TaskRecord
from django_taskq.models.clock import aware, database_now, database_now_plus, stored
from django_taskq.models.outbox import publication
from django_taskq.models.task import AttemptKind, TaskQuerySet
from django_taskq.options import MAX_PRIORITY, MIN_PRIORITY
from django_taskq.status import Status
from django_taskq.steps import Link

# The doorbell takes a database-wide lock at commit on PostgreSQL, so one process rings it for a queue at most this
# often (seconds) outside of transactions; workers that ran dry look once more after as long.
WAKE_INTERVAL = 0.01

_DIALECTS: dict[str, type[Dialect]] = {dialect.vendor: dialect for dialect in (PostgreSQL, SQLite)}


def get_dialect(alias: str) -> Dialect:
    """The dialect of a database alias. Raises ``ImproperlyConfigured`` for a database without one."""
    vendor = connections[alias].vendor
    if vendor not in _DIALECTS:
        known = ", ".join(sorted(_DIALECTS))
        raise ImproperlyConfigured(f"TASKQ['DATABASE'] is {alias!r}, a {vendor} database; the queue speaks {known}.")
    return _DIALECTS[vendor]()


class DatabaseBroker(Broker):
    """Work as rows of the database ``using``."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.dialect = get_dialect(using)
        self.capabilities = Capabilities(
            priority_levels=MAX_PRIORITY - MIN_PRIORITY + 1,
            transactional_enqueue=True,
            transactional_finish=True,
            is_shared=True,
            claims_lightly=self.dialect.claims_lightly,
        )
        self._woken: dict[str, float] = {}
        self._woken_lock = threading.Lock()

    @property
    def records(self) -> TaskQuerySet:
        """All runs, on the database that holds them."""
        records: TaskQuerySet = TaskRecord.objects.using(self.using)
        return records

    def prepare(self) -> None:
        self.dialect.prepare(connections[self.using])

    def transaction(self) -> AbstractContextManager[object]:
        return transaction.atomic(using=self.using)

    def bundle(self) -> AbstractContextManager[object]:
        return nullcontext() if self.dialect.commits_cheaply else self.transaction()

    def enqueue(self, messages: Sequence[Message]) -> None:
        self.insert(messages)

    def insert(self, messages: Sequence[Message], publish_after: datetime | None = None) -> None:
        """Enqueue; with ``publish_after`` for a depot, which :mod:`~django_taskq.brokers.outbox` hands them to."""
        connection = connections[self.using]
        names = {message.queue_name for message in messages}
        if publish_after is not None:
            wake = []  # its depot announces it
        else:
            wake = sorted(names) if connection.in_atomic_block else self._worth_waking(names)

        def write() -> None:
            if len(messages) > 1 and not connection.in_atomic_block:
                with transaction.atomic(using=self.using):
                    self.dialect.insert(connection, messages, wake, publish_after)
            else:
                self.dialect.insert(connection, messages, wake, publish_after)

        try:
            persist(self.using, write)
        except IntegrityError as error:
            raise EnqueueError(f"a run with this id exists already: {error}") from error

    def link(self, links: Sequence[Link]) -> None:
        self.dialect.insert_links(connections[self.using], links)

    def queues_with_work(self, queue_names: Sequence[str]) -> list[str]:
        return persist(self.using, lambda: self.dialect.queues_with_work(connections[self.using], queue_names))

    def claim(self, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Delivery]:
        connection = connections[self.using]
        claimed = persist(
            self.using, lambda: self.dialect.claim(connection, queue_name, limit, process_id, first_claim)
        )
        return feed(self.using, self.dialect, claimed)

    def settle(self, process_id: int, outcomes: Sequence[Outcome]) -> list[Outcome]:
        return self.settle_and_take(process_id, outcomes, NO_ROOM)[0]

    def settle_and_take(
        self, process_id: int, outcomes: Sequence[Outcome], room: Room
    ) -> tuple[list[Outcome], list[Delivery]]:
        return persist(self.using, lambda: self._settle(process_id, outcomes, room))

    def _settle(self, process_id: int, outcomes: Sequence[Outcome], room: Room) -> tuple[list[Outcome], list[Delivery]]:
        steps = [outcome for outcome in outcomes if outcome.has_followers]
        if not steps:
            return self._write_all(process_id, outcomes), []
        with transaction.atomic(using=self.using, savepoint=False):
            lost = self._write_all(process_id, outcomes)
            refused = {id(outcome) for outcome in lost}
            taken = move_on(self, [outcome for outcome in steps if id(outcome) not in refused], process_id, room)
        return lost, taken

    def _write_all(self, process_id: int, outcomes: Sequence[Outcome]) -> list[Outcome]:
        successes = [outcome for outcome in outcomes if outcome.action is Action.SUCCESS and not outcome.is_recorded]
        lost = self._finish(process_id, successes) if successes else []
        if len(successes) < len(outcomes):
            with transaction.atomic(using=self.using, savepoint=False):
                lost += self._settle_others(process_id, outcomes)
        return lost

    def release(self, process_id: int, claims: Sequence[int]) -> int:
        if not claims:
            return 0
        connection = connections[self.using]
        released = persist(self.using, lambda: self.dialect.release(connection, process_id, claims))
        if released:
            self.dialect.wake(connection, sorted({name for _, name in released}))
            handed_on = publication(self.using)
            if handed_on:
                self.records.filter(pk__in=[id for id, _ in released], status=Status.READY).update(**handed_on)
        return len(released)

    def reject(self, process_id: int, claim: int, reason: str) -> bool:
        now = database_now(self.using)
        held = self.records.filter(status=Status.RUNNING, worker_id=process_id, claim=claim)
        return bool(held.update(status=Status.FAILED, finished_at=now, reason=reason))

    def rescue(self, process_id: int) -> int:
        return give_back(self.records.held_by([process_id]), self.using, is_suspect=True)

    def purge(self, queue_name: str) -> int:
        waiting = self.records.filter(queue_name=queue_name, status__in=(Status.READY, Status.SCHEDULED))
        # Others wait for steps: those are told.
        steps = waiting.filter(workflow__isnull=False).cancel("TaskCancelled: its queue was purged")
        deleted = waiting.filter(workflow__isnull=True).delete()[1].get(TaskRecord._meta.label, 0)
        return int(steps + deleted)

    def size(self, queue_name: str) -> int:
        return self.records.filter(status=Status.READY, queue_name=queue_name).count()

    def oldest_age(self, queue_name: str) -> float | None:
        ready = self.records.filter(status=Status.READY, queue_name=queue_name)
        since = Min(Coalesce("run_after", "enqueued_at"))
        times = ready.aggregate(since=since, now=Max(database_now(self.using)))
        return None if times["since"] is None else max(0.0, (times["now"] - times["since"]).total_seconds())

    def peek(self, queue_name: str, limit: int) -> list[Message]:
        ready = self.records.filter(status=Status.READY, queue_name=queue_name).order_by("-priority", "id")[:limit]
        return [to_message(record) for record in ready]

    def mark_started(self, process_id: int, delivery: Delivery, started_at: float) -> bool:
        held = self.records.filter(pk=delivery.id, status=Status.RUNNING, worker_id=process_id, claim=delivery.claim)
        return bool(persist(self.using, lambda: held.update(started_at=stored_time(started_at))))

    def _worth_waking(self, queue_names: set[str]) -> list[str]:
        now = time.monotonic()
        with self._woken_lock:
            due = sorted(name for name in queue_names if now - self._woken.get(name, 0.0) >= WAKE_INTERVAL)
            self._woken.update(dict.fromkeys(due, now))
        return due

    def _finish(self, process_id: int, outcomes: list[Outcome]) -> list[Outcome]:
        # In id order, so that two finishers which meet wait for each other, and never in a circle.
        rows = sorted(
            Finished(o.delivery.id, o.delivery.claim, o.result, o.started_at or 0.0, o.finished_at or 0.0)
            for o in outcomes
        )
        if self.dialect.finish(connections[self.using], process_id, rows) == len(rows):
            return []
        ids = [row.id for row in rows]
        ours = self.records.filter(pk__in=ids, status=Status.SUCCESSFUL, worker_id=process_id)
        kept = set(ours.values_list("claim", flat=True))
        return [outcome for outcome in outcomes if outcome.delivery.claim not in kept]

    def _settle_others(self, process_id: int, outcomes: Sequence[Outcome]) -> list[Outcome]:
        lost: list[Outcome] = []
        attempts: list[TaskAttempt] = []
        wake: set[str] = set()
        self.release(process_id, [o.delivery.claim for o in outcomes if o.action is Action.RELEASED])
        others = [o for o in outcomes if o.action not in (Action.SUCCESS, Action.RELEASED)]
        # In id order, as every writer of several rows: two that meet wait for each other, and never in a circle.
        for outcome in sorted(others, key=lambda o: o.delivery.id):
            if not self._write(process_id, outcome):
                lost.append(outcome)
                continue
            if outcome.error is not None and outcome.started_at is not None:
                attempts.append(_attempt(outcome, outcome.error))
            if outcome.action is Action.RETRY:
                wake.add(outcome.delivery.queue_name)
        TaskAttempt.objects.using(self.using).bulk_create(attempts)
        self._note_cancelled([outcome for outcome in others if outcome.action is Action.RETRY])
        if wake:
            self.dialect.wake(connections[self.using], sorted(wake))
        return lost

    def _note_cancelled(self, retried: Sequence[Outcome]) -> None:
        """A run that somebody cancelled while it ran is not retried: its outcome says so to whoever is told of it."""
        if not retried:
            return
        rows = self.records.filter(pk__in=[o.delivery.id for o in retried], status=Status.CANCELLED)
        cancelled = {str(pk) for pk in rows.values_list("pk", flat=True)}
        for outcome in retried:
            if outcome.delivery.id in cancelled:
                outcome.action = Action.CANCELLED

    def _write(self, process_id: int, outcome: Outcome) -> int:
        delivery = outcome.delivery
        held = self.records.filter(pk=delivery.id, status=Status.RUNNING, worker_id=process_id, claim=delivery.claim)
        reason = outcome.error.summary if outcome.error else ""
        if outcome.action is Action.REPLACED:
            return held.update(status=Status.WAITING, **UNCLAIMED)
        if outcome.action is not Action.RETRY:
            status = Status.FAILED if outcome.action is Action.FAILED else Status.CANCELLED
            return held.update(
                status=status,
                started_at=stored_time(outcome.started_at),
                finished_at=stored_time(outcome.finished_at) or database_now(self.using),
                reason=reason,
            )
        due: Any = outcome.run_after
        if outcome.delay is not None and outcome.delay > 0:
            due = database_now_plus(self.using, outcome.delay)
        again = Value(Status.READY if due is None else Status.SCHEDULED, CharField())
        handed_on = publication(self.using, unless=Q(cancel_requested_at__isnull=False)) if due is None else {}
        now = database_now(self.using)
        return held.update(
            status=_unless_cancelled(again, Value(Status.CANCELLED, CharField())),
            finished_at=_unless_cancelled(Value(None, DateTimeField()), now),
            attempt=_unless_cancelled(F("attempt") + int(outcome.is_counted), F("attempt")),
            reason=_unless_cancelled(Value(reason, TextField()), Value("TaskCancelled", TextField())),
            run_after=due,
            **UNCLAIMED,
            **handed_on,
        )


def _unless_cancelled(value: Combinable, cancelled: Combinable) -> Case:
    return Case(When(cancel_requested_at__isnull=True, then=value), default=cancelled)


UNCLAIMED: dict[str, Any] = {"worker": None, "claim": None, "started_at": None}


def give_back(held: TaskQuerySet, using: str, *, is_suspect: bool) -> int:
    """RUNNING -> READY, charged nothing; CANCELLED where that was asked for. Wakes the queues; returns how many."""
    names = list(held.order_by().values_list("queue_name", flat=True).distinct())
    held.filter(cancel_requested_at__isnull=False).update(
        status=Status.CANCELLED, finished_at=database_now(using), reason="TaskCancelled", **UNCLAIMED
    )
    count = held.update(status=Status.READY, is_suspect=is_suspect, **UNCLAIMED, **publication(using))
    if names:
        get_dialect(using).wake(connections[using], sorted(names))
    return count


def to_message(record: TaskRecord) -> Message:
    """A row as the message it was."""
    exchange = record.queue_name.removeprefix(EXCHANGE) if record.queue_name.startswith(EXCHANGE) else None
    return Message(
        str(record.id),
        record.name,
        record.queue_name,
        record.priority,
        record.payload,
        record.headers,
        aware(record.enqueued_at),
        record.run_after and aware(record.run_after),
        record.expires_at and aware(record.expires_at),
        exchange=exchange,
        routing_key="" if exchange is None else record.headers_read.routing_key or "",
        parent_id=str(record.parent_id) if record.parent_id else None,
    )


def to_delivery(record: TaskRecord) -> Delivery:
    """A claimed row as what its claimant was handed."""
    message = to_message(record)
    return Delivery(
        message.id,
        record.claim or 0,
        message.name,
        message.queue_name,
        message.payload,
        message.headers,
        *message.seconds(),
        record.attempt,
        record.crashes,
        record.is_suspect,
    )


def stored_time(moment: float | None) -> datetime | None:
    """POSIX seconds as the ORM takes them: aware with ``USE_TZ``, else naive local time."""
    return None if moment is None else stored(datetime.fromtimestamp(moment, UTC))


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
