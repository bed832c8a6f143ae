"""What type checkers see of ``@task``; nobody imports this when a program runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from django_taskq.batch_calls import Call
from django_taskq.task import Task

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")

Coroutines = Callable[P, Coroutine[Any, Any, T]]


class CoroutineTask(Task[P, R]):
    """A coroutine function's task as type checkers see it: called it is awaited, its results are of type R."""

    def __call__(  # type: ignore[override, empty-body]
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]: ...


class Decorator(Protocol):
    """With options, for functions and coroutine functions."""

    @overload
    def __call__(self, function: Coroutines[P, T], /) -> CoroutineTask[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Task[P, T]: ...


class FillingDecorator(Protocol):
    """With ``bind`` or ``takes_context``: callers do not give the first parameter."""

    @overload
    def __call__(self, function: Coroutines[Concatenate[Any, P], T], /) -> CoroutineTask[P, T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], T], /) -> Task[P, T]: ...


class BatchDecorator(Protocol):
    """With ``batch_size``: the function takes a list of calls, and each caller gives the arguments of one."""

    @overload
    def __call__(self, function: Callable[[list[Call[P]]], None], /) -> Task[P, Any]: ...
    @overload
    def __call__(self, function: Callable[[list[Call[P]]], Sequence[T]], /) -> Task[P, T]: ...


class TaskClass(Protocol[P, R]):
    """A class with a ``run`` method."""

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
