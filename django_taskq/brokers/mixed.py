"""Rows and depots as one broker: what a project uses as soon as a queue of its is kept outside the database.

The row is the truth about a run, and the message on a depot the ticket that brings it to a worker. A ticket is good
once: claiming the row (READY -> RUNNING) decides who runs it, so a message that comes twice, or too late, is dropped.
Once the claim has committed the message is dropped as well, and everything from there on (leases, retries, crashes,
cancelling) is the same as for work in the database.

Runs without a row (``track_pending=False``) are different until they last: the depot holds them under the worker
process, and drops them when they are over. They get their row, already RUNNING under the same claim, as soon as there
is something to remember: they last, fail, retry, or end with a result to keep.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

from django.db.utils import Error

from django_taskq.brokers.base import Broker
from django_taskq.brokers.database.broker import DatabaseBroker
from django_taskq.brokers.depot import Depot
from django_taskq.brokers.holdings import NO_ROW, InHand
from django_taskq.brokers.intake import Intake
from django_taskq.brokers.outbox import Outbox
from django_taskq.brokers.sending import Sender
from django_taskq.exceptions import DepotError
from django_taskq.message import Action, Delivery, Message, Outcome, Parcel, Tracking
from django_taskq.models import WorkerProcess
from django_taskq.steps import Link

logger = logging.getLogger("django_taskq")

# Seconds within which a server that sends work by itself has begun to.
SENDING = 0.5
# For so many seconds who has published something does not call itself idle: nobody may have taken it yet.
PUBLISHED = 0.1


class MixedBroker(Broker):
    """The broker of a project with depots; one instance serves a whole process."""

    def __init__(self, rows: DatabaseBroker, depots: Mapping[str, Depot], alias_of: Callable[[str], str]) -> None:
        """``depots`` by broker alias; ``alias_of`` gives the alias of a queue's broker."""
        self.rows = rows
        self.using = rows.using
        self.depots = depots
        self._alias_of = alias_of
        self.outbox = Outbox(rows, depots, alias_of)
        self._sender = Sender(rows, depots, alias_of, self.outbox)
        self.capabilities = replace(
            rows.capabilities,
            priority_levels=min(
                rows.capabilities.priority_levels, *(d.capabilities.priority_levels for d in depots.values())
            ),
            is_shared=all(depot.capabilities.is_shared for depot in depots.values()),
        )
        self._own = InHand(depots, self.outbox)
        self._intake = Intake(rows, depots, self.outbox, self._own)

    def depot_of(self, queue_name: str) -> Depot | None:
        """The depot that keeps this queue; None for the database."""
        return self.depots.get(self._alias_of(queue_name))

    # Asking for work.

    def enqueue(self, messages: Sequence[Message]) -> None:
        self._sender.enqueue(messages)

    def link(self, links: Sequence[Link]) -> None:
        self.rows.link(links)

    # Doing work.

    def admit(self) -> int:
        with self._unit():
            count = self.rows.admit()
            self._own.has_ready |= count > 0
        return count

    def queues_with_work(self, queue_names: Sequence[str]) -> list[str]:
        by_alias: dict[str, list[str]] = defaultdict(list)
        for name in queue_names:
            by_alias[self._alias_of(name)].append(name)
        found: set[str] = set()
        for alias, names in by_alias.items():
            depot = self.depots.get(alias)
            if depot is None:
                found.update(self.rows.queues_with_work(names))
            elif self.outbox.is_resting(alias):
                continue
            elif self._own.is_owing(alias):
                # A take without an answer holds what nobody else can see; the next one gives it back first.
                found.update(names)
            else:
                try:
                    found.update(depot.queues_with_work(names))
                except DepotError as error:
                    self.outbox.note_failure(alias, error)
        return [name for name in queue_names if name in found]

    def claim(self, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Delivery]:
        alias = self._alias_of(queue_name)
        depot = self.depots.get(alias)
        if depot is None:
            return self.rows.claim(queue_name, limit, process_id, first_claim)
        if self.outbox.is_resting(alias):
            return []
        with self._unit():
            return self._intake.claim(alias, queue_name, limit, process_id, first_claim)

    def follow(self, process_id: int, leaders: Sequence[Delivery], limit: int, first_claim: int) -> list[Delivery]:
        return self.rows.follow(process_id, leaders, limit, first_claim)

    def settle(self, process_id: int, outcomes: Sequence[Outcome]) -> list[Outcome]:
        with_row, written = list(outcomes), list[Parcel]()
        with self._unit():
            if not self._own.holdings.are_empty():
                with_row, written = self._sort(process_id, outcomes)
            self._intake.make_rows(process_id, written)
            lost = self.rows.settle(process_id, with_row)
            # Those are READY again, for anybody; and so may be what waited for a step.
            self._own.has_ready |= any(_makes_ready(outcome) for outcome in with_row)
        return lost

    def _sort(self, process_id: int, outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[Parcel]]:
        """The outcomes to record in rows, and those rows that are yet to be made for it."""
        with_row, written = [], []
        for outcome in outcomes:
            claim = outcome.delivery.claim
            parcel = self._own.holdings.loose(process_id, claim)
            if parcel is None:
                with_row.append(outcome)
            elif outcome.action is Action.RELEASED:
                self._own.holdings.give_back(process_id, [claim])
                if (process_id, claim) in self._own.may_have_row:
                    with_row.append(outcome)
            else:
                self._own.holdings.over(process_id, claim)
                is_plain = outcome.action is Action.SUCCESS and parcel.tracking is Tracking.FAILURE
                if not is_plain or (process_id, claim) in self._own.may_have_row:
                    with_row.append(outcome)
                    written.append(parcel)
        return with_row, written

    def mark_started(self, process_id: int, delivery: Delivery, started_at: float) -> bool:
        parcel = self._own.holdings.loose(process_id, delivery.claim)
        if parcel is None:
            return self.rows.mark_started(process_id, delivery, started_at)
        # From here on it is a run like any other: the message may go, and its row is kept by the worker's lease.
        self._own.may_have_row.add((process_id, delivery.claim))
        with self._unit(self.rows.transaction()):
            self._own.holdings.over(process_id, delivery.claim)
            is_held = delivery.claim in self._intake.make_rows(process_id, [parcel], started_at)
        self._own.may_have_row.discard((process_id, delivery.claim))
        return is_held

    def mark_all_started(self, process_id: int, deliveries: Sequence[Delivery], started_at: float) -> list[Delivery]:
        if any(self._own.holdings.loose(process_id, delivery.claim) is not None for delivery in deliveries):
            return super().mark_all_started(process_id, deliveries, started_at)
        return self.rows.mark_all_started(process_id, deliveries, started_at)

    def release(self, process_id: int, claims: Sequence[int]) -> int:
        if not claims:
            return 0
        with self._unit():
            loose = sum(self._own.holdings.loose(process_id, claim) is not None for claim in claims)
            self._own.holdings.give_back(process_id, claims)
            count = self.rows.release(process_id, claims)
            self._own.has_ready |= count > 0
        return count + loose

    def reject(self, process_id: int, claim: int, reason: str) -> bool:
        with self._unit(self.rows.transaction()):
            parcel = self._own.holdings.loose(process_id, claim)
            if parcel is not None:
                self._intake.make_rows(process_id, [parcel])
                self._own.holdings.over(process_id, claim)
            return self.rows.reject(process_id, claim, reason)

    def filenos(self) -> list[int]:
        return [fileno for depot in self.depots.values() for fileno in depot.filenos()]

    @property
    def is_behind(self) -> bool:
        return self._own.is_behind or time.monotonic() < self._own.published_until

    def doubt(self) -> float:
        if any(self.outbox.is_resting(alias) for alias in self.depots):
            return math.inf
        return SENDING if any(depot.sends_ahead for depot in self.depots.values()) else 0.0

    def pause(self) -> None:
        # What could not be given back at once would else wait behind the run that nothing is to wait behind.
        self._own.holdings.pay()
        self._own.is_behind = False
        for alias, depot in self.depots.items():
            try:
                depot.pause()
            except DepotError as error:
                self.outbox.note_failure(alias, error)

    # For supervisors.

    def adopt(self, process_id: int, claims: Collection[int]) -> None:
        for alias, depot in self._those_who_know():
            try:
                held = [parcel for parcel in depot.held(process_id) if parcel.delivery.claim in claims]
                started = [parcel for parcel in held if parcel.tracking in NO_ROW]
                if started:
                    self._intake.make_rows(process_id, started)
                    depot.drop(process_id, started)
            except DepotError as error:
                # Then they come back as suspects, once the depot is back.
                self.outbox.note_failure(alias, error)

    def rescue(self, process_id: int) -> int:
        with self._unit():
            self._own.has_ready = True
            return self.rows.rescue(process_id) + self.rescue_messages(process_id, is_suspect=True)

    def rescue_messages(self, process_id: int, *, is_suspect: bool, after: int = 0, up_to: int | None = None) -> int:
        count = 0
        for alias, depot in self._those_who_know():
            try:
                count += depot.rescue(process_id, after=after, up_to=up_to, is_suspect=is_suspect)
            except DepotError as error:
                # :meth:`sweep` finds them later.
                self.outbox.note_failure(alias, error)
        return count

    def sweep(self, lease: float) -> int:
        # A depot that was down when its holder died, or a frozen process that took more after it was given up.
        count = 0
        for alias, depot in self._those_who_know():
            try:
                silent = [process_id for process_id, age in depot.holders().items() if age > lease]
                living = WorkerProcess.objects.using(self.using).filter(pk__in=silent, stopped_at=None)
                for process_id in set(silent) - set(living.values_list("pk", flat=True)):
                    count += depot.rescue(process_id)
            except DepotError as error:
                self.outbox.note_failure(alias, error)
        return count

    def relay(self) -> int:
        return self.outbox.relay()

    def find_lost(self, queue_names: Iterable[str]) -> int:
        return self.outbox.find_lost(queue_names)

    def _those_who_know(self) -> list[tuple[str, Depot]]:
        found = [(alias, depot) for alias, depot in self.depots.items() if depot.capabilities.knows_holders]
        return [(alias, depot) for alias, depot in found if not self.outbox.is_resting(alias)]

    # For people.

    def purge(self, queue_name: str) -> int:
        depot = self.depot_of(queue_name)
        messages = depot.purge(queue_name) if depot else 0
        # A run with a row has a message as well, so these are no sum.
        return max(messages, self.rows.purge(queue_name))

    def size(self, queue_name: str) -> int:
        depot = self.depot_of(queue_name)
        return depot.size(queue_name) if depot else self.rows.size(queue_name)

    def oldest_age(self, queue_name: str) -> float | None:
        depot = self.depot_of(queue_name)
        age = depot.oldest_age(queue_name) if depot else None
        return self.rows.oldest_age(queue_name) if age is None else age

    def peek(self, queue_name: str, limit: int) -> list[Message]:
        depot = self.depot_of(queue_name)
        if depot is not None and depot.capabilities.can_peek:
            return depot.peek(queue_name, limit)
        return self.rows.peek(queue_name, limit)

    # Units of work.

    def prepare(self) -> None:
        self.rows.prepare()

    def close(self) -> None:
        # What is over and still held would be given to others once this process is gone.
        self._own.holdings.pay(insist=True)
        for depot in self.depots.values():
            depot.close()

    def transaction(self) -> AbstractContextManager[object]:
        return self._unit(self.rows.transaction())

    def bundle(self) -> AbstractContextManager[object]:
        return self._unit(self.rows.bundle())

    @contextmanager
    def _unit(self, inner: AbstractContextManager[object] | None = None) -> Iterator[None]:
        """What the rows have committed is carried on to the depots; what they have not, never."""
        self._own.depth += 1
        try:
            with inner or nullcontext():
                yield
        except BaseException:
            # Whoever claimed releases what is in doubt, and that finds it still taken.
            self._own.holdings.forget_pending()
            raise
        finally:
            self._own.depth -= 1
        if self._own.depth == 0:
            self._carry_on()

    def _carry_on(self) -> None:
        self._own.holdings.commit()
        if self._own.has_ready:
            self._own.has_ready = False
            try:
                if self.outbox.relay():
                    self._own.published_until = time.monotonic() + PUBLISHED
            except Error as error:
                # The supervisors do the same once a second.
                logger.warning("could not publish at once: %s", error)


def _makes_ready(outcome: Outcome) -> bool:
    if outcome.is_gated:
        return True  # others may have come to their turn
    return outcome.action in (Action.RETRY, Action.RELEASED) or outcome.has_followers
