"""The steps whose values make up a workflow's value, and waiting until they are there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from django.apps import apps

from django_taskq import conf
from django_taskq.result import FIRST_POLL, LAST_POLL
from django_taskq.status import FINAL, Status
from django_taskq.steps import ADOPTED, LinkKind

# Sinks looked at in one go.
AT_ONCE = 100


class Sink(NamedTuple):
    """One step whose value is part of the workflow's."""

    position: int
    id: str
    kind: int
    opens: int
    closes: int


def using() -> str:
    """The alias of the database that holds the rows."""
    return conf.get_settings().database


def records() -> Any:
    """All runs."""
    return apps.get_model("django_taskq", "TaskRecord").objects.using(using())


def links_to(workflow_id: str) -> Any:
    """The links whose values make up a workflow's, without those of steps that were added to it."""
    links = apps.get_model("django_taskq", "WorkflowLink").objects.using(using())
    return links.filter(child_id=UUID(workflow_id), position__lt=ADOPTED)


def sinks_of(workflow_id: str, first: int = 0) -> Iterator[Sink]:
    """The sinks of a workflow from position ``first`` on, in order."""
    rows = links_to(workflow_id).filter(position__gte=first).order_by("position")
    fields = ("position", "parent_id", "kind", "opens", "closes")
    for position, parent_id, kind, opens, closes in rows.values_list(*fields).iterator(1000):
        yield Sink(position, str(parent_id), kind, opens, closes)


def members(workflow_id: str) -> Iterator[list[Sink]]:
    """The sinks of one member after the other: a chain that ends in a group has several.

    Their brackets are those of the member, without the pair around the whole list.
    """
    member, depth = list[Sink](), 0
    for number, found in enumerate(sinks_of(workflow_id)):
        sink = found if number else found._replace(opens=found.opens - 1)
        depth += sink.opens - sink.closes
        # The last one closes the whole list as well.
        member.append(sink if depth >= 0 else sink._replace(closes=sink.closes + depth))
        if depth <= 0:
            yield member
            member = []


class Waitable(Protocol):
    """A handle on a workflow, as far as waiting for it goes."""

    id: str
    name: str

    @property
    def status(self) -> str:
        """As last read."""

    @property
    def is_finished(self) -> bool:
        """As last read."""

    def refresh(self) -> None:
        """Read it again."""


class Wait:
    """Looks whether a workflow's results are there; what was found to have ended is not looked at again."""

    def __init__(self, result: Waitable, timeout: float | None) -> None:
        self._result = result
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._pause = FIRST_POLL
        self._seen = 0

    def is_over(self) -> bool:
        """Whether every result is there, or one that is needed will never be."""
        result = self._result
        result.refresh()
        if result.is_finished:
            return True
        sinks = sinks_of(result.id, self._seen)
        while portion := list(islice(sinks, AT_ONCE)):
            is_over = self._look(portion)
            if is_over is not None:
                return is_over
        return True

    def _look(self, sinks: list[Sink]) -> bool | None:
        """False when one of these has not ended; True when one that is needed ended badly; None when all ended well."""
        rows = records().filter(pk__in=[sink.id for sink in sinks]).values_list("pk", "status")
        statuses = {str(pk): status for pk, status in rows}
        for sink in sinks:
            status = statuses.get(sink.id)
            if status in (Status.FAILED, Status.CANCELLED) and sink.kind == LinkKind.SUCCESS:
                return True
            if status is not None and status not in FINAL:
                self._seen = sink.position
                return False
        return None

    def pause(self) -> float:
        """Seconds until the next look. Raises ``TimeoutError``."""
        pause, self._pause = self._pause, min(self._pause * 1.5, LAST_POLL)
        if self._deadline is None:
            return pause
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"workflow {self._result.id} {self._result.name} is still {self._result.status}")
        return min(pause, left)
