"""The steps of workflows for people to look at: every question is bounded, however many steps there are.

Only counting by status goes over all steps, in the index made for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Case, Count, OuterRef, Subquery, When
from django.db.models.functions import Coalesce

from django_taskq.exceptions import SerializationError
from django_taskq.models.task import TaskQuerySet, TaskRecord
from django_taskq.models.workflow import Workflow, WorkflowLink
from django_taskq.status import Status
from django_taskq.steps import ADOPTED, LinkKind

# Up to this many steps are put in order here. Of more, a part of the table of runs is read in its order.
FEW = 10_000
WINDOW = 100_000
# Of more than these failed steps some are shown, not the first.
FAILURES = 1000
_ADOPTS = '"adopts":true'

Counts = dict[str, int]


class StepPage(NamedTuple):
    """Steps in the order of the plan. ``further`` is where the next page begins, None at the end.

    ``is_cut`` says that there may be others between the last one and ``further``.
    """

    steps: list[TaskRecord]
    further: UUID | None
    is_cut: bool


class Awaited(NamedTuple):
    """What a WAITING step waits for: one run, how, and whether there are others behind it."""

    parent: TaskRecord
    kind: LinkKind
    has_more: bool


class Relative(NamedTuple):
    """A run that stands next to another; ``kind`` says how the later one waits for the earlier."""

    record: TaskRecord
    kind: LinkKind


class Relatives(NamedTuple):
    """What a step waits for and what waits for it, some of each; and whether its value is part of the result."""

    parents: list[Relative]
    children: list[Relative]
    has_more_parents: bool
    has_more_children: bool
    is_result: bool


def count_steps(using: str, workflows: Iterable[Workflow]) -> dict[UUID, Counts]:
    """How many steps of each have which status, in one query.

    Of an ended workflow only those are counted that were not successful: the others were.
    """
    workflows = list(workflows)
    steps = TaskRecord.objects.using(using).order_by()
    running = steps.filter(workflow_id__in=[row.pk for row in workflows if row.finished_at is None])
    ended = [row for row in workflows if row.finished_at is not None]
    bad = steps.filter(workflow_id__in=[row.pk for row in ended], status__in=(Status.FAILED, Status.CANCELLED))
    found: dict[UUID, Counts] = {row.pk: {} for row in workflows}
    for workflow_id, status, count in _grouped(running).union(_grouped(bad), all=True):
        found[workflow_id][status] = count
    for row in ended:
        others = row.size - sum(found[row.pk].values())
        if others > 0:
            found[row.pk][Status.SUCCESSFUL.value] = others
    return found


def _grouped(steps: TaskQuerySet) -> Any:
    return steps.values_list("workflow_id", "status").annotate(count=Count("*"))


def page_of_steps(
    using: str,
    workflow: Workflow,
    size: int,
    *,
    counts: Counts,
    status: Status | None = None,
    after: UUID | None = None,
) -> StepPage:
    """Up to ``size`` steps that stand behind ``after``, with this status; ``counts`` are all of them, by status.

    Where there are more than ten thousand, at most a hundred thousand runs are looked through; and the run that the
    workflow has taken the place of, which is older, is not among its steps then.
    """
    every = TaskRecord.objects.using(using)
    steps: TaskQuerySet = every.filter(workflow_id=workflow.pk)
    if status is not None:
        steps = steps.filter(status=status)
    if (workflow.size if status is None else counts.get(status, 0)) <= FEW:
        # In order here: a database that has an index in this order would walk all runs along it.
        ids = sorted(steps.order_by().values_list("pk", flat=True), key=_number)
        ids = ids if after is None else [id for id in ids if id.int > after.int]
        rows = sorted(_listed(every).filter(pk__in=ids[:size]), key=lambda row: row.pk.int)
        return StepPage(rows, ids[size - 1] if len(ids) > size else None, False)
    start = workflow.pk if after is None else after
    window = every.filter(pk__gt=start).order_by("pk").values_list("pk", flat=True)
    edge = next(iter(window[WINDOW - 1 : WINDOW]), None)
    found = _listed(steps).filter(pk__gt=start) if edge is None else _listed(steps).filter(pk__gt=start, pk__lte=edge)
    rows = list(found.order_by("pk")[: size + 1])
    if len(rows) > size:
        return StepPage(rows[:size], rows[size - 1].pk, False)
    return StepPage(rows, edge, edge is not None)


def first_failures(using: str, workflow: Workflow, size: int) -> list[TaskRecord]:
    """Steps that are FAILED, the first to fail first; of more than a thousand, any."""
    failed = TaskRecord.objects.using(using).filter(workflow_id=workflow.pk, status=Status.FAILED).order_by()
    ends = {pk: ended for pk, ended in failed.values_list("pk", "finished_at")[:FAILURES] if ended is not None}
    first = sorted(ends, key=lambda pk: (ends[pk], pk.int))[:size]
    rows = {row.pk: row for row in _listed(TaskRecord.objects.using(using)).filter(pk__in=first)}
    return [rows[pk] for pk in first if pk in rows]


def awaited_by(using: str, steps: Iterable[TaskRecord]) -> dict[UUID, Awaited]:
    """What those of these steps that are WAITING wait for, in two queries."""
    waiting = [step.pk for step in steps if step.status == Status.WAITING]
    if not waiting:
        return {}
    seen = Coalesce("waits_at", 0)
    # What has put others in its place waits for these, and no more for what came before it.
    start = Case(When(headers__contains=_ADOPTS, then=Coalesce("waits_at", ADOPTED)), default=seen)
    link = WorkflowLink.objects.using(using).filter(child_id=OuterRef("pk"), position__gte=OuterRef("start"))
    first = link.order_by("position")
    found = (
        TaskRecord.objects.using(using)
        .filter(pk__in=waiting)
        .annotate(start=start)
        .annotate(
            parent=Subquery(first.values("parent_id")[:1]),
            kind=Subquery(first.values("kind")[:1]),
            second=Subquery(first.values("parent_id")[1:2]),
        )
        .order_by()
        .values_list("pk", "parent", "kind", "second")
    )
    rows = [(pk, parent, kind, second) for pk, parent, kind, second in found if parent is not None]
    parents = _by_id(using, {parent for _, parent, _, _ in rows})
    return {
        pk: Awaited(parents[parent], LinkKind(kind), second is not None)
        for pk, parent, kind, second in rows
        if parent in parents
    }


def relatives_of(record: TaskRecord, using: str, size: int) -> Relatives:
    """Up to ``size`` of the runs before and behind a step, in three queries."""
    links = WorkflowLink.objects.using(using)
    fields = ("parent_id", "kind")
    # What a run has put in its place comes before it, too: its result is theirs.
    before = list(links.filter(child_id=record.pk).order_by("position").values_list(*fields)[: size + 1])
    behind = list(links.filter(parent_id=record.pk).order_by().values_list("child_id", "kind")[: size + 2])
    children = [(id, kind) for id, kind in behind if id != record.workflow_id]
    known = _by_id(using, {id for id, _ in [*before, *children]})

    def shown(found: Sequence[tuple[UUID, int]]) -> list[Relative]:
        return [Relative(known[id], LinkKind(kind)) for id, kind in found[:size] if id in known]

    return Relatives(
        shown(before),
        shown(children),
        len(before) > size,
        len(children) > size,
        len(children) < len(behind),
    )


def label_of(record: TaskRecord) -> str:
    """The name a step was given, or ''."""
    try:
        return str(record.headers_read.label or "")
    except (SerializationError, AttributeError, TypeError):
        return ""


def _by_id(using: str, ids: Collection[UUID]) -> dict[UUID, TaskRecord]:
    return {row.pk: row for row in _listed(TaskRecord.objects.using(using)).filter(pk__in=ids)} if ids else {}


def _listed(steps: TaskQuerySet) -> TaskQuerySet:
    """Without the texts, which are up to a megabyte each."""
    return steps.order_by().defer("payload", "result")


def _number(id: UUID) -> int:
    return id.int
