"""``chain``, ``group`` and ``chord``: signatures put together, as Celery puts them together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django_taskq.compiling import Building, Flow, Scope, bracketed
from django_taskq.composing import Canvas, expect
from django_taskq.exceptions import InvalidWorkflow
from django_taskq.flow_options import parse_count
from django_taskq.options import parse_seconds
from django_taskq.signatures import Signature

if TYPE_CHECKING:
    from typing import Self

    from django_taskq.compiling import Adding, Compiling
    from django_taskq.workflow_result import GroupResult, WorkflowResult


def _given(members: tuple[Any, ...]) -> Iterable[Any]:
    """The members, given one by one or as one iterable."""
    alone = len(members) == 1 and not isinstance(members[0], (Canvas, Mapping, str))
    return members[0] if alone and isinstance(members[0], Iterable) else members


def _shortened(canvas: Canvas, text: str) -> str:
    """``text`` with the module of its first task named only once."""
    first: Canvas | None = canvas
    while first is not None and not isinstance(first, Signature):
        first = next(iter(first.parts()), None)
    if first is None:
        return text
    module = f"{first.task.rpartition('.')[0]}."
    start, found, rest = text.partition(module)
    return text if module == "." else start + found + rest.replace(module, "")


def _leaves(rope: Any) -> Iterator[Canvas]:
    """The steps in tuples in tuples, which may be as deep as the chain is long."""
    stack = [iter(rope)]
    while stack:
        for item in stack[-1]:
            if isinstance(item, tuple):
                stack.append(iter(item))
                break
            yield item
        else:
            stack.pop()


class chain(Canvas, kind="chain"):
    """One step after the other, each with the result of the one before as its first argument.

    ``chain(a, b)``, ``chain([a, b])``, ``a | b`` and ``a.then(b)`` are the same. The value is the last one's. A group
    followed by a step is a chord.
    """

    # The steps as tuples of steps and tuples, so that a | b | c ... copies nothing; made flat when they are asked for.
    __slots__ = ("_is_flat", "_rope")

    def __init__(self, *steps: Any) -> None:
        super().__init__()
        found = map(expect, _given(steps))
        self._rope: tuple[Any, ...] = tuple(
            step._rope if isinstance(step, chain) and step._is_plain() else step for step in found
        )
        self._is_flat = False

    def __repr__(self) -> str:
        return _shortened(self, " | ".join(map(repr, self.tasks)) or "chain()")

    def __call__(self, *args: Any, **kwargs: Any) -> WorkflowResult:
        """Celery's spelling of :meth:`enqueue`."""
        return self.enqueue(*args, **kwargs)

    @property
    def tasks(self) -> tuple[Canvas, ...]:
        """The steps; chains within are dissolved."""
        if not self._is_flat:
            self._rope = tuple(_leaves(self._rope))
            self._is_flat = True
        return self._rope

    def first(self) -> Canvas | None:
        """What its first step begins with."""
        return self.tasks[0].first() if self.tasks else None

    def parts(self) -> Iterable[Canvas]:
        """The steps."""
        return self.tasks

    def heads(self) -> Iterable[Canvas]:
        """The first step."""
        return self.tasks[:1]

    def to_dict(self) -> dict[str, Any]:
        """Itself as a dict; see :meth:`Canvas.to_dict`."""
        return {**super().to_dict(), "kwargs": {"tasks": [step.to_dict() for step in self.tasks]}}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> chain:
        """The steps alone."""
        return cls(list(found["kwargs"]["tasks"]))

    def _compiling(self, building: Building, flow: Flow, scope: Scope) -> Compiling:
        scope = self._inside(scope)
        for step in self.tasks:
            if isinstance(step, Signature) and step.is_simple:
                flow = step.compile(building, flow, scope)
            else:
                flow = yield step.compiling(building, flow, scope)
            scope = scope.after_first()
        return flow

    def _called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Self:
        steps = self.tasks
        return type(self)((steps[0].clone(args, kwargs), *steps[1:]) if steps and (args or kwargs) else steps)


