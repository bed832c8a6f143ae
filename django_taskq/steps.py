"""How the steps of a workflow hang together: links between runs, and the values that go along them.

A step's arguments are never copied into its message. A link names the parent whose result is wanted, and the text of
the arguments is put together when the step is claimed.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import NamedTuple

from django_taskq import serializers


class LinkKind(enum.IntEnum):
    """What a step waits for in one parent."""

    SUCCESS = 0  # its success; anything else makes the step CANCELLED
    END = 1  # its end, whatever became of it; an error travels in the place of the value
    FAILURE = 2  # its failure: the step is an error callback, and runs once for the first of its parents that fails


class Link(NamedTuple):
    """One step, or a workflow's result, waits for one parent. Ids are UUIDs as text.

    ``position`` is the place among the child's links. In the text of the child's values ``opens`` brackets stand
    before this one and ``closes`` behind it; the value itself is left out where it is not ``carries``.
    """

    parent_id: str
    child_id: str
    position: int
    kind: LinkKind
    opens: int
    closes: int
    carries: bool


class Value(NamedTuple):
    """One link as its child reads it: ``text`` is the parent's result, or its error, as JSON."""

    opens: int
    closes: int
    carries: bool
    text: str | None

    def written(self) -> str:
        """The value with its brackets; '' for one that is left out and has none."""
        value = (self.text or "null") if self.carries else ""
        return f"{'[' * self.opens}{value}{']' * self.closes}"


# The built-in task that makes one value of many.
GATHER = "django_taskq.gather"
# From this position on stand the links to what a run has put in its place, behind its own.
ADOPTED = 1 << 24
# In the headers, as text, of a run that others stand in for; see Headers.adopts.
ADOPTS = '"adopts":true'

REFERENCE = "value"
# Written by serializers.dumps, whose separators are fixed; inside a string the quotes would be escaped.
_MARKER = re.compile(rf'\{{"{serializers.TAG}":"{REFERENCE}","v":\[(\d+),(\d+)\]\}}')


class Reference:
    """Stands in a step's arguments for the values of its links from ``start`` up to ``stop``."""

    __slots__ = ("start", "stop")

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop


def _read(encoded: Sequence[int]) -> Reference:
    return Reference(*encoded)


serializers.register_type(Reference, REFERENCE, lambda found: [found.start, found.stop], _read)


def joined(values: Sequence[Value]) -> str:
    """The values as they stand in a list or before other arguments, without brackets of their own around."""
    return ",".join(text for value in values if (text := value.written()))


def filled(payload: str, values: Sequence[Value], *, refers: bool) -> str:
    """A step's payload with the values of its links: in the places of the references, or in front of its own."""
    if refers:
        return _MARKER.sub(lambda found: joined(values[int(found[1]) : int(found[2])]) or "null", payload)
    front = joined(values)
    if not front:
        return payload
    comma = "" if payload.startswith("[[]") else ","
    return f"[[{front}{comma}{payload[2:]}"


_WORKFLOW = '"workflow":"'


def workflow_of(headers: str | None) -> str | None:
    """The id of the workflow a run belongs to, from its headers as text; they are not read for it."""
    if headers is None:
        return None
    at = headers.find(_WORKFLOW)
    return None if at < 0 else headers[at + len(_WORKFLOW) : at + len(_WORKFLOW) + 36]


# Named tuples of a module that is always loaded travel as they are.
class StepError(NamedTuple):
    """An error in the place of a value: how a step ended that others do not need to succeed."""

    class_path: str
    message: str
    id: str
    name: str


class FailedStep(NamedTuple):
    """The run that failed, as its error callback is told."""

    id: str
    name: str
    workflow_id: str
