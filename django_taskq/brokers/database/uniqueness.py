"""Who has a key: decided under the lock of its row, in the transaction that stores the run.

Callers of one key come one after the other, also behind one whose transaction is open and may yet be rolled back. Each
looks at the run that has the key with a statement of its own, so that it sees what the one before has committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Exists, F, OuterRef, Q

from django_taskq.gates import gates_of
from django_taskq.message import Delivery, Headers, Message, Outcome
from django_taskq.models import TaskRecord, UniqueKey
from django_taskq.models.clock import database_now, database_now_plus, stored
from django_taskq.models.task import TaskQuerySet
from django_taskq.status import FINAL, PENDING, Status
from django_taskq.unique_keys import KEYED, REPLACED, Decision, Holder, KeyedCall
from django_taskq.unique_options import REPLACE, Unique

_READ = ("status", "attempt", "crashes", "headers", "workflow_id", "started_at")
PRUNED_AT_ONCE = 500


def decide(using: str, calls: Sequence[KeyedCall]) -> Decision:
    """Give keys to calls, in their order; in the open transaction, which is to store what this says."""
    keys = _Keys(using, calls)
    decision = Decision({}, {})
    for call in calls:
        first = keys.stored.get(call.key)
        if first is not None:
            message = decision.stored[first]
            if call.rule.wants_latest or call.rule.on_duplicate == REPLACE:
                decision.stored[first] = message = _changed(message, call.message)
            decision.duplicates[call.message.id] = Holder(first, _status_of(message))
            continue
        holder = keys.duplicated(call)
        if holder is not None:
            decision.duplicates[call.message.id] = holder
        else:
            keys.take(call)
            decision.stored[call.message.id] = call.message
    return decision


def _changed(message: Message, newer: Message) -> Message:
    """A message of the same batch with newer arguments, and what is worked out from them."""
    return replace(
        message,
        payload=newer.payload,
        headers=_headers(message.headers, newer.headers).dumps(),
        run_after=newer.run_after,
        expires_at=newer.expires_at,
    )


def _headers(older: str | None, newer: str | None) -> Headers:
    return Headers.loads(older)._replace(gates=Headers.loads(newer).gates)


def _status_of(message: Message) -> Status:
    is_delayed = message.run_after is not None and message.run_after > message.enqueued_at
    return Status.SCHEDULED if is_delayed else Status.READY


class _Keys:
    """The keys of some calls, locked, and the runs that have them."""

    def __init__(self, using: str, calls: Sequence[KeyedCall]) -> None:
        self._using = using
        # Of several calls for one key the first one counts.
        firsts = {call.key: call for call in reversed(calls)}
        self._rows = lock(using, {key: (call.message.id, call.rule) for key, call in firsts.items()})
        self._runs = self._read([row.task_id for row in self._rows.values()])
        # By key: the id of the message that took it here.
        self.stored: dict[str, str] = {}

    def _read(self, ids: Sequence[UUID]) -> dict[UUID, TaskRecord]:
        found: dict[UUID, TaskRecord] = TaskRecord.objects.using(self._using).only(*_READ).in_bulk(ids)
        return found

    def duplicated(self, call: KeyedCall) -> Holder | None:
        """The run that this call is a duplicate of; None where it is to have the key.

        What waits gets the call's arguments where its rule says so.
        """
        row = self._rows[call.key]
        run = self._runs.get(row.task_id)
        if row.task_id == UUID(call.message.id) and (run is None or run.headers_read.unique != call.key):
            return None  # the key is new
        while run is not None and run.status not in FINAL:
            if not _is_open(run):
                # A run that goes on keeps its arguments.
                return None if call.rule.wants_latest else _holder(run)
            if not call.rule.wants_latest and (call.rule.on_duplicate != REPLACE or _has_begun(run)):
                return _holder(run)
            if self._replace(call, run):
                return _holder(run)
            if self._supersede(call, run):
                return None
            # It was claimed, promoted or cancelled meanwhile.
            run = self._read([row.task_id]).get(row.task_id)
        is_barred = row.until is not None and row.until > row.now
        if not is_barred or (run is not None and run.status == Status.CANCELLED):
            return None
        return Holder(str(row.task_id), Status.READY) if run is None else _holder(run)

    def _replace(self, call: KeyedCall, run: TaskRecord) -> bool:
        """Give a run that waits newer arguments; False where it cannot stay where it is, or does not wait any more."""
        message, rule = call.message, call.rule
        # One that is due stands at its gates, or is past them.
        is_placed = run.status != Status.SCHEDULED and (
            rule.debounce is not None or gates_of(message.headers) != gates_of(run.headers)
        )
        if is_placed or _has_begun(run):
            return False
        # On a depot the message has the arguments of the first call: it is told to look here.
        headers = _headers(run.headers, message.headers)._replace(replaced=True)
        changes: dict[str, Any] = {
            "payload": message.payload,
            "headers": headers.dumps(),
            "expires_at": message.expires_at and stored(message.expires_at),
        }
        if rule.debounce is not None and message.run_after is not None:
            changes["run_after"] = stored(message.run_after)
        return bool(self._as_it_was(run).update(**changes))

    def _supersede(self, call: KeyedCall, run: TaskRecord) -> bool:
        """Cancel a run that waits, because the call's own takes its place; False where it does not wait any more."""
        return _outdate(self._as_it_was(run), call.message.id)

    def _as_it_was(self, run: TaskRecord) -> TaskQuerySet:
        records: TaskQuerySet = TaskRecord.objects.using(self._using)
        return records.filter(pk=run.pk, status=run.status, attempt=run.attempt, crashes=run.crashes, workflow=None)

    def take(self, call: KeyedCall) -> None:
        """Have the call's run have the key."""
        row, id = self._rows[call.key], UUID(call.message.id)
        if row.task_id != id:
            changes = {"task_id": id, **_times(self._using, call.rule)}
            UniqueKey.objects.using(self._using).filter(pk=call.key).update(**changes)
        self.stored[call.key] = call.message.id


