"""Letting runs past their gates: the one place where it is decided who may start of what is limited.

A run stands at one gate at a time, from the narrowest to the widest, and holds a permit of each that it has passed.
Behind the last one it is READY. Who decides locks the limits first, and then counts the permits that are held: there is
no number that could be wrong after a crash. The same transaction that records the end of a run lets the next ones pass.

New arrivals are looked at by whoever is rung, or by any keeper; none is forgotten, because what was not looked at says
so itself. Everything may be repeated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Exists, F, OuterRef

from django_taskq import gates as gates_module
from django_taskq.brokers.database.dialect import Dialect
from django_taskq.brokers.database.limit_dialect import Arrival, LimitState, Passed
from django_taskq.conflicts import persist
from django_taskq.flow_options import SHORTEST_LOOK
from django_taskq.gates import AT_GATE, Gate, Kind, gates_of
from django_taskq.message import new_ids
from django_taskq.models import Limit, Permit, TaskRecord
from django_taskq.models.flow import PermitState
from django_taskq.models.outbox import publication
from django_taskq.status import Status

ARRIVALS_AT_ONCE = 1000
PASSED_AT_ONCE = 1000
OPENED_AT_ONCE = 200
# Seconds of a rate that come late and are not lost by it.
MOST_LATE = 0.25
_RATES = (Kind.RATE, Kind.QUEUE_RATE)


class Rows(Protocol):
    """The broker of the rows, as far as this module needs it."""

    using: str
    dialect: Dialect

    def worth_waking(self, queue_names: set[str]) -> list[str]: ...


def arrive(rows: Rows, runs: Iterable[tuple[str, str | None, int]]) -> None:
    """Put runs (id, headers, priority), whose rows wait at a gate, at their first ones; in the open transaction."""
    arrivals = []
    for id, headers, priority in runs:
        gates = gates_of(headers)
        arrivals.append(Arrival(id, gates[0].key, priority, gates_module.dumps(gates)))
    if arrivals:
        rows.dialect.insert_permits(connections[rows.using], arrivals, is_new=True)


def admit_arrivals(rows: Rows) -> int:
    """Look at what has newly arrived at gates; returns how many runs became READY."""
    connection = connections[rows.using]
    count = 0
    while rows.dialect.has_arrivals(connection):
        passed, taken = persist(rows.using, lambda: _transact(rows, {}))
        count += passed
        if taken < ARRIVALS_AT_ONCE:
            break  # what is left others are looking at
    return count


def _transact(rows: Rows, gates: Mapping[str, Gate]) -> tuple[int, int]:
    with transaction.atomic(using=rows.using):
        admission = Admission(rows)
        taken = admission.take_arrivals()
        return admission.look(gates), taken


def tend(rows: Rows) -> float | None:
    """What supervisors see to: arrivals, rates and breakers whose time has come, and permits of runs that are gone.

    Returns the seconds until the next one opens; None where nobody waits for that.
    """
    using = rows.using
    glance = rows.dialect.glance(connections[using])
    if glance.has_arrivals:
        admit_arrivals(rows)

    def sweep() -> None:
        with transaction.atomic(using=using):
            # The write comes first: SQLite refuses a transaction that read before another one wrote.
            orphans = rows.dialect.drop_orphans(connections[using])
            if orphans:
                Admission(rows).look({key: _gate_of(key, gates) for key, gates in orphans})

    if glance.has_holders:
        persist(using, sweep)
    if glance.opens_at is not None and glance.opens_at <= glance.now:
        _open(rows, glance.now)
    if glance.has_arrivals or glance.has_holders or glance.opens_at is not None:
        glance = rows.dialect.glance(connections[using])
    return None if glance.opens_at is None else max(0.0, glance.opens_at - glance.now)


def _open(rows: Rows, now: float) -> None:
    """Look at all limits whose time has come."""
    due = Limit.objects.using(rows.using).filter(opens_at__lte=now).order_by("opens_at")
    # None of them is due again by then.
    while some := {row.key: row.as_gate() for row in due.all()[:OPENED_AT_ONCE]}:
        persist(rows.using, partial(look_at, rows, some))


def look_at(rows: Rows, gates: Mapping[str, Gate]) -> int:
    """Let past these gates whoever may, in a transaction of its own; returns how many runs became READY."""
    with transaction.atomic(using=rows.using):
        # The write comes first: SQLite refuses a transaction that read before another one wrote.
        Limit.objects.using(rows.using).filter(pk=min(gates)).update(opens_at=F("opens_at"))
        return Admission(rows).look(gates)


def _gate_of(key: str, gates: str) -> Gate:
    return next(gate for gate in gates_module.loads(gates) if gate.key == key)


class Admission:
    """One look at gates, in the open transaction of the calling thread."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._using = rows.using
        self._dialect = rows.dialect
        self._connection = connections[rows.using]
        # By rank: the gates to look at, and the run by whose word each is declared as it is.
        self._to_look: dict[int, dict[str, tuple[Gate, str]]] = defaultdict(dict)
        self._through: list[Passed] = []

    def take_arrivals(self) -> int:
        """Have the gates of new arrivals looked at; returns how many arrivals."""
        arrivals = self._dialect.take_arrivals(self._connection, ARRIVALS_AT_ONCE)
        for arrival in arrivals:
            self._note(gates_module.loads(arrival.gates)[0], arrival.task_id)
        return len(arrivals)

    def leave(self, ended: Sequence[tuple[str, str | None]]) -> set[str]:
        """These runs (id, headers) are over, or wait for something else: have who comes after them looked at.

        Returns the keys that they held places of.
        """
        left = self._leave([id for id, _ in ended])
        for _, headers in ended:
            for gate in gates_of(headers):
                self._note(gate)
        return {key for key, _, state in left if state == PermitState.HELD}

    def _leave(self, ids: Sequence[str]) -> list[tuple[str, str, int]]:
        """Take back all that these runs hold, and have it given to others."""
        left = self._dialect.leave(self._connection, ids)
        for key, gates, _ in left:
            self._note(_gate_of(key, gates))
        return left

    def look(self, gates: Mapping[str, Gate] | None = None) -> int:
        """Let past these and the noted gates whoever may; returns how many runs became READY."""
        for gate in (gates or {}).values():
            self._note(gate)
        count = 0
        while self._to_look:
            # Each rank before the wider ones: nobody can wait in a circle, neither runs nor who looks.
            while self._to_look:
                self._look_at(self._to_look.pop(min(self._to_look)))
            count += self._let_go()
        return count

    def _note(self, gate: Gate, task_id: str = "") -> None:
        some = self._to_look[gate.rank]
        known = some.get(gate.key)
        if known is None or task_id > known[1]:
            some[gate.key] = (gate, task_id)

    def _look_at(self, noted: Mapping[str, tuple[Gate, str]]) -> None:
        limits = self._lock(noted)
        kinds = {key: Kind(gate.kind) for key, (gate, _) in noted.items()}
        rates = [key for key, kind in kinds.items() if kind in _RATES]
        counted = [key for key, kind in kinds.items() if kind not in (*_RATES, Kind.BREAKER)]
        held = self._dialect.held(self._connection, counted) if counted else {}
        if rates:
            held |= self._dialect.unclaimed(self._connection, rates)
        rooms = {limit.key: room(kinds[limit.key], limit, held.get(limit.key, 0)) for limit in limits}
        open_ones = [(key, number) for key, number in sorted(rooms.items()) if number > 0]
        passed = self._dialect.pass_on(self._connection, open_ones) if open_ones else []
        self._go_on(passed)
        timed = [limit for limit in limits if kinds[limit.key] in (*_RATES, Kind.BREAKER)]
        if timed:
            self._note_times(timed, kinds, passed)
        # With more room than is given out at once there may be more to pass.
        numbers = _numbers(passed)
        for key, number in open_ones:
            if number == PASSED_AT_ONCE == numbers[key]:
                self._note(noted[key][0])

    def _go_on(self, passed: Sequence[Passed]) -> None:
        """To their next gates; those that do not wait any more, to nowhere."""
        further = {run.task_id: gates_module.loads(run.gates)[1:] for run in passed}
        self._through += [run for run in passed if not further[run.task_id]]
        onward = [run for run in passed if further[run.task_id]]
        if not onward:
            return
        rows = TaskRecord.objects.using(self._using).filter(pk__in=[run.task_id for run in onward])
        waiting = rows.filter(status=Status.WAITING, waits_at=AT_GATE).values_list("pk", flat=True)
        there = {str(pk) for pk in waiting}
        arrivals = []
        for run in onward:
            if run.task_id in there:
                gates = further[run.task_id]
                arrivals.append(Arrival(run.task_id, gates[0].key, run.priority, gates_module.dumps(gates)))
                self._note(gates[0], run.task_id)
        self._dialect.insert_permits(self._connection, arrivals, is_new=False)
        self._drop([run.task_id for run in onward if run.task_id not in there])

    def _drop(self, stale: Sequence[str]) -> None:
        """These runs were cancelled or deleted while they waited: their places are somebody else's."""
        if stale:
            # And all others at their gates at once: who cancels one run often cancels thousands.
            keys = {key for key, _, _ in self._leave(stale)}
            self._leave(self._dialect.drop_stale(self._connection, sorted(keys)))

    def _lock(self, noted: Mapping[str, tuple[Gate, str]]) -> list[LimitState]:
        """The limits, locked; made, or declared anew, where that is needed."""
        limits = self._dialect.lock_limits(self._connection, sorted(noted))
        known = {limit.key: limit for limit in limits}
        news = [(gate, by) for key, (gate, by) in noted.items() if _is_news(known.get(key), gate, by)]
        if not news:
            return limits
        declared = [Limit.declared(gate, UUID(by) if by else None) for gate, by in sorted(news)]
        changed = ["most", "rate", "burst", "rest", "declared_by"]
        Limit.objects.using(self._using).bulk_create(
            declared, update_conflicts=True, unique_fields=["key"], update_fields=changed
        )
        return self._dialect.lock_limits(self._connection, sorted(noted))

    def _note_times(self, limits: Sequence[LimitState], kinds: Mapping[str, Kind], passed: Sequence[Passed]) -> None:
        """Spend what has passed, and note when there will be more, where somebody waits for it."""
        numbers = _numbers(passed)
        permits = Permit.objects.using(self._using).filter(key=OuterRef("pk"), state__lt=PermitState.HELD)
        rows = Limit.objects.using(self._using).filter(pk__in=[limit.key for limit in limits])
        waiting = set(rows.filter(Exists(permits)).values_list("pk", flat=True))
        for limit in limits:
            changes = _times(kinds[limit.key], limit, numbers[limit.key], is_waited_for=limit.key in waiting)
            if changes != {"spent_until": limit.spent_until, "opens_at": limit.opens_at}:
                Limit.objects.using(self._using).filter(pk=limit.key).update(**changes)

    def _let_go(self) -> int:
        """Those through all gates -> READY."""
        through, self._through = self._through, []
        if not through:
            return 0
        places = list(zip([run.task_id for run in through], new_ids(len(through)), strict=True))
        gone = dict(self._dialect.let_go(self._connection, sorted(places)))
        handed_on = publication(self._using)
        if handed_on:
            TaskRecord.objects.using(self._using).filter(pk__in=list(gone), status=Status.READY).update(**handed_on)
        if gone:
            wake = self._rows.worth_waking(set(gone.values()))
            if wake:
                self._dialect.wake(self._connection, wake)
        self._drop([run.task_id for run in through if run.task_id not in gone])
        return len(gone)


