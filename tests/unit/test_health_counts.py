"""Counting runs in a process, and carrying the counts to the supervisor over a pipe."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from django_taskq import signals
from django_taskq.message import Action, Outcome
from django_taskq.worker.health import counts
from django_taskq.worker.health.counts import BUCKETS, Counts, Reporter
from django_taskq.worker.health.totals import Totals
from tests.unit.making import make_delivery, make_outcome

ADD = ("tests.testapp.tasks.add", "default")


@pytest.fixture
def totals() -> Iterator[Totals]:
    made = Totals()
    yield made
    made.forget()


@pytest.fixture
def pipe(totals: Totals) -> Iterator[Connection]:
    made = totals.admit(multiprocessing)
    yield made
    if not made.closed:
        made.close()


def ran(seconds: float, action: Action = Action.SUCCESS, waited: float = 0.0, **changes: object) -> Outcome:
    delivery = make_delivery(enqueued_at=1000.0 - waited, **changes)
    return make_outcome(action, delivery, started_at=1000.0, finished_at=1000.0 + seconds)


def states(totals: Totals) -> dict[str, int]:
    with totals.counts() as found:
        return dict(found.series[ADD].states) if ADD in found.series else {}


@pytest.mark.parametrize(
    ("action", "state"),
    [
        (Action.SUCCESS, "successful"),
        (Action.RETRY, "retried"),
        (Action.FAILED, "failed"),
        (Action.CANCELLED, "cancelled"),
    ],
)
def test_how_attempts_end(action: Action, state: str) -> None:
    found = Counts()
    found.note([ran(1, action), ran(1, action)])
    assert found.series[ADD].states == {state: 2}


def test_what_was_given_back_has_not_ended() -> None:
    found = Counts()
    found.note([make_outcome(Action.RELEASED)])
    assert not found.series


def test_what_others_have_replaced_has_not_ended() -> None:
    found = Counts()
    found.note([make_outcome(Action.REPLACED)])
    assert not found.series


def test_a_wait_for_a_resource_or_for_new_code_is_no_attempt() -> None:
    found = Counts()
    found.note([make_outcome(Action.RETRY, is_counted=False)])
    assert not found.series


def test_what_was_refused_is_somebody_else_s() -> None:
    found, refused = Counts(), ran(1)
    found.note([refused, ran(2)], [refused])
    assert found.series[ADD].states == {"refused": 1, "successful": 1}
    assert found.series[ADD].runtime.sum == 2


def test_what_never_started_took_no_time() -> None:
    found = Counts()
    found.note([make_outcome(Action.CANCELLED, started_at=None, finished_at=None)])
    assert sum(found.series[ADD].runtime.counts) == 0


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.005, 0), (0.0051, 1), (1800, len(BUCKETS) - 1), (1801, len(BUCKETS))]
)
def test_a_bound_belongs_to_its_bucket(seconds: float, bucket: int) -> None:
    made = counts.Histogram()
    made.observe(seconds)
    assert made.counts.index(1) == bucket


def test_waiting_is_counted_from_the_due_time() -> None:
    found = Counts()
    found.note([ran(1, waited=20), ran(1, waited=20, run_after=999.0), ran(1, waited=-5)])
    assert found.series[ADD].wait.sum == 20 + 1 + 0


def test_names_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MOST_SERIES", 3)
    found = Counts()
    found.note([ran(1, name=f"task{number}") for number in range(100)])
    assert len(found.series) == 4
    assert found.series[(counts.OTHER, counts.OTHER)].states == {"successful": 97}


def test_counts_reach_the_supervisor(totals: Totals, pipe: Connection) -> None:
    reporter = Reporter(pipe.fileno())
    reporter.note([ran(1), ran(2), ran(3, Action.FAILED)], [])
    reporter.send()
    assert states(totals) == {"successful": 2, "failed": 1}
    with totals.counts() as found:
        assert found.series[ADD].runtime.sum == 6
        assert sum(found.series[ADD].wait.counts) == 3


def test_only_differences_are_sent_and_once_a_second(totals: Totals, pipe: Connection) -> None:
    reporter = Reporter(pipe.fileno())
    for _ in range(3):
        reporter.note([ran(1)], [])
        reporter.send()
    assert states(totals) == {"successful": 1}
    reporter.send(is_last=True)
    assert states(totals) == {"successful": 3}
    reporter.send(is_last=True)
    assert states(totals) == {"successful": 3}


def test_a_full_pipe_loses_nothing_and_blocks_nobody(totals: Totals, pipe: Connection) -> None:
    reporter = Reporter(pipe.fileno())
    names = [f"{'x' * 240}{number}" for number in range(400)]
    reporter.note([ran(1, name=name) for name in names], [])
    reporter.send()
    with totals.counts() as found:
        arrived = len(found.series)
    assert 0 < arrived < 400
    for _ in range(5):
        reporter.send(is_last=True)
        with totals.counts() as found:
            arrived = len(found.series)
    assert arrived == 400


def test_a_line_is_written_whole_or_not_at_all() -> None:
    found = Counts()
    key = ("\N{GRINNING FACE}" * 255, "\N{GRINNING FACE}" * 100)
    series = found.of(key)
    series.runtime.add([10**12] * (len(BUCKETS) + 1), 1e12 / 3)
    series.wait.add([10**12] * (len(BUCKETS) + 1), 1e12 / 3)
    series.states = dict.fromkeys([*counts.STATES.values(), counts.REFUSED], 10**12)
    assert len(found.dumps(key)) <= counts.LONGEST_LINE


def test_nobody_who_reads_is_no_error(totals: Totals, pipe: Connection) -> None:
    reporter = Reporter(pipe.fileno())
    totals.forget()
    reporter.note([ran(1)], [])
    reporter.send()


def test_the_end_of_a_process_closes_its_pipe_and_keeps_its_counts(totals: Totals, pipe: Connection) -> None:
    reporter = Reporter(pipe.fileno())
    reporter.note([ran(1)], [])
    reporter.send()
    pipe.close()
    assert states(totals) == {"successful": 1}
    assert not totals._pipes


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b'["a","b",{},[1],0.0,[1],0.0]',
        b'["a","b",{"x":"y"},[],0.0,[],0.0]',
        b"\xff\xfe",
        b"[" * 3000,
        b"x" * 60_000,
    ],
    ids=["no JSON", "empty", "wrong lengths", "wrong types", "no UTF-8", "deep", "long"],
)
def test_what_a_task_makes_up_is_dropped(
    totals: Totals, pipe: Connection, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reporter = Reporter(pipe.fileno())
    os.write(pipe.fileno(), line + b"\n")
    reporter.note([ran(1)], [])
    reporter.send()
    assert states(totals) == {"successful": 1}
    assert "cannot be read" in caplog.text


def test_what_never_ends_is_not_collected(totals: Totals, pipe: Connection) -> None:
    for _ in range(5):
        os.write(pipe.fileno(), b"x" * 60_000)
        with totals.counts():
            assert all(len(rest) <= counts.LONGEST_LINE for rest in totals._pipes.values())


def test_what_the_supervisor_records_counts_too(totals: Totals) -> None:
    totals.listen()
    outcome = ran(1, Action.FAILED)
    signals.send(signals.task_finished, "x", delivery=outcome.delivery, outcome=outcome)
    assert states(totals) == {"failed": 1}
    totals.forget()
    signals.send(signals.task_finished, "x", delivery=outcome.delivery, outcome=outcome)
    assert states(totals) == {"failed": 1}
