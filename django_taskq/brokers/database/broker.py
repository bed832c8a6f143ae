"""The database broker: contract verbs on rows, through the dialect's hot statements and the ORM for the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime

from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connections, transaction
from django.db.models import Max, Min, Q
from django.db.models.functions import Coalesce

from django_taskq.brokers.base import Broker, Capabilities
from django_taskq.brokers.database.admission import admit_arrivals, arrive
from django_taskq.brokers.database.advancing import move_on
from django_taskq.brokers.database.dialect import Dialect, Finished, is_at_gate
from django_taskq.brokers.database.ends import write_ends
from django_taskq.brokers.database.feeding import feed
from django_taskq.brokers.database.following import disband, give_places_back, places_of
from django_taskq.brokers.database.leaving import let_others_pass
from django_taskq.brokers.database.postgresql import PostgreSQL
from django_taskq.brokers.database.rows import UNCLAIMED, stored_time, to_message
from django_taskq.brokers.database.sqlite import SQLite
from django_taskq.conflicts import persist
from django_taskq.exceptions import EnqueueError
from django_taskq.gates import AT_GATE
from django_taskq.message import NO_ROOM, Action, Delivery, Message, Outcome, Room
from django_taskq.models import TaskRecord
from django_taskq.models.clock import database_now
from django_taskq.models.outbox import publication
from django_taskq.models.task import TaskQuerySet
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
            wake = sorted(names) if connection.in_atomic_block else self.worth_waking(names)

        at_gates = [(each.id, each.headers, each.priority) for each in messages if is_at_gate(each)]

        def write() -> None:
            if at_gates or (len(messages) > 1 and not connection.in_atomic_block):
                with transaction.atomic(using=self.using):
                    self.dialect.insert(connection, messages, wake, publish_after)
                    arrive(self, at_gates)
            else:
                self.dialect.insert(connection, messages, wake, publish_after)

        try:
            persist(self.using, write)
        except IntegrityError as error:
            raise EnqueueError(f"a run with this id exists already: {error}") from error

    def link(self, links: Sequence[Link]) -> None:
        self.dialect.insert_links(connections[self.using], links)

    def admit(self) -> int:
        return admit_arrivals(self)

    def queues_with_work(self, queue_names: Sequence[str]) -> list[str]:
        return persist(self.using, lambda: self.dialect.queues_with_work(connections[self.using], queue_names))

    def claim(self, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Delivery]:
        connection = connections[self.using]
        claimed = persist(
            self.using, lambda: self.dialect.claim(connection, queue_name, limit, process_id, first_claim)
        )
        return feed(self.using, self.dialect, claimed)

    def follow(self, process_id: int, leaders: Sequence[Delivery], limit: int, first_claim: int) -> list[Delivery]:
        places, connection = places_of(leaders, limit), connections[self.using]
        if not places:
            return []

        def claim() -> list[Delivery]:
            with transaction.atomic(using=self.using):
                return self.dialect.claim_behind(connection, process_id, places, first_claim)

        return feed(self.using, self.dialect, persist(self.using, claim))

    def settle(self, process_id: int, outcomes: Sequence[Outcome]) -> list[Outcome]:
        return self.settle_and_take(process_id, outcomes, NO_ROOM)[0]

    def settle_and_take(
        self, process_id: int, outcomes: Sequence[Outcome], room: Room
    ) -> tuple[list[Outcome], list[Delivery]]:
        return persist(self.using, lambda: self._settle(process_id, outcomes, room))

    def _settle(self, process_id: int, outcomes: Sequence[Outcome], room: Room) -> tuple[list[Outcome], list[Delivery]]:
        steps = [outcome for outcome in outcomes if outcome.has_followers]
        gated = [outcome for outcome in outcomes if outcome.is_gated]
        if not steps and not gated:
            return self._write_all(process_id, outcomes), []
        with transaction.atomic(using=self.using, savepoint=False):
            lost = self._write_all(process_id, outcomes)
            refused = {id(outcome) for outcome in lost}
            steps, gated = ([each for each in some if id(each) not in refused] for some in (steps, gated))
            taken, has_arrivals = move_on(self, steps, process_id, room) if steps else ([], False)
            # A task's own transaction may see a database of long ago, so it is left to when this is told again.
            if (gated or has_arrivals) and not any(outcome.is_inside for outcome in outcomes):
                let_others_pass(self, process_id, gated, has_arrivals=has_arrivals)
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

        def give_back() -> list[tuple[str, str]]:
            with transaction.atomic(using=self.using):
                released = self.dialect.release(connection, process_id, claims)
                if released:
                    give_places_back(self, process_id, [id for id, _ in released])
                return released

        released = persist(self.using, give_back)
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
        return give_back(self.using, process_id, is_suspect=True)

    def purge(self, queue_name: str) -> int:
        waits = Q(status__in=(Status.READY, Status.SCHEDULED)) | Q(status=Status.WAITING, waits_at=AT_GATE)
        waiting = self.records.filter(waits, queue_name=queue_name)
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
        ready = self.records.filter(status=Status.READY, queue_name=queue_name).order_by(
            "-priority", Coalesce("place", "id")
        )[:limit]
        return [to_message(record) for record in ready]

    def mark_started(self, process_id: int, delivery: Delivery, started_at: float) -> bool:
        held = self.records.filter(pk=delivery.id, status=Status.RUNNING, worker_id=process_id, claim=delivery.claim)
        return bool(persist(self.using, lambda: held.update(started_at=stored_time(started_at))))

    def mark_all_started(self, process_id: int, deliveries: Sequence[Delivery], started_at: float) -> list[Delivery]:
        claims = [delivery.claim for delivery in deliveries]
        held = self.records.filter(status=Status.RUNNING, worker_id=process_id, claim__in=claims)
        wanted = held.filter(cancel_requested_at__isnull=True)

        def mark() -> set[int | None]:
            if wanted.update(started_at=stored_time(started_at)) == len(claims):
                return set(claims)
            return set(wanted.values_list("claim", flat=True))

        marked = persist(self.using, mark)
        return [delivery for delivery in deliveries if delivery.claim in marked]

    def worth_waking(self, queue_names: set[str]) -> list[str]:
        """Those of these queues that this process has not rung for a moment ago."""
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
        self.release(process_id, [o.delivery.claim for o in outcomes if o.action is Action.RELEASED])
        others = [o for o in outcomes if o.action not in (Action.SUCCESS, Action.RELEASED)]
        lost = write_ends(self.using, process_id, others)
        wake = {o.delivery.queue_name for o in others if o.action is Action.RETRY}
        if wake:
            self.dialect.wake(connections[self.using], sorted(wake))
        return lost


def give_back(using: str, process_id: int, *, is_suspect: bool, after: int = 0, up_to: int | None = None) -> int:
    """RUNNING -> READY, charged nothing; CANCELLED where that was asked for. Wakes the queues; returns how many.

    Of what this process holds: claims above ``after`` up to ``up_to``.
    """
    held: TaskQuerySet = TaskRecord.objects.using(using).held_by([process_id]).filter(claim__gt=after)
    if up_to is not None:
        held = held.filter(claim__lte=up_to)
    with transaction.atomic(using=using):
        return _give_back(held, using, process_id, is_suspect=is_suspect)


def _give_back(held: TaskQuerySet, using: str, process_id: int, *, is_suspect: bool) -> int:
    # The write comes first: SQLite refuses a transaction that read before another one wrote.
    held.filter(cancel_requested_at__isnull=False).update(
        status=Status.CANCELLED, finished_at=database_now(using), reason="TaskCancelled", **UNCLAIMED
    )
    names = list(held.order_by().values_list("queue_name", flat=True).distinct())
    count = held.update(status=Status.READY, is_suspect=is_suspect, **UNCLAIMED, **publication(using))
    disband(using, process_id)
    if names:
        get_dialect(using).wake(connections[using], sorted(names))
    return count