class group(Canvas, kind="group"):
    """Members that run beside each other. The value is the list of theirs, in the order of the members.

    ``group(a, b)`` and ``group(a.s(i) for i in ...)``; groups within are dissolved. With ``spread`` the members start
    evenly over so many seconds, the first at once. With ``concurrency`` so many of their steps run at once at most, in
    all workers together. With ``on_failure="continue"`` what follows runs however the members end, with errors in the
    places of values.
    """

    __slots__ = ("concurrency", "spread", "tasks")

    def __init__(
        self,
        *members: Any,
        spread: float | timedelta | None = None,
        concurrency: int | None = None,
        on_failure: str | None = None,
    ) -> None:
        super().__init__({"on_failure": on_failure} if on_failure is not None else None)
        self.tasks: tuple[Canvas, ...] = tuple(_dissolved(map(expect, _given(members))))
        try:
            self.spread = parse_seconds(spread)
        except ValueError as error:
            raise ValueError(f"spread={spread!r} is not usable: it takes {error}") from error
        try:
            self.concurrency = None if concurrency is None else parse_count(concurrency)
        except ValueError as error:
            raise ValueError(f"concurrency={concurrency!r} is not usable: it takes {error}") from error

    def __repr__(self) -> str:
        return _shortened(self, f"group({self.tasks!r})") if self.tasks else "group(<empty>)"

    def __call__(self, *args: Any, **options: Any) -> GroupResult:
        """Celery's spelling of :meth:`apply_async`: each member is called with ``args`` in front."""
        return self.apply_async(args, None, **options)

    if TYPE_CHECKING:

        def enqueue(self, *args: Any, **kwargs: Any) -> GroupResult: ...
        async def aenqueue(self, *args: Any, **kwargs: Any) -> GroupResult: ...
        def delay(self, *args: Any, **kwargs: Any) -> GroupResult: ...
        def apply_async(
            self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
        ) -> GroupResult: ...

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return True

    def parts(self) -> Iterable[Canvas]:
        """The members."""
        return self.tasks

    def heads(self) -> Iterable[Canvas]:
        """The members: each gets the same value."""
        return self.tasks

    def to_dict(self) -> dict[str, Any]:
        """Itself as a dict; see :meth:`Canvas.to_dict`."""
        own: dict[str, Any] = {"tasks": [member.to_dict() for member in self.tasks]}
        if self.spread is not None:
            own["spread"] = self.spread
        if self.concurrency is not None:
            own["concurrency"] = self.concurrency
        return {**super().to_dict(), "kwargs": own}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> group:
        """The members, their spread and how many run at once."""
        own = found["kwargs"]
        return cls(list(own["tasks"]), spread=own.get("spread"), concurrency=own.get("concurrency"))

    def _compiling(self, building: Building, flow: Flow, scope: Scope) -> Compiling:
        flows = yield self._members(building, flow, scope)
        if flows or not flow.inputs:
            return bracketed(flows)
        first, *others = [each._replace(opens=0, closes=0, carries=False) for each in flow.inputs]
        return Flow([first._replace(opens=1, closes=1), *others])

    def _members(self, building: Building, flow: Flow, scope: Scope) -> Adding:
        """The flows of the members, those of groups within among them, each with the callbacks it gets."""
        scope = self._inside(scope)
        if len(flow.inputs) > 1 and len(self.tasks) > 1:
            flow = building.gather(flow, with_value=_is_wanted_by(self))
        if self.concurrency is not None:
            scope = scope.limited(self.concurrency)
        step = (self.spread or 0.0) / max(1, len(self.tasks))
        flows: list[Flow] = []
        for number, member in enumerate(self.tasks):
            since = len(building.nodes)
            inside = scope._replace(delay=scope.delay + number * step) if step else scope
            if isinstance(member, Signature) and member.is_simple:
                found = [member.compile(building, flow, inside)]
            elif isinstance(member, group):
                found = yield member._dissolving(building, flow, inside)
            else:
                made = yield member.compiling(building, flow, inside)
                found = [building.settled(made, since)]
            for each in found if self.links else ():
                yield self._linking(building, each)
            flows += found
        return flows

    def _dissolving(self, building: Building, flow: Flow, scope: Scope) -> Adding:
        """:meth:`compiling` for a group that is a member of a group: its members become the other's."""
        self.refuse_expiring()
        since = len(building.nodes)
        flows = yield self._members(building, flow, scope)
        yield self._catching(building, since)
        return [self._as_wanted(each, since) for each in flows]

    def _called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Self:
        members = (member.clone(args, kwargs) for member in self.tasks) if args or kwargs else self.tasks
        return type(self)(members, spread=self.spread, concurrency=self.concurrency)

    def _facts(self) -> tuple[Any, ...]:
        return self.spread, self.concurrency, *super()._facts()

    def _is_plain(self) -> bool:
        return self.spread is None and self.concurrency is None and super()._is_plain()


