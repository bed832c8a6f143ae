"""``Workflow``: any graph of steps, put together by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from django_taskq import serializers, workflows
from django_taskq.canvas_options import parse_name, parse_policy
from django_taskq.compiling import EVERYWHERE, START, Building, Flow, bracketed
from django_taskq.composing import GATHER, Canvas, expect
from django_taskq.exceptions import CyclicWorkflow, InvalidWorkflow, SerializationError
from django_taskq.options import PLAIN_CALL
from django_taskq.plan import Input, Plan
from django_taskq.signatures import Signature
from django_taskq.steps import LinkKind, Reference

if TYPE_CHECKING:
    from django_taskq.workflow_result import WorkflowResult


class StepResult:
    """The result that a step will have: stands for it in the arguments of other steps."""

    __slots__ = ("step",)

    def __init__(self, step: Step) -> None:
        self.step = step

    def __repr__(self) -> str:
        return f"<result of {self.step.shown()}>"


class Step:
    """What :meth:`Workflow.add` returns: one signature, or a canvas, of that workflow."""

    __slots__ = ("canvas", "children", "made", "name", "number", "parents", "uses", "workflow")

    def __init__(self, workflow: Workflow, number: int, canvas: Canvas, name: str | None) -> None:
        self.workflow = workflow
        self.number = number
        self.canvas = canvas
        self.name = name
        self.parents: dict[int, None] = {}  # by number, in the order in which they were given
        self.children: set[int] = set()
        self.uses = 0  # how often others name its result
        self.made: Flow | None = None  # what it yields, where it runs already

    def __repr__(self) -> str:
        return f"<Step {self.shown()} of {self.workflow!r}>"

    @property
    def result(self) -> StepResult:
        """Its result, to be given to a later step as an argument or inside one."""
        return StepResult(self)

    def shown(self) -> str:
        """It in messages."""
        return self.name or f"{self.canvas!r}"


class Workflow:
    """Steps that wait for whichever others they need.

    ``on_failure="continue"``: steps run however those before them end, with the error in place of the value. It
    expires as a whole ``expires`` seconds after its start, or at that time.
    """

    def __init__(
        self, name: str = "", *, on_failure: str = "stop", expires: float | timedelta | datetime | None = None
    ) -> None:
        """Raises ``ValueError`` for what it cannot take."""
        self.name = parse_name(name) if name != "" else ""
        self.on_failure = parse_policy(on_failure)
        self.expires = PLAIN_CALL.changed({"expires": expires}).expires
        self.steps: list[Step] = []
        self._by_name: dict[str, Step] = {}
        self._has_backward = False

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r} of {len(self.steps)} steps>"

    def add(self, canvas: Canvas, *, after: Iterable[Step] | Step = (), name: str | None = None) -> Step:
        """Add a step. It waits for those in ``after`` and for those whose ``result`` is in its arguments.

        Raises :exc:`InvalidWorkflow` for what is no step of this workflow, or a name that is taken.
        """
        found = expect(canvas)
        found.refuse_expiring()
        if name is not None:
            parse_step_name(name)
        if name in self._by_name:
            raise InvalidWorkflow(f"two steps of {self!r} are named {name!r}: give one another name")
        used = [self._known(reference.step) for reference in _references(found)]
        several = after if isinstance(after, Iterable) and not isinstance(after, str) else [after]
        waited = [self._known(each) for each in several]
        step = Step(self, len(self.steps), found, name)
        self.steps.append(step)
        if name is not None:
            self._by_name[name] = step
        for parent in used:
            parent.uses += 1
        for parent in (*used, *waited):
            self._join(parent, step)
        return step

    def connect(self, first: Step, then: Step) -> None:
        """Have one step wait for another. Raises :exc:`CyclicWorkflow` where that one waits for it already."""
        first, then = self._known(first), self._known(then)
        # Steps that wait for earlier ones alone make no circle.
        if then.number <= first.number or self._has_backward:
            way = self._way(then, first)
            if way:
                shown = " -> ".join(step.shown() for step in (*way, then))
                raise CyclicWorkflow(f"these steps of {self!r} would wait for each other: {shown}")
            self._has_backward = self._has_backward or then.number < first.number
        self._join(first, then)

    def start(self) -> WorkflowResult:
        """Start it. Its result is that of the one step that no other waits for, or the list of theirs in the order
        in which they were added.

        Raises :exc:`InvalidWorkflow`, :exc:`UnknownTask`, or what ``Task.enqueue`` raises; nothing is stored then.
        """
        return workflows.start(self.plan(), expires=self.expires)

    async def astart(self) -> WorkflowResult:
        """Async :meth:`start`."""
        return await sync_to_async(self.start)()

    def plan(self) -> Plan:
        """What would be started. Raises as :meth:`start` does."""
        return _Planning(self).plan()

    def ordered(self) -> Iterator[Step]:
        """The steps, those that are waited for first."""
        if not self._has_backward:
            yield from self.steps
            return
        missing = [len(step.parents) for step in self.steps]
        ready = [step for step in self.steps if not step.parents]
        for step in ready:  # grows as it goes
            yield step
            for number in sorted(step.children):
                missing[number] -= 1
                if not missing[number]:
                    ready.append(self.steps[number])

    def _known(self, step: Any) -> Step:
        if not isinstance(step, Step):
            raise InvalidWorkflow(f"{step!r} is no step of {self!r}: a step is what workflow.add() returns")
        if step.workflow is not self:
            raise InvalidWorkflow(f"{step!r} belongs to another workflow than {self!r}: add its signature here as well")
        return step

    def _join(self, parent: Step, child: Step) -> None:
        child.parents[parent.number] = None
        parent.children.add(child.number)

    def _way(self, start: Step, end: Step) -> list[Step]:
        """The steps from ``start`` to ``end``, each waiting for the one before; or nothing."""
        came_from: dict[int, int] = {start.number: start.number}
        stack = [start.number]
        while stack:
            number = stack.pop()
            if number == end.number:
                way = [number]
                while way[-1] != start.number:
                    way.append(came_from[way[-1]])
                return [self.steps[each] for each in reversed(way)]
            for child in self.steps[number].children - came_from.keys():
                came_from[child] = number
                stack.append(child)
        return []


class _Planning:
    """One workflow on its way to a plan."""

    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow
        self._flows: dict[int, Flow] = {}
        self._gathered: dict[int, Flow] = {}
        self._building = Building(Signature(GATHER), self._refer)

    def plan(self) -> Plan:
        workflow, building = self._workflow, self._building
        scope = EVERYWHERE._replace(continues=workflow.on_failure == "continue")
        for step in workflow.ordered():
            if step.made is not None:
                self._flows[step.number] = step.made
                continue
            building.label = step.name
            before = self._before(step)
            since = len(building.nodes)
            flow = building.compile(step.canvas, before, scope)
            self._flows[step.number] = building.settled(flow, since) if flow.inputs else flow
        building.label = None
        sinks = [self._flows[step.number] for step in workflow.steps if not step.children and step.made is None]
        if len(sinks) > 1:
            sinks = [bracketed([building.settled(flow, 0) for flow in sinks])]
        return building.finish(sinks[0] if sinks else START, workflow.name)

    def _before(self, step: Step) -> Flow:
        """The order alone; values go where they are named."""
        steps = self._workflow.steps
        parents = [each for number in step.parents for each in self._made(steps[number]).inputs]
        return Flow([each._replace(opens=0, closes=0, carries=False) for each in parents])

    def _refer(self, signature: Signature, inputs: list[Input], front: int) -> tuple[Signature, list[Input], int, bool]:
        """Put links in the places of the results that the signature names."""
        if not any(True for _ in _named(signature)):
            return signature, inputs, front, False
        if inputs and inputs[0].kind is LinkKind.FAILURE:
            raise InvalidWorkflow(f"{signature!r} is an error callback, which may run before the results it names")
        # What comes from the step before stays in front, as a reference like the others.
        links = list(inputs) if front else []
        before = [Reference(0, len(inputs))] if front else []
        found: dict[int, Any] = {}
        for reference in _named(signature):
            number = reference.step.number
            if number not in found:
                flow = self._made(reference.step)
                start = len(links)
                links += flow.inputs
                literal = flow.literal[0] if flow.literal else None
                found[number] = Reference(start, len(links)) if flow.inputs else literal
        parents = {each.parent.number for each in links}
        links += [each for each in inputs if each.parent.number not in parents]
        args = tuple(_replaced(each, found) for each in signature.args)
        kwargs = {key: _replaced(each, found) for key, each in signature.kwargs.items()}
        return signature.changed((*before, *args), kwargs), links, 0, True

    def _made(self, step: Step) -> Flow:
        """A step's value; by way of one node where many links would go to each of several."""
        flow = self._flows[step.number]
        if len(flow.inputs) < 2 or max(step.uses, len(step.children)) < 2:
            return flow
        if step.number not in self._gathered:
            label, self._building.label = self._building.label, None
            self._gathered[step.number] = self._building.gather(flow, with_value=step.uses > 0)
            self._building.label = label
        return self._gathered[step.number]


