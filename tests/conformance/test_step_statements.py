"""The written statements for steps of workflows do what their plain ORM versions do, on the same random graphs."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from django_taskq.brokers.database import get_dialect
from django_taskq.brokers.database.step_dialect import ONE, Waiting
from django_taskq.message import NO_ROOM, Message, Room, new_ids
from django_taskq.models import TaskRecord, Workflow, WorkflowLink
from django_taskq.status import FINAL, Status
from django_taskq.steps import Link, LinkKind
from tests.conformance import comparing
from tests.unit.making import make_message

pytestmark = [pytest.mark.django_db, pytest.mark.parametrize("seed", range(8))]

PAST, FUTURE = datetime(2020, 1, 2, 3, 4, 5, 678_901, UTC), datetime(2120, 1, 2, 3, 4, 5, 678_901, UTC)
TIMES = ("finished_at", "run_after")
ENDS = {Status.SUCCESSFUL: 6, Status.FAILED: 1, Status.CANCELLED: 1}


class Graph:
    """Steps of a few workflows in every state, with links of every kind; some of the parents are not there."""

    def __init__(self, rng: random.Random, size: int = 60) -> None:
        self.rng = rng
        self.workflow_ids = new_ids(4)
        for id in self.workflow_ids:
            Workflow.objects.create(pk=id, name="w", size=size, enqueued_at=PAST)
        self.ids: list[str] = []
        self.links: list[Link] = []
        for _ in range(size):
            self.add_step()
        # One whose steps have all ended, and one that had.
        TaskRecord.objects.filter(workflow_id=self.workflow_ids[0], finished_at=None).update(
            status="SUCCESSFUL", finished_at=PAST
        )
        Workflow.objects.filter(pk=self.workflow_ids[3]).update(finished_at=PAST, status="FAILED")
        for id in self.workflow_ids:
            self.link(id, rng.sample(self.ids, rng.randrange(4)))
        self.children = [link.child_id for link in self.links]

    def add_step(self) -> None:
        rng, id = self.rng, new_ids(1)[0]
        status = rng.choice([*rng.choices(list(ENDS), list(ENDS.values())), Status.WAITING, Status.WAITING, *Status])
        TaskRecord.objects.create(
            pk=id,
            name=rng.choice(["app.a", "app.b"]),
            queue_name=rng.choice(["default", "mail"]),
            status=status,
            payload="[[],{}]",
            headers=rng.choice([None, '{"workflow":"..."}']),
            enqueued_at=PAST,
            run_after=rng.choice([None, PAST, FUTURE]),
            finished_at=PAST if status in FINAL else None,
            workflow_id=rng.choice(self.workflow_ids),
            result=rng.choice([None, '["ä\' %s"]']) if status is Status.SUCCESSFUL else None,
            reason="OSError: disk" if status in (Status.FAILED, Status.CANCELLED) else "",
        )
        if self.ids and rng.random() < 0.9:
            self.link(id, rng.sample(self.ids, min(len(self.ids), rng.choice([1, 1, 2, 3, 8]))))
        self.ids.append(id)

    def link(self, child_id: str, parent_ids: list[str]) -> None:
        rng = self.rng
        is_callback, start = rng.random() < 0.2, rng.choice([0, 0, 1 << 24])
        for position, parent_id in enumerate(parent_ids, start):
            kind = LinkKind.FAILURE if is_callback else rng.choice([LinkKind.SUCCESS, LinkKind.SUCCESS, LinkKind.END])
            brackets = rng.randrange(3), rng.randrange(3)
            parent_id = new_ids(1)[0] if rng.random() < 0.02 else parent_id
            link = Link(parent_id, child_id, position, kind, *brackets, rng.random() < 0.7)
            self.links.append(link)
            WorkflowLink.objects.create(**link._asdict())

    def some(self, count: int = 25) -> list[str]:
        return self.rng.sample(self.ids, count)


def snapshot() -> dict[str, Any]:
    """All rows; a time that a statement took from the clock is "just now"."""
    found: dict[str, Any] = {}
    for model in (TaskRecord, Workflow, WorkflowLink):
        for row in model.objects.values():
            for name in TIMES:
                if row.get(name) and abs(row[name] - timezone.now()) < timedelta(minutes=1):
                    row[name] = "just now"
            row.pop("_state", None)
            found[f"{model.__name__} {row.get('id', (row.get('child_id'), row.get('position')))}"] = row
    return found


compare = partial(comparing.compare, snapshot)


@pytest.fixture
def rng(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def graph(rng: random.Random) -> Graph:
    return Graph(rng)


@pytest.fixture
def dialect() -> Any:
    return get_dialect("default")


def parents_of(child_id: Any, first: int = 0) -> list[tuple[WorkflowLink, TaskRecord | None]]:
    links = WorkflowLink.objects.filter(child_id=child_id, position__gte=first).order_by("position")
    return [(link, TaskRecord.objects.filter(pk=link.parent_id).first()) for link in links]


@pytest.mark.parametrize("is_waiting", [False, True])
@pytest.mark.parametrize("count", [1, 5])
def test_insert(rng: random.Random, dialect: Any, count: int, is_waiting: bool) -> None:
    workflow_id = new_ids(1)[0]
    messages = [
        make_message(
            workflow_id=workflow_id,
            is_waiting=is_waiting,
            follows_one=is_waiting and rng.random() < 0.5,
            run_after=rng.choice([None, FUTURE]),
            name=rng.choice(["app.a", "app.b"]),
        )
        for _ in range(count)
    ]

    def row(message: Message) -> TaskRecord:
        due = Status.READY if message.run_after is None else Status.SCHEDULED
        return TaskRecord(
            id=message.id,
            name=message.name,
            queue_name=message.queue_name,
            priority=0,
            status=Status.WAITING if is_waiting else due,
            payload=message.payload,
            enqueued_at=message.enqueued_at,
            run_after=message.run_after,
            attempt=1,
            crashes=0,
            is_suspect=False,
            reason="",
            workflow_id=UUID(workflow_id),
            waits_at=ONE if message.follows_one else None,
        )

    def written() -> None:
        dialect.insert(connection, messages, [])
        if connection.vendor == "sqlite":  # it has no use for the note
            TaskRecord.objects.filter(pk__in=[m.id for m in messages if m.follows_one]).update(waits_at=ONE)

    compare(lambda: TaskRecord.objects.bulk_create(map(row, messages)) and None, written)


def test_insert_links(rng: random.Random, dialect: Any) -> None:
    ids = new_ids(20)
    links = [
        Link(ids[place], ids[place + 10], place, rng.choice(list(LinkKind)), place, place % 3, place % 2 == 0)
        for place in range(10)
    ]
    compare(
        lambda: WorkflowLink.objects.bulk_create([WorkflowLink(**link._asdict()) for link in links]) and None,
        lambda: dialect.insert_links(connection, links),
    )


def test_lock_waiting(graph: Graph, dialect: Any) -> None:
    parents = graph.some()

    def plain() -> list[Waiting]:
        children = WorkflowLink.objects.filter(parent_id__in=parents).values("child_id")
        rows = TaskRecord.objects.filter(pk__in=children, status=Status.WAITING).order_by("pk")
        return [Waiting(str(row.pk), row.waits_at) for row in rows]

    assert compare(plain, lambda: sorted(dialect.lock_waiting(connection, parents)))


def test_advance(graph: Graph, dialect: Any) -> None:
    rows = list(TaskRecord.objects.filter(pk__in=graph.ids))
    asked = [Waiting(str(row.pk), graph.rng.choice([None, None, ONE, 0])) for row in rows]

    def plain() -> list[tuple[Any, ...]]:
        found = []
        for id, seen in asked:
            row = TaskRecord.objects.get(pk=id)
            if row.status == Status.WAITING:
                move(row, parents_of(id, max(0, seen or 0)))
                if row.status != Status.WAITING:
                    found.append((id, row.status, row.queue_name, row.headers, str(row.workflow_id)))
        return sorted(found, key=str)

    compare(plain, lambda: sorted(map(tuple, dialect.advance(connection, asked)), key=str))


def move(row: TaskRecord, parents: list[tuple[WorkflowLink, TaskRecord | None]]) -> None:
    """What becomes of a waiting step."""
    now = timezone.now()
    for link, parent in parents:
        holds = parent is not None and (
            parent.status == Status.SUCCESSFUL if link.kind == LinkKind.SUCCESS else parent.finished_at is not None
        )
        if not holds:
            row.waits_at = link.position
            row.save()
            return
    has_failed = any(parent is not None and parent.status == Status.FAILED for _, parent in parents)
    row.waits_at = None
    if parents and parents[0][0].kind == LinkKind.FAILURE and not has_failed:
        row.status, row.finished_at, row.reason = Status.CANCELLED, now, "NotNeeded"
    else:
        row.status = Status.SCHEDULED if row.run_after and row.run_after > now else Status.READY
    row.run_after = max(row.run_after or now, now)
    row.save()


def test_advance_goes_on_where_it_stood(graph: Graph, dialect: Any) -> None:
    """A second look, from the place of the first, comes to what a look at everything comes to."""
    everything = [Waiting(id, None) for id in graph.ids]
    dialect.advance(connection, everything)
    rows = TaskRecord.objects.filter(status=Status.WAITING)
    ended = graph.some(40)
    TaskRecord.objects.filter(pk__in=ended).exclude(status__in=[*FINAL, Status.WAITING]).update(
        status=Status.SUCCESSFUL, finished_at=PAST
    )

    def again(from_where_it_stood: bool) -> Callable[[], Any]:
        def look() -> Any:
            asked = [Waiting(str(row.pk), row.waits_at if from_where_it_stood else None) for row in rows]
            return sorted(map(tuple, dialect.advance(connection, asked)), key=str)

        return look

    compare(again(False), again(True))


@pytest.mark.parametrize("room", [0, 3])
def test_follow(graph: Graph, dialect: Any, room: int) -> None:
    """Of steps that have succeeded: those that wait for one alone move, and whether there are others is told."""
    ids = [str(pk) for pk in TaskRecord.objects.filter(status=Status.SUCCESSFUL).values_list("pk", flat=True)]
    first = {link.child_id: link for link in graph.links}
    alone = {child for child in first if graph.children.count(child) == 1 and first[child].kind == LinkKind.SUCCESS}
    TaskRecord.objects.filter(pk__in=alone, status="WAITING").update(waits_at=ONE)
    noted = TaskRecord.objects.filter(waits_at=ONE)
    can = {str(pk) for pk in noted.values_list("pk", flat=True) if first[str(pk)].parent_id in ids}
    claims = Room(77, room, ("default",)) if room else NO_ROOM

    followed = dialect.follow(connection, ids, 9, claims)

    moved = {step.id for step in followed.ready} | {taken.delivery.id for taken in followed.taken}
    if connection.vendor == "postgresql":
        assert moved == can
        running = TaskRecord.objects.filter(pk__in=can, status=Status.RUNNING, worker_id=9).order_by("claim")
        assert [taken.delivery.id for taken in followed.taken] == [str(row.pk) for row in running]
        assert [row.claim for row in running] == list(range(77, 77 + len(running)))
        assert len(running) <= room
        assert {row.queue_name for row in running} <= {"default"}
    waiting = {step.id for step in dialect.lock_waiting(connection, ids)}
    assert not waiting & moved
    assert followed.has_others or not waiting
    # What it left is moved by those that look at everything, and nothing else can be.
    rest = dialect.advance(connection, [Waiting(id, None) for id in waiting])
    assert can <= moved | {step.id for step in rest}


def test_close(graph: Graph, dialect: Any) -> None:
    asked = graph.rng.sample(graph.workflow_ids, 3)
    if graph.rng.random() < 0.5:
        TaskRecord.objects.filter(finished_at=None).update(status="CANCELLED", finished_at=PAST)
    if graph.rng.random() < 0.5:
        Workflow.objects.update(cancel_requested_at=PAST)

    def plain() -> list[tuple[str, str]]:
        found = []
        for workflow in Workflow.objects.filter(pk__in=asked, finished_at=None):
            steps = TaskRecord.objects.filter(workflow_id=workflow.pk)
            if steps.exclude(status__in=FINAL).exists():
                continue
            needed = [parent for link, parent in parents_of(workflow.pk) if link.kind == LinkKind.SUCCESS]
            cancelled = steps.filter(status=Status.CANCELLED).exclude(reason="NotNeeded")
            if workflow.cancel_requested_at and cancelled.exists():
                workflow.status = "CANCELLED"
            elif all(parent is not None and parent.status == Status.SUCCESSFUL for parent in needed):
                workflow.status = "SUCCESSFUL"
            else:
                workflow.status = "FAILED" if steps.filter(status=Status.FAILED).exists() else "CANCELLED"
            workflow.finished_at = timezone.now()
            workflow.save()
            found.append((str(workflow.pk), workflow.status))
        return sorted(found)

    compare(plain, lambda: sorted(dialect.close(connection, asked)))


def test_doomed(graph: Graph, dialect: Any) -> None:
    bad = graph.some(5)

    def plain() -> list[str]:
        reached, way = set[str](), list(bad)
        for id in way:
            needing = WorkflowLink.objects.filter(parent_id=id, kind=LinkKind.SUCCESS)
            fresh = {str(child) for child in needing.values_list("child_id", flat=True)} - reached
            reached |= fresh
            way += fresh
        rows = TaskRecord.objects.filter(pk__in=reached, status=Status.WAITING).order_by("pk")
        return [str(pk) for pk in rows.values_list("pk", flat=True)]

    compare(plain, lambda: dialect.doomed(connection, bad))


def test_parents(graph: Graph, dialect: Any) -> None:
    children = [*graph.some(), graph.workflow_ids[0]]

    def plain() -> list[tuple[Any, ...]]:
        return [
            (child, link.position, link.kind, link.opens, link.closes, link.carries, str(row.pk))
            + (row.name, row.status, row.result, row.reason)
            for child in sorted(children)
            for link, row in parents_of(child)
            if row is not None
        ]

    assert compare(plain, lambda: [tuple(parent) for parent in dialect.parents(connection, children)])