def _dissolved(members: Iterable[Canvas]) -> Iterator[Canvas]:
    for member in members:
        if isinstance(member, group) and member._is_plain():
            yield from member.tasks
        else:
            yield member


def _is_wanted_by(canvas: Canvas) -> bool:
    """Whether any part of it takes the value of what stands before it."""
    stack: list[Canvas] = [canvas]
    while stack:
        found = stack.pop()
        heads = list(found.heads())
        hands_on = isinstance(found, chain) and not heads
        if hands_on or (isinstance(found, Signature) and not found.immutable):
            return True
        stack += heads
    return False


class chord(Canvas, kind="chord"):
    """A ``header`` of members beside each other, then the ``body`` with the list of their values.

    The header is a group, or what :class:`group` takes. ``chord(header)(body)`` starts it at once, as in Celery. With
    ``group(..., on_failure="continue")`` as its header the body runs however the members end.
    """

    __slots__ = ("body", "header")

    def __init__(self, header: Any, body: Any = None) -> None:
        super().__init__()
        self.header = header if isinstance(header, group) else group(header)
        self.body = None if body is None else expect(body)

    def __repr__(self) -> str:
        if self.body is None:
            return f"<chord without body: {list(self.tasks)!r}>"
        text = f"({self.header!r} | {self.body!r})"
        if isinstance(self.body, Signature) and not self.body.immutable:
            # As the call that it comes to.
            text = repr(self.body.preceded((list(self.tasks),)))
        return _shortened(self, f"%{text}")

    def __call__(self, body: Any = None, *args: Any, **kwargs: Any) -> WorkflowResult:
        """Start it, with this ``body`` where it has none yet; arguments are for the members of the header."""
        return (self if body is None else self._with(self.header, expect(body))).enqueue(*args, **kwargs)

    @property
    def tasks(self) -> tuple[Canvas, ...]:
        """The members of the header."""
        return self.header.tasks

    def parts(self) -> Iterable[Canvas]:
        """The header and the body."""
        return (self.header,) if self.body is None else (self.header, self.body)

    def heads(self) -> Iterable[Canvas]:
        """The header."""
        return (self.header,)

    def to_dict(self) -> dict[str, Any]:
        """Itself as a dict; see :meth:`Canvas.to_dict`."""
        own = {"header": self.header.to_dict(), "body": self.body and self.body.to_dict()}
        return {**super().to_dict(), "kwargs": own}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> chord:
        """Header and body."""
        return cls(expect(found["kwargs"]["header"]), found["kwargs"].get("body"))

    def _compiling(self, building: Building, flow: Flow, scope: Scope) -> Compiling:
        if self.body is None:
            raise InvalidWorkflow(f"{self!r}: give it one, chord(header, body), or put what follows behind a group")
        scope = self._inside(scope)
        flow = yield self.header.compiling(building, flow, scope)
        flow = yield self.body.compiling(building, flow, scope.after_first())
        return flow

    def _with(self, header: group, body: Canvas | None) -> Self:
        twin = self._called((), {})
        twin.header, twin.body, twin.options = header, body, self.options
        twin._take_extras(self)
        return twin

    def _called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Self:
        return type(self)(self.header.clone(args, kwargs), self.body)