def _outdate(waiting: TaskQuerySet, newer: str) -> bool:
    reason = f"TaskCancelled: run {newer} took its place, with newer arguments"
    now = database_now(waiting.db)
    return bool(waiting.update(status=Status.CANCELLED, finished_at=now, reason=reason))


def _is_open(run: TaskRecord) -> bool:
    """Whether nobody has it. One that was replaced waits, too, and has done its part."""
    return run.status in PENDING and run.workflow_id is None


def _has_begun(run: TaskRecord) -> bool:
    """Whether it waits for another attempt."""
    return run.attempt > 1 or run.crashes > 0


def _holder(run: TaskRecord) -> Holder:
    return Holder(str(run.pk), run.shown_status)


def _times(using: str, rule: Unique | None) -> dict[str, Any]:
    period = None if rule is None else cast("float | None", rule.period)
    until = None if period is None else database_now_plus(using, period)
    return {"until": until, "asked_at": database_now(using)}


def lock(using: str, wanted: Mapping[str, tuple[str, Unique | None]]) -> dict[str, Any]:
    """The rows of these keys, locked until the transaction ends; new ones are for the runs that want them.

    One statement takes all the locks, in the order of the keys: two that want several of the same wait for each other,
    and never in a circle.
    """
    keys = UniqueKey.objects.using(using)
    rows = [UniqueKey(key=key, task_id=UUID(id), **_times(using, rule)) for key, (id, rule) in sorted(wanted.items())]
    keys.bulk_create(rows, update_conflicts=True, unique_fields=["key"], update_fields=["asked_at"])
    return {row.key: row for row in keys.filter(pk__in=wanted).annotate(now=database_now(using))}


def retake(using: str, id: UUID, key: str) -> bool:
    """Have a run that ended have its key again, in the open transaction; False where it is that of another live run."""
    row = lock(using, {key: (str(id), None)})[key]
    if row.task_id == id:
        return True
    if _living(using).filter(pk=row.task_id).exists():
        return False
    UniqueKey.objects.using(using).filter(pk=key).update(task_id=id, **_times(using, None))
    return True


def drop_outdated(using: str, retried: Sequence[Outcome]) -> None:
    """Cancel runs that were to be tried again, where a later call has their key: its run has newer arguments."""
    keys = {
        outcome.delivery.id: Headers.loads(outcome.delivery.headers).unique
        for outcome in retried
        if outcome.delivery.headers is not None and KEYED in outcome.delivery.headers
    }
    if not keys:
        return
    holders = dict(UniqueKey.objects.using(using).filter(pk__in=keys.values()).values_list("key", "task_id"))
    for id, key in sorted(keys.items()):
        holder = holders.get(key or "")
        if holder is not None and str(holder) != id:
            _outdate(TaskRecord.objects.using(using).filter(pk=id, status__in=PENDING), str(holder))


def rival(record: TaskRecord) -> UUID | None:
    """The live run that has the key of this one now."""
    using, key = record._state.db or "", record.headers_read.unique
    rows = UniqueKey.objects.using(using).filter(pk=key).exclude(task_id=record.pk)
    id: UUID | None = rows.filter(task_id__in=_living(using).values("pk")).values_list("task_id", flat=True).first()
    return id


def refreshed(using: str, deliveries: list[Delivery]) -> list[Delivery]:
    """Claimed runs whose messages may be older than their arguments, with these."""
    ids = [d.id for d in deliveries if d.headers is not None and REPLACED in d.headers]
    if not ids:
        return deliveries
    rows = TaskRecord.objects.using(using).filter(pk__in=ids).values_list("pk", "payload")
    payloads = {str(pk): payload for pk, payload in rows}
    return [d._replace(payload=payloads.get(d.id, d.payload)) for d in deliveries]


def prune(using: str) -> int:
    """Delete the keys of runs that have ended, or are gone, and whose time has passed; returns how many."""
    keys = UniqueKey.objects.using(using)
    is_over = Q(until=None) | Q(until__lte=database_now(using))
    count = 0
    while old := list(keys.filter(is_over, ~_is_living(using)).values_list("pk", flat=True)[:PRUNED_AT_ONCE]):
        with transaction.atomic(using=using):
            deleted = _delete(using, old, is_over)
        count += deleted
        if deleted < len(old):
            break  # somebody is at the others
    return count


def _delete(using: str, old: Sequence[str], is_over: Q) -> int:
    keys = UniqueKey.objects.using(using)
    chosen = keys.filter(pk__in=old)
    # Locked first and then looked at again: one of them may have got a new run meanwhile.
    if connections[using].features.has_select_for_update_skip_locked:
        locked = list(chosen.order_by("pk").select_for_update(skip_locked=True).values_list("pk", flat=True))
    else:
        chosen.update(until=F("until"))
        locked = list(old)
    # Nothing at all, where others have locked all of them.
    return keys.filter(is_over, ~_is_living(using), pk__in=locked)._raw_delete(using) or 0 if locked else 0


def _living(using: str) -> TaskQuerySet:
    records: TaskQuerySet = TaskRecord.objects.using(using)
    return records.exclude(status__in=FINAL)


def _is_living(using: str) -> Exists:
    return Exists(_living(using).filter(pk=OuterRef("task_id")))
