"""Many claimants at once: nothing is handed out twice, nothing is left behind."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from django_taskq.message import Action
from django_taskq.models import TaskRecord
from tests.conformance.bed import QUEUE, Bed, ids
from tests.conformance.claimant import QUEUE as CONTESTED

MESSAGES = 2000


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """``work(1)`` to ``work(count)``, each in a thread and with a connection of its own."""

    def run(number: int) -> Any:
        try:
            return work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(1, count + 1)))


def claim_until_dry(bed: Bed, process: int) -> list[str]:
    taken: list[str] = []
    own = bed.other()
    while deliveries := own.take(17, process=process, first=len(taken) + 1):
        taken += ids(deliveries)
    own.leave()
    return taken


def assert_shared_out(expected: list[str], shares: list[list[str]]) -> None:
    taken = [id for share in shares for id in share]
    assert len(taken) == len(set(taken)), "a message was handed out twice"
    assert set(taken) == set(expected)


def assert_in_order(shares: list[list[str]]) -> None:
    """Somebody else at work does not disturb a claimant's own order."""
    assert all(share == sorted(share) for share in shares)


def test_threads_share_a_queue(shared_bed: Bed) -> None:
    messages = shared_bed.put(MESSAGES)
    shares = in_threads(4, lambda number: claim_until_dry(shared_bed, number))
    # What was sent ahead to one who had just left is for the next.
    rest = claim_until_dry(shared_bed, 9)
    assert not rest or not shared_bed.keeps_places
    assert_shared_out(ids(messages), [*shares, rest])
    if shared_bed.keeps_places:
        assert_in_order(shares)


def test_threads_enqueue_while_others_claim(shared_bed: Bed) -> None:
    def work(number: int) -> list[str]:
        if number % 2:
            return [id for _ in range(20) for id in ids(shared_bed.put(5))]
        own = shared_bed.other()
        taken = [id for _ in range(100) for id in own.take_ids(3, process=number)]
        own.leave()
        return taken

    first, second, third, fourth = in_threads(4, work)
    rest = claim_until_dry(shared_bed, 9)
    assert sorted(first + third) == sorted(second + fourth + rest)


def test_threads_claim_give_back_and_finish(shared_bed: Bed) -> None:
    """Every message ends exactly once, however often it changes hands before."""
    messages = shared_bed.put(300)

    def work(number: int) -> list[str]:
        rng, done, first = random.Random(number), [], 1
        own = shared_bed.other()
        while deliveries := own.take(10, process=number, first=first):
            first += 10
            back = [d.claim for d in deliveries if rng.random() < 0.3]
            own.broker.release(number, back)
            kept = [d for d in deliveries if d.claim not in back]
            assert own.settle(Action.SUCCESS, *kept, process=number) == []
            done += ids(kept)
        own.leave()
        return done

    done = [id for share in [*in_threads(4, work), work(9)] for id in share]
    assert sorted(done) == sorted(ids(messages))


def test_threads_race_a_rescue(shared_bed: Bed) -> None:
    """A stale holder settles while its claims are rescued and run elsewhere: each run ends for one of them only."""
    shared_bed.put(200)
    old = shared_bed.take(200, process=1)
    ended: list[str] = []

    def work(number: int) -> None:
        if number == 1:
            for delivery in old:
                if not shared_bed.settle(Action.SUCCESS, delivery, process=1):
                    ended.append(delivery.id)
            return
        own = shared_bed.other()
        for first in range(1, 200, 10):
            own.broker.rescue(1)
            deliveries = own.take(10, process=2, first=first)
            lost = own.settle(Action.FAILED, *deliveries, process=2)
            ended.extend(set(ids(deliveries)) - {outcome.delivery.id for outcome in lost})
        own.leave()

    in_threads(2, work)
    for delivery in shared_bed.take(200, process=3):
        shared_bed.settle(Action.SUCCESS, delivery, process=3)
        ended.append(delivery.id)
    assert sorted(ended) == sorted(ids(old))


def test_processes_share_a_queue(shared_bed: Bed, worker_env: dict[str, str]) -> None:
    if not shared_bed.broker.capabilities.is_shared:
        pytest.skip("other processes see nothing of this broker")
    messages = shared_bed.put(MESSAGES, queue_name=CONTESTED)
    environment = worker_env | {"TASKQ_TEST_SETTINGS": json.dumps(shared_bed.settings)}
    claimants = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.claimant", str(number)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(1, 6)
    ]
    for claimant in claimants:
        assert claimant.stdout is not None
        assert claimant.stdout.readline() == "ready\n"
    # Four at once, and one for what was sent ahead to one who had just left.
    shares: list[list[str]] = []
    for some in (claimants[:4], claimants[4:]):
        for claimant in some:
            assert claimant.stdin is not None
            claimant.stdin.write("go\n")
            claimant.stdin.flush()
        shares += [json.loads(claimant.communicate(timeout=60)[0]) for claimant in some]
    assert [claimant.returncode for claimant in claimants] == [0] * 5
    assert_shared_out(ids(messages), shares)
    if shared_bed.keeps_places:
        assert shares[4] == []
        assert_in_order(shares)
    # What they were told is what the rows say.
    for number, share in enumerate(shares, 1):
        held = TaskRecord.objects.held_by([number]).order_by("claim").values_list("pk", flat=True)
        assert [str(pk) for pk in held] == share


def test_a_claim_waits_for_nobody_who_holds_a_claim_open(committed_rows: Bed, is_postgresql: bool) -> None:
    """On PostgreSQL rows that another transaction is claiming are passed over, not waited for."""
    if not is_postgresql:
        pytest.skip("SQLite has one writer at a time")
    messages = committed_rows.put(4)
    with committed_rows.broker.transaction():
        assert committed_rows.take_ids(2, process=1) == ids(messages[:2])
        (other,) = in_threads(1, lambda number: committed_rows.take_ids(10, process=2))
    assert other == ids(messages[2:])


def test_two_finishers_with_overlapping_batches_never_deadlock(committed_rows: Bed) -> None:
    committed_rows.put(200)
    deliveries = committed_rows.take(200)
    backwards = list(reversed(deliveries))

    def work(number: int) -> int:
        batch = deliveries if number % 2 else backwards
        return sum(len(committed_rows.settle(Action.SUCCESS, *batch[at : at + 40])) for at in range(0, 200, 40))

    assert in_threads(4, work) == [0, 0, 0, 0]
    assert TaskRecord.objects.filter(status="SUCCESSFUL", queue_name=QUEUE).count() == 200
