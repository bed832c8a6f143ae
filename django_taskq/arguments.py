"""Whether a call's arguments bind to its task's signature, worked out once for each task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django_taskq.exceptions import InvalidArguments, InvalidTask
from django_taskq.options import TaskOptions


class _Injected:
    def __repr__(self) -> str:
        return "injected"


# Any, so that a parameter keeps the type of what it will get.
injected: Any = _Injected()
"""The default of a task's keyword-only parameter that whoever runs it fills with the resource of that name."""


# What may be given to a batch's calls: its function does not say.
_ANYTHING = inspect.signature(lambda *args, **kwargs: None)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature with its common case worked out: how many positional arguments alone make a valid call."""

    signature: inspect.Signature
    fewest: int
    most: float
    """None positional-only calls are possible when a keyword-only parameter has no default: ``most`` is then -1."""
    injected: tuple[str, ...] = ()
    """The parameters that resources fill: no call gives them."""

    def takes(self, count: int) -> bool:
        """Whether so many positional arguments alone make a valid call."""
        return self.fewest <= count <= self.most

    def bind(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        """The arguments by parameter. Raises :exc:`InvalidArguments` naming the task where they do not bind."""
        given = [parameter for parameter in self.injected if parameter in kwargs]
        if given:  # where there is a **kwargs it would take them
            raise InvalidArguments(f"{name}{self.signature}: {given[0]!r} is a resource of whoever runs it, not given")
        try:
            return self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(f"{name}{self.signature} does not accept these arguments: {error}") from error


def signature_of(function: Callable[..., Any], options: TaskOptions, name: str) -> Signature:
    """The parameters that callers fill: without the one that ``bind`` or ``takes_context`` fills, and resources."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if options.bind or options.takes_context:
        if not parameters:
            filled = "bind" if options.bind else "takes_context"
            raise InvalidTask(f"{name}: {filled}=True fills the first parameter, and the function has none.")
        parameters = parameters[1:]
    filled_here = [p for p in parameters if p.default is injected]
    for parameter in filled_here:
        if parameter.kind is not parameter.KEYWORD_ONLY:
            mend = "put it after a * in the signature, so that it is keyword-only"
            raise InvalidTask(f"{name}: the parameter {parameter.name!r} is filled with a resource: {mend}.")
    parameters = [p for p in parameters if p.default is not injected]
    if options.batch_size is not None:
        if [p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters] != [True]:
            raise InvalidTask(f"{name}: with batch_size the function takes one argument, the list of its calls.")
        return Signature(_ANYTHING, 0, float("inf"), tuple(p.name for p in filled_here))
    signature = signature.replace(parameters=parameters)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    fewest = sum(p.default is p.empty for p in positional)
    most: float = float("inf") if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(positional)
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        most = -1
    return Signature(signature, fewest, most, tuple(p.name for p in filled_here))
