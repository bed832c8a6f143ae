"""Spans and metrics: names and attributes of the conventions, and a trace that travels with the run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError
from django.test import override_settings
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from django_taskq import charging, client, maintenance, signals
from django_taskq.contrib import opentelemetry
from django_taskq.contrib.opentelemetry import instrument, uninstrument
from django_taskq.maintenance import Death
from django_taskq.message import Headers
from django_taskq.models import TaskRecord
from django_taskq.testing import broker_down
from tests.integration.tracing.tasks import (
    enqueue_another,
    fail_then_retry,
    say_span,
    say_span_async,
    wait_for_more,
)
from tests.testapp.tasks import add, fail
from tests.unit.making import make_message
from tests.unit.working import PROCESS, claim, work
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]


@dataclass(slots=True)
class Bench:
    """What was exported so far."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    provider: TracerProvider

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        (span,) = self.spans(name)
        return span

    def metrics(self) -> dict[str, list[Any]]:
        """Data points by the name of their metric."""
        data = self.reader.get_metrics_data()
        found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
        return {metric.name: list(metric.data.data_points) for metric in found}


@pytest.fixture
def bench() -> Iterator[Bench]:
    exporter, reader, provider = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader])
    instrument(tracer_provider=provider, meter_provider=meters)
    yield Bench(exporter, reader, provider)
    uninstrument()
    provider.shutdown()
    meters.shutdown()


def instrument_again(bench: Bench, **how: Any) -> None:
    instrument(tracer_provider=bench.provider, **how)


def is_linked(span: ReadableSpan, other: ReadableSpan) -> bool:
    return [link.context.span_id for link in span.links] == [other.context.span_id] and span.parent is None


def test_a_run_makes_two_spans_that_are_linked(bench: Bench) -> None:
    run = add.enqueue(2, 3)
    work()
    sent, processed = bench.only("send default"), bench.only("process default")
    common = {
        "messaging.system": "django_taskq",
        "messaging.destination.name": "default",
        "messaging.message.id": run.id,
        "messaging.message.body.size": len("[[2,3],{}]"),
        "taskq.task": "tests.testapp.tasks.add",
    }
    assert sent.kind is SpanKind.PRODUCER
    assert sent.attributes == common | {"messaging.operation.name": "send", "messaging.operation.type": "send"}
    assert processed.kind is SpanKind.CONSUMER
    assert processed.attributes == common | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "taskq.attempt": 1,
        "taskq.outcome": "success",
    }
    assert is_linked(processed, sent)
    assert processed.context.trace_id != sent.context.trace_id
    assert processed.status.status_code is StatusCode.UNSET
    run.refresh()
    assert run.return_value == 5


def test_a_run_may_continue_the_trace_it_was_enqueued_in(bench: Bench) -> None:
    instrument_again(bench, relation="parent")
    with bench.provider.get_tracer("web").start_as_current_span("request"):
        add.enqueue(2, 3)
    work()
    request, sent, processed = bench.only("request"), bench.only("send default"), bench.only("process default")
    assert sent.parent.span_id == request.context.span_id
    assert processed.parent.span_id == sent.context.span_id
    assert processed.context.trace_id == request.context.trace_id
    assert not processed.links


@pytest.mark.parametrize("how", ["delayed", "retried"])
def test_what_runs_later_is_linked_all_the_same(bench: Bench, how: str) -> None:
    instrument_again(bench, relation="parent")
    if how == "delayed":
        add.using(countdown=0.001).enqueue(2, 3)
        wait_for(lambda: maintenance.seconds_until_due() == 0)
        work()
        assert is_linked(bench.only("process default"), bench.only("send default"))
    else:
        fail_then_retry.enqueue("no")
        work()
        work()
        first, second = bench.spans("process default")
        assert (first.attributes["taskq.attempt"], second.attributes["taskq.attempt"]) == (1, 2)
        assert first.parent is not None
        assert is_linked(second, bench.only("send default"))