def _is_news(limit: LimitState | None, gate: Gate, by: str) -> bool:
    """Whether a limit has no row, or is declared otherwise by a younger run than the one whose word it has."""
    if limit is None:
        return True
    return (
        bool(by) and (gate.most, gate.rate, gate.burst, gate.rest) != limit.declared and by > (limit.declared_by or "")
    )


def _numbers(passed: Iterable[Passed]) -> dict[str, int]:
    numbers: dict[str, int] = defaultdict(int)
    for run in passed:
        numbers[run.key] += 1
    return numbers


def room(kind: Kind, limit: LimitState, held: int) -> int:
    """How many may pass now, of which ``held`` count already."""
    if kind is Kind.BREAKER:
        if limit.tripped_at is None:
            return PASSED_AT_ONCE
        # One is tried; it says whether the others may follow.
        return 1 if limit.opens_at is None or limit.opens_at <= limit.now else 0
    if kind in _RATES:
        if not limit.rate:
            return 0
        burst = limit.burst or 1
        # What was let pass and is in no worker yet may start at any moment. Beyond a burst it is only what a broker may
        # have on its way.
        return min(PASSED_AT_ONCE, int(_tokens(limit)), burst, burst + int(limit.rate * MOST_LATE) - held)
    return min(PASSED_AT_ONCE, (limit.most if limit.most is not None else PASSED_AT_ONCE + held) - held)


