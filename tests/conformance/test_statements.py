"""Each written statement of a dialect does what its plain ORM version does, on the same random rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from django_taskq.brokers.database import get_dialect
from django_taskq.brokers.database.dialect import Finished
from django_taskq.message import Message
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.unit.making import make_message

pytestmark = [pytest.mark.django_db, pytest.mark.parametrize("seed", range(5))]

QUEUES = ["default", "mail", "bulk"]
NOW = datetime(2026, 5, 6, 7, 8, 9, 123_456, UTC)
UNCLAIMED: dict[str, Any] = {"worker_id": None, "claim": None, "started_at": None}
Rows = dict[str, dict[str, Any]]


def random_messages(rng: random.Random, count: int) -> list[Message]:
    return [
        make_message(
            name=rng.choice(["app.a", "app.b"]),
            queue_name=rng.choice(QUEUES),
            priority=rng.choice([-100, -1, 0, 0, 0, 1, 100]),
            payload=rng.choice(["[[],{}]", '[["ä \'%s"],{}]']),
            headers=rng.choice([None, '{"max_retries":1}']),
            enqueued_at=NOW - timedelta(seconds=rng.randrange(10**6)),
            run_after=rng.choice([None, None, NOW]),
            expires_at=rng.choice([None, NOW]),
        )
        for _ in range(count)
    ]


def fill(rng: random.Random, count: int = 120) -> None:
    """A table with rows in every state, claims of three processes among them."""
    claims = dict.fromkeys((1, 2, 3), 0)
    for message in random_messages(rng, count):
        row = as_row(message)
        row.status = rng.choice([*Status, Status.READY, Status.RUNNING])
        row.attempt, row.crashes, row.is_suspect = rng.randrange(1, 4), rng.randrange(3), rng.random() < 0.2
        row.reason = rng.choice(["", "OSError: disk"])
        row.cancel_requested_at = rng.choice([None, None, NOW])
        if row.status in (Status.RUNNING, Status.SUCCESSFUL, Status.FAILED):
            row.worker_id = rng.choice([1, 2, 3])
            claims[row.worker_id] += 1
            row.claim, row.started_at = claims[row.worker_id], rng.choice([None, NOW])
        if row.status.is_final:
            row.finished_at = NOW
        row.save()


def as_row(message: Message) -> TaskRecord:
    return TaskRecord(
        id=message.id,
        name=message.name,
        queue_name=message.queue_name,
        priority=message.priority,
        status=Status.READY if message.run_after is None else Status.SCHEDULED,
        payload=message.payload,
        headers=message.headers,
        enqueued_at=message.enqueued_at,
        run_after=message.run_after,
        expires_at=message.expires_at,
        attempt=1,
        crashes=0,
        is_suspect=False,
        reason="",
    )


def snapshot() -> Rows:
    """All rows, with the times a statement takes from the clock reduced to "just now"."""
    rows = {str(row["id"]): row for row in TaskRecord.objects.values()}
    for row in rows.values():
        if row["finished_at"] and abs(row["finished_at"] - timezone.now()) < timedelta(minutes=1):
            row["finished_at"] = "just now"
    return rows


def compare(plain: Callable[[], Any], written: Callable[[], Any]) -> None:
    """Do the same thing both ways to the same rows: equal answers, equal tables."""
    before = snapshot()
    expected = expected_rows = None
    with transaction.atomic():
        expected = plain()
        expected_rows = snapshot()
        transaction.set_rollback(True)
    assert snapshot() == before
    assert written() == expected
    assert snapshot() == expected_rows


@pytest.fixture
def rng(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def dialect() -> Any:
    return get_dialect("default")


@pytest.mark.parametrize("count", [1, 2, 40])
def test_insert(rng: random.Random, dialect: Any, count: int) -> None:
    fill(rng, 20)
    messages = random_messages(rng, count)
    compare(
        lambda: TaskRecord.objects.bulk_create([as_row(message) for message in messages]) and None,
        lambda: dialect.insert(connection, messages, rng.choice([[], QUEUES])),
    )


@pytest.mark.parametrize("limit", [1, 5, 1000])
def test_claim(rng: random.Random, dialect: Any, limit: int) -> None:
    fill(rng)
    queue_name = rng.choice(QUEUES)

    def plain() -> list[Any]:
        ready = TaskRecord.objects.filter(status=Status.READY, queue_name=queue_name)
        found = list(ready.order_by("-priority", "id")[:limit])
        for claim, row in enumerate(found, 77):
            TaskRecord.objects.filter(pk=row.pk).update(status=Status.RUNNING, worker_id=9, claim=claim)
        return [
            (str(row.pk), claim, row.name, row.queue_name, row.payload, row.headers)
            + tuple(time and round(time.timestamp(), 6) for time in (row.expires_at, row.enqueued_at, row.run_after))
            + (row.attempt, row.crashes, row.is_suspect)
            for claim, row in enumerate(found, 77)
        ]

    def written() -> list[Any]:
        deliveries = dialect.claim(connection, queue_name, limit, 9, 77)
        return [(*d[:6], *(time and round(time, 6) for time in d[6:9]), *d[9:]) for d in deliveries]

    compare(plain, written)


def test_finish(rng: random.Random, dialect: Any) -> None:
    """Held claims, lost ones, other processes' and unknown ids, in one batch."""
    fill(rng)
    rows = [*TaskRecord.objects.filter(claim__isnull=False), *TaskRecord.objects.filter(status=Status.READY)[:5]]
    finished = [
        Finished(
            str(row.pk),
            row.claim if row.claim and rng.random() < 0.8 else 9999,
            rng.choice([None, "1", '{"ä":"%s \' \\\\"}']),
            NOW.timestamp(),
            NOW.timestamp() + 0.5,
        )
        for row in rng.sample(rows, len(rows))
    ]
    finished.append(Finished(make_message().id, 1, None, 0.0, 0.0))

    def plain() -> int:
        return sum(
            TaskRecord.objects.filter(pk=done.id, status=Status.RUNNING, worker_id=2, claim=done.claim).update(
                status=Status.SUCCESSFUL,
                result=done.result,
                started_at=NOW,
                finished_at=NOW + timedelta(seconds=0.5),
                reason="",
            )
            for done in finished
        )

    compare(plain, lambda: dialect.finish(connection, 2, finished))


def test_release(rng: random.Random, dialect: Any) -> None:
    fill(rng)
    claims = rng.sample(range(60), 30)

    def plain() -> list[str]:
        held = TaskRecord.objects.filter(status=Status.RUNNING, worker_id=2, claim__in=claims)
        names = sorted(held.values_list("queue_name", flat=True))
        held.filter(cancel_requested_at__isnull=False).update(
            status=Status.CANCELLED, finished_at=timezone.now(), reason="TaskCancelled", **UNCLAIMED
        )
        held.update(status=Status.READY, **UNCLAIMED)
        return names

    compare(plain, lambda: sorted(name for _, name in dialect.release(connection, 2, claims)))


def test_queues_with_work(rng: random.Random, dialect: Any) -> None:
    fill(rng, 4)
    asked = rng.sample([*QUEUES, "none"], 4)

    def plain() -> list[str]:
        ready = set(TaskRecord.objects.filter(status=Status.READY).values_list("queue_name", flat=True))
        return [name for name in asked if name in ready]

    compare(plain, lambda: dialect.queues_with_work(connection, asked))
