"""The written statements for limits do what their plain ORM versions do, on the same random permits."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from django_taskq.brokers.database import get_dialect
from django_taskq.brokers.database.limit_dialect import Arrival, Place
from django_taskq.brokers.database.rows import to_delivery
from django_taskq.gates import AT_GATE, Gate, Kind, dumps
from django_taskq.message import new_ids
from django_taskq.models import Limit, Permit, TaskRecord
from django_taskq.models.flow import PermitState
from django_taskq.status import FINAL, Status
from tests.conformance import comparing
from tests.unit.making import ago

pytestmark = pytest.mark.django_db

SEEDS = pytest.mark.parametrize("seed", range(4))
KEYS = [Gate(Kind.TASK, "app.send", sub, most=2).key for sub in ("a", "b", "c:'%s", "")]


class Hall:
    """Runs in every state, at and past gates of a few keys; some permits are of runs that are gone."""

    def __init__(self, seed: int, size: int = 80) -> None:
        self.rng = rng = random.Random(seed)
        self.rows: list[TaskRecord] = []
        self.permits: list[Permit] = []
        for place, key in enumerate(KEYS):
            most, rate = rng.choice([None, 3]), rng.choice([None, 1.5])
            limit = Limit(key=key, base="task:app.send", kind="task", most=most, rate=rate, burst=place)
            limit.set_most, limit.set_rate, limit.set_burst = rng.choice([None, 7]), rng.choice([None, 2.5]), None
            limit.declared_by, limit.opens_at = rng.choice([None, UUID(new_ids(1)[0])]), rng.choice([None, 12.5])
            limit.rest, limit.tripped_at, limit.spent_until = rng.choice([None, 60.0]), None, 10.25
            limit.save()
        self.ids = [self.add_run() for _ in range(size)]
        for id in self.ids:
            # In the order of their gates, the last of them perhaps not passed.
            for key in rng.sample(KEYS, rng.choice([0, 1, 1, 2])):
                self.add_permit(id, key)
        for _ in range(5):
            self.add_permit(new_ids(1)[0], rng.choice(KEYS))
        TaskRecord.objects.bulk_create(self.rows)
        Permit.objects.bulk_create(self.permits)

    def add_run(self) -> str:
        rng, id = self.rng, new_ids(1)[0]
        status = rng.choice([Status.WAITING] * 5 + [Status.RUNNING, Status.READY] * 2 + list(Status))
        self.rows += [
            TaskRecord(
                pk=id,
                name="app.send",
                queue_name=rng.choice(["default", "mail"]),
                status=status,
                payload="[[],{}]",
                enqueued_at=ago(60),
                finished_at=ago(1) if status in FINAL else None,
                waits_at=rng.choice([AT_GATE, AT_GATE, AT_GATE, None, 0]) if status == Status.WAITING else None,
                # Who has ended keeps the process; its claim is over.
                worker_id=rng.choice([1, 2]) if status == Status.RUNNING or status in FINAL else None,
                claim=rng.choice([1, 2]) if status == Status.RUNNING else None,
            )
        ]
        return id

    def add_permit(self, id: str, key: str) -> None:
        state = self.rng.choice(list(PermitState))
        claimed = state == PermitState.FOLLOWING or (state == PermitState.HELD and self.rng.random() < 0.3)
        self.permits += [
            Permit(
                task_id=id,
                key=key,
                state=state,
                priority=self.rng.choice([0, 0, 5]),
                gates=dumps([Gate(Kind.TASK, key)]),
                worker_id=self.rng.choice([1, 2]) if claimed else None,
                claim=self.rng.choice([1, 2]) if claimed else None,
            )
        ]

    def some(self, count: int = 30) -> list[str]:
        return self.rng.sample(self.ids, count)


def snapshot() -> dict[str, Any]:
    """All rows; a time that a statement took from the clock is "just now"."""
    found: dict[str, Any] = {}
    models: tuple[tuple[Any, str], ...] = ((TaskRecord, "id"), (Permit, "id"), (Limit, "key"))
    for model, key in models:
        found |= {f"{model.__name__} {row[key]}": row for row in model.objects.values()}
    for row in found.values():
        if row.get("run_after") and abs(row["run_after"] - timezone.now()) < timedelta(minutes=1):
            row["run_after"] = "just now"
    return found


compare = partial(comparing.compare, snapshot)


@pytest.fixture
def hall(seed: int) -> Hall:
    return Hall(seed)


@pytest.fixture
def dialect() -> Any:
    return get_dialect("default")


def statuses() -> dict[UUID, TaskRecord]:
    return {row.pk: row for row in TaskRecord.objects.all()}


def is_at_gate(row: TaskRecord | None) -> bool:
    return row is not None and row.status == Status.WAITING and row.waits_at == AT_GATE


@SEEDS
@pytest.mark.parametrize("is_new", [True, False])
def test_insert_permits(hall: Hall, dialect: Any, is_new: bool) -> None:
    arrivals = [
        Arrival(id, hall.rng.choice(KEYS), place % 3, f'[["task","ä{place}"]]') for place, id in enumerate(hall.ids)
    ]
    dialect.insert_permits(connection, arrivals, is_new=is_new)
    written = Permit.objects.order_by("-id")[: len(arrivals)]
    found = [Arrival(str(row.task_id), row.key, row.priority, row.gates) for row in reversed(written)]
    assert found == arrivals, "in their order, which is that of passing"
    assert {(row.state, row.worker_id, row.claim) for row in written} == {(0 if is_new else 1, None, None)}


@SEEDS
@pytest.mark.parametrize("limit", [3, 1000])
def test_take_arrivals(hall: Hall, dialect: Any, limit: int) -> None:
    def plain() -> Any:
        rows = list(Permit.objects.filter(state=PermitState.NEW).order_by("id")[:limit])
        Permit.objects.filter(pk__in=[row.pk for row in rows]).update(state=PermitState.WAITING)
        return sorted(Arrival(str(row.task_id), row.key, row.priority, row.gates) for row in rows)

    assert dialect.has_arrivals(connection)
    taken = compare(plain, lambda: sorted(dialect.take_arrivals(connection, limit)))
    assert dialect.has_arrivals(connection) is Permit.objects.filter(state=PermitState.NEW).exists()
    assert 0 < len(taken) <= limit


@SEEDS
def test_lock_limits(hall: Hall, dialect: Any) -> None:
    keys = [*hall.rng.sample(KEYS, 3), "task:nobody's"]

    def plain() -> Any:
        found = []
        for row in Limit.objects.filter(pk__in=keys).order_by("pk"):
            whole = Limit.objects.get(pk=row.base)
            most = next((each for each in (row.set_most, whole.set_most) if each is not None), row.most)
            rate = next((each for each in (row.set_rate, whole.set_rate) if each is not None), row.rate)
            by = str(row.declared_by) if row.declared_by else None
            own = ((row.most, row.rate, row.burst, row.rest), by, most, rate, row.burst, row.rest)
            found.append((row.key, *own, row.spent_until, row.opens_at, row.tripped_at))
        return sorted(found)

    compare(plain, lambda: sorted(tuple(limit)[:-1] for limit in dialect.lock_limits(connection, keys)))


@SEEDS
def test_held_and_unclaimed(hall: Hall, dialect: Any) -> None:
    rows = statuses()
    asked = KEYS[:3]
    held = [permit for permit in Permit.objects.filter(key__in=asked) if permit.state == PermitState.HELD]
    there = [permit for permit in held if permit.task_id in rows]
    unclaimed = Counter(permit.key for permit in there if rows[permit.task_id].status != Status.RUNNING)
    compare(lambda: Counter(permit.key for permit in held), lambda: Counter(dialect.held(connection, asked)))
    assert compare(lambda: unclaimed, lambda: Counter(dialect.unclaimed(connection, asked)))


@SEEDS
def test_pass_on(hall: Hall, dialect: Any) -> None:
    rooms = [(key, hall.rng.choice([1, 3, 1000])) for key in sorted(KEYS[:3])]

    def plain() -> Any:
        found = []
        for key, room in rooms:
            first = Permit.objects.filter(state__lt=PermitState.HELD, key=key).order_by("-priority", "id")[:room]
            for permit in list(first):
                Permit.objects.filter(pk=permit.pk).update(state=PermitState.HELD)
                found.append((permit.key, str(permit.task_id), permit.priority, permit.gates))
        return found

    def written() -> Any:
        passed = [(run.key, run.task_id, run.priority, run.gates) for run in dialect.pass_on(connection, rooms)]
        # Between keys there is no order.
        return sorted(passed, key=lambda run: run[0])

    assert compare(plain, written)


@SEEDS
def test_let_go(hall: Hall, dialect: Any) -> None:
    asked = hall.some(60)
    places = sorted(zip(asked, new_ids(len(asked)), strict=True))

    def plain() -> Any:
        found = []
        for id, place in places:
            row = TaskRecord.objects.get(pk=id)
            if is_at_gate(row):
                changes: dict[str, Any] = {"status": Status.READY, "waits_at": None, "run_after": timezone.now()}
                TaskRecord.objects.filter(pk=id).update(**changes, place=UUID(place))
                found.append((id, row.queue_name))
        return sorted(found)

    assert compare(plain, lambda: sorted(map(tuple, dialect.let_go(connection, places))))


@SEEDS
def test_leave(hall: Hall, dialect: Any) -> None:
    asked = hall.some()

    def plain() -> Any:
        rows = Permit.objects.filter(task_id__in=asked)
        left = sorted(rows.values_list("key", "gates", "state"))
        rows.delete()
        return left

    assert compare(plain, lambda: sorted(map(tuple, dialect.leave(connection, asked))))


@SEEDS
def test_drop_stale(hall: Hall, dialect: Any) -> None:
    asked = KEYS[:2]

    def plain() -> Any:
        rows, found = statuses(), []
        for permit in Permit.objects.filter(key__in=asked, state__lt=PermitState.HELD):
            if not is_at_gate(rows.get(permit.task_id)):
                found.append(str(permit.task_id))
                permit.delete()
        return sorted(found)

    assert compare(plain, lambda: sorted(dialect.drop_stale(connection, asked)))


@SEEDS
def test_drop_orphans(hall: Hall, dialect: Any) -> None:
    def is_live(permit: Permit, row: TaskRecord | None) -> bool:
        if row is None:
            return False
        if permit.claim is not None:
            theirs = (row.worker_id, row.claim) == (permit.worker_id, permit.claim)
            return row.status == Status.RUNNING and theirs
        return row.status in (Status.READY, Status.RUNNING) or is_at_gate(row)

    def plain() -> Any:
        rows, found, led = statuses(), [], set()
        for permit in Permit.objects.filter(state=PermitState.FOLLOWING):
            if is_live(permit, rows.get(permit.task_id)):
                led.add((permit.key, permit.worker_id))
            else:
                permit.delete()
        for permit in Permit.objects.filter(state=PermitState.HELD):
            row = rows.get(permit.task_id)
            if not is_live(permit, row) and (row is None or (permit.key, row.worker_id) not in led):
                found.append((permit.key, permit.gates))
                permit.delete()
        return sorted(found)

    assert compare(plain, lambda: sorted(map(tuple, dialect.drop_orphans(connection))))


@SEEDS
def test_claim_behind(hall: Hall, dialect: Any) -> None:
    rows = statuses()
    for row in hall.rows:  # most of what waits does so at a gate, and for the same queue
        if row.status == Status.WAITING and hall.rng.random() < 0.8:
            TaskRecord.objects.filter(pk=row.pk).update(waits_at=AT_GATE, queue_name="default")
    places, expected = [], []
    for key in KEYS[:3]:
        leader = Permit.objects.filter(key=key, state=PermitState.HELD, task_id__in=rows).first()
        if leader is None:
            continue
        places.append(Place(str(leader.task_id), key, "app.send", "default", hall.rng.choice([1, 5, 20])))
        waiting = Permit.objects.filter(key=key, state__lt=PermitState.HELD).order_by("-priority", "id")
        rows = statuses()
        for permit in waiting[: places[-1].most]:
            row = rows.get(permit.task_id)
            if is_at_gate(row) and row is not None and row.queue_name == "default":
                expected.append((str(permit.task_id), permit.pk))
    if hall.rng.random() < 0.5:
        places.append(Place(new_ids(1)[0], KEYS[3], "app.send", "default", 5))  # nobody is there
    untouched = snapshot()
    taken = dialect.claim_behind(connection, 7, places, 100)
    assert expected
    assert [delivery.id for delivery in taken] == [id for id, _ in expected]
    claims = [delivery.claim for delivery in taken]
    assert sorted(set(claims)) == claims
    assert 100 <= claims[0] <= claims[-1] < 100 + sum(place.most for place in places)
    for delivery, (_, permit_id) in zip(taken, expected, strict=True):
        run, permit = TaskRecord.objects.get(pk=delivery.id), Permit.objects.get(pk=permit_id)
        assert (run.status, run.waits_at, run.worker_id, run.claim) == (Status.RUNNING, None, 7, delivery.claim)
        assert (permit.state, permit.worker_id, permit.claim) == (PermitState.FOLLOWING, 7, delivery.claim)
        assert delivery == to_delivery(run)
    changed = {name for name, row in snapshot().items() if row != untouched[name]}
    assert changed == {f"TaskRecord {UUID(id)}" for id, _ in expected} | {f"Permit {pk}" for _, pk in expected}


def test_only_the_same_task_at_the_same_gate_is_claimed_behind(dialect: Any) -> None:
    def stand(name: str, status: str, gates: Sequence[Gate], state: PermitState) -> str:
        id, waits_at = new_ids(1)[0], AT_GATE if status == Status.WAITING else None
        TaskRecord.objects.create(
            pk=id, name=name, queue_name="default", status=status, waits_at=waits_at, enqueued_at=ago(1)
        )
        Permit.objects.create(task_id=id, key=gates[0].key, state=state, priority=0, gates=dumps(gates))
        return id

    gate, queue = Gate(Kind.LOCK, "x", most=1), Gate(Kind.QUEUE, "default", most=5)
    leader = stand("app.send", Status.RUNNING, [gate], PermitState.HELD)
    stand("app.other", Status.WAITING, [gate], PermitState.WAITING)
    stand("app.send", Status.WAITING, [gate, queue], PermitState.WAITING)
    same = stand("app.send", Status.WAITING, [gate], PermitState.NEW)
    place = Place(leader, gate.key, "app.send", "default", 10)
    assert [run.id for run in dialect.claim_behind(connection, 7, [place], 1)] == [same]
    assert dialect.claim_behind(connection, 7, [place], 11) == []


@SEEDS
def test_step_up(hall: Hall, dialect: Any) -> None:
    asked = [*KEYS[:3], "task:nobody"]

    def plain() -> None:
        for key in asked:
            following = Permit.objects.filter(key=key, state=PermitState.FOLLOWING, worker_id=1)
            first = following.order_by("claim", "id").first()
            if first is not None:
                first.state, first.worker_id, first.claim = PermitState.HELD, None, None
                first.save()

    # Claims of one process are different.
    for number, permit in enumerate(Permit.objects.filter(state=PermitState.FOLLOWING)):
        Permit.objects.filter(pk=permit.pk).update(claim=number)
    before = Permit.objects.filter(state=PermitState.HELD).count()
    compare(plain, lambda: dialect.step_up(connection, 1, asked))
    assert Permit.objects.filter(state=PermitState.HELD).count() > before
