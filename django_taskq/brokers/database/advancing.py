"""Moving workflows on: what the end of some steps means for those that wait for them.

All of it happens in the transaction that ended the steps, so a step and what follows from it are committed together or
not at all. Everything may be repeated: only WAITING steps are touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

from django.db import connections
from django.db.models import F

from django_taskq.brokers.database.dialect import Dialect
from django_taskq.brokers.database.feeding import brought, readable
from django_taskq.brokers.database.step_dialect import Advanced, Taken, Waiting
from django_taskq.gates import AT_GATE, is_gated
from django_taskq.message import NO_ROOM, Action, Delivery, Growth, Headers, Message, Outcome, Room
from django_taskq.models import Permit, TaskRecord, Workflow, WorkflowLink
from django_taskq.models.clock import database_now, database_now_plus
from django_taskq.models.outbox import publication
from django_taskq.status import Status
from django_taskq.steps import ADOPTED, ADOPTS, Link, LinkKind, workflow_of

Id = TypeVar("Id")

UPSTREAM_FAILED = "UpstreamFailed: a step before it did not succeed"
# Ids in one statement of the ORM, and rows locked in one go.
AT_ONCE = 500
_TIMED = ('"countdown":', '"expires":')


def move_on(rows: Rows, outcomes: Sequence[Outcome], process_id: int, room: Room) -> tuple[list[Delivery], bool]:
    """What follows from these outcomes of steps, which have just been written; in their transaction.

    Returns what this process has claimed of it, up to the room it has, and whether some of it has come to gates.
    """
    advance = Advance(rows, process_id, room)
    succeeded, others, touched = [], [], set()
    for outcome in outcomes:
        advance.grown(outcome)
        if outcome.action is Action.SUCCESS:
            succeeded.append(outcome.delivery.id)
        elif outcome.action in (Action.FAILED, Action.CANCELLED):
            others.append(outcome.delivery.id)
        if workflow_id := workflow_of(outcome.delivery.headers):
            touched.add(workflow_id)
        elif outcome.growth is not None:
            touched.add(outcome.growth.workflow_id)
    advance.after(succeeded, others, touched)
    results = {outcome.delivery.id: outcome.result for outcome in outcomes}
    return [brought(taken, results[taken.parent_id]) for taken in advance.taken], advance.has_arrivals


class Rows(Protocol):
    """The broker of the rows, as far as this module needs it."""

    using: str
    dialect: Dialect

    def insert(self, messages: Sequence[Message]) -> None: ...
    def link(self, links: Sequence[Link]) -> None: ...


class Advance:
    """One look at what follows from ended steps, in the open transaction of the calling thread."""

    def __init__(self, rows: Rows, process_id: int = 0, room: Room = NO_ROOM) -> None:
        self._rows = rows
        self._using = rows.using
        self._dialect = rows.dialect
        self._connection = connections[rows.using]
        self._records = TaskRecord.objects.using(rows.using)
        self._process_id = process_id
        self._room = room
        self._dialect.begin(self._connection)
        self._ready: list[Advanced] = []
        self.taken: list[Taken] = []
        self.has_arrivals = False

    def after(self, succeeded: Sequence[str], others: Sequence[str], workflow_ids: Collection[str]) -> None:
        """These steps of these workflows have ended: successfully, or FAILED or CANCELLED."""
        ended, bad = [*succeeded, *others], list(others)
        while ended:
            if bad:
                # All of them in one order, callbacks and others: whoever ends other parents of theirs does the same.
                self._dialect.lock_waiting(self._connection, ended)
                # Callbacks first: to those whose parents have all ended it would else look as if nothing had failed.
                self._call_back(bad)
            not_needed = self._move(ended) if bad else self._follow(ended)
            ended = bad = not_needed + self._doom(bad + not_needed)
        self._hand_on()
        still_going = {step.workflow_id for step in self._ready} | {step.workflow_id for step in self.taken}
        ending = sorted(set(workflow_ids) - still_going)
        if ending:
            self._dialect.close(self._connection, ending)

    def let_go(self, ids: Sequence[str]) -> None:
        """Make ready those of these WAITING steps that have nothing to wait for."""
        for some in portions(ids):
            seen = self._records.filter(pk__in=some).order_by("pk").values_list("pk", "waits_at")
            moved = self._dialect.advance(self._connection, [Waiting(str(pk), place) for pk, place in seen])
            self._ready += [step for step in moved if step.status != Status.CANCELLED]

    def grown(self, outcome: Outcome) -> None:
        """A run has added steps to its workflow, or put them in its own place: then it waits for their results."""
        growth, run = outcome.growth, outcome.delivery
        if growth is None or self._has_grown(growth):
            return
        if growth.name is not None:
            size, now = len(growth.messages) + 1, database_now(self._using)
            Workflow.objects.using(self._using).create(
                pk=growth.workflow_id, name=growth.name, size=size, enqueued_at=now
            )
            # The workflow's result is the run's.
            self._rows.link([Link(run.id, growth.workflow_id, 0, LinkKind.SUCCESS, 0, 0, True)])
        if outcome.action is Action.REPLACED:
            headers = Headers.loads(run.headers)._replace(workflow=growth.workflow_id, adopts=True).dumps()
            self._records.filter(pk=run.id).update(workflow_id=growth.workflow_id, headers=headers, waits_at=ADOPTED)
        is_cancelled = self._records.filter(pk=run.id, cancel_requested_at__isnull=False).exists()
        self.grow(growth, is_cancelled=is_cancelled)

    def _has_grown(self, growth: Growth) -> bool:
        """Whether this success is recorded once more: after a commit of unknown effect, or one in the task's own."""
        return bool(growth.messages) and self._records.filter(pk=growth.messages[0].id).exists()

    def grow(self, growth: Growth, *, is_cancelled: bool = False) -> None:
        """Write steps that are added to a workflow, and let go those of them that have nothing to wait for."""
        self._rows.insert(growth.messages)
        self._rows.link(growth.links)
        workflow = Workflow.objects.using(self._using).filter(pk=growth.workflow_id)
        if growth.name is None:
            # The row is locked from here on, so that nobody else takes the same places for the ends.
            workflow.update(size=F("size") + len(growth.messages))
            first = ADOPTED + workflow.values_list("size", flat=True).get()
            self._rows.link([link._replace(position=first + link.position) for link in growth.ends])
        self._begin(growth)
        if is_cancelled or workflow.filter(cancel_requested_at__isnull=False).exists():
            ids = [message.id for message in growth.messages]
            for some in portions(ids):
                self._records.filter(pk__in=some).cancel()
            doomed = set(ids)
            self._ready = [step for step in self._ready if step.id not in doomed]
            self.after((), ids, ())

    def _begin(self, growth: Growth) -> None:
        """Let go those that wait for nothing, or for nothing any more, and end what waits in vain."""
        children = {link.child_id for link in growth.links}
        self.let_go([message.id for message in growth.messages if message.id not in children])
        new = {message.id for message in growth.messages}
        older = sorted({link.parent_id for link in growth.links} - new)
        for ids in portions(older):
            ended = self._records.filter(pk__in=ids, finished_at__isnull=False).values_list("pk", "status")
            found = [(str(pk), status == Status.SUCCESSFUL) for pk, status in ended]
            self.after([id for id, ok in found if ok], [id for id, ok in found if not ok], ())

    def _follow(self, succeeded: Sequence[str]) -> list[str]:
        """:meth:`_move` where all have succeeded."""
        followed = self._dialect.follow(self._connection, succeeded, self._process_id, self._room)
        self._ready += followed.ready
        self.taken += followed.taken
        self._room = NO_ROOM
        return self._move(succeeded) if followed.has_others else []

    def _move(self, ended: Sequence[str]) -> list[str]:
        """Let go on what has nothing left to wait for; returns the callbacks that will never be called."""
        waiting = self._dialect.lock_waiting(self._connection, ended)
        if not waiting:
            return []
        moved = self._dialect.advance(self._connection, waiting)
        self._ready += [step for step in moved if step.status != Status.CANCELLED]
        return [step.id for step in moved if step.status == Status.CANCELLED]

    def _call_back(self, bad: Sequence[str]) -> None:
        """Make ready the error callbacks of those that are FAILED."""
        for ids in portions(bad):
            failed = self._records.filter(pk__in=ids, status=Status.FAILED).values("pk")
            links = WorkflowLink.objects.using(self._using).filter(parent_id__in=failed, kind=LinkKind.FAILURE)
            children = sorted(set(links.values_list("child_id", flat=True)))
            waiting = self._records.filter(pk__in=children, status=Status.WAITING).order_by("pk")
            # One that has been called, and put others in its place, waits for these alone; or for a gate.
            waiting = waiting.exclude(waits_at__gte=ADOPTED).exclude(waits_at=AT_GATE)
            called = list(waiting.select_for_update().values_list("pk", "queue_name", "headers", "workflow_id"))
            self._records.filter(pk__in=[pk for pk, *_ in called]).update(
                status=Status.READY, run_after=database_now(self._using)
            )
            self._ready += [
                Advanced(str(pk), Status.READY, queue_name, headers, str(workflow_id))
                for pk, queue_name, headers, workflow_id in called
            ]

    def _doom(self, bad: Sequence[str]) -> list[str]:
        """End what cannot succeed any more, down to the last descendant; returns their ids."""
        doomed = self._dialect.doomed(self._connection, bad) if bad else []
        for ids in portions(doomed):
            locked = self._records.filter(pk__in=ids, status=Status.WAITING).order_by("pk").select_for_update()
            chosen = self._records.filter(pk__in=list(locked.values_list("pk", flat=True)))
            adopters = list(chosen.filter(headers__contains=ADOPTS))
            now = database_now(self._using)
            chosen.update(status=Status.CANCELLED, finished_at=now, reason=UPSTREAM_FAILED)
            for adopter in adopters:
                self._fail_for(adopter, bad)
        return doomed

    def _fail_for(self, adopter: TaskRecord, bad: Sequence[str]) -> None:
        """A run that others have replaced fails as they did: its callbacks and its handle are to know of that error."""
        first = self._cause_of(adopter, bad)
        if first is None:
            return  # they were cancelled, and so it stays
        self._records.filter(pk=adopter.pk).update(status=Status.FAILED, reason=first.reason)
        for error in first.attempt_set.order_by("-id")[:1]:
            error.pk, error.task_id, error.attempt = None, adopter.pk, adopter.attempt
            error.save(using=self._using, force_insert=True)

    def _cause_of(self, adopter: TaskRecord, bad: Sequence[str]) -> TaskRecord | None:
        """The failure, among these, that ended what had taken a run's place."""
        failed = self._records.filter(pk__in=bad[:AT_ONCE], status=Status.FAILED, workflow=adopter.workflow_id)
        causes = list(failed.order_by("finished_at", "pk"))
        if len(causes) < 2:
            return causes[0] if causes else None
        links = WorkflowLink.objects.using(self._using).exclude(kind=LinkKind.FAILURE)
        way, seen = links.filter(child_id=adopter.pk, position__gte=ADOPTED), set[Any]()
        while parents := set(way.values_list("parent_id", flat=True)) - seen:
            for cause in causes:
                if cause.pk in parents:
                    return cause
            seen |= parents
            ended = self._records.filter(pk__in=list(parents)[:AT_ONCE], status__in=(Status.CANCELLED, Status.FAILED))
            way = links.filter(child_id__in=ended.values("pk"))
        return causes[0]

    def _hand_on(self) -> None:
        """See to it that workers hear of what has become ready, and that what has a time of its own waits for it."""
        if not self._ready:
            return
        for step in self._ready:
            if step.headers is not None and any(word in step.headers for word in _TIMED):
                self._delay(step)
        # One that has only the value of others to take needs no place for it.
        gated = [step for step in self._ready if is_gated(step.headers) and ADOPTS not in (step.headers or "")]
        self._put_at_gates([step.id for step in gated])
        handed_on = publication(self._using)
        if handed_on:
            for ids in portions([step.id for step in self._ready]):
                self._records.filter(pk__in=ids, status=Status.READY).update(**handed_on)
        self._dialect.wake(self._connection, sorted({step.queue_name for step in self._ready}))

    def _put_at_gates(self, ids: Sequence[str]) -> None:
        """What may go on by its links has its gates to pass first; what is delayed comes to them later."""
        for some in portions(ids):
            ready = self._records.filter(pk__in=some, status=Status.READY)
            ready.update(status=Status.WAITING, waits_at=AT_GATE)
            Permit.objects.using(self._using).put_at_gates([UUID(id) for id in some])
            self.has_arrivals = True

    def _delay(self, step: Advanced) -> None:
        headers, changes = readable(step.headers), dict[str, Any]()
        if headers.countdown is not None:
            changes |= {"status": Status.SCHEDULED, "run_after": database_now_plus(self._using, headers.countdown)}
        if headers.expires is not None:
            changes["expires_at"] = database_now_plus(self._using, headers.expires)
        if changes:
            self._records.filter(pk=step.id).update(**changes)


def portions(ids: Sequence[Id]) -> Iterator[Sequence[Id]]:
    """So many at a time as go into one statement."""
    for start in range(0, len(ids), AT_ONCE):
        yield ids[start : start + AT_ONCE]
