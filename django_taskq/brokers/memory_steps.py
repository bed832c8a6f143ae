"""Steps of workflows in this process's memory: what each waits for, and what became of those that have ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from django_taskq import serializers
from django_taskq.message import Delivery, Feed, Headers
from django_taskq.status import Status
from django_taskq.steps import ADOPTED, FailedStep, Link, LinkKind, StepError, Value, filled, joined, workflow_of


class End(NamedTuple):
    """How a step ended: ``text`` is its result as JSON, or ``error`` what stands for it."""

    status: Status
    text: str | None = None
    error: StepError | None = None

    @property
    def written(self) -> str | None:
        """The JSON text that others get."""
        return self.text if self.error is None else serializers.dumps(self.error)


class MemorySteps:
    """The links between steps. Whoever uses it holds a lock."""

    def __init__(self) -> None:
        self.ended: dict[str, End] = {}
        self._links: dict[str, list[Link]] = defaultdict(list)
        self._children: dict[str, list[str]] = defaultdict(list)

    def add(self, links: Sequence[Link]) -> None:
        """Have children wait for parents."""
        for link in links:
            self._links[link.child_id].append(link)
            self._links[link.child_id].sort(key=lambda link: link.position)
            self._children[link.parent_id].append(link.child_id)

    def children(self, id: str) -> list[str]:
        """Those that wait for this one."""
        return self._children[id]

    def links_of(self, id: str) -> list[Link]:
        """What a step, or a workflow's result, waits for, in order."""
        return self._links[id]

    def verdict(self, id: str) -> Status:
        """WAITING, or READY, or how a step ends that will not run."""
        links = self._links[id]
        # What was put in its place is all that one waits for which has run already.
        links = [link for link in links if link.position >= ADOPTED] or links
        ends = [self.ended.get(link.parent_id) for link in links]
        if links and links[0].kind is LinkKind.FAILURE:
            if any(end is not None and end.status is Status.FAILED for end in ends):
                return Status.READY
            return Status.WAITING if None in ends else Status.CANCELLED
        for link, end in zip(links, ends, strict=True):
            if link.kind is LinkKind.SUCCESS and end is not None and end.status is not Status.SUCCESSFUL:
                is_own_failure = link.position >= ADOPTED and self.cause(id) is not None
                return Status.FAILED if is_own_failure else Status.CANCELLED
        return Status.WAITING if None in ends else Status.READY

    def cause(self, id: str) -> StepError | None:
        """The error of the failure for which a step will not run."""
        way = [id]
        for each in way:
            for link in self._links[each]:
                end = self.ended.get(link.parent_id)
                if end is not None and end.status is Status.FAILED:
                    return end.error
                if end is not None and end.status is Status.CANCELLED:
                    way.append(link.parent_id)
        return None

    def complete(self, delivery: Delivery) -> Delivery:
        """A delivery with the values that its links bring."""
        if workflow_of(delivery.headers) is None:
            return delivery
        headers = Headers.loads(delivery.headers)
        if headers.adopts:
            own = [self._value(link) for link in self._links[delivery.id] if link.position >= ADOPTED]
            return delivery._replace(payload=f"[[{joined(own)}],{{}}]")
        if headers.feed is None:
            return delivery
        is_callback = headers.feed == Feed.FAILURE
        values = self._told(delivery) if is_callback else self.values_of(delivery.id)
        refers = headers.feed == Feed.REFERENCES
        return delivery._replace(payload=filled(delivery.payload, values, refers=refers))

    def values_of(self, id: str) -> list[Value]:
        """What the links of a step, or of a workflow, bring once their parents have ended."""
        return [self._value(link) for link in self._links[id]]

    def _value(self, link: Link) -> Value:
        return Value(link.opens, link.closes, link.carries, self.ended[link.parent_id].written)

    def _told(self, delivery: Delivery) -> list[Value]:
        for link in self._links[delivery.id]:
            error = self.ended[link.parent_id].error if link.parent_id in self.ended else None
            if error is not None and self.ended[link.parent_id].status is Status.FAILED:
                step = FailedStep(error.id, error.name, workflow_of(delivery.headers) or "")
                return [Value(0, 0, True, serializers.dumps(each)) for each in (step, error)]
        return []
