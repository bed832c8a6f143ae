"""What a project does when a worker, or each of its processes, starts and stops: ``@on_process_start`` and the others.

Start hooks run by rising ``order``, those of one order as they were declared; stop hooks the other way round, so that
what was made first is torn down last.
"""

from __future__ import annotations

import enum
import inspect
import logging
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, overload

from django_taskq.exceptions import HookFailed, InvalidHook

logger = logging.getLogger("django_taskq")

Function = TypeVar("Function", bound=Callable[[], object])


class Moment(enum.Enum):
    """When a hook is called."""

    WORKER_START = "on_worker_start"
    WORKER_STOP = "on_worker_stop"
    PROCESS_START = "on_process_start"
    PROCESS_STOP = "on_process_stop"


class Hook(NamedTuple):
    """A function with its place among the others of its moment."""

    order: int
    origin: str
    function: Callable[[], object]


_hooks: dict[Moment, list[Hook]] = {moment: [] for moment in Moment}


def _declare(moment: Moment, function: Any, order: int) -> Any:
    def decorate(target: Any) -> Any:
        hook = Hook(order, f"{target.__module__}.{target.__qualname__}", target)
        _refuse_bad(moment, hook)
        others = [each for each in _hooks[moment] if each.origin != hook.origin]  # a module may be executed twice
        _hooks[moment] = sorted([*others, hook], key=lambda each: each.order)
        return target

    return decorate if function is None else decorate(function)


def _refuse_bad(moment: Moment, hook: Hook) -> None:
    where = f"@{moment.value} {hook.origin}"
    if isinstance(hook.order, bool) or not isinstance(hook.order, int):
        raise InvalidHook(f"{where}: order={hook.order!r} is not usable: it takes a whole number, lower first.")
    if inspect.iscoroutinefunction(hook.function):
        raise InvalidHook(f"{where} is a coroutine function: make it a plain one.")
    try:
        inspect.signature(hook.function).bind()
    except TypeError as error:
        raise InvalidHook(f"{where} is called without arguments: {error}.") from error


def start(moment: Moment) -> None:
    """Run the hooks of a start. Raises :exc:`HookFailed`, naming the first that raises; no other runs then."""
    for hook in _hooks[moment]:
        try:
            hook.function()
        except BaseException as error:
            text = f"the hook @{moment.value} {hook.origin} failed: {type(error).__name__}: {error}"
            raise HookFailed(text) from error


def stop(moment: Moment) -> None:
    """Run the hooks of a stop, all of them; an error is logged with the hook's name."""
    for hook in reversed(_hooks[moment]):
        try:
            hook.function()
        except BaseException:
            logger.exception("the hook @%s %s failed", moment.value, hook.origin)


@overload
def on_worker_start(function: Function, /) -> Function: ...
@overload
def on_worker_start(*, order: int = 0) -> Callable[[Function], Function]: ...
def on_worker_start(function: Any = None, /, *, order: int = 0) -> Any:
    """Call this in the supervisor before it registers and starts processes; an error is exit code 1 of the worker."""
    return _declare(Moment.WORKER_START, function, order)


@overload
def on_worker_stop(function: Function, /) -> Function: ...
@overload
def on_worker_stop(*, order: int = 0) -> Callable[[Function], Function]: ...
def on_worker_stop(function: Any = None, /, *, order: int = 0) -> Any:
    """Call this in the supervisor once its processes have ended."""
    return _declare(Moment.WORKER_STOP, function, order)


@overload
def on_process_start(function: Function, /) -> Function: ...
@overload
def on_process_start(*, order: int = 0) -> Callable[[Function], Function]: ...
def on_process_start(function: Any = None, /, *, order: int = 0) -> Any:
    """Call this in each worker process before its first run; an error ends the process, and it is started again."""
    return _declare(Moment.PROCESS_START, function, order)


@overload
def on_process_stop(function: Function, /) -> Function: ...
@overload
def on_process_stop(*, order: int = 0) -> Callable[[Function], Function]: ...
def on_process_stop(function: Any = None, /, *, order: int = 0) -> Any:
    """Call this in each worker process that stops in order, after its last run and after its resources are closed."""
    return _declare(Moment.PROCESS_STOP, function, order)
