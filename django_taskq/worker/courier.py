"""The bookkeeping thread of a worker process: it records what has finished and fetches what to run next.

One thread, one connection, one selector: the doorbell and orders of the supervisor (a pipe), finished runs (another
pipe), and time. Recording and fetching share a transaction where a commit is what costs. Slots never wait for
it unless a start must be committed first.
"""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from django.db import connections
from django.db.utils import DataError, Error, IntegrityError

from django_taskq.brokers.base import Broker
from django_taskq.brokers.database.broker import WAKE_INTERVAL
from django_taskq.exceptions import SerializationError
from django_taskq.message import Action, Delivery, Outcome
from django_taskq.worker import executor, hygiene, table
from django_taskq.worker.ears import Ears
from django_taskq.worker.fetcher import HORIZON, Fetcher, Prefetch
from django_taskq.worker.recorder import Recorder
from django_taskq.worker.slots import Slot

logger = logging.getLogger("django_taskq")

RING, STOP = b"r", b"s"
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
        orders: int,
        *,
        quota: int | None = None,
    ) -> None:
        """``orders`` is the file descriptor of the supervisor's pipe, ``quota`` how many runs to take at most."""
        self.inbox: SimpleQueue[Delivery | None] = SimpleQueue()
        self.slots = [Slot(number, slot_table, self, self.inbox) for number in range(slot_table.slots)]
        self._broker = broker
        self._process_id = process_id
        self._fetcher = fetcher
        self._recorder = Recorder(broker, process_id)
        self._prefetch = Prefetch(len(self.slots))
        self._table = slot_table
        self._quota = quota
        self._finished: deque[Outcome] = deque()
        self._unrecorded: list[Outcome] = []
        self._starts: deque[tuple[Delivery, Callable[[bool], None]]] = deque()
        self._doubtful: list[int] = []
        self._held = 0
        self._low_water = 0
        self._look_at = 0.0
        self._idle_since = math.inf
        self._has_rung = True
        self._is_prepared = False
        self._is_asked_to_stop = False
        self._is_ending = False
        self._gives_back = False
        self._is_waiting = False
        self._backoff = 0.0
        self._ears = Ears(orders)

    # Called by slots, from their threads.

    def done(self, outcome: Outcome) -> None:
        """A slot has finished with a delivery."""
        self._finished.append(outcome)
        if self._is_waiting and self.inbox.qsize() <= self._low_water:
            self._wake()

    def commit_start(self, delivery: Delivery) -> bool:
        """Commit the start of a run before it is made; False when its claim was lost."""
        answer: SimpleQueue[bool] = SimpleQueue()
        self._starts.append((delivery, answer.put))
        self._wake()
        return answer.get()

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
        while not (self._is_ending and self._held == 0 and not self._unrecorded):
            self._wait()
            self._turn()
        self._broker.close()
        connections.close_all()

    def stop(self) -> None:
        """Fetch no more, give back what has not started, and end once the rest is recorded."""
        self._gives_back = True
        self._fetch_no_more()

    def _fetch_no_more(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            for _ in self.slots:
                self.inbox.put(None)

    def _wake(self) -> None:
        self._is_waiting = False
        self._ears.wake()

    def _wait(self) -> None:
        self._is_waiting = True
        # Whoever finishes from here on sees the flag and wakes us; what finished before is seen by this look.
        if self._starts or (self._finished and self.inbox.qsize() <= self._low_water and not self._backoff):
            self._is_waiting = False
            return
        # While there is no room for more nobody reads what the broker sends, and it would ring on and on.
        senders = [] if self._is_ending or not self._room() else self._broker.filenos()
        orders, has_sent = self._ears.listen(self._timeout(), senders)
        self._has_rung |= has_sent
        if orders is not None:
            self._obey(orders)
        self._is_waiting = False

    def _timeout(self) -> float:
        if self._backoff:
            return self._backoff
        until_look = POLL_INTERVAL if self._is_ending else max(0.0, self._look_at - time.monotonic())
        if self._held or self._finished:
            return min(BUSY_INTERVAL, until_look) if self._room() else BUSY_INTERVAL
        return 0.0 if self._has_rung else until_look

    def _obey(self, orders: bytes) -> None:
        if not orders:
            os._exit(1)  # the supervisor is gone: nobody keeps our lease, and the next one rescues what we hold
        if STOP in orders:
            self.stop()
        if RING in orders:
            self._has_rung = True

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
            self._commit_starts()
            self._watch_slots()
            self._backoff = 0.0
        except Error as error:
            self._recover(error)
        if self._quota == 0 and self._held == 0:
            self._fetch_no_more()
        hygiene.forget_queries()

    def _exchange(self, outcomes: list[Outcome]) -> None:
        """Record and fetch, together where both are to be done."""
        want = self._wanted(len(outcomes))
        if not outcomes and not want and not self._doubtful:
            return
        taken: list[Delivery] = []
        lost: list[Outcome] = []
        # Numbers up to the revoked one are refused at their start; there is no point in giving them out.
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
                lost = self._recorder.record(outcomes)
                self._broker.release(self._process_id, self._doubtful)
                taken = self._fetcher.fetch(want, look_first=False) if want else []
        except (DataError, IntegrityError):
            if not outcomes:
                raise
            logger.exception("a batch of %d outcomes could not be recorded; trying one by one", len(outcomes))
            return self._record_singly(outcomes), []
        self._doubtful = []
        return lost, taken

    def _record_singly(self, outcomes: list[Outcome]) -> list[Outcome]:
        """One outcome the database refuses must not hold up the others: it is FAILED with the refusal."""
        lost: list[Outcome] = []
        for outcome in outcomes:
            try:
                with self._broker.transaction():
                    lost += self._recorder.record([outcome])
            except (DataError, IntegrityError) as error:
                refusal = SerializationError(f"the database refused what the run left: {error}")
                outcome.action, outcome.result, outcome.error = Action.FAILED, None, executor.describe(refusal)
                with self._broker.transaction():
                    lost += self._recorder.record([outcome])
        return lost

    def _account_for(self, outcomes: list[Outcome]) -> None:
        self._held -= len(outcomes)
        if self._quota is not None:
            self._quota += sum(outcome.action is Action.RELEASED for outcome in outcomes)
        ran = [o.finished_at - o.started_at for o in outcomes if o.finished_at and o.started_at]
        self._prefetch.observe(sum(ran), len(ran))
        self._table.words[table.DONE] += len(ran)

    def _wanted(self, finishing: int) -> int:
        if self._is_ending:
            return 0
        now = time.monotonic()
        if not self._has_rung and now < self._look_at:
            return 0
        room = self._room(finishing)
        return room if self._quota is None else min(room, self._quota)

    def _room(self, finishing: int = 0) -> int:
        """How many more to hold; nothing until a good part of what is held is done, or a slot is free."""
        held = self._held - finishing
        if self._all_slow():
            return 0
        target = self._prefetch.target()
        self._low_water = max(target // 2, len(self.slots) - 1)
        return target - held if held <= self._low_water else 0

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
        self._has_rung = False
        self._held += len(taken)
        self._prefetch.held(self._held)
        for delivery in taken:
            self.inbox.put(delivery)
        if self._quota is not None:
            self._quota -= len(taken)
        is_idle = not taken and self._held == 0 and not self._broker.is_behind
        self._idle_since = min(self._idle_since, now) if is_idle else math.inf
        self._table.words[table.IDLE] = is_idle
        self._table.words[table.DRY] = is_idle and now - self._idle_since >= self._broker.doubt()

    def _commit_starts(self) -> None:
        while self._starts:
            delivery, answer = self._starts[0]
            is_held = self._broker.mark_started(self._process_id, delivery, time.time())
            self._starts.popleft()
            answer(is_held)

    def _all_slow(self) -> bool:
        now = time.monotonic()
        return all(slot.delivery is not None and now - slot.started > HORIZON for slot in self.slots)

    def _watch_slots(self) -> None:
        """Show what lasts as RUNNING, and let nothing wait behind it."""
        now = time.monotonic()
        for slot in self.slots:
            delivery = slot.delivery
            if delivery is not None and not slot.is_marked and now - slot.started > MARK_AFTER:
                self._broker.mark_started(self._process_id, delivery, time.time() - (now - slot.started))
                slot.is_marked = True
        if self._gives_back or self._all_slow():
            self._give_back()
            self._broker.pause()

    def _give_back(self) -> None:
        claims: list[int] = []
        markers = 0
        with suppress(Empty):
            while True:
                delivery = self.inbox.get_nowait()
                if delivery is None:
                    markers += 1
                else:
                    claims.append(delivery.claim)
        for _ in range(markers):
            self.inbox.put(None)
        if claims:
            self._held -= len(claims)
            if self._quota is not None:
                self._quota += len(claims)
            self._doubtful += claims
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
