"""Worker processes that are objects of this one: each claims, runs and settles as real ones do, and dies when told to.

They work through workflows in any order that chance takes, on any broker. A killed process is forgotten with all it
held, at any point of its bookkeeping; a frozen one is given up by its supervisor, and comes with its outcomes later.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from django.db import connections

from django_taskq import maintenance, serializers
from django_taskq.brokers import get_broker
from django_taskq.brokers.base import Broker
from django_taskq.brokers.database.advancing import Advance
from django_taskq.brokers.database.rows import to_message
from django_taskq.brokers.mixed import MixedBroker
from django_taskq.maintenance import Death
from django_taskq.message import Action, Delivery, Message, Outcome, Room
from django_taskq.models import TaskRecord, Workflow
from django_taskq.status import FINAL, Status
from django_taskq.worker import executor
from tests.faults.random_canvases import call_of
from tests.testapp.fault_canvas_tasks import DIE
from tests.unit.working import RecordingGuard

QUEUE = "default"
STARTED, RECORDED = (Action.SUCCESS, Action.FAILED, Action.REPLACED), (Action.SUCCESS, Action.FAILED)
# Where a process may die while it settles and claims: before the commit, in the middle of moving workflows on, between
# the commit and what depots are told of it, and after all that.
NOWHERE, BEFORE_COMMIT, ADVANCING, BEFORE_TELLING, AFTER = "nowhere", "before", "advancing", "telling", "after"
DEATHS = (BEFORE_COMMIT, ADVANCING, BEFORE_TELLING, AFTER)
process_numbers = count(100_000)


class Killed(BaseException):
    """A simulated process ends here."""


@dataclass(eq=False)
class Process:
    """One of them. ``held`` is claimed, ``done`` is run and yet to be settled; ``is_given_up`` by its supervisor."""

    broker: Broker = field(repr=False)
    id: int = field(default_factory=lambda: next(process_numbers))
    held: list[Delivery] = field(default_factory=list, repr=False)
    done: list[Outcome] = field(default_factory=list, repr=False)
    next_claim: int = 1
    is_given_up: bool = False

    def close(self) -> None:
        """What it had open ends with it, as by the kernel: nothing is said to anybody."""
        if isinstance(self.broker, MixedBroker):
            for depot in self.broker.depots.values():
                depot.close()


class Guard(RecordingGuard):
    """Asks for what a real slot asks for."""

    def __init__(self, process: Process, history: History) -> None:
        self._process = process
        self._history = history

    def begin(self, delivery: Delivery, hard: float | None, memory: int = 0, *, commit_first: bool) -> bool:
        if commit_first and not self._process.broker.mark_started(self._process.id, delivery, time.time()):
            return False
        self._history.note_start(self._process, delivery)
        return True

    def commit(self, outcome: Outcome) -> bool:
        is_ours = not self._process.broker.settle(self._process.id, [outcome])
        if is_ours:
            self._history.note_settled(outcome)
        return is_ours


@dataclass
class History:
    """What was started, and what was recorded of it: by run."""

    starts: dict[str, list[tuple[Process, int, str]]] = field(default_factory=lambda: defaultdict(list))
    settled: dict[str, list[Outcome]] = field(default_factory=lambda: defaultdict(list))

    def note_start(self, process: Process, delivery: Delivery) -> None:
        if delivery.name.startswith("faults."):
            has_ended = any(outcome.action is not Action.RETRY for outcome in self.settled[delivery.id])
            assert process.is_given_up or not has_ended, f"{delivery} was started although it had ended"
            (args, _) = serializers.loads(delivery.payload)
            self.starts[delivery.id].append((process, delivery.claim, call_of(delivery.name, args)))

    def note_settled(self, outcome: Outcome) -> None:
        if outcome not in self.settled[outcome.delivery.id]:
            self.settled[outcome.delivery.id].append(outcome)

    def calls(self) -> Counter[str]:
        """What was called, however often it had to be; a run is never called with other arguments than before."""
        for id, starts in self.starts.items():
            assert len({call for _, _, call in starts}) == 1, f"run {id} was started as {starts}"
        return Counter(starts[0][2] for starts in self.starts.values())

    def check(self) -> None:
        """Nothing was recorded twice, and nothing started again that had neither been retried nor lost its process."""
        for id, starts in self.starts.items():
            again = {o.delivery.claim for o in self.settled[id] if o.action is Action.RETRY}
            good = [process for process, claim, _ in starts if not process.is_given_up and claim not in again]
            assert len(good) <= 1, f"run {id} was started again: {starts}"
        for id, outcomes in self.settled.items():
            own = [o for o in outcomes if o.action in RECORDED]
            assert len(own) <= 1, f"run {id} was recorded as ended {len(own)} times: {own}"
            assert sum(o.action is Action.REPLACED for o in outcomes) <= 1, f"run {id} was replaced more than once"


class Simulation:
    """Some processes and a supervisor, on one broker, led by one source of chance."""

    def __init__(self, random: Random, make: Callable[[], Broker], *, processes: int = 3) -> None:
        """``make`` makes the broker of a process."""
        self._random = random
        self._make = make
        self.history = History()
        self._living = [Process(make()) for _ in range(processes)]
        self._dead: list[tuple[Process, set[int] | None]] = []
        self._frozen: list[Process] = []
        self._messages: list[Message] = []
        self.faults: Counter[str] = Counter()

    def run(self, *, faulty: int = 60, at_most: int = 3000) -> None:
        """Until every workflow has ended; what goes wrong does so in the first ``faulty`` actions."""
        for number in range(at_most):
            has_faults = number < faulty
            if number % 5 == 0 and not Workflow.objects.unfinished().exists() and self._is_quiet():
                break
            self._act(has_faults)
            if not has_faults and number % 6 == 0:
                self._bury(len(self._dead))
                self._thaw(len(self._frozen))
                self._supervise()
        else:
            rows = TaskRecord.objects.exclude(status__in=FINAL).values_list("pk", "status", "name", "waits_at")
            raise AssertionError(f"there is no end to it; {list(rows)}, {Workflow.objects.unfinished().count()} left")
        self._thaw(len(self._frozen))
        self._bury(len(self._dead))
        for process in self._living:
            assert self._claim(process, 100) == [], "what has ended was handed out again"
            process.close()

    def _is_quiet(self) -> bool:
        return not any(process.done or process.held for process in self._living) and not self._dead

    def _act(self, has_faults: bool) -> None:
        process = self._random.choice(self._living)
        chance = self._random.random()
        if not has_faults or chance < 0.4:
            self._execute(process)
            if not process.is_given_up:
                self._exchange(process, NOWHERE)
        elif chance < 0.55:
            self._execute(process)
        elif chance < 0.7:
            self._exchange(process, NOWHERE)
        elif chance < 0.76:
            self._exchange(process, self._random.choice(DEATHS))
        elif chance < 0.8:
            self._kill(process)
        elif chance < 0.84:
            self._freeze(process)
        elif chance < 0.9:
            self._bury(1)
            self._thaw(1)
        elif chance < 0.95:
            self._duplicate(process)
        else:
            self._supervise()

    # What processes do.

    def _execute(self, process: Process) -> None:
        """Run some of what it holds."""
        for _ in range(self._random.randint(1, 3)):
            if not process.held:
                return
            delivery = process.held.pop(0)
            if self._is_deadly(delivery):
                guard = Guard(process, self.history)
                if guard.begin(delivery, None, commit_first=delivery.is_suspect):
                    self._end(process, {delivery.claim})
                    return
                process.done.append(Outcome(delivery, Action.RELEASED))
                continue
            process.done.append(executor.execute(delivery, Guard(process, self.history)))

    @staticmethod
    def _is_deadly(delivery: Delivery) -> bool:
        (args, _) = serializers.loads(delivery.payload)
        spec = args[-1] if args and isinstance(args[-1], dict) else {}
        return spec.get("how") == DIE and delivery.attempt >= spec["good"]

    def _exchange(self, process: Process, dies_at: str) -> None:
        """Settle what is done, now and then twice, and claim more; as a courier does, and as couriers die."""
        is_repeated = dies_at == NOWHERE and self._random.random() < 0.2
        outcomes, process.done = process.done, []
        lost: list[Outcome] = []
        try:
            with self._dying(process, dies_at), process.broker.bundle():
                room = Room(process.next_claim, self._random.randint(0, 3), (QUEUE,))
                lost, taken = process.broker.settle_and_take(process.id, outcomes, room) if outcomes else ([], [])
                process.next_claim += len(taken)
                taken += self._claim(process, room.limit - len(taken))
                if dies_at == BEFORE_COMMIT:
                    is_undone = connections["default"].in_atomic_block
                    raise Killed
        except Killed:
            if dies_at == BEFORE_TELLING or (dies_at == BEFORE_COMMIT and not is_undone):
                self._note(outcomes, lost)
            self._end(process, set() if self._random.random() < 0.5 else None)
            return
        self._note(outcomes, lost)
        process.held += taken
        if dies_at != NOWHERE:
            self._kill(process)
        elif is_repeated and outcomes:
            self.faults["outcomes settled twice"] += 1
            process.broker.settle(process.id, outcomes)

    def _note(self, outcomes: list[Outcome], lost: list[Outcome]) -> None:
        for outcome in outcomes:
            if outcome not in lost:
                self.history.note_settled(outcome)

    def _claim(self, process: Process, limit: int) -> list[Delivery]:
        if not limit:
            return []
        first, process.next_claim = process.next_claim, process.next_claim + limit
        return process.broker.claim(QUEUE, limit, process.id, first)

    @contextmanager
    def _dying(self, process: Process, dies_at: str) -> Iterator[None]:
        def die(*args: Any) -> None:
            raise Killed

        if dies_at == ADVANCING:
            inner, Advance._hand_on = Advance._hand_on, die  # type: ignore[method-assign]
            try:
                yield
            finally:
                Advance._hand_on = inner  # type: ignore[method-assign]
            return
        if dies_at == BEFORE_TELLING and isinstance(process.broker, MixedBroker):
            process.broker._carry_on = die  # type: ignore[method-assign]
        yield

    # What becomes of them.

    def _kill(self, process: Process) -> None:
        """In the middle of a run, or between two; what it has run and not settled is forgotten."""
        running: set[int] | None = None
        if process.held and self._random.random() < 0.6:
            delivery, guard = process.held.pop(0), Guard(process, self.history)
            if not self._is_deadly(delivery):
                executor.execute(delivery, guard)
            elif not guard.begin(delivery, None, commit_first=delivery.is_suspect):
                return
            running = {delivery.claim}
        elif self._random.random() < 0.5:
            running = set()
        self._end(process, running)

    def _end(self, process: Process, running: set[int] | None) -> None:
        self.faults["kills"] += 1
        process.is_given_up = True
        process.close()
        self._living.remove(process)
        self._living.append(Process(self._make()))
        self._dead.append((process, running))

    def _freeze(self, process: Process) -> None:
        """Its supervisor gives it up, and it does not know."""
        if not process.done and not process.held:
            return
        self.faults["late results"] += 1
        process.is_given_up = True
        self._living.remove(process)
        self._living.append(Process(self._make()))
        self._settle_death(process, {each.claim for each in process.held[:1]})
        self._frozen.append(process)

    def _thaw(self, most: int) -> None:
        for process in self._frozen[:most]:
            self._frozen.remove(process)
            still_good = [each for each in process.held if not self._is_deadly(each)]
            process.done += [executor.execute(each, Guard(process, self.history)) for each in still_good]
            with process.broker.bundle():
                lost = process.broker.settle(process.id, process.done)
            for outcome in process.done:
                is_free = outcome.action is Action.RELEASED or outcome.is_recorded
                assert is_free or outcome in lost, f"{outcome} came late, and was recorded"
            process.close()

    def _bury(self, most: int) -> None:
        for process, running in self._dead[:most]:
            self._settle_death(process, running)
        del self._dead[:most]

    def _settle_death(self, process: Process, running: set[int] | None) -> None:
        """Only what kills on purpose is charged to its end: what it would be otherwise is left to chance."""
        held = TaskRecord.objects.filter(worker_id=process.id, status=Status.RUNNING)
        chosen = held if running is None else held.filter(claim__in=running)
        is_charged = not any(row.crashes == 2 and '"how":"die"' not in row.payload for row in chosen)
        maintenance.settle_death(Death(process.id, "it was killed", running, is_charged=is_charged))

    # What goes on around them.

    def _duplicate(self, process: Process) -> None:
        """Messages come twice, or when nobody waits for them any more, or yet."""
        if isinstance(process.broker, MixedBroker):
            # Also as they were some time ago, which is how they look when they were on their way meanwhile.
            self._messages += map(to_message, TaskRecord.objects.order_by("pk"))
            some = self._random.sample(self._messages, min(3, len(self._messages)))
            self.faults["messages sent again"] += len(some)
            process.broker.depots[QUEUE].publish(some)

    def _supervise(self) -> None:
        maintenance.promote_due()
        get_broker().relay()
        maintenance.look_after_workflows()
