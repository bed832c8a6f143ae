"""What is done to workflows besides running them: cancel, resume, run again, look after, prune. Rare, so plain ORM."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Case, Exists, F, OuterRef, Q, TextField, Value, When

from django_taskq import clock
from django_taskq.brokers.database.advancing import AT_ONCE, UPSTREAM_FAILED, Advance, portions
from django_taskq.brokers.database.broker import DatabaseBroker
from django_taskq.brokers.database.rows import UNCLAIMED, to_message
from django_taskq.brokers.database.step_dialect import ONE
from django_taskq.conflicts import persist
from django_taskq.exceptions import InvalidWorkflow, ResultNotFound
from django_taskq.gates import AT_GATE
from django_taskq.message import Growth, Message, new_ids
from django_taskq.models import Permit, TaskAttempt, TaskRecord, Workflow, WorkflowLink
from django_taskq.models.clock import database_now, stored
from django_taskq.models.task import TaskQuerySet
from django_taskq.models.workflow import WorkflowStatus
from django_taskq.status import FINAL, Status
from django_taskq.steps import ADOPTED, ADOPTS, Link, LinkKind

NOT_NEEDED = "NotNeeded"


def add(using: str, growth: Growth) -> None:
    """Add steps to a workflow that runs. Raises :exc:`InvalidWorkflow` where it has ended or is being cancelled."""

    def work() -> None:
        advance = Advance(DatabaseBroker(using))
        # The write comes first: SQLite refuses a transaction that read before another one wrote.
        running = _workflow(using, growth.workflow_id).filter(finished_at=None, cancel_requested_at=None)
        if not running.update(size=F("size")):
            raise InvalidWorkflow(f"workflow {growth.workflow_id} has ended or is being cancelled: start another one")
        advance.grow(growth)
        advance.after((), (), ())

    _transact(using, work)


def cancel(using: str, workflow_id: str, reason: str = "TaskCancelled") -> int:
    """Cancel what waits and mark what runs; returns how many steps that reached."""
    _workflow(using, workflow_id).filter(finished_at=None, cancel_requested_at=None).update(
        cancel_requested_at=database_now(using), reason=reason
    )
    count = 0
    unfinished = _steps(using, workflow_id).exclude(status__in=FINAL).filter(cancel_requested_at=None).order_by("pk")
    while ids := list(unfinished.values_list("pk", flat=True)[:AT_ONCE]):
        count += _records(using).filter(pk__in=ids).cancel(reason)
    _transact(using, lambda: Advance(DatabaseBroker(using)).after((), (), [workflow_id]))
    return count


def retry_failed(using: str, workflow_id: str) -> int:
    """Run what is FAILED again, and what waited for it; returns how many were FAILED."""
    steps = _steps(using, workflow_id)
    failed = steps.filter(status=Status.FAILED)
    count = int(failed.count())
    if count:
        in_vain = Q(status=Status.CANCELLED, reason__in=(UPSTREAM_FAILED, NOT_NEEDED))
        starts = set(failed.values_list("pk", flat=True))
        _restart(using, workflow_id, steps.filter(Q(status=Status.FAILED) | in_vain), starts)
    return count


def retry_steps(using: str, ids: Sequence[UUID]) -> int:
    """Run these FAILED or CANCELLED steps again, and what waited for them; returns how many of them."""
    chosen = _records(using).filter(pk__in=ids, status__in=(Status.FAILED, Status.CANCELLED))
    by_workflow: dict[str, list[UUID]] = defaultdict(list)
    for pk, workflow_id in chosen.values_list("pk", "workflow_id"):
        by_workflow[str(workflow_id)].append(pk)
    for found, some in by_workflow.items():
        again = Q(pk__in=some) | Q(status=Status.CANCELLED, reason__in=(UPSTREAM_FAILED, NOT_NEEDED))
        # What is FAILED because others have failed in its place.
        again |= Q(status=Status.FAILED, pk__in=_replaced(using, found, set(some)))
        _restart(using, found, _steps(using, found).filter(again), set(some))
    return sum(len(some) for some in by_workflow.values())


def resume(using: str, workflow_id: str) -> int:
    """Run again what is FAILED or CANCELLED; returns how many steps."""
    bad = _steps(using, workflow_id).filter(status__in=(Status.FAILED, Status.CANCELLED))
    return _restart(using, workflow_id, bad, set(bad.values_list("pk", flat=True)))


def resume_from(using: str, workflow_id: str, step_id: str) -> int:
    """Run this step and all that comes after it again; returns how many steps. What runs at this moment is left."""
    start = UUID(step_id)
    reached = _with_descendants(using, workflow_id, {start})
    ended = _steps(using, workflow_id).filter(status__in=(*FINAL, Status.WAITING))
    return _restart(using, workflow_id, ended, {start}, reached)


def _with_descendants(using: str, workflow_id: str, starts: set[UUID]) -> set[UUID]:
    children: dict[UUID, list[UUID]] = defaultdict(list)
    for parent, child in _links(using, workflow_id).values_list("parent_id", "child_id"):
        children[parent].append(child)
    reached, way = set(starts), list(starts)
    for id in way:
        fresh = [child for child in children[id] if child not in reached]
        reached.update(fresh)
        way += fresh
    return reached


def _replaced(using: str, workflow_id: str, starts: set[UUID]) -> set[UUID]:
    """The runs that have put others in their place of which one of ``starts`` is, or comes before, one."""
    adopters = set(_steps(using, workflow_id).filter(headers__contains=ADOPTS).values_list("pk", flat=True))
    if not adopters:
        return set()
    reached = _with_descendants(using, workflow_id, starts)
    adopted = _links(using, workflow_id).filter(position__gte=ADOPTED).values_list("parent_id", "child_id")
    return {child for parent, child in adopted if child in adopters and parent in reached}


def _restart(
    using: str, workflow_id: str, steps: TaskQuerySet, starts: set[UUID], only: set[UUID] | None = None
) -> int:
    """Have these wait for their links again, and let go what waits for nothing. ``starts`` are those asked for."""

    def work() -> int:
        # The row first, so that nothing else ends the workflow meanwhile.
        again = _workflow(using, workflow_id).update(
            status=WorkflowStatus.RUNNING, finished_at=None, cancel_requested_at=None, expires_at=None, reason=""
        )
        if not again:
            raise ResultNotFound(f"no workflow has the id {workflow_id}")
        ids = [pk for pk in steps.order_by("pk").values_list("pk", flat=True) if only is None or pk in only]
        kept = _replaced(using, workflow_id, starts)
        for some in portions(ids):
            _reset(using, some, kept)
            _look_again(using, some)
        advance = Advance(DatabaseBroker(using))
        advance.let_go([str(id) for id in ids])
        advance.after((), _in_vain(using, [workflow_id]), [workflow_id])
        return len(ids)

    return int(_transact(using, work))


def _reset(using: str, ids: Sequence[UUID], kept: set[UUID]) -> None:
    """``kept`` are those that wait for what is in their place: that is run again. The others run themselves."""
    chosen = _records(using).filter(pk__in=ids)
    for row in chosen.filter(headers__contains=ADOPTS).exclude(pk__in=kept.intersection(ids)):
        # What had taken its place stays as history.
        WorkflowLink.objects.using(using).filter(child_id=row.pk, position__gte=ADOPTED).delete()
        _records(using).filter(pk=row.pk).update(headers=row.headers_read._replace(adopts=None).dumps())
    has_begun = Case(When(status__in=(Status.FAILED, Status.SUCCESSFUL), then=F("attempt") + 1), default=F("attempt"))
    nothing = dict.fromkeys(
        ("run_after", "expires_at", "finished_at", "cancel_requested_at", "result", "waits_at", "publish_after")
    )
    changes: dict[str, Any] = {"status": Status.WAITING, "attempt": has_begun, "crashes": 0, "is_suspect": False}
    chosen.update(**changes, reason="", **UNCLAIMED, **nothing)
    # Those that stood at gates come to them again.
    Permit.objects.using(using).filter(task_id__in=ids).delete()
    _records(using).filter(pk__in=kept.intersection(ids)).update(waits_at=ADOPTED)


def _look_again(using: str, ids: Sequence[UUID]) -> None:
    """Steps that have seen the ends of these wait for their new ends."""
    children = WorkflowLink.objects.using(using).filter(parent_id__in=ids).values("child_id")
    first = Case(When(waits_at__gte=ADOPTED, then=ADOPTED), default=None)
    _records(using).filter(pk__in=children, status=Status.WAITING, waits_at__gt=0).update(waits_at=first)


def rerun(using: str, workflow_id: str) -> tuple[str, str, int]:
    """Start a copy of a workflow's plan; returns its id, name and size."""
    old = _workflow(using, workflow_id).first()
    if old is None:
        raise ResultNotFound(f"no workflow has the id {workflow_id}: it was pruned, or never started")
    rows, now = DatabaseBroker(using), clock.now()
    planned = _steps(using, workflow_id).exclude(headers__contains='"grown":true').order_by("pk")
    steps = list(planned.values_list("pk", flat=True))
    new_id, *fresh = new_ids(len(steps) + 1)
    ids = {workflow_id: new_id} | {str(pk): id for pk, id in zip(steps, fresh, strict=True)}
    with transaction.atomic(using=using):
        Workflow.objects.using(using).create(
            id=new_id, name=old.name, size=len(fresh), constant=old.constant, enqueued_at=stored(now)
        )
        for some in portions(steps):
            rows.insert([_copy(row, ids, now) for row in _records(using).filter(pk__in=some).order_by("pk")])
        for links in portions(list(_copied_links(using, workflow_id, ids))):
            rows.link(links)
        advance = Advance(rows)
        advance.let_go(fresh)
        advance.after((), (), [new_id])
    return new_id, old.name, len(fresh)


