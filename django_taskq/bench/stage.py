"""What every measurement needs at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django_taskq.bench.depots.base import RawServer
from django_taskq.bench.plan import Plan
from django_taskq.bench.raw import Access, RawStore
from django_taskq.bench.raw.store import Row
from django_taskq.message import new_ids


@dataclass(frozen=True, slots=True)
class Stage:
    """The plan, the raw table, and whom to tell what is going on."""

    plan: Plan
    access: Access
    raw: RawStore
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DepotStage(Stage):
    """And the bare server of the broker that is measured."""

    server: RawServer


def raw_rows(count: int) -> list[Row]:
    """Rows like those of the no-op, made before the clock starts."""
    return [Row(id, f"[[{number}],{{}}]") for number, id in enumerate(new_ids(count))]