def test_errors_are_recorded(bench: Bench) -> None:
    fail.enqueue("no")
    work()
    span = bench.only("process default")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "ValueError: no"
    assert span.attributes["error.type"] == "builtins.ValueError"
    assert span.attributes["taskq.outcome"] == "failed"
    (event,) = span.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "builtins.ValueError"
    assert event.attributes["exception.message"] == "no"
    assert "raise ValueError(text)" in event.attributes["exception.stacktrace"]


def test_an_attempt_that_is_retried(bench: Bench) -> None:
    fail_then_retry.enqueue("no")
    work()
    span = bench.only("process default")
    assert (span.attributes["taskq.outcome"], span.attributes["error.type"]) == ("retry", "builtins.OSError")
    assert span.status.status_code is StatusCode.ERROR


def test_a_retry_that_is_no_error(bench: Bench) -> None:
    wait_for_more.enqueue()
    work()
    span = bench.only("process default")
    assert span.attributes["taskq.outcome"] == "retry"
    assert span.status.status_code is StatusCode.UNSET
    assert not span.events


def test_several_at_once(bench: Bench) -> None:
    add.enqueue_many([((1, 2), {}), ((3, 4), {})])
    created, sent = bench.spans("create default"), bench.only("send default")
    assert [span.kind for span in created] == [SpanKind.PRODUCER, SpanKind.PRODUCER]
    assert sent.kind is SpanKind.CLIENT
    assert sent.attributes["messaging.batch.message_count"] == 2
    assert [link.context.span_id for link in sent.links] == [span.context.span_id for span in created]
    work()
    pairs = zip(bench.spans("process default"), created, strict=True)
    assert all(is_linked(span, producer) for span, producer in pairs)


@override_settings(TASKQ={"QUEUES": {"mail": {}}})
def test_several_queues_at_once(bench: Bench) -> None:
    client.enqueue([make_message(), make_message(queue_name="mail")])
    assert len(bench.spans("create default")) == len(bench.spans("create mail")) == 1
    assert "messaging.destination.name" not in bench.only("send").attributes


def test_an_enqueue_that_fails(bench: Bench) -> None:
    with broker_down(), pytest.raises(OperationalError):
        add.enqueue(2, 3)
    span = bench.only("send default")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "django_taskq.testing.faults.BrokerDown"
    (point,) = bench.metrics()["messaging.client.sent.messages"]
    assert point.attributes["error.type"] == "django_taskq.testing.faults.BrokerDown"


def test_the_span_is_current_in_the_task(bench: Bench) -> None:
    run = say_span.enqueue()
    work()
    run.refresh()
    context = bench.only("process default").context
    assert run.return_value == [f"{context.trace_id:032x}", f"{context.span_id:016x}"]
    assert not trace.get_current_span().get_span_context().is_valid, "and nowhere else"


def test_what_a_task_enqueues_belongs_to_its_trace(bench: Bench) -> None:
    enqueue_another.enqueue()
    work()
    first, second = bench.spans("send default")
    assert second.parent.span_id == bench.only("process default").context.span_id
    assert second.context.trace_id != first.context.trace_id


def test_metrics(bench: Bench) -> None:
    add.enqueue(2, 3)
    fail.enqueue("no")
    add.enqueue_many([((1, 2), {}), ((3, 4), {})])
    work()
    found = bench.metrics()
    (sent,) = found["messaging.client.sent.messages"]
    assert sent.value == 4
    assert sent.attributes == {
        "messaging.system": "django_taskq",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "default",
    }
    (sending,) = found["messaging.client.operation.duration"]
    assert (sending.count, tuple(sending.explicit_bounds)) == (3, opentelemetry.BUCKETS)
    consumed = {
        point.attributes.get("error.type"): point.value for point in found["messaging.client.consumed.messages"]
    }
    assert consumed == {None: 3, "builtins.ValueError": 1}
    runs = {point.attributes.get("error.type"): point for point in found["messaging.process.duration"]}
    assert {error: point.count for error, point in runs.items()} == {None: 3, "builtins.ValueError": 1}
    assert 0 < runs[None].sum < 10


