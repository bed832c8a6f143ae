"""From a canvas to a plan: what is common to all of them. What each one means stands with its class.

A canvas compiles by a generator that yields the generators of its parts and is sent what they made. The one loop in
:meth:`Building.compile` runs them all, so nesting takes no stack.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from django_taskq import conf, registry, routing, serializers
from django_taskq.exceptions import InvalidArguments, InvalidWorkflow, UnknownTask, WorkflowTooLarge
from django_taskq.gates import Gate, Kind
from django_taskq.message import new_ids
from django_taskq.plan import Input, Node, Plan
from django_taskq.steps import LinkKind

if TYPE_CHECKING:
    from django_taskq.composing import Canvas
    from django_taskq.signatures import Signature
    from django_taskq.task import Task

    Compiling = Generator[Any, Any, "Flow"]  # of one canvas
    Adding = Generator[Any, Any, Any]  # of several things
    # What a graph makes of a signature with references: the signature, its inputs, its front, and whether it refers.
    Refer = Callable[[Signature, list[Input], int], tuple[Signature, list[Input], int, bool]]

NOTHING: Mapping[str, Any] = MappingProxyType({})
TIMING = ("countdown", "run_after")
GATES = "gates"  # among the options of a signature that is compiled: what its groups let through, the inner ones first
# Stands for a parent's result where arguments are only counted.
_RESULT = object()


class Flow(NamedTuple):
    """What comes out of one canvas and goes into the next: values of nodes, or a ``literal`` and no nodes at all.

    Together the inputs are the text of one value, or of none where nothing of them is written.
    """

    inputs: list[Input]
    literal: tuple[Any, ...] = ()

    @property
    def has_value(self) -> bool:
        """Whether a step behind it gets an argument."""
        if self.inputs and self.inputs[0].carries:
            return True
        return bool(self.literal) or any(each.carries or each.opens for each in self.inputs)

    def with_kind(self, kind: LinkKind) -> Flow:
        """The same values, wanted in another way."""
        return self._replace(inputs=[each._replace(kind=kind) for each in self.inputs])

    def constant(self) -> str | None:
        """Its value as JSON text where no node is needed for it."""
        return None if self.inputs else serializers.dumps(self.literal[0] if self.literal else None)


START = Flow([])


class Scope(NamedTuple):
    """What a canvas says for the signatures inside it.

    ``options`` hold where they say nothing themselves. ``timing`` and ``delay`` are for the first steps alone: a
    ``countdown`` or ``run_after`` for those that have neither, and seconds on top of the time that they have.
    ``continues`` is the failure policy of those without one.
    """

    options: Mapping[str, Any] = NOTHING
    timing: Mapping[str, Any] = NOTHING
    delay: float = 0.0
    continues: bool = False

    def after_first(self) -> Scope:
        """The scope of the steps that wait for others."""
        return self._replace(timing=NOTHING, delay=0.0) if self.timing or self.delay else self

    def inside(self, options: Mapping[str, Any]) -> Scope:
        """The scope of the parts of a canvas with these options."""
        own = {name: value for name, value in options.items() if name != "on_failure"}
        timing = {name: own.pop(name) for name in TIMING if name in own}
        return self._replace(options={**self.options, **own}, timing=timing or self.timing)

    def limited(self, most: int) -> Scope:
        """The scope of members of which so many run at once: those of a group within count for both."""
        gate = Gate(Kind.GROUP, new_ids(1)[0], most=most)
        return self._replace(options={**self.options, GATES: (gate, *self.options.get(GATES, ()))})

    def completed(self, own: Mapping[str, Any]) -> Mapping[str, Any]:
        """A signature's options, with the scope's where they say nothing, and the delay."""
        found = {**self.options, **own}
        if not any(name in own for name in TIMING):
            found.update(self.timing)
        if "run_after" in found:
            found["run_after"] += timedelta(seconds=self.delay)
        elif self.delay:
            found["countdown"] = found.get("countdown", 0.0) + self.delay
        return found


EVERYWHERE = Scope()


class Building:
    """A plan in the making."""

    def __init__(self, gather: Signature, refer: Refer | None = None) -> None:
        """``gather`` is a signature of the task that hands on what it gets."""
        self.nodes: list[Node] = []
        self.label: str | None = None
        self.aside: set[int] = set()  # the numbers of error callbacks
        self.root: Canvas | None = None
        self._gather = gather
        self._refer = refer
        self._tasks: dict[str, Task[Any, Any]] = {}
        self._binding: set[tuple[Task[Any, Any], int]] = set()  # so many positional arguments alone make a call of it
        self._silent: tuple[list[Input], list[Input]] = ([], [])
        self._limit = conf.get_settings().max_workflow_size

    def compile(self, canvas: Canvas, flow: Flow = START, scope: Scope = EVERYWHERE) -> Flow:
        """Add the canvas behind ``flow``.

        Raises :exc:`InvalidWorkflow`, :exc:`InvalidArguments` or :exc:`UnknownTask`.
        """
        self.root = canvas
        stack: list[Compiling] = [canvas.compiling(self, flow, scope)]
        made: Flow | None = None
        while stack:
            try:
                part = stack[-1].send(made)
            except StopIteration as done:
                stack.pop()
                made = done.value
            else:
                stack.append(part)
                made = None
        assert made is not None
        return made

    def add(self, signature: Signature, flow: Flow, *, continues: bool = False) -> Node:
        """One node behind ``flow``, with its value in front unless the signature is immutable."""
        inputs, front, refers = flow.inputs, 0, False
        if signature.immutable:
            inputs = self._silenced(inputs)
        elif inputs and inputs[0].kind is LinkKind.FAILURE:
            front = 2
        elif inputs and flow.has_value:
            front = 1
        elif flow.literal:
            signature = signature.preceded(flow.literal)
        if self._refer is not None:
            signature, inputs, front, refers = self._refer(signature, inputs, front)
        self._check(signature, front)
        if len(self.nodes) >= self._limit:
            raise WorkflowTooLarge(
                f"the workflow has more than {self._limit:,} steps, which is what TASKQ['MAX_WORKFLOW_SIZE'] allows. "
                f"Give each step more to do (task.chunks), let steps add further ones as they run, or raise the limit."
            )
        node = Node(signature, inputs, front, len(self.nodes), continues=continues, refers=refers, label=self.label)
        self.nodes.append(node)
        return node

    def gather(self, flow: Flow, *, with_value: bool = True) -> Flow:
        """One node that takes all of ``flow``, for others to wait for; it hands the value on where it is wanted."""
        with_value = with_value and flow.has_value
        if not with_value:
            flow = Flow(self._silenced(flow.inputs))
        beside = flow.inputs[0].parent if flow.inputs else self.nodes[-1] if self.nodes else None
        signature = self._gather.clone(**self._place(beside)) if isinstance(beside, Node) else self._gather
        node = self.add(signature, flow)
        return Flow([Input(node, LinkKind.SUCCESS, 0, 0, with_value)])

    def settled(self, flow: Flow, since: int) -> Flow:
        """``flow`` with a value and nodes of its own: those made since ``since``.

        What hands on its input, or has no nodes, would otherwise link the same parent to the same child twice.
        """
        if flow.inputs and flow.inputs[0].parent.number >= since:
            return flow
        found = self.gather(flow)
        return Flow([found.inputs[0]._replace(carries=True)])

    def failures(self, since: int) -> Iterator[Input]:
        """The failure of any node made since ``since`` that is no error callback itself."""
        for node in self.nodes[since:]:
            if node.number not in self.aside:
                yield Input(node, LinkKind.FAILURE, 0, 0, True)

    def finish(self, flow: Flow, name: str = "") -> Plan:
        """The plan whose result is ``flow``."""
        return Plan(self.nodes, flow.inputs, name, flow.constant())

    def _silenced(self, inputs: list[Input]) -> list[Input]:
        """The same parents with nothing of their values; the members of a group share one list."""
        if self._silent[0] is not inputs:
            self._silent = inputs, [each._replace(opens=0, closes=0, carries=False) for each in inputs]
        return self._silent[1]

    def _check(self, signature: Signature, front: int) -> None:
        task = self._tasks.get(signature.task)
        if task is None:
            task = self._tasks[signature.task] = signature.type
        if "exchange" in signature.options:
            raise InvalidWorkflow(
                f"{signature!r} goes to an exchange, which may make any number of runs of it; a step is one run. "
                f"Give it a queue_name, or let a step enqueue it."
            )
        count = front + len(signature.args)
        if not signature.kwargs and (task, count) in self._binding:
            return
        try:
            task.check_arguments((_RESULT,) * front + signature.args, signature.kwargs)
        except InvalidArguments as error:
            if not front:
                raise
            first = "the failed run and its error" if front > 1 else "the result of the step before it"
            raise InvalidArguments(
                f"{error}. In this workflow {first} come{'s' if front == 1 else ''} before its own arguments; "
                f"an immutable signature, task.si(...), gets only its own."
            ) from error
        if not signature.kwargs:
            self._binding.add((task, count))

    def _place(self, node: Node) -> dict[str, Any]:
        """The queue and the priority of a node: what is put beside it is served by the same workers."""
        signature = node.signature
        place = place_of(self._tasks[signature.task], signature.args, signature.kwargs)
        own = {name: value for name, value in signature.options.items() if name in place}
        return {**place, **own}


def bracketed(flows: list[Flow]) -> Flow:
    """The list of these values, each of which is written."""
    inputs = [each for flow in flows for each in flow.inputs]
    if not inputs:
        return Flow([], ([],))
    # Silent ones write nothing, not even a comma: a bracket must stand where something is written.
    written = [index for index, each in enumerate(inputs) if each.carries or each.opens]
    first, last = written[0], written[-1]
    inputs[first] = inputs[first]._replace(opens=inputs[first].opens + 1)
    inputs[last] = inputs[last]._replace(closes=inputs[last].closes + 1)
    return Flow(inputs)


def place_of(task: Any, args: Any = (), kwargs: Any = NOTHING) -> dict[str, Any]:
    """The queue and the priority that a call of the task has if it does not say; for what runs beside or for it."""
    route = routing.find(task.name, args, kwargs) if conf.get_settings().routes else None
    if route is None:
        return {"queue_name": task.options.queue_name, "priority": task.options.priority}
    return {
        "queue_name": route.queue_name or task.options.queue_name,
        "priority": task.options.priority if route.priority is None else route.priority,
    }


def find_task(name: str) -> Task[Any, Any]:
    """The registered task of this name. Raises :exc:`UnknownTask`."""
    found = registry.find(name)
    if found is None:
        hint = conf.suggest(name, [task.name for task in registry.all_tasks()])
        raise UnknownTask(f"no task is named {name!r}.{hint} A signature names a task that is registered here.")
    return found