def _copy(row: TaskRecord, ids: dict[str, str], now: datetime) -> Message:
    headers = row.headers_read._replace(workflow=ids[str(row.workflow_id)], adopts=None)
    return replace(
        to_message(row),
        id=ids[str(row.pk)],
        headers=headers.dumps(),
        enqueued_at=now,
        run_after=None,
        expires_at=None,
        workflow_id=headers.workflow,
        is_waiting=True,
    )


def _copied_links(using: str, workflow_id: str, ids: dict[str, str]) -> Iterator[Link]:
    fields = ("parent_id", "child_id", "position", "kind", "opens", "closes", "carries")
    for parent, child, position, kind, *rest in _links(using, workflow_id).values_list(*fields):
        if position < ADOPTED and str(parent) in ids and str(child) in ids:
            yield Link(ids[str(parent)], ids[str(child)], position, LinkKind(kind), *rest)


def look_after(using: str) -> int:
    """Move on what should have moved; returns for how many workflows that was tried.

    Steps that end through a worker move their workflow on at once. This finds those that ended otherwise (cancelled,
    rescued, deleted), workflows past their time, and what a transaction at a high isolation level could not see.
    """
    unfinished = Workflow.objects.using(using).unfinished()
    if not unfinished.exists():  # as once a second in an idle worker
        return 0
    overdue = unfinished.filter(expires_at__lte=database_now(using), cancel_requested_at=None)
    for id in list(overdue.values_list("pk", flat=True)):
        cancel(using, str(id), "TaskExpired: its workflow was to have ended by now")
    # Steps are cancelled some at a time: whoever did so may have been killed half-way.
    untold = _records(using).filter(workflow_id=OuterRef("pk"), cancel_requested_at=None).exclude(status__in=FINAL)
    halfway = unfinished.filter(Exists(untold), cancel_requested_at__isnull=False)
    for id, reason in list(halfway.values_list("pk", "reason")):
        cancel(using, str(id), reason)
    moving = _records(using).filter(
        workflow_id=OuterRef("pk"), status__in=(Status.READY, Status.SCHEDULED, Status.RUNNING)
    )
    moving |= _records(using).filter(workflow_id=OuterRef("pk"), status=Status.WAITING, waits_at=AT_GATE)
    stalled = list(unfinished.filter(~Exists(moving)).values_list("pk", flat=True)[:AT_ONCE])
    for id in stalled:
        _transact(using, partial(_unstall, using, str(id)))
    running = unfinished.exclude(pk__in=stalled).values("pk")
    bad = _in_vain(using, running)
    for some in portions(bad):
        _transact(using, partial(_move_on, using, some))
    return len(stalled) + len(bad)


