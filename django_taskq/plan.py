"""A workflow as it is before anything is stored: its steps, what each waits for, and what its result is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from django_taskq.steps import LinkKind

if TYPE_CHECKING:
    from django_taskq.signatures import Signature


class Input(NamedTuple):
    """One parent of a node, or one sink of the plan.

    In the text that the child gets ``opens`` brackets stand before the parent's value and ``closes`` behind it; the
    value itself is left out where it is not ``carries``, its brackets are not.
    """

    parent: Node | Running
    kind: LinkKind
    opens: int
    closes: int
    carries: bool


class Node:
    """One step. There may be a million of them, so they have slots, and those of a group share their inputs."""

    __slots__ = ("continues", "front", "inputs", "label", "number", "refers", "signature")

    def __init__(
        self,
        signature: Signature,
        inputs: list[Input],
        front: int,
        number: int,
        *,
        continues: bool = False,
        refers: bool = False,
        label: str | None = None,
    ) -> None:
        """``inputs`` may be other nodes' too: nobody changes them. ``front`` is how many positional arguments they
        put before the signature's own: 0, 1, or 2 for an error callback. Where the node ``refers``, the values go to
        the references in its arguments instead. ``continues``: others do not need it to succeed.
        """
        self.signature = signature
        self.inputs = inputs
        self.front = front
        self.number = number
        self.continues = continues
        self.refers = refers
        self.label = label

    def __repr__(self) -> str:
        return f"<Node {self.number} {self.signature!r}>"


class Running:
    """Stands for a step of a workflow that runs already; its number, below 0, tells it from other parents."""

    __slots__ = ("id", "number")

    def __init__(self, id: str, number: int) -> None:
        self.id = id
        self.number = number

    def __repr__(self) -> str:
        return f"<Running {self.id}>"


class Plan:
    """The steps in an order in which parents stand before their children; ``node.number`` is the place.

    ``constant`` is the JSON text of the result of a plan without sinks.
    """

    __slots__ = ("constant", "name", "nodes", "sinks")

    def __init__(self, nodes: list[Node], sinks: list[Input], name: str = "", constant: str | None = None) -> None:
        self.nodes = nodes
        self.sinks = sinks
        self.name = name
        self.constant = constant

    def __repr__(self) -> str:
        return f"<Plan {self.name!r} of {len(self.nodes)} steps>"
