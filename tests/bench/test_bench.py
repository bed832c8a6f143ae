"""The benchmark measures, leaves the project's rows alone, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest

from django_taskq.models import TaskRecord, Worker
from tests.bench.conftest import BenchProcess, scratch_databases
from tests.testapp.tasks import add
from tests.waiting import wait_for

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]

Start = Callable[..., BenchProcess]

RATES = {"enqueue", "enqueue_many", "drain", "drain_history", "limited_to_3", "limited_to_100", "keyed", "batched"}
LATENCIES = {"latency_p50", "latency_p95", "latency_p99"}
WITHOUT_RAW = {"drain_wall"}
MAY_BE_ZERO = {"idle"}  # in steps of a hundredth of a second


def test_a_small_run(bench: Start) -> None:
    add.enqueue(1, 2)
    add.using(countdown=3600).enqueue(3, 4)
    before = list(TaskRecord.objects.order_by("id").values())

    arguments = ("--runs", "300", "--repeat", "2", "--idle-seconds", "1", "--history", "2000", "--waiting", "1000")
    report = json.loads(bench(*arguments, "--json").output())

    figures = report["figures"]
    assert set(figures) == RATES | LATENCIES | WITHOUT_RAW | MAY_BE_ZERO | {"memory", "startup"}
    for name, figure in figures.items():
        values = figure["all"] if name in WITHOUT_RAW else figure["all"] + figure["raw_all"]
        assert all(value > 0 or (value == 0 and name in MAY_BE_ZERO) for value in values), (name, figure)
        assert name in WITHOUT_RAW or figure["raw"] is not None
        assert len(figure["all"]) == (1 if name in LATENCIES | MAY_BE_ZERO | {"memory"} else 2)
    assert set(report["losses"]) == {"drain", "raw"}
    assert report["settings"]["runs"] == 300
    assert report["settings"]["database settings"]

    assert list(TaskRecord.objects.order_by("id").values()) == before
    assert not Worker.objects.exists()
    assert scratch_databases() == set()


def test_one_part_as_text(bench: Start) -> None:
    lines = bench("--runs", "100", "--repeat", "1", "--only", "enqueue").output().splitlines()
    assert any(line.startswith("enqueue, one by one") and line.endswith("runs/s") for line in lines)
    assert not any(line.startswith("drain") for line in lines)
    assert scratch_databases() == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(bench: Start, number: signal.Signals) -> None:
    process = bench("--runs", "20000", "--only", "drain")
    wait_for(lambda: "drain 1/" in process.log(), 30, process.log)
    assert len(scratch_databases()) == 1
    process.process.send_signal(number)
    assert process.process.wait(30) == 130, process.log()
    assert scratch_databases() == set()
    wait_for(lambda: not process.tree(), 5, lambda: f"the end of {process.tree()}")
    assert "Traceback" not in process.log()
