"""What a canvas must come to, worked out straight from its meaning: without a plan, nodes, links or text.

``expect(canvas)`` runs the steps as plain calls, one after the other, and says what ``get()`` of the workflow must
return or raise, and which calls must have been made. ``canvases()`` are random canvases of the tasks below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from django_taskq import task
from django_taskq.canvas import chain, chord, group
from django_taskq.composing import Canvas
from django_taskq.signatures import Signature
from django_taskq.steps import StepError

UPSTREAM = "UpstreamFailed"


@task(name="oracle.show")
def show(*args: Any) -> list[Any]:
    """Its arguments."""
    return list(args)


@task(name="oracle.weigh")
def weigh(value: Any, more: int = 0) -> int:
    """A number for any value, errors among them."""
    return weight(value) + more


@task(name="oracle.fail")
def fail(*args: Any) -> None:
    """Always fails; its last argument is the text."""
    raise ValueError(args[-1])


@task(name="oracle.alert")
def alert(run: Any, error: Any) -> str:
    """An error callback."""
    return "alerted"


@task(name="oracle.alert_alone")
def alert_alone(*args: Any) -> int:
    """An error callback for immutable signatures, or what follows one."""
    return len(args)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    each.name: each.function for each in (show, weigh, fail, alert, alert_alone)
}


def weight(value: Any) -> int:
    """How much a value weighs: the sum of its numbers, texts and errors counted for something."""
    if isinstance(value, StepError):
        return 1000 + len(value.message)
    if isinstance(value, (list, tuple)):
        return 1 + sum(map(weight, value))
    return value if isinstance(value, int) else len(str(value))


def plain(value: Any) -> Any:
    """``value`` with what differs from run to run taken out of the errors in it."""
    if isinstance(value, StepError):
        is_upstream = value.class_path.rpartition(".")[2] == UPSTREAM
        return ("error", UPSTREAM if is_upstream else value.message)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def call_of(name: str, args: Any) -> str:
    """One call, to be counted; what an error callback is told differs from run to run."""
    shown = ["run", "error"] if name == alert.name else plain(list(args))
    return f"{name}{shown!r}"


@dataclass
class Expected:
    """``value`` is what ``get()`` returns, unless ``errors`` has the texts of which it raises one."""

    value: Any
    errors: frozenset[str]
    calls: Counter[str]


def expect(canvas: Canvas, functions: Mapping[str, Callable[..., Any]] = FUNCTIONS) -> Expected:
    """What must become of this canvas. ``functions`` by the names of their tasks."""
    oracle = _Oracle(functions)
    wire = oracle.run(canvas, _Wire(_NOTHING))
    for need in wire.needs:
        if not need.is_tolerant and need.step.state != "done":
            own = need.step.state == "failed"
            errors = [need.step.text] if own else [step.text for step in oracle.steps if step.state == "failed"]
            return Expected(None, frozenset(errors), oracle.calls)
    value = None if wire.shape is _NOTHING else _rendered(wire.shape)
    return Expected(plain(value), frozenset(), oracle.calls)


_NOTHING = object()


@dataclass
class _Step:
    state: str = "cancelled"  # done, failed
    value: Any = None
    text: str = ""
    is_error_callback: bool = False

    def shown(self) -> Any:
        """What stands for it in the arguments of others."""
        if self.state == "done":
            return self.value
        if self.state == "failed":
            return StepError("builtins.ValueError", self.text, "", "")
        return StepError(UPSTREAM, "a step before it did not succeed", "", "")


@dataclass
class _Need:
    step: _Step
    is_tolerant: bool


@dataclass
class _Wire:
    """What goes from one canvas to the next: a shape of steps in lists, and what must have ended for it."""

    shape: Any
    needs: list[_Need] = field(default_factory=list)


def _rendered(shape: Any) -> Any:
    if isinstance(shape, _Step):
        return shape.shown()
    return [_rendered(item) for item in shape] if isinstance(shape, list) else shape


class _Oracle:
    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.functions = functions
        self.steps: list[_Step] = []
        self.calls: Counter[str] = Counter()

    def run(self, canvas: Canvas, wire: _Wire) -> _Wire:
        if isinstance(canvas, group):
            members = self.members(canvas, wire)
            if not members:
                return _Wire([], wire.needs)
            return _Wire([each.shape for each in members], [need for each in members for need in each.needs])
        since = len(self.steps)
        if isinstance(canvas, Signature):
            out = self.call(canvas, wire)
        elif isinstance(canvas, chain):
            out = wire
            for step in canvas.tasks:
                out = self.run(step, out)
        else:
            assert isinstance(canvas, chord)
            assert canvas.body is not None
            out = self.run(canvas.body, self.run(canvas.header, wire))
        out = self.tolerated(canvas, out, since)
        if canvas.links:
            settled = self.settled(out, since)
            for callback in canvas.links:
                self.run(callback, _Wire(settled.shape, [_Need(need.step, False) for need in settled.needs]))
        self.call_back(canvas, since)
        return out

    def members(self, canvas: group, wire: _Wire) -> list[_Wire]:
        """Groups in groups dissolve; what only hands on counts as a step of its own."""
        begin, found = len(self.steps), []
        for member in canvas.tasks:
            since = len(self.steps)
            if isinstance(member, group):
                theirs = self.members(member, wire)
            else:
                theirs = [self.settled(self.run(member, wire), since)]
            for each in theirs:
                for callback in canvas.links:
                    self.run(callback, _Wire(each.shape, [_Need(need.step, False) for need in each.needs]))
            found += theirs
        self.call_back(canvas, begin)
        return [self.tolerated(canvas, each, begin) for each in found]

    def call(self, canvas: Signature, wire: _Wire) -> _Wire:
        args = canvas.args
        if not canvas.immutable and wire.shape is not _NOTHING:
            args = (_rendered(wire.shape), *args)
        function = self.functions[canvas.task]
        step = self.step(wire, lambda: function(*args, **canvas.kwargs))
        if step.state != "cancelled":
            self.calls[call_of(canvas.task, args)] += 1
        return _Wire(step, [_Need(step, False)])

    def step(self, wire: _Wire, function: Callable[[], Any]) -> _Step:
        step = _Step()
        self.steps.append(step)
        if all(need.is_tolerant or need.step.state == "done" for need in wire.needs):
            try:
                step.value, step.state = function(), "done"
            except ValueError as error:
                step.text, step.state = str(error), "failed"
        return step

    def settled(self, wire: _Wire, since: int) -> _Wire:
        if any(need.step is step for need in wire.needs for step in self.steps[since:]):
            return wire
        step = self.step(wire, lambda: None if wire.shape is _NOTHING else _rendered(wire.shape))
        return _Wire(step, [_Need(step, False)])

    def tolerated(self, canvas: Canvas, wire: _Wire, since: int) -> _Wire:
        """The policy of a canvas is about what is in it, not about what came in and goes on."""
        is_own = any(need.step is step for need in wire.needs for step in self.steps[since:])
        if canvas.options.get("on_failure") != "continue" or not is_own:
            return wire
        return _Wire(wire.shape, [_Need(need.step, True) for need in wire.needs])

    def call_back(self, canvas: Canvas, since: int) -> None:
        watched = [step for step in self.steps[since:] if not step.is_error_callback]
        for callback in canvas.error_links if watched else ():
            begin = len(self.steps)
            has_failed = any(step.state == "failed" for step in watched)
            # The first part gets (run, error); what follows in its chain gets the value before it, as ever.
            first, *others = callback.tasks if isinstance(callback, chain) else (callback,)
            cause = _Wire(_NOTHING, [] if has_failed else [_Need(_Step(), False)])
            assert isinstance(first, Signature)
            told = first if first.immutable else first.clone(("run", "error"))
            out = self.run(told, cause)
            for each in others:
                out = self.run(each, out)
            for step in self.steps[begin:]:
                step.is_error_callback = True


def canvases(max_leaves: int = 12) -> st.SearchStrategy[Canvas]:
    """Random canvases: nested, empty, failing, with callbacks and policies."""
    return st.recursive(_leaves(), _composed, max_leaves=max_leaves)


@st.composite
def _leaves(draw: st.DrawFn) -> Canvas:
    name, args = draw(
        st.sampled_from(
            [
                (show.name, ()),
                (show.name, (1,)),
                (show.name, ([2, []], "three")),
                (weigh.name, (4,)),
                (weigh.name, (5,)),
                (fail.name, ("first",)),
                (fail.name, ("second",)),
            ]
        )
    )
    made = Signature(name, args, immutable=draw(st.integers(0, 3)) == 0)
    return draw(_furnished(made))


def _composed(parts: st.SearchStrategy[Canvas]) -> st.SearchStrategy[Canvas]:
    lists = st.lists(parts, max_size=3)
    chains = lists.map(chain)
    groups = lists.map(group)
    chords = st.tuples(lists, parts).map(lambda both: chord(*both))
    piped = st.tuples(parts, parts).map(lambda both: both[0] | both[1])
    return st.one_of(chains, groups, chords, piped).flatmap(_furnished)


@st.composite
def _furnished(draw: st.DrawFn, made: Canvas) -> Canvas:
    """Some get a policy or a callback."""
    made = made.clone()
    what = draw(st.integers(0, 15))
    if what in (0, 1):
        made.set(on_failure="continue")
    elif what == 2:
        made.link(draw(st.sampled_from([*_callbacks()])))
    elif what == 3:
        made.link_error(draw(st.sampled_from([*_error_callbacks()])))
    return made


def _callbacks() -> Iterator[Canvas]:
    yield show.s("linked")
    yield show.si("linked alone")
    yield group(weigh.s(1), show.si())
    yield fail.si("callback")


def _error_callbacks() -> Iterator[Canvas]:
    yield alert.s()
    yield alert_alone.si()
    yield alert.s() | show.s("alarm")
    yield fail.si("error callback")
