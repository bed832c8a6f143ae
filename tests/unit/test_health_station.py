"""What the probes say, of a supervisor that is only looked at."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from django_taskq.conf_health import HealthOptions
from django_taskq.worker.health import station
from django_taskq.worker.health.http import Request, Response
from django_taskq.worker.health.station import Condition, Station
from tests.unit.test_health_progress import process

FINE = Condition("box:1", False, True, True, 0.0, 0)


class Bench:
    """A station with a supervisor that says what it is told to; nothing listens and nothing is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.processes = [process()]
        self.degraded: dict[str, str] = {}
        self.shutter = SimpleNamespace(is_quiet=False, closed=frozenset())
        self.condition = FINE
        watched: Any = SimpleNamespace(crew=None, shutter=self.shutter)
        monkeypatch.setattr(station, "snapshot", self._snapshot)
        self.station = Station(HealthOptions(), watched)
        self._watched = watched

    def _snapshot(self, crew: object) -> dict[str, Any]:
        return {"processes": self.processes, "degraded": self.degraded}

    def look(self, loop_age: float = 0.0) -> None:
        self._watched.condition = self.condition._replace(looked_at=time.monotonic() - loop_age)
        self.station._look()

    def ask(self, probe: str) -> tuple[int, str]:
        answer = self.station._answer(Request("GET", f"/{probe}", None), False)
        assert isinstance(answer, Response)
        return answer.status, answer.body.decode().strip()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_all_is_well(bench: Bench) -> None:
    bench.look()
    assert [bench.ask(probe) for probe in station.PROBES] == [(200, "ok")] * 3


def test_starting_is_alive_however_long_the_project_loads(bench: Bench) -> None:
    bench.processes = []
    bench.look(loop_age=90)
    assert bench.ask("livez") == (200, "ok")
    for probe in ("readyz", "startupz"):
        assert bench.ask(probe) == (503, "no worker process has finished starting")


def test_a_main_loop_that_stands_still_later(bench: Bench) -> None:
    bench.look()
    bench.look(loop_age=90)
    assert bench.ask("livez") == (503, "the supervisor's main loop has stood still for 90 s")


def test_once_started_it_has_started(bench: Bench) -> None:
    bench.look()
    bench.processes = []
    bench.look()
    assert bench.ask("startupz") == (200, "ok")
    assert bench.ask("readyz") == (503, "no worker process can record and fetch")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"is_stopping": True}, "the worker is stopping"),
        ({"has_heartbeat": False, "is_steady": False}, "the database does not answer"),
    ],
    ids=["stopping", "no database"],
)
def test_not_ready_and_alive(bench: Bench, change: dict[str, bool], reason: str) -> None:
    bench.look()
    bench.condition = FINE._replace(**change)
    bench.look(loop_age=90)
    assert bench.ask("livez") == (200, "ok")
    assert reason in bench.ask("readyz")[1].splitlines()


def test_what_it_cannot_use_is_named(bench: Bench) -> None:
    bench.degraded = {"pool": "no\x1b answer"}
    bench.station._asking.down = {"bulk": "BrokerUnavailable"}
    bench.shutter.is_quiet = True
    bench.look()
    assert bench.ask("readyz") == (
        503,
        "resource pool is degraded: no? answer\nbroker bulk does not answer: BrokerUnavailable\nthe worker is quiet",
    )
    assert bench.ask("livez") == (200, "ok")
