"""Handing READY rows to their depots: at once where it can be, by any supervisor where it could not.

A row for a depot is written with ``publish_after`` some seconds ahead. Who wrote it publishes the message right after
the commit and has the column cleared in batches (:class:`Published`). What a crash, or a depot that was down, leaves
with that time passed is published by :meth:`Outbox.relay`; and what a depot has lost is found by
:meth:`Outbox.find_lost`. Publishing twice does no harm: one message takes the claim of the row, the other is dropped.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections, transaction
from django.db.models.functions import Coalesce
from django.db.utils import Error

from django_taskq import clock
from django_taskq.brokers.database.broker import DatabaseBroker
from django_taskq.brokers.database.rows import to_message
from django_taskq.brokers.depot import Depot
from django_taskq.exceptions import DepotError, MessageRefused
from django_taskq.message import EXCHANGE
from django_taskq.models import TaskRecord
from django_taskq.models.clock import database_now, database_now_plus, stored
from django_taskq.models.task import TaskQuerySet
from django_taskq.status import Status

logger = logging.getLogger("django_taskq")

# Seconds. Longer than an enqueue may take by default, so that what goes well is seldom published twice.
GRACE = 10.0
RELAYED_AT_ONCE = 500
# A depot that failed is left alone for so long by those who need not insist.
REST = 5.0
NOTED_AT_ONCE, NOTED_FOR = 100, 1.0
LOST_AT_ONCE = 5000


class Outbox:
    """The rows of one database that wait for their depots."""

    def __init__(self, rows: DatabaseBroker, depots: Mapping[str, Depot], alias_of: Callable[[str], str]) -> None:
        """``depots`` by broker alias; ``alias_of`` gives the alias of a queue's broker."""
        self._rows = rows
        self._using = rows.using
        self._depots = depots
        self._alias_of = alias_of
        self._rests_until: dict[str, float] = {}
        self._down: set[str] = set()
        self._suspicions: dict[str, object] = {}
        self.published = Published(rows)

    @property
    def _ready(self) -> TaskQuerySet:
        return self._rows.records.filter(status=Status.READY)

    def is_resting(self, alias: str) -> bool:
        """Whether this depot failed a moment ago."""
        return time.monotonic() < self._rests_until.get(alias, 0.0)

    def note_failure(self, alias: str, error: DepotError) -> None:
        """Leave this depot alone for a while; said when it begins to fail."""
        if alias not in self._down:
            self._down.add(alias)
            logger.warning("broker %r failed, trying again: %s", alias, error)
        self._rests_until[alias] = time.monotonic() + REST

    def note_success(self, alias: str) -> None:
        """This depot did what it was asked for."""
        if alias in self._down:
            self._down.discard(alias)
            logger.info("broker %r is back", alias)

    def relay(self) -> int:
        """Publish what is due; returns how many. What is for a depot that is down waits."""
        count = self._relay_some()
        total = count
        while count == RELAYED_AT_ONCE:
            count = self._relay_some()
            total += count
        return total

    def _relay_some(self) -> int:
        # A value of its own tells what this call put off from what another supervisor did at the same moment.
        until = stored(clock.now() + timedelta(seconds=GRACE + random.random()))
        by_alias: dict[str, list[TaskRecord]] = defaultdict(list)
        for row in self._put_off(until):
            by_alias[self._alias_of(row.queue_name)].append(row)
        return sum(self._publish(alias, rows, until) for alias, rows in by_alias.items())

    def _put_off(self, until: datetime) -> list[TaskRecord]:
        due = self._ready.filter(publish_after__lte=database_now(self._using))
        if not due.exists():  # as once a second in an idle worker
            return []
        resting = [alias for alias in self._depots if self.is_resting(alias)]
        if resting:
            names = due.order_by().values_list("queue_name", flat=True).distinct()
            due = due.exclude(queue_name__in=[name for name in names if self._alias_of(name) in resting])
        first = due.order_by("publish_after").values_list("pk", flat=True)[:RELAYED_AT_ONCE]
        if connections[self._using].features.has_select_for_update_skip_locked:
            with transaction.atomic(using=self._using):
                count = self._lease(list(first.select_for_update(skip_locked=True)), until)
        else:
            count = self._lease(list(first), until)
        return list(self._ready.filter(publish_after=until)) if count else []

    def _lease(self, ids: list[UUID], until: datetime) -> int:
        if not ids:
            return 0
        still_due = self._ready.filter(pk__in=ids, publish_after__lte=database_now(self._using))
        return still_due.update(publish_after=until)

    def _publish(self, alias: str, rows: list[TaskRecord], until: datetime) -> int:
        if alias not in self._depots:
            # The settings have changed: these are served by the database now. But it has no exchanges.
            for row in [row for row in rows if row.queue_name.startswith(EXCHANGE)]:
                self._refuse(row, "UnknownExchange: TASKQ['EXCHANGES'] does not name it any more")
            return self._published([row for row in rows if not row.queue_name.startswith(EXCHANGE)], until)
        try:
            self._depots[alias].publish([to_message(row) for row in rows])
        except MessageRefused as error:
            if len(rows) == 1:
                return self._refuse(rows[0], f"MessageRefused: {error}")
            # Which one it was is found out one by one: the others shall not wait for it.
            return sum(self._publish(alias, [row], until) for row in rows)
        except DepotError as error:
            self.note_failure(alias, error)
            sooner = database_now_plus(self._using, REST)
            self._ready.filter(pk__in=[row.pk for row in rows], publish_after=until).update(publish_after=sooner)
            return 0
        self.note_success(alias)
        return self._published(rows, until)

    def _published(self, rows: list[TaskRecord], until: datetime) -> int:
        # An exchange's message is no run: its copies are.
        self._ready.filter(pk__in=[row.pk for row in rows if row.queue_name.startswith(EXCHANGE)]).delete()
        _note_published(self._ready.filter(pk__in=[row.pk for row in rows], publish_after=until))
        return len(rows)

    def _refuse(self, row: TaskRecord, reason: str) -> int:
        """Nobody will ever take it: the row says so, and may be retried once that is mended."""
        now = database_now(self._using)
        refused = self._ready.filter(pk=row.pk).update(
            status=Status.FAILED, finished_at=now, publish_after=None, reason=reason[:500]
        )
        if refused:
            logger.error("run %s of %s cannot be published: %s", row.pk, row.name, reason)
        return 0

    def find_lost(self, queue_names: Iterable[str]) -> int:
        """Put into the outbox again what a depot should have and has not; returns how many.

        A queue that is empty there, twice in a row, while the same run is READY here: the depot forgot it (a server
        without persistence was restarted, somebody purged a queue). Wrongly suspected, it is published in vain.
        """
        count = 0
        for name in queue_names:
            depot = self._depots.get(self._alias_of(name))
            if depot is None or self.is_resting(self._alias_of(name)):
                continue
            waiting = self._ready.filter(queue_name=name, publish_after=None).order_by(
                "-priority", Coalesce("place", "pk")
            )
            first = waiting.values_list("pk", flat=True).first()
            before = self._suspicions.pop(name, None)
            if first is None or not self._is_empty(depot, name):
                continue
            if first != before:
                self._suspicions[name] = first
                continue
            ids = list(waiting.values_list("pk", flat=True)[:LOST_AT_ONCE])
            count += self._ready.filter(pk__in=ids, publish_after=None).update(publish_after=database_now(self._using))
            logger.warning("broker %r has lost runs of queue %r; publishing them again", self._alias_of(name), name)
        return count

    def _is_empty(self, depot: Depot, queue_name: str) -> bool:
        try:
            return depot.size(queue_name) == 0
        except DepotError as error:
            self.note_failure(depot.config.alias, error)
            return False


