"""``TaskResult``: the handle on a run that enqueueing returns."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast
from uuid import UUID

from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import connections, transaction

from django_taskq import conf, context
from django_taskq.cancelling import cancel_records
from django_taskq.exceptions import (
    ResultNotFound,
    ResultUnavailable,
    TaskCancelled,
    TaskExpired,
    TaskFailed,
)
from django_taskq.status import FINAL, Status

if TYPE_CHECKING:
    from django_taskq.models import TaskRecord

R = TypeVar("R", covariant=True)

FIRST_POLL, LAST_POLL = 0.005, 0.25  # seconds


class TaskError(NamedTuple):
    """An error of one attempt, as stored: text only."""

    attempt: int
    exception_class_path: str
    message: str
    traceback: str

    @property
    def exception_class(self) -> type[BaseException]:
        """The error's class, from modules that are loaded already. Raises ``ValueError`` when it is not there.

        Nothing is imported or called on the word of a stored text (the lesson of CVE-2021-23727).
        """
        parts = self.exception_class_path.split(".")
        for length in range(len(parts) - 1, 0, -1):
            module = sys.modules.get(".".join(parts[:length]))
            if module is None:
                continue
            found: Any = module
            for name in parts[length:]:
                # vars(), because a module's __getattr__ may import and a class's may do anything.
                found = vars(found).get(name) if isinstance(found, (type, type(sys))) else None
            if isinstance(found, type) and issubclass(found, BaseException):
                return found
            break
        raise ValueError(f"{self.exception_class_path} is not an exception class loaded in this process")

    def exception(self) -> BaseException:
        """An error to raise: of the stored class where it takes a text, :exc:`TaskFailed` otherwise."""
        error: BaseException = TaskFailed(f"{self.exception_class_path}: {self.message}")
        try:
            # SystemExit and its kin would end the process that merely asked for a result.
            if issubclass(self.exception_class, Exception):
                error = self.exception_class(self.message)
        except Exception:
            pass  # no such class here, or one that does not take a text
        if self.traceback:
            error.add_note(f"In the worker:\n{self.traceback}")
        return error


class OpenTransaction:
    """Whether the transaction that wrote a run is still open; shared by all results of one enqueue call."""

    __slots__ = ("_has_committed", "_using")

    def __init__(self, using: str) -> None:
        self._has_committed = False
        self._using = using
        transaction.on_commit(self._commit, using=using)

    def _commit(self) -> None:
        self._has_committed = True

    @property
    def is_open(self) -> bool:
        """Whether it can still commit; after a rollback the run is simply not to be found."""
        return not self._has_committed and connections[self._using].in_atomic_block


def open_transaction(using: str) -> OpenTransaction | None:
    """A marker for the transaction open on ``using`` in this thread, or None where there is none."""
    return OpenTransaction(using) if connections[using].in_atomic_block else None


class Kind(Enum):
    """What a handle stands for, as far as its row goes."""

    RUN = "a run with a row"
    LATE = "a run that has a row once it lasts or is over"
    SILENT = "a run that leaves no row when it succeeds"
    COPIED = "a message to an exchange, whose copies are runs"


class TaskResult(Generic[R]):
    """A run's handle: what was known when it was made or last refreshed.

    Reading attributes costs nothing; :meth:`refresh` and :meth:`get` read the database. Every method has an async
    twin with an ``a`` in front. ``is_duplicate`` says that the call got no run of its own: this is an earlier one's.
    """

    __slots__ = ("_kind", "_open", "_record", "_status", "id", "is_duplicate", "name")

    def __init__(
        self,
        id: str | UUID,
        name: str = "",
        *,
        status: Status = Status.READY,
        open: OpenTransaction | None = None,
        kind: Kind = Kind.RUN,
        is_duplicate: bool = False,
    ) -> None:
        self.id = str(id)
        self.is_duplicate = is_duplicate
        self.name = name
        self._status = status
        self._kind = kind
        self._record: TaskRecord | None = None
        self._open = open

    def __repr__(self) -> str:
        return f"<TaskResult {self.name} {self.id} {self.status}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def status(self) -> Status:
        """The status when last read."""
        return self._status if self._record is None else self._record.shown_status

    @property
    def is_finished(self) -> bool:
        """Whether the run had ended when last read."""
        return self.status in FINAL

    @property
    def attempts(self) -> int:
        """How many attempts had begun when last read."""
        record = self._record
        if record is None:
            return 0
        has_begun = record.started_at is not None or record.crashes > 0
        return record.attempt - (not has_begun)

    @property
    def return_value(self) -> R:
        """What the task returned. Raises ``ValueError`` unless the run was SUCCESSFUL when last read."""
        if self.status != Status.SUCCESSFUL or self._record is None:
            raise ValueError(f"run {self.id} of {self.name} is {self.status}, so it has no return value; see refresh()")
        return cast(R, self._record.return_value)

    @property
    def errors(self) -> list[TaskError]:
        """The errors of its attempts so far, oldest first; reads the database."""
        attempts = apps.get_model("django_taskq", "TaskAttempt").objects.using(_database())
        rows = attempts.filter(task__pk=UUID(self.id)).order_by("id")
        return [TaskError(row.attempt, row.class_path, row.message, row.traceback) for row in rows]

    @property
    def enqueued_at(self) -> datetime | None:
        """When it was enqueued, as last read."""
        return self._record.enqueued_at if self._record is not None else None

    @property
    def started_at(self) -> datetime | None:
        """When its latest attempt began, as last read."""
        return self._record.started_at if self._record is not None else None

    @property
    def finished_at(self) -> datetime | None:
        """When it ended, as last read."""
        return self._record.finished_at if self._record is not None else None

    def refresh(self) -> None:
        """Read the row again. Raises :exc:`ResultNotFound` when there is none.

        A run of a ``track_pending=False`` task may have none yet; then everything stays as it is.
        """
        records = apps.get_model("django_taskq", "TaskRecord").objects.using(_database())
        try:
            self._record = records.filter(pk=UUID(self.id)).first()
        except ValueError as error:
            raise ResultNotFound(f"{self.id!r} is not the id of a run") from error
        if self._record is not None:
            self.name = self._record.name
        elif self._kind is Kind.RUN:
            raise ResultNotFound(f"no run has the id {self.id}: it was rolled back, pruned, or never enqueued")

    def copies(self) -> list[TaskResult[R]]:
        """The runs that an exchange's queues made of this message so far, oldest first; reads the database."""
        records = apps.get_model("django_taskq", "TaskRecord").objects.using(_database())
        rows = records.filter(parent_id=UUID(self.id)).order_by("enqueued_at", "queue_name")
        return [
            TaskResult(pk, name, status=Status(status)) for pk, name, status in rows.values_list("pk", "name", "status")
        ]

    def get(self, timeout: float | None = None) -> R:
        """Wait for the end and return the value, or raise the task's error.

        ``timeout`` is in seconds. Raises ``TimeoutError``, :exc:`TaskCancelled`, :exc:`ResultNotFound`, and
        :exc:`ResultUnavailable` where waiting could never end.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_POLL
        while True:
            self.refresh()
            if self.is_finished:
                return self._value()
            self._check_may_wait()
            time.sleep(_next_pause(pause, deadline, self))
            pause = min(pause * 1.5, LAST_POLL)

    def cancel(self) -> bool:
        """Have it not run, or stopped where it runs.

        True when it is certain that it will not run; False when it is over, or a worker has it and is told to stop it
        (:meth:`get` raises :exc:`TaskCancelled` once it has). A run without a row (``track_pending=False``) is not
        reached until it has lasted 0.2 s.
        """
        records = apps.get_model("django_taskq", "TaskRecord").objects.using(_database())
        cancel_records(records.filter(pk=UUID(self.id)))
        self.refresh()
        return self.status == Status.CANCELLED

    async def arefresh(self) -> None:
        """Async :meth:`refresh`."""
        await sync_to_async(self.refresh)()

    async def aget(self, timeout: float | None = None) -> R:
        """Async :meth:`get`; waits without blocking the loop."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_POLL
        while True:
            await self.arefresh()
            if self.is_finished:
                return await sync_to_async(self._value)()
            self._check_may_wait()
            await asyncio.sleep(_next_pause(pause, deadline, self))
            pause = min(pause * 1.5, LAST_POLL)

    async def acancel(self) -> bool:
        """Async :meth:`cancel`."""
        return await sync_to_async(self.cancel)()

    def _check_may_wait(self) -> None:
        if self._kind is Kind.COPIED:
            raise ResultUnavailable(
                "this went to an exchange, and each queue made a run of its own of it: see copies()"
            )
        if self._kind is Kind.SILENT:
            raise ResultUnavailable(
                "track_pending=False and ignore_result=True leave no row when the run succeeds, so there is nothing "
                "to wait for. Leave one of them out where somebody waits."
            )
        if context.current_context() is not None and not conf.get_settings().eager:
            raise ResultUnavailable(
                "get() inside a task would hold a worker's slot while waiting for another, and enough of them stop "
                "everything. Let the second task be enqueued by the first one, or read the result in a later run."
            )
        if self._open is not None and self._open.is_open and not conf.get_settings().eager:
            raise ResultUnavailable(
                "get() was called in the transaction that enqueued this run, and no worker can see the run before "
                "that commits. Call get() after the atomic block."
            )

    def _value(self) -> R:
        if self.status == Status.SUCCESSFUL:
            return self.return_value
        reason = self._record.reason if self._record else ""
        if self.status == Status.CANCELLED:
            kind = TaskExpired if reason.startswith("TaskExpired") else TaskCancelled
            raise kind(f"run {self.id} of {self.name}: {reason}")
        errors = self.errors
        if errors:
            raise errors[-1].exception()
        raise TaskFailed(f"run {self.id} of {self.name}: {reason}")


def _next_pause(pause: float, deadline: float | None, result: TaskResult[Any]) -> float:
    if deadline is None:
        return pause
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(f"run {result.id} of {result.name} is still {result.status}")
    return min(pause, left)


def _database() -> str:
    return conf.get_settings().database
