"""The bookkeeping thread of a worker process: it records what has finished and fetches what to run next.

One thread, one connection, one selector: the doorbell and orders of the supervisor (a pipe), finished runs (another
pipe), and time. Recording and fetching share a transaction where a commit is what costs. Slots never wait for
it unless a start must be committed first.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections import deque
from typing import Any

from django.db import connections
from django.db.utils import DataError, Error, IntegrityError

from django_taskq.brokers.base import Broker
from django_taskq.brokers.database.broker import WAKE_INTERVAL
from django_taskq.exceptions import TaskCancelled
from django_taskq.message import Action, Delivery, Outcome
from django_taskq.worker import hygiene, orders, overrides, reaping, stacks, table
from django_taskq.worker.coroutines import make_lanes
from django_taskq.worker.ears import Ears
from django_taskq.worker.fetcher import Fetcher
from django_taskq.worker.health.counts import Reporter
from django_taskq.worker.lane import Lane, Lanes
from django_taskq.worker.memory import Wear
from django_taskq.worker.recorder import Recorder
from django_taskq.worker.starts import Starts

logger = logging.getLogger("django_taskq")

POLL_INTERVAL = 1.0  # seconds between looks when nothing rings; the doorbell is only a hint
BUSY_INTERVAL = 0.05  # seconds between looks at the slots while something runs
MARK_AFTER = 0.2  # seconds after which a run is shown as RUNNING before it ends
MOST_BACKOFF = 1.0


class Courier:
    """Carries deliveries from the broker to the slots and outcomes back. :meth:`run` is its thread's whole life."""

    def __init__(
        self,
        broker: Broker,
        process_id: int,
        fetcher: Fetcher,
        slot_table: table.SlotTable,
        pipe: int,
        *,
        coroutines: int = 0,
        quota: int | None = None,
        wear: Wear | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        """``pipe`` is the file descriptor of the supervisor's orders, ``quota`` how many runs to take at most.

        Of the table's slots the last ``coroutines`` are on the loop, the others are threads.
        """
        self.starts = Starts(self._wake)
        self.threads, self.coroutines = make_lanes(slot_table, coroutines, self)
        self._lanes = Lanes(self.threads, self.coroutines)
        self.slots: list[Any] = [slot for lane in self._lanes for slot in lane.slots]
        self._broker = broker
        self._process_id = process_id
        self._fetcher = fetcher
        self._recorder = Recorder(broker, process_id, reporter)
        self._reporter = reporter
        self._table = slot_table
        self._quota = quota
        self._wear = wear or Wear(slot_table, None, None)
        self._finished: deque[Outcome] = deque()
        self._unrecorded: list[Outcome] = []
        self._doubtful: list[int] = []
        self._look_at = 0.0
        self._had_rung = False
        self._idle_since = math.inf
        self._has_rung = True
        self._is_prepared = False
        self._is_asked_to_stop = False
        self._is_ending = False
        self._gives_back = self._has_closed = False
        self._is_waiting = False
        self._backoff = 0.0
        self._ears = Ears(pipe)
        self._reader = orders.Reader()

    # Called by slots, from their threads.

    def done(self, outcome: Outcome, lane: Lane) -> None:
        """A slot of this lane has finished with a delivery."""
        self._finished.append(outcome)
        if self._is_waiting and lane.is_low:
            self._wake()

    @property
    def is_stopping(self) -> bool:
        """Whether what runs should come to an end."""
        return self._gives_back or self._is_asked_to_stop

    def record_here(self, outcome: Outcome) -> bool:
        """Record a success on the calling thread's connection, in its open transaction; False when it was lost."""
        return not self._recorder.record([outcome])

    def ask_to_stop(self) -> None:
        """Have the thread call :meth:`stop`; safe in a signal handler."""
        self._is_asked_to_stop = True
        self._wake()

    # The thread.

    def run(self) -> None:
        """Serve until told to stop and everything held is recorded or given back."""
        while not (self._is_ending and self._lanes.held == 0 and not self._unrecorded):
            self._wait()
            self._turn()
        if self._reporter is not None:
            self._reporter.send(is_last=True)
        self._broker.close()
        connections.close_all()

    def stop(self) -> None:
        """Fetch no more, give back what has not started, and end once the rest is recorded."""
        self._gives_back = True
        self._fetch_no_more()

    def _fetch_no_more(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            for lane in self._lanes:
                lane.close()

    def _wake(self) -> None:
        self._is_waiting = False
        self._ears.wake()

    def _wait(self) -> None:
        self._is_waiting = True
        # Whoever finishes from here on sees the flag and wakes us; what finished before is seen by this look.
        is_low = any(lane.is_low for lane in self._lanes)
        if self.starts or (self._finished and is_low and not self._backoff):
            self._is_waiting = False
            return
        # While there is no room for more nobody reads what the broker sends, and it would ring on and on.
        senders = [] if self._is_ending or not self._lanes.room() else self._broker.filenos()
        heard, has_sent = self._ears.listen(self._timeout(), senders)
        self._has_rung |= has_sent
        if heard is not None:
            self._obey(heard)
        self._is_waiting = False

    def _timeout(self) -> float:
        if self._backoff:
            return self._backoff
        until_look = POLL_INTERVAL if self._is_ending else max(0.0, self._look_at - time.monotonic())
        if self._lanes.held or self._finished:
            soon = min(BUSY_INTERVAL, self._lanes.seconds_until_due())
            return min(soon, until_look) if self._lanes.room() else soon
        return 0.0 if self._has_rung else until_look

    def _obey(self, heard: bytes) -> None:
        if not heard:
            reaping.leave(1)  # the supervisor is gone: nobody keeps our lease, and the next one rescues what we hold
        for order in self._reader.feed(heard):
            match order.word:
                case orders.STOP:
                    self.stop()
                case orders.RING:
                    self._has_rung = True
                case orders.CANCEL:
                    self._cancel(int(order.more))
                case orders.QUEUES:
                    self._fetcher.closed = frozenset(json.loads(order.more))
                    self._has_closed = self._has_rung = True
                case orders.LIMITS:
                    overrides.obey(order)
                case orders.DUMP:
                    stacks.log()
                case orders.QUIET | orders.WORK:
                    self._fetcher.is_quiet = order.word == orders.QUIET
                    self._has_closed = self._has_rung = True

    def _turn(self) -> None:
        if self._is_asked_to_stop:
            self.stop()
        self._table.times[table.TICK] = time.monotonic()
        outcomes = self._unrecorded
        while self._finished:
            outcomes.append(self._finished.popleft())
        self._unrecorded = outcomes
        try:
            if not self._is_prepared:
                self._broker.prepare()
                self._is_prepared = True
            self._exchange(outcomes)
            self._lanes.hand_on()
            self.starts.work_off(self._broker, self._process_id)
            self._watch_slots()
            self._backoff = 0.0
        except Error as error:
            self._recover(error)
        if self._quota == 0 and self._lanes.held == 0:
            self._fetch_no_more()
        self._table.words[table.HELD], self._table.words[table.SOUND] = self._lanes.load, not self._backoff
        self._wear.look()
        if self._reporter is not None:
            self._reporter.send()
        hygiene.forget_queries()

    def _exchange(self, outcomes: list[Outcome]) -> None:
        """Record and fetch, together where both are to be done."""
        want = self._wanted(outcomes)
        if not (outcomes or want or self._doubtful):
            return
        if want:
            self._table.words[table.DRY] = 0  # it is about to take what somebody else may have to find gone
        if want and (self._has_rung or self._had_rung):
            self._broker.admit()
        lost, taken = list[Outcome](), list[Delivery]()
        self._fetcher.next_claim = max(self._fetcher.next_claim, self._table.words[table.REVOKED] + 1)
        first_claim, last_claim = self._fetcher.next_claim, self._fetcher.most_claims(want)
        self._table.words[table.LAST_CLAIM] = last_claim
        try:
            if outcomes or self._doubtful:
                lost, taken = self._record_and_fetch(outcomes, want)
            elif want:
                taken = self._fetcher.fetch(want, look_first=True)
        except Error:
            # It may have been committed all the same; what it claimed then is given back with the next success.
            if want:
                self._doubtful += range(first_claim, last_claim + 1)
                self._fetcher.next_claim = last_claim + 1
            raise
        self._unrecorded = []
        self._account_for(outcomes)
        self._hand_out(taken, want)
        self._recorder.announce(outcomes, lost)

    def _record_and_fetch(self, outcomes: list[Outcome], want: int) -> tuple[list[Outcome], list[Delivery]]:
        try:
            with self._broker.bundle():
                lost, taken = self._recorder.record_and_take(outcomes, self._fetcher.room(want))
                self._fetcher.next_claim += len(taken)
                self._broker.release(self._process_id, self._doubtful)
                if want > len(taken):
                    taken += self._fetcher.fetch(want - len(taken), look_first=False)
        except (DataError, IntegrityError):
            if not outcomes:
                raise
            logger.exception("a batch of %d outcomes could not be recorded; trying one by one", len(outcomes))
            return self._recorder.record_singly(outcomes), []
        self._doubtful = []
        return lost, taken

    def _account_for(self, outcomes: list[Outcome]) -> None:
        if self._quota is not None:
            self._quota += sum(outcome.action is Action.RELEASED for outcome in outcomes)
        self._table.words[table.DONE] += self._lanes.account_for(outcomes)

    def _wanted(self, outcomes: list[Outcome]) -> int:
        if self._is_ending or self._has_closed:
            return 0
        now = time.monotonic()
        avoided, self._fetcher.avoided = self._fetcher.avoided, self._lanes.avoided()
        self._has_rung |= not avoided <= self._fetcher.avoided or any(outcome.frees_others for outcome in outcomes)
        if not self._has_rung and now < self._look_at:
            return 0
        room = self._lanes.room(outcomes)
        return room if self._quota is None else min(room, self._quota)

    def _hand_out(self, taken: list[Delivery], want: int) -> None:
        if not want:
            return
        now = time.monotonic()
        if len(taken) == want:
            self._look_at = now
        else:
            # Whoever rang within the interval of an earlier ring was not heard: look once more after that.
            may_have_missed = self._has_rung or taken or self._broker.is_behind
            self._look_at = now + (WAKE_INTERVAL if may_have_missed else POLL_INTERVAL * random.uniform(0.8, 1.2))
        self._had_rung = self._has_rung
        self._has_rung = False
        rest = self._lanes.hand_out(taken)
        if self._quota is not None:
            self._quota -= len(taken) - len(rest)
        self._release(rest)
        is_idle = not taken and self._lanes.held == 0 and not self._broker.is_behind
        self._idle_since = min(self._idle_since, now) if is_idle else math.inf
        self._table.words[table.IDLE] = is_idle
        self._table.words[table.DRY] = is_idle and now - self._idle_since >= self._broker.doubt()

    def _watch_slots(self) -> None:
        """Show what lasts as RUNNING, and let nothing wait behind it."""
        now = time.monotonic()
        lasting = [
            (s, s.delivery) for s in self.slots if not s.is_marked and s.delivery and now - s.started > MARK_AFTER
        ]
        if lasting:
            with self._broker.bundle():
                for slot, delivery in lasting:
                    self._broker.mark_started(self._process_id, delivery, time.time() - (now - slot.started))
            for slot, delivery in lasting:
                slot.is_marked |= slot.delivery is delivery
        for lane in self._lanes:
            # Also when a queue is closed: what of it was fetched may be for others, and what else was comes back with
            # the next fetch.
            is_all = self._gives_back or self._has_closed or lane.is_slow
            excess = None if is_all else lane.excess
            if excess != 0:
                taken = lane.take_back(excess)
                if self._quota is not None:
                    self._quota += len(taken)
                self._release(taken)
        if self._gives_back or self._has_closed or self._lanes.are_slow:
            # What was sent ahead waits no less.
            self._broker.pause()
            self._has_closed = False

    def _cancel(self, claim: int) -> None:
        """Interrupt this run. One that has not started is given back, and so cancelled by its row."""
        error = TaskCancelled("cancelled while it ran")
        if not any(slot.interrupt(error, claim=claim) for slot in self.slots):
            self._has_closed = True

    def _release(self, deliveries: list[Delivery]) -> None:
        if deliveries:
            self._doubtful += [delivery.claim for delivery in deliveries]
            with self._broker.transaction():
                self._broker.release(self._process_id, self._doubtful)
            self._doubtful = []

    def _recover(self, error: Error) -> None:
        if not self._backoff:
            logger.warning("bookkeeping failed, trying again until it works: %s: %s", type(error).__name__, error)
        self._backoff = min(MOST_BACKOFF, max(0.05, 2 * self._backoff) * random.uniform(0.8, 1.2))
        self._has_rung = True
        self._is_prepared = False
        hygiene.drop_connections()
