"""``@resource``: what a worker process opens once and keeps for its tasks. What is open is in ``open_resources``."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from django_taskq.exceptions import InvalidResource

if TYPE_CHECKING:
    from typing import Protocol

P = ParamSpec("P")
T = TypeVar("T")

CHECK_INTERVAL = 10.0  # seconds


class Resource(Generic[P, T]):
    """A declared resource. Called, it is the context manager that its function makes; whoever calls closes it."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        check: Callable[[T], object] | None = None,
        check_interval: float = CHECK_INTERVAL,
        at_start: bool = False,
    ) -> None:
        self.origin = f"{function.__module__}.{function.__qualname__}"
        self.name = function.__name__ if name is None else name
        self.check = check
        self.check_interval = check_interval
        self.at_start = at_start
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        _refuse_bad(self, function)
        self._make = contextmanager(function) if inspect.isgeneratorfunction(function) else function
        parameters = inspect.signature(function).parameters.values()
        self.needs = tuple(parameter.name for parameter in parameters if parameter.default is parameter.empty)
        """The resources it requires: its parameters without a default."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> AbstractContextManager[T]:
        made = self._make(*args, **kwargs)
        if not hasattr(made, "__exit__"):
            raise TypeError(f"resource {self.name} returned {made!r}, which is no context manager: yield it instead")
        return cast("AbstractContextManager[T]", made)

    def __repr__(self) -> str:
        return f"<Resource {self.name}>"


def _refuse_bad(made: Resource[..., Any], function: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidResource(f"{made.origin}: a resource is a plain function; async ones cannot serve every slot.")
    if not made.name.isidentifier():
        raise InvalidResource(f"{made.origin}: {made.name!r} cannot be the name of a parameter.")
    if made.check is not None and not callable(made.check):
        raise InvalidResource(f"{made.origin}: check={made.check!r} is not usable: it takes a function of the value.")
    interval: Any = made.check_interval
    if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not 0 < interval < math.inf:
        raise InvalidResource(f"{made.origin}: check_interval={interval!r} is not usable: it takes seconds above 0.")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InvalidResource(
                f"{made.origin}: its parameters name resources that it requires; {parameter} does not."
            )


_resources: dict[str, Resource[..., Any]] = {}


def register(made: Resource[..., Any]) -> None:
    """Make a resource known. Raises :exc:`InvalidResource` for a name that is taken, and for a circle."""
    known = _resources.get(made.name)
    if known is not None and known.origin != made.origin:
        raise InvalidResource(
            f"two resources are named {made.name!r}: {known.origin} and {made.origin}. Give one another name: "
            f"@resource(name=...)."
        )
    circle = _way_back(made, made.needs, (made.name,))
    if circle:
        raise InvalidResource(f"resources require each other in a circle: {' -> '.join(circle)}.")
    _resources[made.name] = made


def _way_back(start: Resource[..., Any], needs: Iterable[str], way: tuple[str, ...]) -> tuple[str, ...]:
    for name in needs:
        if name == start.name:
            return (*way, name)
        found = _resources.get(name)
        circle = _way_back(start, found.needs, (*way, name)) if found and name not in way else ()
        if circle:
            return circle
    return ()


def find(name: str) -> Resource[..., Any] | None:
    """The resource of this name, or None."""
    return _resources.get(name)


def all_resources() -> list[Resource[..., Any]]:
    """Every declared resource, by name."""
    return [_resources[name] for name in sorted(_resources)]


def all_needed(names: Iterable[str]) -> list[str]:
    """These and what they require in turn, each after what it requires."""
    found: list[str] = []
    for name in names:
        declared = _resources.get(name)
        for each in [*(all_needed(declared.needs) if declared else ()), name]:
            if each not in found:
                found.append(each)
    return found


def unknown(name: str) -> str:
    """What to say of a name that no resource has."""
    close = difflib.get_close_matches(name, _resources, n=1, cutoff=0.6)
    return f"no resource is named {name!r} here" + (f': did you mean "{close[0]}"?' if close else "")


if TYPE_CHECKING:

    class _Decorator(Protocol):
        @overload
        def __call__(self, function: Callable[P, AbstractContextManager[T]], /) -> Resource[P, T]: ...
        @overload
        def __call__(self, function: Callable[P, Iterator[T]], /) -> Resource[P, T]: ...


@overload
def resource(function: Callable[P, AbstractContextManager[T]], /) -> Resource[P, T]: ...
@overload
def resource(function: Callable[P, Iterator[T]], /) -> Resource[P, T]: ...
@overload
def resource(
    *,
    name: str | None = None,
    check: Callable[[Any], object] | None = None,
    check_interval: float = CHECK_INTERVAL,
    at_start: bool = False,
) -> _Decorator: ...
def resource(function: Any = None, /, **given: Any) -> Any:
    """Declare a resource: a generator function that yields it once, or a function that returns a context manager.

    Its parameters name the resources it requires. ``check`` is called with the value every ``check_interval`` seconds;
    while it raises or returns False, runs that need the resource are left to other processes. ``at_start`` opens it
    before the process takes its first run. Raises :exc:`InvalidResource` for what cannot work.
    """

    def decorate(target: Any) -> Resource[..., Any]:
        if not inspect.isfunction(target):
            raise InvalidResource(f"@resource decorates functions, not {target!r}.")
        made: Resource[..., Any] = Resource(target, **given)
        register(made)
        return made

    return decorate if function is None else decorate(function)
