"""Keeping interruptions out of Django's dealings with its connections, which would be left half done.

An error may be raised in a task between any two steps: also inside a query, or where Django notes that a transaction
has begun. So whatever reaches for a connection is a section, and the error is raised at its end instead, where nothing
is half done: the task's tidying up finds its connection as it knows it. A query that lasts is cancelled, which ends its
section.

That rests on this: what is sent to a thread is raised at calls, at the beginning of functions and where loops jump
back, and the interpreter goes from thread to thread only there. So nothing comes between steps that have none of these.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import wraps
from types import FrameType
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.transaction import Atomic

from django_taskq.exceptions import TaskCancelled
from django_taskq.worker.interrupting import watch

logger = logging.getLogger("django_taskq")

# Seconds: until a query is cancelled, from one try to the next, and until a server that does not answer is left alone.
FIRST_TRY, NEXT_TRY, CANCEL_TIMEOUT = 0.02, 0.2, 2.0

# What is let finish, and what is a query.
STEPS = (
    "connect", "commit", "rollback", "set_autocommit", "close", "savepoint", "savepoint_rollback", "savepoint_commit",
    "close_if_health_check_failed", "close_if_unusable_or_obsolete",
)  # fmt: skip
QUERIES = ("_execute", "_executemany", "callproc")
FETCHES = frozenset(["fetchone", "fetchmany", "fetchall", "nextset", "close"])


class Shield:
    """That of one thread which runs tasks: how deep it is in sections, and what waits for their end."""

    def __init__(self) -> None:
        self.depth = 0
        self.held: tuple[BaseException, ...] = ()
        # The driver's connection, while the outermost section is a query.
        self.driver: Any = None
        # Held while a query is cancelled, so that it strikes no later one.
        self._lock = threading.Lock()

    def hold(self, error: BaseException, frame: FrameType | None = None) -> bool:
        """Have it raised at the section's end; False outside of sections.

        ``frame`` is where the thread is, where it is this one: a block's end may just begin.
        """
        if not self.depth and (frame is None or frame.f_code is not _leave_block.__code__):
            return False
        self.held += (error,)
        self.hurry()
        return True

    def hurry(self) -> None:
        """Cancel the query, if that is still what an error has to wait for in a moment. From any thread."""
        watch.set(self, FIRST_TRY, self._cancel_query)

    def leave(self) -> None:
        """A section is over; raises what was held if it was the outermost."""
        if self.depth == 1 and self.held:
            with self._lock:
                self.driver = None
            watch.clear(self)
            # No call between these two.
            self.depth = 0
            held, self.held = self.held, ()
            try:
                raise _most_important(held)
            finally:
                # Else error and frame hold each other, and what the task left open is closed in the middle of anything.
                del held
        if self.depth == 1:
            self.driver = None
        self.depth -= 1

    def _cancel_query(self) -> None:
        with self._lock:
            if self.driver is None or not self.held:
                return
            try:
                if hasattr(self.driver, "cancel_safe"):
                    self.driver.cancel_safe(timeout=CANCEL_TIMEOUT)
                elif hasattr(self.driver, "cancel"):
                    self.driver.cancel()
                else:
                    return
            except Exception as error:
                logger.warning("a query of an interrupted run could not be cancelled: %s", error)
            # It may not have been sent yet.
            watch.set(self, NEXT_TRY, self._cancel_query)


def _most_important(held: tuple[BaseException, ...]) -> BaseException:
    return next((error for error in held if isinstance(error, TaskCancelled)), held[0])


class _Local(threading.local):
    shield: Shield | None = None


_local = _Local()


def cover(shield: Shield | None) -> None:
    """Have this thread's sections noted there, or nowhere."""
    _install()
    _local.shield = shield


def _shielded(original: Callable[..., Any]) -> Callable[..., Any]:
    """A section around a method that is let finish."""

    @wraps(original)
    def section(*args: Any, **kwargs: Any) -> Any:
        shield = _local.shield
        if shield is None:
            return original(*args, **kwargs)
        shield.depth += 1
        try:
            return original(*args, **kwargs)
        finally:
            shield.leave()

    return section


def _as_query(original: Callable[..., Any]) -> Callable[..., Any]:
    """A section around what a cursor does, and the connection to cancel it on."""

    @wraps(original)
    def section(cursor: CursorWrapper, *args: Any, **kwargs: Any) -> Any:
        shield = _local.shield
        if shield is None:
            return original(cursor, *args, **kwargs)
        shield.depth += 1
        try:
            if shield.depth == 1:
                shield.driver = cursor.db.connection
            return original(cursor, *args, **kwargs)
        finally:
            shield.leave()

    return section


_get_attribute: Callable[[CursorWrapper, str], Any] = CursorWrapper.__getattr__
_enter: Callable[[Atomic], None] = Atomic.__enter__
_exit: Callable[..., None] = Atomic.__exit__


@wraps(_get_attribute)
def _find(cursor: CursorWrapper, name: str) -> Any:
    found = _get_attribute(cursor, name)
    if _local.shield is None or name not in FETCHES:
        return found
    return _as_query(lambda cursor, *args, **kwargs: found(*args, **kwargs)).__get__(cursor)


@wraps(_enter)
def _enter_block(block: Atomic) -> None:
    """A section that is undone where the error has to be raised: nobody leaves a block that was not entered."""
    shield = _local.shield
    if shield is None:
        _enter(block)
        return
    shield.depth += 1
    try:
        _enter(block)
        # No call between the look and the end of the section.
        if shield.depth > 1 or not shield.held:
            shield.depth -= 1
            return
    except BaseException:
        shield.leave()
        raise
    error: BaseException | None = None
    try:
        error = _most_important(shield.held)
        _exit(block, type(error), error, None)
    finally:
        error = None
        shield.leave()


# Not wrapped: its code is how hold() knows it.
def _leave_block(block: Atomic, *error: Any) -> None:
    """A section from its first step on: an error in between would leave the block open behind the task's back."""
    shield = _local.shield
    if shield is None:
        _exit(block, *error)
        return
    shield.depth += 1
    try:
        _exit(block, *error)
    finally:
        shield.leave()


def _install() -> None:
    """Put the sections around Django's own methods, once. They cost threads that run no tasks next to nothing."""
    with _installing:
        if Atomic.__enter__ is _enter_block:
            return
        for name in STEPS:
            setattr(BaseDatabaseWrapper, name, _shielded(getattr(BaseDatabaseWrapper, name)))
        for name in QUERIES:
            setattr(CursorWrapper, name, _as_query(getattr(CursorWrapper, name)))
        setattr(CursorWrapper, "__getattr__", _find)  # noqa: B010  # mypy lets no method be assigned to
        setattr(Atomic, "__exit__", _leave_block)  # noqa: B010
        setattr(Atomic, "__enter__", _enter_block)  # noqa: B010


_installing = threading.Lock()
