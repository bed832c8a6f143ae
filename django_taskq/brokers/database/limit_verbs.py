"""What people do to limits while they are in use, and what a new version of the code declares of them.

Who may pass because of it passes at once, on every broker: that is the business of :mod:`.admission`. Everything may be
repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Exists, F, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce, NullIf

from django_taskq import clock
from django_taskq.brokers.database.admission import Admission, Rows
from django_taskq.brokers.database.broker import DatabaseBroker
from django_taskq.conflicts import persist
from django_taskq.flow_options import parse_rate
from django_taskq.gates import Gate
from django_taskq.message import new_ids
from django_taskq.models import Limit, Permit
from django_taskq.models.clock import database_now
from django_taskq.models.flow import LimitQuerySet, PermitState

# Limits that are looked at, declared anew or deleted in one transaction.
AT_ONCE = 200
PRUNED_AT_ONCE = 1000
# Seconds by which hosts and the database may differ about the time.
MARGIN = 60.0
_UNSET = {"set_most": None, "set_rate": None, "set_burst": None, "set_by": "", "set_at": None}


def set_limit(
    using: str,
    gate: Gate,
    *,
    most: int | None = None,
    rate: float | None = None,
    burst: int | None = None,
    by: str = "",
) -> None:
    """Have this hold instead of what was declared or set before; 0 lets nothing pass.

    On the limit as a whole it holds for all of its keys but those that something was set on. Of very many keys with
    waiters only the first are looked at; :func:`let_pass` is for the others.
    """
    if rate and burst is None:
        # What was declared, unless the new rate could not be reached with it.
        needed = parse_rate(rate).burst
        burst = needed if needed > (gate.burst or 1) else None
    values = {"set_most": most, "set_rate": rate, "set_burst": burst, "set_by": by[:300]}

    def write() -> None:
        row = Limit.declared(gate, None)
        for name, value in values.items():
            setattr(row, name, value)
        # Made where there is none yet. The time goes extra: it is the database's.
        Limit.objects.using(using).bulk_create(
            [row], update_conflicts=True, unique_fields=["key"], update_fields=list(values)
        )
        Limit.objects.using(using).filter(pk=gate.key).update(set_at=database_now(using))

    _change(using, gate.key, write)


def clear_limit(using: str, key: str) -> bool:
    """Have what was declared hold again, or what was set for the limit as a whole; whether anything was set."""
    changed: list[int] = []
    rows = Limit.objects.using(using).filter(pk=key).was_set()
    _change(using, key, lambda: changed.append(rows.update(**_UNSET)))
    return bool(changed[-1])


def reset_breaker(using: str, key: str) -> bool:
    """Close a breaker before its time, and let runs pass; whether it was open, or had counted failures."""
    changed: list[int] = []
    rows = Limit.objects.using(using).filter(Q(tripped_at__isnull=False) | Q(failures__gt=0), pk=key)
    closed = {"failures": 0, "failure": "", "tripped_at": None, "opens_at": None}
    _change(using, key, lambda: changed.append(rows.update(**closed)))
    return bool(changed[-1])


def release_permit(using: str, key: str, task_id: str | UUID) -> bool:
    """Take a permit away from the run that holds it, and let the next one pass; whether it held one.

    The run is not stopped: it goes on beside the one that gets its place.
    """
    changed: list[int] = []
    held = Permit.objects.using(using).filter(key=key, task_id=task_id, state=PermitState.HELD)

    def release() -> None:
        # Whoever changes who holds a permit has locked the limit before.
        Limit.objects.using(using).filter(pk=key).update(opens_at=F("opens_at"))
        changed.append(held.delete()[0])

    _change(using, key, release)
    return bool(changed[-1])


def declare(using: str, gates: Collection[Gate], *, at_most: int | None = None) -> int:
    """Have the limits be as the code says that starts now; returns how many that changed.

    Without this, runs that wait already would pass as the code said that enqueued them. The limits as wholes get rows
    where they have none: so what is limited can be seen, and changed, before anybody waits for it. With ``at_most`` it
    stops after so many, and goes on when it is called again.
    """
    by = UUID(new_ids(1)[0])
    wholes = {gate.key: gate for gate in gates}
    known = set(Limit.objects.using(using).filter(pk__in=list(wholes)).values_list("pk", flat=True))
    missing = [Limit.declared(gate, by) for key, gate in sorted(wholes.items()) if key not in known]
    if missing:
        Limit.objects.using(using).bulk_create(missing, ignore_conflicts=True)
    count = len(missing)
    for _, gate in sorted(wholes.items()):
        for changed in _declare(using, gate, by):
            count += changed
            if at_most is not None and count >= at_most:
                return count
    return count


def _declare(using: str, gate: Gate, by: UUID) -> Iterator[int]:
    """In portions: how many each had."""
    declared = {"most": gate.most, "rate": gate.rate, "burst": gate.burst, "rest": gate.rest}
    # The keys that nobody waits for are declared by the next run that comes to them.
    others = Limit.objects.using(using).filter(base=gate.key).exclude(**declared)
    others = others.waited_for() | others.filter(pk=gate.key)
    for some in _in_portions(others):
        _transact(using, partial(_redeclare, DatabaseBroker(using), some, {**declared, "declared_by": by}))
        yield len(some)


def _redeclare(rows: Rows, limits: Sequence[Limit], values: Mapping[str, Any]) -> None:
    keys = [limit.key for limit in limits]
    _lock(rows, keys)
    Limit.objects.using(rows.using).filter(pk__in=keys).update(**values)
    Admission(rows).look({limit.key: limit.as_gate() for limit in limits})


def prune(using: str, keep: Collection[str] = ()) -> int:
    """Delete limits that are as if they had never been, but those of ``keep``; returns how many.

    Nobody stands at them, nothing was set, no failure is counted, and their rates are full again.
    """
    idle = _idle(using).exclude(pk__in=list(keep))
    count = 0
    for some in _in_portions(idle.only("key"), PRUNED_AT_ONCE):
        count += persist(using, partial(_delete, using, [limit.key for limit in some]))
    return count


def _idle(using: str) -> LimitQuerySet:
    limits: LimitQuerySet = Limit.objects.using(using).filter(set_at=None, failures=0, tripped_at=None, opens_at=None)
    whole = Limit.objects.using(using).filter(pk=OuterRef("base"))
    rate = Coalesce(Subquery(whole.values("set_rate")[:1]), F("rate"))
    burst = Coalesce(Subquery(whole.values("set_burst")[:1]), F("burst"), Value(1))
    full = Q(spent_until=None) | Q(spent_until__lte=clock.time() - MARGIN - burst * 1.0 / NullIf(rate, 0.0))
    here = Permit.objects.using(using).filter(key=OuterRef("pk"))
    # Apart: each has an index of its own.
    stood_at = Exists(here.filter(state__lt=PermitState.HELD)) | Exists(here.filter(state=PermitState.HELD))
    return limits.filter(full).exclude(stood_at)


def _delete(using: str, keys: Sequence[str]) -> int:
    chosen = Limit.objects.using(using).filter(pk__in=keys)
    with transaction.atomic(using=using):
        # Locked first and then looked at again: somebody may just be passing. Where one writer is all there can be,
        # the delete itself is that look.
        if connections[using].features.has_select_for_update_skip_locked:
            locked = chosen.order_by("pk").select_for_update(skip_locked=True)
            keys = list(locked.values_list("pk", flat=True))
        # Of no rows at all it says None.
        deleted: int | None = _idle(using).filter(pk__in=keys)._raw_delete(using)
        return deleted or 0


def let_pass(using: str, key: str) -> None:
    """Look at this limit and at all of its keys that somebody waits for, in short transactions."""
    for some in _in_portions(_concerned(using, key)):
        _transact(using, partial(_look, DatabaseBroker(using), some))


def _change(using: str, key: str, write: Callable[[], object]) -> None:
    """Write, and let pass whoever may now, of the first keys, in the same transaction."""

    def change() -> None:
        write()
        _look(DatabaseBroker(using), list(_concerned(using, key)[:AT_ONCE]))

    _transact(using, change)


def _concerned(using: str, key: str) -> LimitQuerySet:
    """The limits that somebody waits for among this one and, if it is a whole one, its keys."""
    limits: LimitQuerySet = Limit.objects.using(using).filter(Q(pk=key) | Q(base=key))
    return limits.waited_for().order_by("pk")


def _in_portions(limits: LimitQuerySet, size: int | None = None) -> Iterator[list[Limit]]:
    """In the order of their keys; each is given out once, whatever becomes of it."""
    ordered, size = limits.order_by("pk"), size or AT_ONCE
    some = list(ordered[:size])
    while some:
        yield some
        some = list(ordered.filter(pk__gt=some[-1].key)[:size]) if len(some) == size else []


def _look(rows: Rows, limits: Sequence[Limit]) -> None:
    if limits:
        _lock(rows, [limit.key for limit in limits])
        Admission(rows).look({limit.key: limit.as_gate() for limit in limits})


def _lock(rows: Rows, keys: Sequence[str]) -> None:
    # The write comes first: SQLite refuses a transaction that read before another one wrote.
    Limit.objects.using(rows.using).filter(pk=min(keys)).update(opens_at=F("opens_at"))
    rows.dialect.lock_limits(connections[rows.using], sorted(keys))


def _transact(using: str, work: Callable[[], None]) -> None:
    def transaction_of_its_own() -> None:
        with transaction.atomic(using=using):
            work()

    persist(using, transaction_of_its_own)