def _move_on(using: str, bad: Sequence[str]) -> None:
    # A write comes first: SQLite refuses a transaction that read before another one wrote.
    _records(using).filter(pk=bad[0]).update(waits_at=F("waits_at"))
    Advance(DatabaseBroker(using)).after((), bad, ())


def _unstall(using: str, workflow_id: str) -> None:
    _workflow(using, workflow_id).update(size=F("size"))
    advance = Advance(DatabaseBroker(using))
    waiting = _steps(using, workflow_id).filter(status=Status.WAITING).exclude(waits_at=AT_GATE).order_by("pk")
    advance.let_go([str(pk) for pk in waiting.values_list("pk", flat=True)])
    advance.after((), [*_in_vain(using, [workflow_id]), *_orphaned(using, waiting)], [workflow_id])


def _orphaned(using: str, waiting: TaskQuerySet) -> list[str]:
    """Cancel those of these that wait for rows which were deleted; returns their ids."""
    is_there = _records(using).filter(pk=OuterRef("parent_id"))
    missing = WorkflowLink.objects.using(using).filter(~Exists(is_there), child_id=OuterRef("pk"))
    orphans = list(waiting.filter(Exists(missing)).values_list("pk", flat=True)[:AT_ONCE])
    calls_back = Exists(WorkflowLink.objects.using(using).filter(child_id=OuterRef("pk"), kind=LinkKind.FAILURE))
    reason = Case(When(calls_back, then=Value(NOT_NEEDED, TextField())), default=Value(UPSTREAM_FAILED, TextField()))
    _records(using).filter(pk__in=orphans).update(
        status=Status.CANCELLED, finished_at=database_now(using), reason=reason
    )
    return [str(pk) for pk in orphans]