def _tokens(limit: LimitState) -> float:
    """What a rate has saved up: at most its burst, and what it could not give in time."""
    assert limit.rate is not None
    return (limit.now - _spent(limit)) * limit.rate + 1e-6


def _spent(limit: LimitState) -> float:
    assert limit.rate is not None
    late = 0.0 if limit.opens_at is None else min(max(0.0, limit.now - limit.opens_at), MOST_LATE)
    fullest = limit.now - (limit.burst or 1) / limit.rate - late
    return fullest if limit.spent_until is None else max(limit.spent_until, fullest)


def _times(kind: Kind, limit: LimitState, passed: int, *, is_waited_for: bool) -> dict[str, float | None]:
    if kind is Kind.BREAKER:
        opens_at = limit.opens_at
        if limit.tripped_at is not None and passed:
            opens_at = limit.now + (limit.rest or 0.0)  # another try, should this one never end
        elif opens_at is not None and opens_at <= limit.now:
            # Where nobody waits, whoever comes next is the one that is tried.
            opens_at = limit.now + SHORTEST_LOOK if is_waited_for else None
        return {"spent_until": limit.spent_until, "opens_at": opens_at}
    if not limit.rate:
        return {"spent_until": limit.spent_until, "opens_at": None}
    spent = _spent(limit) + passed / limit.rate if passed else limit.spent_until
    if not is_waited_for:
        return {"spent_until": spent, "opens_at": None}
    ready_at = (spent if spent is not None else limit.now) + 1 / limit.rate
    # Overdue, it is its unclaimed runs that others wait for.
    return {"spent_until": spent, "opens_at": ready_at if ready_at > limit.now else limit.now + SHORTEST_LOOK}
