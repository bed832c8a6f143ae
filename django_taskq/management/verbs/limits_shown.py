"""Limits of runs as ``taskq`` shows them: as documents for ``--json``, and as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from django.utils import timezone

from django_taskq import clock, conf
from django_taskq.brokers.database.limit_counts import Crowd, crowds
from django_taskq.flow_options import Rate
from django_taskq.gates import Kind
from django_taskq.management.text import one_line
from django_taskq.management.verbs.status import number
from django_taskq.models import Limit, TaskRecord
from django_taskq.models.clock import aware
from django_taskq.models.standing import MOST_AHEAD, Stand, holders, standing_of, waiters

HEADING = ("KEY", "AT ONCE", "HELD", "WAITING", "RATE", "BURST", "")
SHOWN_HOLDERS = 3


def limits(text: str, most: int) -> list[dict[str, Any]]:
    """The first limits with this text in their keys, those with waiters before the others. Two queries."""
    using = conf.get_settings().database
    rows = list(Limit.objects.using(using).filter(key__contains=text).in_force().by_waiters()[:most])
    found = crowds(using, [row.key for row in rows])
    return [described(row, found.get(row.key, Crowd())) for row in rows]


def detailed(key: str, most: int) -> dict[str, Any] | None:
    """One limit with its first holders and waiters; None where there is none of this key."""
    using = conf.get_settings().database
    row = Limit.objects.using(using).in_force().filter(pk=key).first()
    if row is None:
        return None
    return {
        **described(row, crowds(using, [key])[key]),
        "holders": [_stand(each) for each in holders(using, key, most)],
        "waiters": [_stand(each) for each in waiters(using, key, most)],
    }


def described(row: Any, crowd: Crowd) -> dict[str, Any]:
    """One limit as a document. What holds now is under its plain names, what the code says under ``declared``."""
    return {
        "key": row.key,
        "limit": row.base,
        "kind": row.kind,
        "most": row.now_most,
        "rate": rate_text(row.now_rate),
        "burst": row.now_burst if row.now_rate is not None else None,
        "declared": {"most": row.most, "rate": rate_text(row.rate), "burst": row.burst},
        "held": crowd.held,
        "waiting": crowd.waiting,
        "set_by": row.set_by,
        "set_at": row.set_at,
        "opens_at": None if row.opens_at is None else datetime.fromtimestamp(row.opens_at, UTC),
        "breaker": _breaker(row) if row.kind == Kind.BREAKER else None,
    }


def rate_text(per_second: float | None) -> str | None:
    """``100/m``."""
    return None if per_second is None else Rate(per_second, 1).text


def table(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The lines of a list, its heading first."""
    rows = [HEADING, *(_row(limit) for limit in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for row in rows:
        # The last column is free, however long that is.
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()


def lines(limit: dict[str, Any]) -> Iterator[str]:
    """One limit with its holders and waiters."""
    yield from table([limit])
    for title, key, count in (("Held by", "holders", "held"), ("Waiting", "waiters", "waiting")):
        stands = limit[key]
        yield ""
        yield f"{title}: {number(limit[count])}" + (f", the first {len(stands)}:" if limit[count] > len(stands) else "")
        for stand in stands:
            since = "" if stand["since"] is None else f"  since {timezone_text(stand['since'])}"
            worker = f"  {stand['worker']}" if stand["worker"] else ""
            yield one_line(f"  {stand['id']}  {stand['task'] or '?'}  {stand['status'] or 'gone'}{worker}{since}")


def why(record: TaskRecord) -> str:
    """Why a run waits at a gate, in a line; "" for one that does not."""
    using = conf.get_settings().database
    standing = standing_of(using, record, SHOWN_HOLDERS + 1)
    if standing is None:
        return ""
    place = f"more than {MOST_AHEAD:,}" if standing.ahead > MOST_AHEAD else f"{standing.ahead:,}"
    parts = [f"{standing.gate.key}: {place} before it" if standing.ahead else f"{standing.gate.key}: it is the next"]
    limit: Any = standing.limit
    if limit is not None:
        parts += _state(described(limit, Crowd(len(standing.holders))))
    if standing.holders and standing.gate.kind not in (Kind.RATE, Kind.QUEUE_RATE):
        named = ", ".join(str(each.task_id) for each in standing.holders[:SHOWN_HOLDERS])
        parts.append(f"held by {named}" + (" and others" if len(standing.holders) > SHOWN_HOLDERS else ""))
    return one_line("; ".join(parts))


def timezone_text(value: datetime) -> str:
    """In the project's zone, to the second."""
    return f"{timezone.localtime(aware(value)):%Y-%m-%d %H:%M:%S}"


def _row(limit: dict[str, Any]) -> tuple[str, ...]:
    most = "" if limit["most"] is None or limit["breaker"] else f"{limit['most']:,}"
    burst = "" if limit["burst"] is None else f"{limit['burst']:,}"
    notes = _state(limit)
    if limit["set_at"] is not None:
        declared = limit["declared"]["rate"] or limit["declared"]["most"]
        who = f"set by {limit['set_by']}" if limit["set_by"] else "set"
        notes.append(who if declared is None else f"{who}; the code says {declared}")
    counts = (number(limit["held"]), number(limit["waiting"]))
    return (one_line(limit["key"]), most, *counts, limit["rate"] or "", burst, one_line("; ".join(notes)))


def _state(limit: dict[str, Any]) -> list[str]:
    """What there is to say about whether it lets anybody pass."""
    if limit["breaker"]:
        if not limit["breaker"]["is_open"]:
            return [f"closed: opens after {limit['most']} failures in a row"] if limit["most"] is not None else []
        failure = limit["breaker"]["failure"].rpartition(".")[2]
        return [f"OPEN after {limit['breaker']['failures']} x {failure}, {_opening(limit)}"]
    if limit["most"] == 0 or limit["rate"] == rate_text(0.0):
        return ["lets nothing pass"]
    return [_opening(limit)] if limit["opens_at"] is not None else []


def _opening(limit: dict[str, Any]) -> str:
    if limit["opens_at"] is None:
        return "lets the next one pass as a trial"
    word = "a trial" if limit["breaker"] else "the next one"
    return f"{word} may pass in {max(0.0, limit['opens_at'].timestamp() - clock.time()):.1f} s"


def _breaker(row: Limit) -> dict[str, Any]:
    return {
        "is_open": row.tripped_at is not None,
        "failures": row.failures,
        "failure": row.failure,
        "rest": row.rest,
        "tripped_at": None if row.tripped_at is None else datetime.fromtimestamp(row.tripped_at, UTC),
    }


def _stand(stand: Stand) -> dict[str, Any]:
    record = stand.record
    return {
        "id": str(stand.task_id),
        "task": None if record is None else record.name,
        "status": None if record is None else str(record.shown_status),
        "worker": None if record is None or record.worker is None else str(record.worker),
        "since": stand.since,
    }