def _in_vain(using: str, workflow_ids: Any) -> list[str]:
    """The steps of these workflows that did not succeed, though others wait as if they had not ended."""
    waits = _records(using).filter(pk=OuterRef("child_id"), status=Status.WAITING)
    here = waits.filter(Q(waits_at=OuterRef("position")) | Q(waits_at=None) | Q(waits_at=ONE))
    # What was called, and has put others in its place, waits for these.
    uncalled = waits.exclude(waits_at__gte=ADOPTED)
    links = WorkflowLink.objects.using(using).filter(parent_id=OuterRef("pk"))
    needed, called = links.filter(kind=LinkKind.SUCCESS), links.filter(kind=LinkKind.FAILURE)
    bad = _records(using).filter(workflow_id__in=workflow_ids, status__in=(Status.FAILED, Status.CANCELLED))
    bad = bad.filter(
        Exists(needed.filter(Exists(waits)))
        | Exists(called.filter(Exists(uncalled))) & Q(status=Status.FAILED)
        | Exists(links.filter(Exists(here)))
    )
    return [str(pk) for pk in bad.order_by("pk").values_list("pk", flat=True)[:AT_ONCE]]


def prune(using: str, results_before: datetime | None, failures_before: datetime | None, *, at_most: int | None) -> int:
    """Delete finished workflows past their retention as wholes, oldest first; returns how many rows of steps."""
    doomed = Workflow.objects.using(using).prunable(results_before, failures_before).order_by("finished_at")
    count = 0
    while at_most is None or count < at_most:
        workflow = doomed.first()
        if workflow is None:
            break
        count += _delete(using, workflow)
    return count


def _delete(using: str, workflow: Workflow) -> int:
    count, links = 0, WorkflowLink.objects.using(using)
    while ids := list(_steps(using, str(workflow.pk)).order_by("pk").values_list("pk", flat=True)[:AT_ONCE]):
        with transaction.atomic(using=using):
            links.filter(child_id__in=ids)._raw_delete(using)
            TaskAttempt.objects.using(using).filter(task_id__in=ids)._raw_delete(using)
            _records(using).filter(pk__in=ids)._raw_delete(using)
        count += len(ids)
    with transaction.atomic(using=using):
        links.filter(child_id=workflow.pk)._raw_delete(using)
        Workflow.objects.using(using).filter(pk=workflow.pk)._raw_delete(using)
    return count


def _transact(using: str, work: Any) -> Any:
    def within() -> Any:
        with transaction.atomic(using=using):
            return work()

    return persist(using, within)


def _workflow(using: str, workflow_id: str) -> Any:
    return Workflow.objects.using(using).filter(pk=UUID(workflow_id))


def _records(using: str) -> TaskQuerySet:
    found: TaskQuerySet = TaskRecord.objects.using(using)
    return found


def _steps(using: str, workflow_id: str) -> TaskQuerySet:
    found: TaskQuerySet = _records(using).filter(workflow_id=UUID(workflow_id))
    return found


def _links(using: str, workflow_id: str) -> Any:
    """All links between its steps, and from these to its results."""
    steps = _steps(using, workflow_id).values("pk")
    return WorkflowLink.objects.using(using).filter(parent_id__in=steps).order_by("child_id", "position")