class Published:
    """Which rows this process has published, cleared in the database some at a time.

    A commit for each would halve the rate of enqueueing. What is never cleared, because the process ended or stopped
    enqueueing, is published once more by :meth:`Outbox.relay`, in vain.
    """

    def __init__(self, rows: DatabaseBroker) -> None:
        self._rows = rows
        self._lock = threading.Lock()
        self._ids: list[str] = []
        self._since = 0.0

    def note(self, ids: Iterable[str]) -> None:
        """These have been published. Called outside of transactions."""
        now = time.monotonic()
        with self._lock:
            if not self._ids:
                self._since = now
            self._ids += ids
            if len(self._ids) < NOTED_AT_ONCE and now - self._since < NOTED_FOR:
                return
            cleared, self._ids = self._ids, []
        self._clear(cleared)

    def _clear(self, ids: list[str]) -> None:
        published = self._rows.records.filter(status=Status.READY, publish_after__isnull=False)
        try:
            for start in range(0, len(ids), LOST_AT_ONCE):
                _note_published(published.filter(pk__in=ids[start : start + LOST_AT_ONCE]))
        except Error as error:
            # The enqueue itself has succeeded, and the outbox bears being told nothing.
            logger.warning("published runs could not be noted: %s", error)


def _note_published(rows: TaskQuerySet) -> None:
    """Clear the column of these rows, but those that are locked: whoever is claiming them does it himself.

    To wait for him would be to wait in a circle: he may hold some of them already, in another order.
    """
    if not connections[rows.db].features.has_select_for_update_skip_locked:
        rows.update(publish_after=None)
        return
    with transaction.atomic(using=rows.db):
        free = list(rows.select_for_update(skip_locked=True).values_list("pk", flat=True))
        rows.filter(pk__in=free).update(publish_after=None)
