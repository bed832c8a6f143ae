"""Metrics as text and JSON, the settings of the health port, and the health file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from django_taskq import conf, conf_shown
from django_taskq.conf_health import HealthOptions, parse_port_text
from django_taskq.message import Action
from django_taskq.worker.health import exposition, families, station
from django_taskq.worker.health.backlog import Backlog, QueueState
from django_taskq.worker.health.counts import BUCKETS, Counts
from django_taskq.worker.health.families import Family, Sample
from tests.unit.making import make_delivery, make_outcome

STATE: dict[str, Any] = {
    "processes": [{"up": True}, {"up": False}],
    "slots": 4,
    "busy": 1,
    "lost_slots": 0,
    "degraded": {"pool": "no answer"},
    "done": 7,
    "rss": 1000,
}
BACKLOG = Backlog(
    {"default": QueueState(3, 2, 1.5, 1, 4), "mail": QueueState()}, {"default": True}, outbox=1, schedule_lag=0.25
)


def parsed(text: bytes) -> dict[str, float]:
    """Samples by what stands before their value, as Prometheus' own parser reads them."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name} {labels}".strip()] = sample.value
    return found


def counted() -> Counts:
    made = Counts()
    made.note([make_outcome(Action.SUCCESS), make_outcome(Action.FAILED), make_outcome(Action.RELEASED)])
    return made


def test_the_text_is_what_prometheus_reads() -> None:
    text = exposition.as_text([*families.of_worker(STATE, {"livez": True}, 2), *families.of_backlog(BACKLOG)])
    found = parsed(text)
    assert found["taskq_queue_length queue=default,state=due"] == 3
    assert found["taskq_queue_length queue=default,state=running"] == 2
    assert found["taskq_queue_latency_seconds queue=default"] == 1.5
    assert found["taskq_worker_slots"] == 4
    assert found["taskq_worker_processes"] == 1
    assert found["taskq_worker_degraded"] == 1
    assert found["taskq_leases_lost_total"] == 2
    assert found["taskq_worker_healthy probe=livez"] == 1


def test_histograms_are_cumulative() -> None:
    found = parsed(exposition.as_text(families.of_counts(counted())))
    labels = "queue=default,task=tests.testapp.tasks.add"
    buckets = [found[f"taskq_task_runtime_seconds_bucket le={bound},{labels}"] for bound in BUCKETS]
    assert buckets == [2.0 if bound >= 1 else 0.0 for bound in BUCKETS]
    assert found[f"taskq_task_runtime_seconds_bucket le=+Inf,{labels}"] == 2
    assert found[f"taskq_task_runtime_seconds_count {labels}"] == 2
    assert found[f"taskq_task_runtime_seconds_sum {labels}"] == 2
    assert found["taskq_tasks_total queue=default,state=successful,task=tests.testapp.tasks.add"] == 1
    assert found["taskq_tasks_total queue=default,state=failed,task=tests.testapp.tasks.add"] == 1


def test_a_name_cannot_forge_a_sample() -> None:
    made = Counts()
    name = 'x"} 1\ntaskq_forged 1\n\\\ud800'
    made.note([make_outcome(Action.SUCCESS, make_delivery(name))])
    text = exposition.as_text(families.of_counts(made))
    assert not [line for line in text.splitlines() if line.startswith(b"taskq_forged")]
    assert any("taskq_forged 1" in key for key in parsed(text))


def test_numbers_keep_their_digits() -> None:
    samples = [Sample((), value) for value in (0, 1.0, 0.1, 1e18 + 1, 12345678.25)]
    text = exposition.as_text([Family("x", "gauge", "help", samples)])
    assert [float(line.split()[1]) for line in text.decode().splitlines()[2:]] == [0, 1, 0.1, 1e18 + 1, 12345678.25]


def test_what_is_not_known_is_not_zero() -> None:
    found = parsed(exposition.as_text(families.of_backlog(None)))
    assert found == {"taskq_queues_up": 0}


def test_the_json_of_autoscalers() -> None:
    document = json.loads(exposition.as_json("box:1", STATE, BACKLOG))
    assert document["queues"]["default"] == {
        "due": 3, "running": 2, "latency": 1.5, "workers": 1, "slots": 4, "load": 5,
    }  # fmt: skip
    assert document["total"] == {"due": 3, "running": 2, "load": 5, "latency": 1.5}
    assert document["worker"] == {
        "name": "box:1", "processes": 2, "slots": 4, "busy": 1, "lost_slots": 0, "degraded": ["pool"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEALTH_PORT", -1),
        ("HEALTH_PORT", 65536),
        ("HEALTH_PORT", True),
        ("HEALTH_PORT", "8080"),
        ("HEALTH_HOST", ""),
        ("HEALTH_HOST", "a b"),
        ("HEALTH_TOKEN", "short"),
        ("HEALTH_TOKEN", "with blanks in between"),
        ("HEALTH_FILE", ""),
        ("HEALTH_FILE", 7),
        ("HEALTH_TIMEOUT", 0),
    ],
    ids=str,
)
def test_settings_that_cannot_be_used(settings: Any, name: str, value: object) -> None:
    settings.TASKQ = {name: value}
    (problem,) = conf.problems()
    assert problem.check_id == "E003"
    assert name in problem.message
    assert name != "HEALTH_TOKEN" or str(value) not in f"{problem.message} {problem.hint}"


def test_a_token_is_not_shown(settings: Any) -> None:
    settings.TASKQ = {"HEALTH_TOKEN": "0123456789abcdef"}
    assert conf_shown.of_project()["HEALTH_TOKEN"] == (conf_shown.MASK, conf_shown.PROJECT)


@pytest.mark.parametrize("text", ["x", "-1", "99999", "1.5", ""])
def test_ports_of_the_command_line(text: str) -> None:
    with pytest.raises(ValueError, match="a port"):
        parse_port_text(text)
    assert parse_port_text("8080") == 8080


@pytest.mark.parametrize(
    ("host", "token", "expected"),
    [
        ("127.0.0.1", None, False),
        ("::1", None, False),
        ("localhost", None, False),
        ("0.0.0.0", None, True),
        ("10.0.0.1", None, True),
        ("0.0.0.0", "0123456789abcdef", False),
    ],
)
def test_who_may_read(host: str, token: str | None, expected: bool) -> None:
    assert HealthOptions(port=1, host=host, token=token).is_open is expected


class TestFile:
    """The file that is touched."""

    def test_it_is_made_and_touched(self, tmp_path: Path) -> None:
        path = tmp_path / "healthy"
        station.touch(path)
        before = path.stat().st_mtime_ns
        station.touch(path)
        assert path.stat().st_mtime_ns > before
        assert path.stat().st_mode & 0o022 == 0

    def test_no_link_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "target")
        with pytest.raises(OSError, match="symbolic"):
            station.touch(tmp_path / "link")
        assert not (tmp_path / "target").exists()

    @pytest.mark.parametrize("kind", ["no directory", "a directory", "somebody's"])
    def test_what_cannot_be_a_health_file(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "healthy"
        if kind == "no directory":
            path = tmp_path / "none" / "healthy"
        elif kind == "a directory":
            path.mkdir()
        else:
            path.write_text("precious")
        with pytest.raises(station.CannotListen, match="health file"):
            station.open_station(HealthOptions(file=path), None)  # type: ignore[arg-type]
        assert kind != "somebody's" or path.read_text() == "precious"


def test_nothing_is_opened_that_was_not_asked_for() -> None:
    assert station.open_station(HealthOptions(), None) is None  # type: ignore[arg-type]
