"""Pages by key instead of by number, each read in bounded time however long the history is.

Rows come newest first in id order. Where no index answers a filter, a page looks through :data:`WINDOW` rows at most
and says how far it came; the next page goes on from there. Nothing is ever counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from django_taskq.models import TaskRecord
from django_taskq.models.task import TaskQuerySet

WINDOW = 100_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page begins: at the newest row, or beside this id."""

    before: UUID | None = None
    after: UUID | None = None


@dataclass(frozen=True, slots=True)
class Arm:
    """A part of the list. ``is_indexed`` says that an index finds its rows."""

    records: TaskQuerySet
    is_indexed: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, the ids at which the neighbouring pages begin, and how far it looked where it found too little."""

    rows: list[TaskRecord]
    older: UUID | None
    newer: UUID | None
    looked_until: UUID | None

    @property
    def looked_until_time(self) -> datetime | None:
        """When the run of that id was enqueued; the ids this package makes carry it."""
        if self.looked_until is None or self.looked_until.version != 7:
            return None
        return datetime.fromtimestamp((self.looked_until.int >> 80) / 1000, UTC)


def read_page(arms: Sequence[Arm], every: TaskQuerySet, cursor: Cursor, size: int) -> Page:
    """The page at ``cursor``; ``every`` is the table without filters."""
    if cursor.after is not None:
        page = _read(arms, every, cursor.after, size, is_forward=True)
        # Not a full page: these are the newest rows, and the first page shows them with what follows.
        return page if page.newer is not None else _read(arms, every, None, size, is_forward=False)
    return _read(arms, every, cursor.before, size, is_forward=False)


def _read(arms: Sequence[Arm], every: TaskQuerySet, start: UUID | None, size: int, *, is_forward: bool) -> Page:
    side, order, edge = ("gt", "pk", "lte") if is_forward else ("lt", "-pk", "gte")
    bound: UUID | None = None
    if not all(arm.is_indexed for arm in arms):
        beside = every if start is None else every.filter(**{f"pk__{side}": start})
        bound = next(iter(beside.order_by(order).values_list("pk", flat=True)[WINDOW : WINDOW + 1]), None)
    rows: list[TaskRecord] = []
    for arm in arms:
        found = arm.records if start is None else arm.records.filter(**{f"pk__{side}": start})
        if bound is not None and not arm.is_indexed:
            found = found.filter(**{f"pk__{edge}": bound})
        rows += found.order_by(order)[: size + 1]
    rows.sort(key=lambda row: row.pk.int, reverse=not is_forward)
    has_more, rows = len(rows) > size, rows[:size]
    if is_forward:
        rows.reverse()
        further = rows[0].pk if has_more else bound
        return Page(rows, rows[-1].pk if rows else None, further, None)
    looked_until = None if has_more else bound
    older = rows[-1].pk if has_more else bound
    newer = None if start is None else rows[0].pk if rows else start
    return Page(rows, older, newer, looked_until)
