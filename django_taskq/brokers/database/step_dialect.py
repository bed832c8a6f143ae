"""The hot statements of workflows, one written form per database: what moves steps on when others have ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from django_taskq.message import Delivery, Room
from django_taskq.steps import Link


class Parent(NamedTuple):
    """One link of a step as the step reads it: the parent's place, and what the parent's row says."""

    child_id: str
    position: int
    kind: int
    opens: int
    closes: int
    carries: bool
    id: str
    name: str
    status: str
    result: str | None
    reason: str


# In the column of the link that a step waits for: there is only one, and its parent is to succeed.
ONE = -1


class Waiting(NamedTuple):
    """A WAITING step, and the link it was last seen to wait for (None: never looked)."""

    id: str
    waits_at: int | None


class Advanced(NamedTuple):
    """A step that waits no more: its new status, and what it takes to go on from there."""

    id: str
    status: str
    queue_name: str
    headers: str | None
    workflow_id: str


class Taken(NamedTuple):
    """A step that was claimed where it became ready, and the link that brings it the value of its parent."""

    delivery: Delivery
    workflow_id: str
    parent_id: str
    opens: int
    closes: int
    carries: bool


class Followed(NamedTuple):
    """What came of those that waited for one step alone, and whether others wait for these steps as well."""

    ready: list[Advanced]
    taken: list[Taken]
    has_others: bool


class StepDialect(ABC):
    """What a dialect does for steps. ``connection`` is Django's, of the calling thread, in an open transaction."""

    def begin(self, connection: BaseDatabaseWrapper) -> None:
        """Called once in a transaction that will move steps on.

        What its statements cost is overestimated by far while a table is new; a database that compiles what it thinks
        expensive would take seconds for it.
        """

    @abstractmethod
    def insert_links(self, connection: BaseDatabaseWrapper, links: Sequence[Link]) -> None:
        """Insert links of workflows."""

    def follow(
        self, connection: BaseDatabaseWrapper, parent_ids: Sequence[str], process_id: int, room: Room
    ) -> Followed:
        """Let go what waited for one of these alone, all of which have succeeded: WAITING -> READY or SCHEDULED.

        For what would be the next of its queue there may be room: it is claimed at once, RUNNING. Where a dialect does
        no more than this, :meth:`lock_waiting` finds all.
        """
        return Followed([], [], True)

    @abstractmethod
    def lock_waiting(self, connection: BaseDatabaseWrapper, parent_ids: Sequence[str]) -> list[Waiting]:
        """The WAITING steps that have a link to one of these, locked in the order of their ids.

        Without the lock two transactions which finish the last two parents of a step at once would each find the
        other's unfinished.
        """

    @abstractmethod
    def advance(self, connection: BaseDatabaseWrapper, waiting: Sequence[Waiting]) -> list[Advanced]:
        """WAITING -> READY, or SCHEDULED where it has a time to come, once no link is left to wait for.

        Error callbacks that no failure has called become CANCELLED. What goes on waiting notes at which link: those
        before it hold for good, so that the work over all calls grows with the links, not with their square.
        """

    @abstractmethod
    def close(self, connection: BaseDatabaseWrapper, workflow_ids: Sequence[str]) -> list[tuple[str, str]]:
        """End those of these workflows whose steps have all ended; returns their ids and statuses."""

    @abstractmethod
    def doomed(self, connection: BaseDatabaseWrapper, failed_ids: Sequence[str]) -> list[str]:
        """The ids of all WAITING steps that need a success which one of these will not have, in their order."""

    @abstractmethod
    def parents(self, connection: BaseDatabaseWrapper, child_ids: Sequence[str]) -> list[Parent]:
        """The links of these steps with what their parents have to give, by child, in the order of the links."""


# How a workflow ends: as it was told, as its results say, or else as its steps do.
WORKFLOW_STATUS = """CASE
    WHEN cancel_requested_at IS NOT NULL AND EXISTS (
        SELECT 1 FROM taskq_task
        WHERE workflow_id = taskq_workflow.id AND status = 'CANCELLED' AND reason <> 'NotNeeded'
    ) THEN 'CANCELLED'
    WHEN NOT EXISTS (
        SELECT 1 FROM taskq_link WHERE child_id = taskq_workflow.id AND kind = 0
            AND coalesce((SELECT status FROM taskq_task WHERE id = taskq_link.parent_id), '') <> 'SUCCESSFUL'
    ) THEN 'SUCCESSFUL'
    WHEN EXISTS (SELECT 1 FROM taskq_task WHERE workflow_id = taskq_workflow.id AND status = 'FAILED') THEN 'FAILED'
    ELSE 'CANCELLED' END"""
ALL_ENDED = """finished_at IS NULL AND NOT EXISTS (
        SELECT 1 FROM taskq_task
        WHERE workflow_id = taskq_workflow.id AND status IN ('WAITING', 'READY', 'SCHEDULED', 'RUNNING')
    )"""
# The word "given" stands for a select of ids.
DOOMED = """
    WITH RECURSIVE doomed(id) AS (
        SELECT child_id FROM taskq_link WHERE kind = 0 AND parent_id IN (given)
        UNION
        SELECT child_id FROM doomed JOIN taskq_link ON parent_id = doomed.id WHERE kind = 0
    )
    SELECT step.id FROM doomed JOIN taskq_task step ON step.id = doomed.id
    WHERE step.status = 'WAITING' ORDER BY step.id
"""
PARENT_COLUMNS = (
    "position, kind, opens, closes, carries, parent.id, parent.name, parent.status, parent.result, parent.reason"
)
