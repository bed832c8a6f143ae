"""``Canvas``: what a signature has in common with the chains, groups and chords that are made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

from asgiref.sync import sync_to_async

from django_taskq import serializers, workflows
from django_taskq.canvas_options import parse_name, parse_options
from django_taskq.compiling import EVERYWHERE, NOTHING, TIMING, Building, Flow, Scope
from django_taskq.exceptions import InvalidWorkflow
from django_taskq.options import PLAIN_CALL
from django_taskq.plan import Plan
from django_taskq.steps import LinkKind

if TYPE_CHECKING:
    from django_taskq.compiling import Adding, Compiling
    from django_taskq.workflow_result import WorkflowResult

GATHER = "django_taskq.gather"


class _Extras:
    """What few canvases have, so that the many are small."""

    __slots__ = ("error_links", "expires", "links", "name")

    def __init__(self) -> None:
        self.links: tuple[Canvas, ...] = ()
        self.error_links: tuple[Canvas, ...] = ()
        self.name = ""
        self.expires: float | datetime | None = None

    def facts(self) -> tuple[Any, ...]:
        return self.links, self.error_links, self.name, self.expires


NO_EXTRAS = _Extras()
"""Of those that have none; told by identity."""


class Canvas:
    """A signature, or a chain, group or chord of them: something that can be started, linked and put together."""

    __slots__ = ("_extras", "options")

    kinds: ClassVar[dict[str | None, Any]] = {}
    """The classes by their ``kind``; a signature's is None."""
    kind: ClassVar[str | None] = None
    immutable = False
    options: Mapping[str, Any]
    """As :meth:`Task.using` takes them, and ``on_failure``."""

    def __init_subclass__(cls, kind: str | None = None) -> None:
        cls.kind = kind
        cls.kinds[kind] = cls

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options = NOTHING
        self._extras = NO_EXTRAS
        if options:
            self.set(**options)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Canvas) or other.kind != self.kind:
            return NotImplemented
        return self._facts() == other._facts()

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Canvas) -> Canvas:
        return self.then(other)

    def __reduce__(self) -> Any:
        return read, (self.to_dict(),)

    def then(self, other: Canvas) -> Canvas:
        """A chain: ``other`` once this is done, with its result. Neither of the two is changed."""
        joined: Canvas = self.kinds["chain"](self, other)
        return joined

    def set(self, **options: Any) -> Self:
        """Change options in place: those of :meth:`Task.using` (also by Celery's names ``queue`` and ``eta``), and
        ``on_failure``: ``"stop"``, or ``"continue"`` where others go on with the error in place of the value.

        On a chain, group or chord they hold for the signatures inside that say nothing themselves; ``countdown`` and
        ``run_after`` for the first ones. None takes an option back. Raises ``TypeError`` or ``ValueError``.
        """
        changed = {**self.options, **parse_options(options)}
        self.options = {key: value for key, value in changed.items() if value is not None} or NOTHING
        timing = {key: self.options[key] for key in TIMING if key in self.options}
        PLAIN_CALL.changed(timing)
        if self.kind and "task_id" in self.options:
            raise ValueError(f"task_id names one run, so it does not go with a {self.kind}")
        return self

    def named(self, name: str) -> Self:
        """Give the workflow that this starts a name, for lists of workflows. In place."""
        self._own_extras().name = parse_name(name)
        return self

    def expiring(self, expires: float | timedelta | datetime) -> Self:
        """Cancel what has not started of the workflow after so many seconds, or at that time. In place."""
        self._own_extras().expires = PLAIN_CALL.changed({"expires": expires}).expires
        return self

    @property
    def links(self) -> tuple[Canvas, ...]:
        """What :meth:`link` added."""
        return self._extras.links

    @property
    def error_links(self) -> tuple[Canvas, ...]:
        """What :meth:`link_error` added."""
        return self._extras.error_links

    def link(self, callback: Canvas) -> Canvas:
        """Have ``callback`` run with the result after a success, beside what follows. Returns ``callback``."""
        if expect(callback) not in self.links:
            self._own_extras().links = (*self.links, callback)
        return callback

    def link_error(self, callback: Canvas) -> Canvas:
        """Have ``callback`` run with ``(run, error)`` once anything inside has failed. Returns ``callback``."""
        first = expect(callback).first()
        if first is None or first.kind is not None:
            raise InvalidWorkflow(f"an error callback is a signature, or a chain that begins with one: {callback!r}")
        if callback not in self.error_links:
            self._own_extras().error_links = (*self.error_links, callback)
        return callback

    def on_error(self, callback: Canvas) -> Self:
        """:meth:`link_error`, returning this canvas."""
        self.link_error(callback)
        return self

    def enqueue(self, *args: Any, **kwargs: Any) -> WorkflowResult:
        """Start it, with these arguments before those it has.

        A signature without callbacks returns a ``TaskResult``, a group a ``GroupResult``. Raises
        :exc:`InvalidWorkflow`, :exc:`UnknownTask`, or what ``Task.enqueue`` raises; nothing is stored then.
        """
        return self.apply_async(args, kwargs)

    async def aenqueue(self, *args: Any, **kwargs: Any) -> WorkflowResult:
        """Async :meth:`enqueue`."""
        return await sync_to_async(self.enqueue)(*args, **kwargs)

    def delay(self, *args: Any, **kwargs: Any) -> WorkflowResult:
        """Celery's spelling of :meth:`enqueue`."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> WorkflowResult:
        """Celery's spelling of ``clone(args, kwargs, **options).enqueue()``."""
        return self.clone(args, kwargs, **options).start()

    def clone(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Self:
        """A copy that is called with more: ``args`` come before its own, ``kwargs`` and ``options`` replace its own.

        A chain gives them to its first step, a group and a chord to each member; what is immutable takes none.
        """
        twin = self._called(tuple(args), kwargs or {})
        twin.options = self.options
        twin._take_extras(self)
        return twin.set(**options) if options else twin

    def start(self) -> WorkflowResult:
        """:meth:`enqueue` without further arguments."""
        return workflows.start(self.plan(), expires=self._extras.expires, as_group=self.kind == "group")

    def plan(self) -> Plan:
        """What would be started. Raises as :meth:`enqueue` does."""
        building = Building(self.kinds[None](GATHER))
        return building.finish(building.compile(self), self._extras.name)

    def first(self) -> Canvas | None:
        """The part that begins alone; this one itself where it does not begin with one part."""
        return self

    def parts(self) -> Iterable[Canvas]:
        """What it is made of, without callbacks."""
        return ()

    def heads(self) -> Iterable[Canvas]:
        """The parts that get the value of what stands before it."""
        return ()

    def compiling(self, building: Building, flow: Flow, scope: Scope) -> Compiling:
        """Add it to the plan behind ``flow``, with its callbacks; the value is what comes out."""
        if building.root is not self:
            self.refuse_expiring()
        since = len(building.nodes)
        flow = self._as_wanted((yield from self._compiling(building, flow, scope)), since)
        if self.links and self.kind != "group":
            yield self._linking(building, building.settled(flow, since))
        if self.error_links:
            yield self._catching(building, since)
        return flow

    def refuse_expiring(self) -> None:
        """Raise :exc:`InvalidWorkflow` where this is to expire as a workflow of its own; for what becomes a part."""
        if self._extras.expires is not None:
            raise InvalidWorkflow(f"expiring() is for a whole workflow, and {self!r} is a part: use .set(expires=...)")

    def _as_wanted(self, flow: Flow, since: int) -> Flow:
        """What comes out, with this canvas's own failure policy; it says nothing of what came in and goes on."""
        is_own = bool(flow.inputs) and flow.inputs[0].parent.number >= since
        return flow.with_kind(LinkKind.END) if is_own and self.options.get("on_failure") == "continue" else flow

    def _linking(self, building: Building, flow: Flow) -> Adding:
        """Add the callbacks behind ``flow``, which is theirs alone."""
        for callback in self.links:
            yield callback.compiling(building, flow.with_kind(LinkKind.SUCCESS), EVERYWHERE)

    def _catching(self, building: Building, since: int) -> Adding:
        """Add the error callbacks for all nodes since ``since``."""
        failures = Flow(list(building.failures(since)))
        for callback in self.error_links if failures.inputs else ():
            start = len(building.nodes)
            yield callback.compiling(building, failures, EVERYWHERE)
            building.aside.update(range(start, len(building.nodes)))

    def _compiling(self, building: Building, flow: Flow, scope: Scope) -> Compiling:
        raise NotImplementedError

    def _called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Self:
        """A copy with more arguments, without options and extras."""
        raise NotImplementedError

    def _facts(self) -> tuple[Any, ...]:
        return tuple(self.parts()), dict(self.options), self._extras.facts()

    def to_dict(self) -> dict[str, Any]:
        """Itself as a dict of plain values where its arguments are: how it travels. :func:`signature` reads it."""
        options = dict(self.options)
        for key, callbacks in (("link", self.links), ("link_error", self.error_links)):
            if callbacks:
                options[key] = [callback.to_dict() for callback in callbacks]
        found: dict[str, Any] = {
            "task": f"django_taskq.{self.kind}",
            "args": [],
            "kwargs": {},
            "options": options,
            "subtask_type": self.kind,
            "immutable": self.immutable,
        }
        if self._extras.name:
            found["name"] = self._extras.name
        if self._extras.expires is not None:
            found["expires"] = self._extras.expires
        return found

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Canvas:
        """One without options and extras, from the keys that are its class's own."""
        raise NotImplementedError

    def _is_plain(self) -> bool:
        """Whether it can dissolve in one of its kind that it is put into."""
        return not self.options and self._extras is NO_EXTRAS

    def _take_extras(self, other: Canvas) -> None:
        if other._extras is not NO_EXTRAS:
            own = self._own_extras()
            own.links, own.error_links, own.name, own.expires = other._extras.facts()

    def _own_extras(self) -> _Extras:
        if self._extras is NO_EXTRAS:
            self._extras = _Extras()
        return self._extras

    def _inside(self, scope: Scope) -> Scope:
        """The scope for its parts."""
        return scope.inside(self.options) if self.options else scope


def expect(value: Any) -> Canvas:
    """A canvas, given as itself or as the dict it travels as. Raises ``TypeError``."""
    if isinstance(value, Canvas):
        return value
    if isinstance(value, Mapping):
        return read(value)
    raise TypeError(f"expected a signature such as task.s(1), or a chain, group or chord of them, and got {value!r}")


def read(found: Mapping[str, Any]) -> Canvas:
    """The inverse of :meth:`Canvas.to_dict`. Raises :exc:`InvalidWorkflow`."""
    try:
        made: Canvas = Canvas.kinds[found.get("subtask_type")].from_dict(found)
        options = dict(found.get("options") or {})
        for callback in options.pop("link", None) or ():
            made.link(expect(callback))
        for callback in options.pop("link_error", None) or ():
            made.link_error(expect(callback))
        if options:
            made.set(**options)
        if found.get("name"):
            made.named(found["name"])
        if found.get("expires") is not None:
            made.expiring(found["expires"])
    except InvalidWorkflow:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        shown = f"{found!r:.300}"
        raise InvalidWorkflow(f"this is no signature as to_dict() writes one ({error!r}): {shown}") from error
    return made


serializers.register_type(Canvas, "signature", lambda canvas: canvas.to_dict(), read)