def parse_step_name(value: Any) -> str:
    """The name of a step, or :exc:`InvalidWorkflow`."""
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise InvalidWorkflow(f"a step's name is a text of 1 to 200 characters, not {value!r}")
    return value


def _references(canvas: Canvas) -> Iterator[StepResult]:
    """The results that a canvas names, anywhere in it."""
    stack: list[Canvas] = [canvas]
    while stack:
        found = stack.pop()
        if isinstance(found, Signature):
            yield from _named(found)
        stack += [*found.parts(), *found.links, *found.error_links]


def _named(signature: Signature) -> Iterator[StepResult]:
    stack: list[Any] = [*reversed((*signature.args, *signature.kwargs.values()))]
    while stack:
        value = stack.pop()
        if isinstance(value, StepResult):
            yield value
        elif isinstance(value, dict):
            stack += reversed(value.values())
        elif isinstance(value, (list, tuple)):
            stack += reversed(value)


def _replaced(value: Any, found: dict[int, Any]) -> Any:
    """``value`` with what was found in the places of the results that it names."""
    if isinstance(value, StepResult):
        return found[value.step.number]
    if isinstance(value, dict):
        return {key: _replaced(item, found) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_replaced(item, found) for item in value)
    return value


def _refuse(value: StepResult) -> Any:
    raise SerializationError(f"{value!r} is there once that step has ended: give it to add() of the same workflow")


def _read(encoded: Any) -> Any:
    raise SerializationError("the result of a step that is yet to run does not travel")


serializers.register_type(StepResult, "step_result", _refuse, _read)
