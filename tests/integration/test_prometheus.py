"""The metrics in a registry of ``prometheus_client``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db.utils import OperationalError
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from django_taskq.contrib import prometheus
from django_taskq.status import Status
from django_taskq.worker.health import backlog
from tests.testapp.tasks import add, fail, note_until_attempt
from tests.unit.working import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

ADD = {"task": add.name, "queue": "default"}


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    made = CollectorRegistry()
    prometheus.connect(made)
    yield made
    prometheus.disconnect()


def test_what_is_enqueued_and_ends_here(registry: CollectorRegistry, tmp_path: Any) -> None:
    add.enqueue_many([((1, 2), {}) for _ in range(3)])
    fail.enqueue("on purpose")
    note_until_attempt.enqueue(str(tmp_path / "lines"), "a", 2)
    assert registry.get_sample_value("taskq_tasks_enqueued_total", ADD) == 3
    work()
    assert registry.get_sample_value("taskq_tasks_total", ADD | {"state": "successful"}) == 3
    assert registry.get_sample_value("taskq_tasks_total", ADD | {"task": fail.name, "state": "failed"}) == 1
    retried = {"task": note_until_attempt.name, "queue": "default", "state": "retried"}
    assert registry.get_sample_value("taskq_tasks_total", retried) == 1
    assert registry.get_sample_value("taskq_task_runtime_seconds_count", ADD) == 3
    assert registry.get_sample_value("taskq_task_wait_seconds_bucket", ADD | {"le": "+Inf"}) == 3


def test_the_numbers_of_queues(registry: CollectorRegistry) -> None:
    add.enqueue(1, 2)
    assert registry.get_sample_value("taskq_queue_length", {"queue": "default", "state": "due"}) == 1
    latency = registry.get_sample_value("taskq_queue_latency_seconds", {"queue": "default"})
    assert latency is not None
    assert 0 < latency < 60


def test_it_is_exposed_as_the_worker_does_it(registry: CollectorRegistry) -> None:
    add.enqueue(1, 2)
    work()
    names = {
        sample.name
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }
    assert {"taskq_tasks_total", "taskq_task_runtime_seconds_bucket", "taskq_queue_latency_seconds"} <= names


def test_one_look_serves_many_scrapes(registry: CollectorRegistry, django_assert_num_queries: Any) -> None:
    generate_latest(registry)
    with django_assert_num_queries(0):
        generate_latest(registry)


def test_without_the_database_the_rest_is_served(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_to_look() -> None:
        raise OperationalError("down")

    add.enqueue(1, 2)
    monkeypatch.setattr(backlog, "look", fail_to_look)
    assert registry.get_sample_value("taskq_queues_up") == 0
    assert registry.get_sample_value("taskq_queue_length", {"queue": "default", "state": "due"}) is None
    assert registry.get_sample_value("taskq_tasks_enqueued_total", ADD) == 1


def test_registering_asks_nothing(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        prometheus.connect(CollectorRegistry())
    prometheus.disconnect()


def test_a_second_connect_counts_once(registry: CollectorRegistry) -> None:
    prometheus.connect(registry, with_queues=False)
    add.enqueue(1, 2)
    assert registry.get_sample_value("taskq_tasks_enqueued_total", ADD) == 1
    assert registry.get_sample_value("taskq_queues_up") is None
    assert add.enqueue(1, 2).status == Status.READY
