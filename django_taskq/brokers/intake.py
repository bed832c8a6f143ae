"""Taking messages from depots, and claiming the rows of the runs they are tickets for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from uuid import UUID

from django.db import connections

from django_taskq import envelope
from django_taskq.brokers.database.broker import DatabaseBroker
from django_taskq.brokers.database.dialect import Known
from django_taskq.brokers.database.feeding import feed
from django_taskq.brokers.database.rows import stored_time
from django_taskq.brokers.database.uniqueness import refreshed
from django_taskq.brokers.depot import Depot
from django_taskq.brokers.holdings import NO_ROW, InHand
from django_taskq.brokers.outbox import Outbox
from django_taskq.conflicts import persist
from django_taskq.exceptions import DepotError
from django_taskq.message import Delivery, Parcel, Tracking
from django_taskq.models import TaskRecord
from django_taskq.models.clock import stored
from django_taskq.status import Status

# Seconds for which one claim goes on past tickets that are good no more, as after a backlog was cancelled.
STALE_FOR = 0.1


class Intake:
    """The way in: what one thread takes and claims for its process."""

    def __init__(self, rows: DatabaseBroker, depots: Mapping[str, Depot], outbox: Outbox, own: InHand) -> None:
        self._rows = rows
        self._depots = depots
        self._outbox = outbox
        self._own = own

    def claim(self, alias: str, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Delivery]:
        """Up to ``limit`` deliveries of a queue; fewer, perhaps none, when no more are good or the depot is down."""
        holdings, until = self._own.holdings, time.monotonic() + STALE_FOR
        while parcels := self._take(alias, queue_name, limit, process_id, first_claim):
            holdings.add(alias, process_id, parcels)
            deliveries = self._claim_rows(process_id, parcels)
            good = {delivery.claim for delivery in deliveries}
            holdings.drop(process_id, [p.delivery.claim for p in parcels if p.delivery.claim not in good])
            self._own.is_behind = not deliveries
            if deliveries or time.monotonic() > until:
                return deliveries
        self._own.is_behind = False
        return []

    def _take(self, alias: str, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Parcel]:
        self._own.holdings.pay()
        depot, doubtful = self._depots[alias], self._own.doubtful[alias]
        try:
            for first, last in list(doubtful):
                depot.rescue(process_id, after=first - 1, up_to=last, is_suspect=False)
                doubtful.remove((first, last))
            parcels = depot.take(queue_name, limit, process_id, first_claim)
        except DepotError as error:
            # What it handed out without our hearing of it is held under these numbers, which are not used again.
            doubtful.append((first_claim, first_claim + limit - 1))
            self._outbox.note_failure(alias, error)
            return []
        self._outbox.note_success(alias)
        return parcels

    def _claim_rows(self, process_id: int, parcels: list[Parcel]) -> list[Delivery]:
        """The deliveries among them that are this process's to run; the others are stale."""
        with_row = [(p.delivery.id, p.delivery.claim) for p in parcels if p.tracking is Tracking.ROW]
        connection = connections[self._rows.using]
        known: dict[int, Known] = {}
        if with_row:
            # Who releases some of these at this moment may hold them in another order.
            known = persist(self._rows.using, lambda: self._rows.dialect.claim_known(connection, process_id, with_row))
        made = self.make_rows(process_id, [parcel for parcel in parcels if parcel.tracking is Tracking.START])
        deliveries = []
        for parcel in parcels:
            run = parcel.delivery
            if run.claim in known:
                run = run._replace(**known[run.claim]._asdict())
            elif parcel.tracking not in NO_ROW and run.claim not in made:
                continue
            deliveries.append(run)
        return feed(self._rows.using, self._rows.dialect, refreshed(self._rows.using, deliveries))

    def make_rows(self, process_id: int, parcels: Sequence[Parcel], started_at: float | None = None) -> set[int]:
        """Rows for runs that have none, RUNNING under these claims; returns the claims that hold.

        Where a row of that id is there already the message came twice, and that row goes its own way.
        """
        if not parcels:
            return set()
        rows = [_to_row(parcel, process_id, started_at) for parcel in parcels]
        self._rows.records.bulk_create(rows, ignore_conflicts=True)
        mine = self._rows.records.held_by([process_id]).filter(claim__in=[row.claim for row in rows])
        return {claim for claim in mine.values_list("claim", flat=True) if claim is not None}


def _to_row(parcel: Parcel, process_id: int, started_at: float | None) -> TaskRecord:
    message = envelope.to_message(parcel)
    return TaskRecord(
        id=UUID(message.id),
        name=message.name,
        queue_name=message.queue_name,
        priority=message.priority,
        status=Status.RUNNING,
        payload=message.payload,
        headers=message.headers,
        run_after=message.run_after and stored(message.run_after),
        expires_at=message.expires_at and stored(message.expires_at),
        enqueued_at=stored(message.enqueued_at),
        started_at=stored_time(started_at),
        worker_id=process_id,
        claim=parcel.delivery.claim,
        is_suspect=parcel.delivery.is_suspect,
        parent_id=message.parent_id and UUID(message.parent_id),
    )