def test_a_run_whose_process_died_has_a_span_for_its_end(bench: Bench) -> None:
    add.enqueue(2, 3)
    for _ in range(charging.MAX_CRASHES):
        (delivery,) = claim()
        maintenance.settle_death(Death(PROCESS, "the worker process died of SIGKILL", [delivery.claim]))
    span = bench.only("process default")
    assert span.attributes["error.type"] == "django_taskq.exceptions.PoisonTask"
    assert span.status.status_code is StatusCode.ERROR
    assert is_linked(span, bench.only("send default"))


@pytest.mark.parametrize("carried", [{"traceparent": 5}, {"traceparent": "nonsense"}, {}, "text", [1]], ids=str)
def test_a_context_that_nobody_of_ours_has_written(bench: Bench, carried: Any) -> None:
    client.enqueue([replace(make_message(), headers=None)])
    TaskRecord.objects.update(headers=json.dumps({"trace": carried}))
    work()
    span = bench.only("process default")
    assert span.parent is None
    assert not span.links
    assert TaskRecord.objects.get().status == "SUCCESSFUL"


def test_other_headers_are_kept(bench: Bench) -> None:
    add.using(time_limit=7).enqueue(2, 3)
    headers = TaskRecord.objects.get().headers_read
    assert headers.time_limit == 7
    assert set(headers.trace or {}) == {"traceparent"}


def test_nothing_travels_when_nobody_makes_spans() -> None:
    # Without the SDK
    instrument(tracer_provider=trace.NoOpTracerProvider())
    try:
        add.enqueue(2, 3)
    finally:
        uninstrument()
    # And without instrumentation, where nobody listens either
    add.enqueue(2, 3)
    assert [Headers.loads(row.headers).trace for row in TaskRecord.objects.all()] == [None, None]
    assert not any(signal.receivers for signal in (signals.enqueue_entered, signals.task_entered, signals.task_left))


def test_another_relation_is_refused() -> None:
    with pytest.raises(ValueError, match="relation='child' is not known"):
        instrument(relation="child")  # type: ignore[arg-type]
    assert not signals.task_entered.receivers


def test_without_the_package_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import django_taskq.contrib.opentelemetry"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert ImproperlyConfigured.__name__ in done.stderr
    assert "django-kombu-taskq[otel]" in done.stderr


def read(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The process and the span of every line."""
    lines = [line.partition(" ") for line in path.read_text().splitlines()]
    return [(int(pid), json.loads(text)) for pid, _, text in lines]


@pytest.mark.parametrize("slots", [["--threads", "1"], ["--threads", "3"], ["--threads", "1", "--coroutines", "3"]],
                         ids=["main thread", "threads", "coroutines"])  # fmt: skip
def test_workers_make_spans_by_themselves(
    worker: Callable[..., WorkerProcess], tmp_path: Path, bench: Bench, slots: list[str]
) -> None:
    traces = tmp_path / "traces"
    env = {"DJANGO_SETTINGS_MODULE": "tests.integration.tracing.settings", "TASKQ_TEST_TRACES": str(traces)}
    task = say_span_async if "--coroutines" in slots else say_span
    process = worker("--processes", "1", *slots, env=env)
    runs = [task.enqueue(0.1) for _ in range(4)]
    inside = {tuple(run.get(20)) for run in runs}
    (child,) = process.children()
    process.terminate()
    assert process.wait() == 0

    # Then each run was in a span of its own, and the process handed all of them over before it ended
    spans = [(pid, span) for pid, span in read(traces) if span["name"] == "process default"]
    assert {pid for pid, _ in spans} == {child}
    made = {(span["context"]["trace_id"][2:], span["context"]["span_id"][2:]) for _, span in spans}
    assert made == inside
    assert len(inside) == 4
    # In the traces that this process began
    sent = {f"0x{span.context.span_id:016x}" for span in bench.spans("send default")}
    assert {span["parent_id"] for _, span in spans} == sent
    assert "instead of forked" not in process.log()
