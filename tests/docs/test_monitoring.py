"""What the page on monitoring shows is what is served: metrics, paths, manifests and queries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import yaml
from django.core.management import load_command_class
from django.db import connection
from django.utils import timezone

from django_taskq.models import TaskRecord
from django_taskq.status import Status
from django_taskq.worker.health import exposition, families, station
from django_taskq.worker.health.backlog import Backlog, QueueState
from django_taskq.worker.health.counts import STATES, Counts
from django_taskq.worker.health.families import Family
from tests.docs import pages
from tests.docs.pages import DOCS, Block

PAGE = DOCS / "monitoring.md"
BLOCKS = [block for block in pages.blocks(PAGE) if block.language == "yaml"]
PORT = 8080
STATE: dict[str, Any] = {
    "processes": [], "slots": 4, "busy": 4, "lost_slots": 0, "degraded": {}, "done": 0, "rss": 0,
}  # fmt: skip


def served() -> list[Family]:
    backlog = Backlog({"default": QueueState()}, {"default": True})
    worker = families.of_worker(STATE, {"livez": True}, 0)
    return [*families.of_counts(Counts()), *worker, *families.of_backlog(backlog)]


def documents() -> Iterator[dict[str, Any]]:
    for block in BLOCKS:
        yield from yaml.safe_load_all(block.text)


def kinds(kind: str) -> list[dict[str, Any]]:
    found = [document for document in documents() if document.get("kind") == kind]
    assert found, kind
    return found


def inside(value: Any, key: str) -> Iterator[Any]:
    """Every value of this key, however deep."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name == key:
                yield each
            yield from inside(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from inside(each, key)


def test_the_table_is_whole() -> None:
    shown = {row[0].strip("`"): row[2] for row in pages.rows(pages.section(PAGE, "Metrics"), "metric")}
    assert shown == {family.name: family.kind for family in served()}


def test_the_states_are_those_there_are() -> None:
    text = pages.section(PAGE, "Metrics")
    assert all(f"`{state}`" in text for state in STATES.values())


def test_the_paths_are_those_there_are() -> None:
    known = {f"/{name}" for name in (*station.PROBES, "metrics", "metrics.json")}
    assert set(pages.names(pages.prose(PAGE), "path")) == known
    assert {path for document in documents() for path in inside(document, "path")} <= known


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_it_is_yaml(block: Block) -> None:
    for document in yaml.safe_load_all(block.text):
        assert isinstance(document, dict)


def test_workers_are_started_with_options_that_exist() -> None:
    commands = [each for document in documents() for each in inside(document, "args")]
    assert len(commands) == 2
    for words in commands:
        assert words[:3] == ["python", "manage.py", "taskworker"]
        parser = load_command_class("django_taskq", "taskworker").create_parser("manage.py", "taskworker")
        given = parser.parse_args(words[3:])
        (grace,) = {pod["terminationGracePeriodSeconds"] for pod in pods(words)}
        assert given.grace < grace


def pods(args: list[str]) -> Iterator[dict[str, Any]]:
    for document in documents():
        for spec in inside(document, "spec"):
            if any(container["args"] == args for container in spec.get("containers", [])):
                yield spec


def test_probes_and_scrapes_meet_the_port() -> None:
    (deployment,) = kinds("Deployment")
    (service,) = kinds("Service")
    (monitor,) = kinds("ServiceMonitor")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["args"][4] == str(PORT)
    assert container["ports"] == [{"name": "health", "containerPort": PORT}]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "health"
    assert service["spec"]["ports"][0]["port"] == PORT
    assert service["spec"]["ports"][0]["name"] == monitor["spec"]["endpoints"][0]["port"] == "health"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]


def test_the_json_is_what_is_served() -> None:
    (block,) = [block for block in pages.blocks(PAGE) if block.language == "json"]
    shown = json.loads(block.text)
    real = json.loads(exposition.as_json("box:4711", STATE, Backlog({"default": QueueState()}, {"default": True})))
    assert _shape(shown) == _shape(real)


def _shape(value: Any) -> Any:
    return {key: _shape(each) for key, each in value.items()} if isinstance(value, dict) else type(value)


def test_autoscalers_find_their_values() -> None:
    backlog = Backlog({"default": QueueState(due=3, running=2, latency=7.0)}, {"default": True})
    document = json.loads(exposition.as_json("box:1", STATE, backlog))
    found = {}
    for scaled in kinds("ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            if trigger["type"] != "metrics-api":
                continue
            metadata = trigger["metadata"]
            assert metadata["url"].endswith(f":{PORT}/metrics.json")
            assert float(metadata["targetValue"]) > 0
            value = document
            for key in metadata["valueLocation"].split("."):
                value = value[key]
            found[metadata["valueLocation"]] = value
    assert found == {"queues.default.load": 5, "queues.default.latency": 7.0}


def test_alerts_name_metrics_and_labels_that_exist() -> None:
    labels = {family.name: {name for sample in family.samples for name, _ in sample.labels} for family in served()}
    labels["taskq_tasks_total"] = {"task", "queue", "state"}
    expressions = [expression for document in documents() for expression in inside(document, "expr")]
    assert len(expressions) == 6
    for expression in expressions:
        named = set(re.findall(r"taskq_\w+", expression))
        assert named <= set(labels), expression
        used = set(re.findall(r"by \((\w+)\)", expression)) | set(re.findall(r"(\w+)=", expression))
        assert used <= set().union(*(labels[name] for name in named)), expression
        assert expression.count("(") == expression.count(")")
    (autoscaler,) = kinds("HorizontalPodAutoscaler")
    (metric,) = list(inside(autoscaler, "metric"))
    assert set(metric["selector"]["matchLabels"]) <= labels[metric["name"]]


@pytest.mark.django_db
@pytest.mark.parametrize(("kind", "expected"), [("ScaledObject", 4), ("ScaledJob", 3)])
def test_the_queries_count_what_they_say(kind: str, expected: int) -> None:
    """On SQLite, too: now() is all of them that is PostgreSQL's own."""
    now = timezone.now()
    make(Status.READY)
    make(Status.READY)
    make(Status.READY, "other")
    make(Status.SCHEDULED, run_after=now - timedelta(minutes=1))
    make(Status.SCHEDULED, run_after=now + timedelta(minutes=1))
    make(Status.RUNNING, started_at=now)
    make(Status.SUCCESSFUL, finished_at=now)
    (query,) = {query for document in kinds(kind) for query in inside(document, "query")}
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            query = query.replace("now()", "CURRENT_TIMESTAMP")
        cursor.execute(query)
        assert cursor.fetchall() == [(expected,)]


def make(status: Status, queue_name: str = "default", **columns: Any) -> None:
    TaskRecord.objects.create(
        name="x", queue_name=queue_name, status=status, payload="[[],{}]", enqueued_at=timezone.now(), **columns
    )
