"""The open resources of a worker process: opened when the first run needs them, closed in reverse order.

Outside of workers there are :func:`scope` blocks: a test, an eager run, or one direct call of a task.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, overload

from django_taskq import resources
from django_taskq.exceptions import InvalidResource, ResourceUnavailable
from django_taskq.resources import Resource

T = TypeVar("T")

logger = logging.getLogger("django_taskq")

# How long runs that need what is not there are left to others, and how long after a failure it is opened again: as
# long as it has been missing, within these bounds (seconds). Nothing spins, and what comes back is soon noticed.
FIRST_DELAY, LAST_DELAY = 5.0, 60.0


class Trouble(NamedTuple):
    """Why a resource cannot be used, since when (monotonic seconds), and when opening it may be tried again."""

    reason: str
    since: float
    retry_at: float = math.inf

    def delay(self, now: float) -> float:
        """Seconds for which to leave runs that need it to others."""
        return min(max(now - self.since, FIRST_DELAY), LAST_DELAY)


@dataclass(slots=True, eq=False)
class _Holding:
    """One resource of one :class:`Resources`."""

    name: str
    # Its own, kept until it is closed: what it sets there it can reset, and no run's language or task gets in.
    context: Context
    lock: threading.RLock = field(default_factory=threading.RLock)
    manager: Any = None
    value: Any = None
    is_open: bool = False
    is_opening: bool = False
    trouble: Trouble | None = None


Listener = Callable[[str, Trouble | None, float], None]
"""Called with a name, its trouble or None when that is over, and how many seconds it has lasted."""


class Resources:
    """The open resources of one process, or of one :func:`scope`; from any thread.

    ``resources["name"]``, ``resources[declared]`` and ``resources.name`` give a value, opened if it is not yet. They
    raise :exc:`ResourceUnavailable` where that fails.
    """

    def __init__(self, given: Mapping[str, Any] | None = None, on_change: Listener | None = None) -> None:
        """``given`` stand in for declared ones, as they are. ``on_change`` hears of trouble, and that it is over."""
        self._given = dict(given or {})
        self._on_change = on_change
        self._context = copy_context()
        self._lock = threading.Lock()
        self._holdings: dict[str, _Holding] = {}
        self._opened: list[_Holding] = []
        self._is_closed = False
        self.closing = ""
        """The name of the one that is being closed."""

    @overload
    def __getitem__(self, key: Resource[..., T]) -> T: ...
    @overload
    def __getitem__(self, key: str) -> Any: ...
    def __getitem__(self, key: str | Resource[..., Any]) -> Any:
        name = key if isinstance(key, str) else key.name
        return self._given[name] if name in self._given else self._open(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or (name not in self._given and resources.find(name) is None):
            raise AttributeError(resources.unknown(name))
        return self[name]

    def pick(self, names: Iterable[str]) -> dict[str, Any]:
        """Several by name."""
        return {name: self[name] for name in names}

    # For whoever runs tasks.

    def are_open(self, names: Iterable[str]) -> bool:
        """Whether none of these takes time to get. Raises :exc:`ResourceUnavailable` where one is in trouble."""
        found = True
        for name in resources.all_needed(names):
            if name not in self._given:
                holding = self._holding(name)
                _refuse_troubled(holding)
                found = found and holding.is_open
        return found

    def opened(self) -> list[str]:
        """The names of those that are open, in the order in which they were opened."""
        with self._lock:
            return [holding.name for holding in self._opened]

    def troubles(self) -> dict[str, Trouble]:
        """What cannot be used now, by name."""
        with self._lock:
            return {name: holding.trouble for name, holding in self._holdings.items() if holding.trouble is not None}

    def report(self, name: str, reason: str | None) -> None:
        """A check of an open resource has failed, or (None) passed."""
        holding = self._holding(name)
        with holding.lock:
            if holding.is_open:
                self._change(holding, reason)

    def close(self) -> None:
        """Close what is open, the last opened first. An error is logged and holds up nothing; no more is opened."""
        with self._lock:
            self._is_closed = True
            leaving = self._opened[::-1]
            self._opened.clear()
        for holding in leaving:
            self.closing = holding.name
            with holding.lock:
                holding.is_open = False
                try:
                    holding.context.run(holding.manager.__exit__, None, None, None)
                except BaseException:
                    logger.exception("resource %s could not be closed", holding.name)
        self.closing = ""

    def _holding(self, name: str) -> _Holding:
        found = self._holdings.get(name)
        if found is None:
            with self._lock:
                found = self._holdings.setdefault(name, _Holding(name, self._context.copy()))
        return found

    def _open(self, name: str) -> Any:
        holding = self._holding(name)
        if holding.is_open:
            return holding.value
        with holding.lock:
            if not holding.is_open:
                declared = resources.find(name)
                if declared is None:
                    raise ResourceUnavailable(resources.unknown(name), FIRST_DELAY)
                if holding.is_opening:
                    raise InvalidResource(f"resource {name} asked for itself while it was opened")
                _refuse_troubled(holding)
                self._enter(holding, declared)
            return holding.value

    def _enter(self, holding: _Holding, declared: Resource[..., Any]) -> None:
        required = self.pick(declared.needs)
        holding.is_opening = True
        try:
            manager = holding.context.run(declared, **required)
            holding.value = holding.context.run(manager.__enter__)
        except BaseException as error:
            # Whatever it raises: the run that was to have it must not pay, nor its slot.
            reason = f"resource {holding.name} cannot be opened: {type(error).__name__}: {error}"
            trouble = self._change(holding, reason, is_open=False)
            raise ResourceUnavailable(reason, trouble.delay(time.monotonic()) if trouble else 0.0) from error
        finally:
            holding.is_opening = False
        with self._lock:
            was_closed = self._is_closed
            if not was_closed:
                holding.manager, holding.is_open = manager, True
                self._opened.append(holding)
        if was_closed:
            holding.context.run(manager.__exit__, None, None, None)
            raise ResourceUnavailable(f"resource {holding.name} was closed: its process stops")
        self._change(holding, None)

    def _change(self, holding: _Holding, reason: str | None, *, is_open: bool = True) -> Trouble | None:
        """Note trouble, or (None) that there is none. What is not open may be tried again after a while."""
        before, now = holding.trouble, time.monotonic()
        after = None
        if reason is not None:
            after = Trouble(reason, before.since if before else now)
            if not is_open:
                after = after._replace(retry_at=now + after.delay(now))
        holding.trouble = after
        if (before is None) != (after is None) and self._on_change is not None:
            self._on_change(holding.name, after, now - before.since if before else 0.0)
        return after


def _refuse_troubled(holding: _Holding) -> None:
    trouble, now = holding.trouble, time.monotonic()
    if trouble is not None and now < trouble.retry_at:
        raise ResourceUnavailable(trouble.reason, trouble.delay(now))


# What a worker process has, set once at its start; and what a block has, which goes before.
_of_process: Resources | None = None
_of_scope: ContextVar[Resources | None] = ContextVar("django_taskq_resources", default=None)


def serve(found: Resources | None) -> None:
    """These are the resources of this process from now on."""
    global _of_process
    _of_process = found


def current() -> Resources:
    """The resources that a run here has. Raises ``RuntimeError`` where neither a worker nor a :func:`scope` is."""
    found = _of_scope.get() or _of_process
    if found is None:
        raise RuntimeError("there are no resources here: they belong to worker processes, and to testing.resources()")
    return found


@contextmanager
def scope(given: Mapping[str, Any] | None = None) -> Iterator[Resources]:
    """A block with resources: those there are, or (with ``given``: always) new ones, which end with it."""
    found = _of_scope.get() or _of_process
    if found is not None and given is None:
        yield found
        return
    made = Resources(given)
    token = _of_scope.set(made)
    try:
        yield made
    finally:
        _of_scope.reset(token)
        made.close()


def call(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a task directly, with the resources it needs and was not given; outside of a worker only for this call."""
    missing = [name for name in function.needs if name not in kwargs]
    if function.is_async:
        return _acall(function, missing, args, kwargs)
    with scope() as found:
        return function(*args, **kwargs, **found.pick(missing))


async def _acall(function: Any, missing: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    with scope() as found:
        return await function(*args, **kwargs, **found.pick(missing))
