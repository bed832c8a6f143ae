"""The hot statements, one written form per database; everything else goes through the ORM.

Each is sent through Django's own connection, so transactions, routers and ``execute_wrapper`` apply. The conformance
suite checks each against a plain ORM version. Status values stand in the SQL as literals: with a parameter, no
planner could use the partial indexes.
"""

from __future__ import annotations

from abc import abstractmethod
from asyncio import _get_running_loop
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import ClassVar, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from django_taskq.brokers.database.limit_dialect import LimitDialect
from django_taskq.brokers.database.step_dialect import ONE, StepDialect
from django_taskq.gates import AT_GATE, is_gated
from django_taskq.message import Delivery, Message


class Finished(NamedTuple):
    """A success to record: run id, claim, JSON result, start and end in POSIX seconds."""

    id: str
    claim: int
    result: str | None
    started_at: float
    finished_at: float


class Known(NamedTuple):
    """What a row knows of a run whose message does not, or not any more: it may be older than the last change."""

    attempt: int
    crashes: int
    is_suspect: bool
    headers: str | None


class Dialect(StepDialect, LimitDialect):
    """The hot statements of one database. ``connection`` is Django's, of the calling thread."""

    vendor: ClassVar[str]
    claims_lightly: ClassVar[bool]
    # Whether settling and claiming may as well be committed apart; see Broker.bundle.
    commits_cheaply: ClassVar[bool] = False

    @abstractmethod
    def insert(
        self,
        connection: BaseDatabaseWrapper,
        messages: Sequence[Message],
        wake: Sequence[str],
        publish_after: datetime | None = None,
    ) -> None:
        """Insert rows, SCHEDULED where a ``run_after`` is given, READY otherwise; wake those queues' workers.

        ``publish_after`` puts them into the outbox, from which they may be published then.
        """

    @abstractmethod
    def queues_with_work(self, connection: BaseDatabaseWrapper, queue_names: Sequence[str]) -> list[str]:
        """Those of ``queue_names`` that have READY rows, in their order; takes no lock."""

    @abstractmethod
    def claim(
        self, connection: BaseDatabaseWrapper, queue_name: str, limit: int, process_id: int, first_claim: int
    ) -> list[Delivery]:
        """READY -> RUNNING for up to ``limit`` rows of one queue, numbered in the order they should start."""

    @abstractmethod
    def claim_known(
        self, connection: BaseDatabaseWrapper, process_id: int, claims: Sequence[tuple[str, int]]
    ) -> dict[int, Known]:
        """READY -> RUNNING for these (run id, claim) that a depot handed out; the claims that took hold."""

    @abstractmethod
    def finish(self, connection: BaseDatabaseWrapper, process_id: int, finished: Sequence[Finished]) -> int:
        """RUNNING -> SUCCESSFUL where the claim still holds; returns for how many it did."""

    @abstractmethod
    def release(self, connection: BaseDatabaseWrapper, process_id: int, claims: Sequence[int]) -> list[tuple[str, str]]:
        """RUNNING -> READY (CANCELLED where that was asked for) where the claim still holds.

        Returns their ids and queues.
        """

    @abstractmethod
    def wake(self, connection: BaseDatabaseWrapper, queue_names: Sequence[str]) -> None:
        """Ring the doorbell of workers that serve these queues; a hint, part of the open transaction."""

    def limit_idle_transaction(self, connection: BaseDatabaseWrapper, seconds: float) -> None:
        """Have the database end the open transaction when its process does nothing for so long: it may be frozen."""

    def prepare(self, connection: BaseDatabaseWrapper) -> None:
        """Make the calling thread's connection, which only does bookkeeping from now on, ready for it."""

    def isolate(self, connection: BaseDatabaseWrapper) -> None:
        """Give the transactions of such a connection the level that bookkeeping is written for. Opens nothing."""


COLUMNS = "id, name, queue_name, priority, status, payload, headers, enqueued_at, run_after, expires_at, publish_after"
# %s stands for the time in the form of the database.
RELEASED = """claim = NULL, worker_id = NULL, started_at = NULL,
    status = CASE WHEN cancel_requested_at IS NULL THEN 'READY' ELSE 'CANCELLED' END,
    finished_at = CASE WHEN cancel_requested_at IS NULL THEN NULL ELSE %s END,
    reason = CASE WHEN cancel_requested_at IS NULL THEN reason ELSE 'TaskCancelled' END"""

Shared = tuple[str, str, int, str, str | None, datetime, datetime | None, datetime | None, str | None, int | None]


def by_shared_columns(messages: Sequence[Message]) -> Iterator[tuple[Shared, list[Message]]]:
    """Runs of messages that differ in id and payload only, as those of one ``enqueue_many`` do."""
    for shared, group in groupby(messages, key=_shared):
        yield shared, list(group)


def _shared(message: Message) -> Shared:
    return (
        message.name,
        message.queue_name,
        message.priority,
        status_of(message),
        message.headers,
        message.enqueued_at,
        message.run_after,
        message.expires_at,
        message.workflow_id,
        waits_at(message),
    )


def status_of(message: Message) -> str:
    """The status a row begins with; a time that has passed delays nothing."""
    if message.is_waiting:
        return "WAITING"
    if message.run_after is not None and message.run_after > message.enqueued_at:
        return "SCHEDULED"
    return "WAITING" if is_gated(message.headers) else "READY"


def is_plain(message: Message) -> bool:
    """Whether nothing is to be noted about what it waits for: it is no step, and has no gates."""
    return message.workflow_id is None and not is_gated(message.headers)


def is_at_gate(message: Message) -> bool:
    """Whether it begins at its first gate: nothing else holds it back."""
    return is_gated(message.headers) and not message.is_waiting and status_of(message) == "WAITING"


def waits_at(message: Message) -> int | None:
    """What a WAITING row says of the link, or the gate, that it waits for."""
    if message.is_waiting:
        return ONE if message.follows_one else None
    return AT_GATE if is_at_gate(message) else None


def may_be_direct(connection: BaseDatabaseWrapper) -> bool:
    """Whether a statement may go to the driver's connection past Django's cursor.

    Making and passing through that cursor costs more than the database's own work for one row. Not where somebody
    watches (``execute_wrapper``, query logging) and not inside an event loop, where the cursor's own check speaks.
    """
    if connection.connection is None or connection.execute_wrappers or connection.queries_logged:
        return False
    if _get_running_loop() is not None:
        return False
    connection.validate_thread_sharing()
    connection.validate_no_broken_transaction()
    return True
