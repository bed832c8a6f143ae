"""OpenTelemetry spans and metrics, as receivers of the signals. Needs the extra ``otel``.

Call :func:`instrument` where every process comes by, such as in ``AppConfig.ready()``. Nothing else is to be done in
workers: each process sets itself up when it makes its first span, so after it was forked. Names are those of the
semantic conventions for messaging; the trace context travels with the run, in its headers.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Literal

from django.core.exceptions import ImproperlyConfigured

try:
    from opentelemetry import context as otel_context
    from opentelemetry import metrics, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise ImproperlyConfigured(
        'Traces need the Python package opentelemetry-api: pip install "django-kombu-taskq[otel]"'
    ) from error

from django_taskq import __version__, signals
from django_taskq.exceptions import Retry
from django_taskq.message import EXCHANGE, Action, Delivery, ErrorText, Headers, Message, Outcome

SYSTEM = "django_taskq"
# What the conventions advise for durations, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
FLUSH_TIMEOUT = 3000  # milliseconds that a process which ends may take to hand over its last spans

Attributes = dict[str, str | int]


def instrument(
    *,
    setup: Callable[[], object] | None = None,
    relation: Literal["link", "parent"] = "link",
    tracer_provider: Any = None,
    meter_provider: Any = None,
) -> None:
    """Make spans and metrics from now on, in this process and in those it starts. Calling it again changes how.

    ``setup`` is called in each process before its first span: the place to make providers, whose threads no fork
    takes along. ``relation`` is that of a run's span to the one it was enqueued in: ``link``, or ``parent`` for runs
    that start right away; retries and delayed runs are always linked. Without providers the global ones are used.

    Raises ``ValueError`` for another relation.
    """
    if relation not in ("link", "parent"):
        raise ValueError(f'relation={relation!r} is not known: it takes "link" or "parent"')
    uninstrument()
    made = Instrumentation(setup, relation == "parent", tracer_provider, meter_provider)
    for signal, receiver in made.receivers():
        signal.connect(receiver, weak=False, dispatch_uid=__name__)


def uninstrument() -> None:
    """Make no more of them."""
    for signal in SIGNALS:
        signal.disconnect(dispatch_uid=__name__)


SIGNALS = (
    signals.enqueue_entered,
    signals.enqueue_left,
    signals.task_entered,
    signals.task_left,
    signals.task_failed,
    signals.process_stopped,
    signals.worker_stopped,
)
_propagator = TraceContextTextMapPropagator()
# The span of the run that goes on here, and when it began (performance counter).
_current: ContextVar[tuple[trace.Span, float] | None] = ContextVar("django_taskq_span", default=None)


class Tools:
    """What one process makes spans and metrics with."""

    def __init__(self, tracer_provider: Any, meter_provider: Any) -> None:
        self.providers = [
            tracer_provider or trace.get_tracer_provider(),
            meter_provider or metrics.get_meter_provider(),
        ]
        self.tracer = trace.get_tracer(__name__, __version__, tracer_provider)
        meter = metrics.get_meter(__name__, __version__, meter_provider)
        self.sending = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of enqueueing",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self.processing = meter.create_histogram(
            "messaging.process.duration", "s", "Duration of runs", explicit_bucket_boundaries_advisory=BUCKETS
        )
        self.sent = meter.create_counter("messaging.client.sent.messages", "{message}", "Runs enqueued")
        self.consumed = meter.create_counter("messaging.client.consumed.messages", "{message}", "Runs started")


@dataclass(slots=True)
class Sending:
    """An enqueue that goes on."""

    span: trace.Span
    began: float
    count: int
    attributes: Attributes


class Instrumentation:
    """The receivers, and what they share."""

    def __init__(
        self, setup: Callable[[], object] | None, has_parents: bool, tracer_provider: Any, meter_provider: Any
    ) -> None:
        """``has_parents``: runs that start right away continue the trace they were enqueued in."""
        self._setup = setup
        self._has_parents = has_parents
        self._given = tracer_provider, meter_provider
        self._lock = threading.Lock()
        self._tools: tuple[int, Tools] | None = None

    def receivers(self) -> list[tuple[Any, Callable[..., None]]]:
        """Which signals to connect to what."""
        own = (
            self.on_enqueue_entered,
            self.on_enqueue_left,
            self.on_task_entered,
            self.on_task_left,
            self.on_task_failed,
            self.on_stopped,
            self.on_stopped,
        )
        return list(zip(SIGNALS, own, strict=True))

    def tools(self) -> Tools:
        """Those of this process; a forked one makes its own."""
        kept = self._tools
        if kept is not None and kept[0] == os.getpid():
            return kept[1]
        with self._lock:
            kept = self._tools
            if kept is None or kept[0] != os.getpid():
                if self._setup is not None:
                    self._setup()
                self._tools = kept = os.getpid(), Tools(*self._given)
            return kept[1]

    # Enqueueing.

    def on_enqueue_entered(self, messages: list[Message], token: dict[str, Any], **kwargs: Any) -> None:
        """A span around the hand-over, whose context goes with the message; one for each message of several."""
        tools, began = self.tools(), time.perf_counter()
        names = {_destination(message.queue_name) for message in messages}
        attributes = _operation("send", names.pop() if len(names) == 1 else "")
        name = _span_name("send", attributes)
        if len(messages) == 1:
            about = attributes | _about(messages[0])
            span = tools.tracer.start_span(name, kind=trace.SpanKind.PRODUCER, attributes=about)
            messages[0] = with_trace(messages[0], span)
        else:
            links = [trace.Link(self._create(messages, place)) for place in range(len(messages))]
            about = attributes | {"messaging.batch.message_count": len(messages)}
            span = tools.tracer.start_span(name, kind=trace.SpanKind.CLIENT, attributes=about, links=links)
        token[__name__] = Sending(span, began, len(messages), attributes)

    def _create(self, messages: list[Message], place: int) -> trace.SpanContext:
        message = messages[place]
        attributes = _operation("create", _destination(message.queue_name)) | _about(message)
        name = _span_name("create", attributes)
        span = self.tools().tracer.start_span(name, kind=trace.SpanKind.PRODUCER, attributes=attributes)
        messages[place] = with_trace(message, span)
        span.end()
        return span.get_span_context()

    def on_enqueue_left(self, token: dict[str, Any], error: BaseException | None, **kwargs: Any) -> None:
        """They were taken, or not."""
        sending: Sending | None = token.get(__name__)
        if sending is None:
            return
        attributes = dict(sending.attributes)
        if error is not None:
            attributes["error.type"] = _class_path(type(error))
            sending.span.record_exception(error)
            _note_error(sending.span, attributes["error.type"], str(error))
        sending.span.end()
        tools = self.tools()
        tools.sending.record(time.perf_counter() - sending.began, attributes)
        tools.sent.add(sending.count, attributes)

    # Running.

    def on_task_entered(self, delivery: Delivery, headers: Headers, **kwargs: Any) -> None:
        """A span that is current in the task."""
        span = self._start(delivery, headers, None)
        otel_context.attach(trace.set_span_in_context(span))
        _current.set((span, time.perf_counter()))

    def _start(self, delivery: Delivery, headers: Headers, at: float | None) -> trace.Span:
        producer = _producer(headers.trace)
        is_plain = delivery.attempt == 1 and delivery.crashes == 0 and delivery.run_after is None
        surroundings, links = otel_context.Context(), list[trace.Link]()
        if producer.is_valid and self._has_parents and is_plain:
            surroundings = trace.set_span_in_context(trace.NonRecordingSpan(producer), surroundings)
        elif producer.is_valid:
            links.append(trace.Link(producer))
        attributes = _operation("process", delivery.queue_name) | _about(delivery)
        attributes["taskq.attempt"] = delivery.attempt
        if headers.rerun_of is not None:
            attributes["messaging.message.conversation_id"] = headers.rerun_of
        return self.tools().tracer.start_span(
            _span_name("process", attributes),
            context=surroundings,
            kind=trace.SpanKind.CONSUMER,
            attributes=attributes,
            links=links,
            start_time=None if at is None else int(at * 1e9),
        )

    def on_task_left(self, delivery: Delivery, outcome: Outcome, **kwargs: Any) -> None:
        """It is over, well or not."""
        current = _current.get()
        if current is not None:
            span, began = current
            _current.set(None)
            self._end(span, delivery, outcome, time.perf_counter() - began, None)

    def on_task_failed(self, delivery: Delivery, outcome: Outcome, **kwargs: Any) -> None:
        """What had no span, as its process died or nobody could call it, has a short one for its end."""
        if outcome.started_at is None:
            at = outcome.finished_at or time.time()
            span = self._start(delivery, Headers.loads(delivery.headers), at)
            self._end(span, delivery, outcome, None, at)

    def _end(
        self, span: trace.Span, delivery: Delivery, outcome: Outcome, seconds: float | None, at: float | None
    ) -> None:
        attributes = _operation("process", delivery.queue_name)
        span.set_attribute("taskq.outcome", outcome.action.value)
        error = outcome.error if outcome.action in (Action.FAILED, Action.RETRY) else None
        if error is not None and error.class_path != _class_path(Retry):  # which a task raises on purpose
            attributes["error.type"] = error.class_path
            _record(span, error, at)
        span.end(None if at is None else int(at * 1e9))
        if seconds is not None:
            self.tools().processing.record(seconds, attributes)
            self.tools().consumed.add(1, attributes)

    # Ending.

    def on_stopped(self, **kwargs: Any) -> None:
        """Hand over what waits: processes of multiprocessing end without the hooks of :mod:`atexit`."""
        if self._tools is not None and self._tools[0] == os.getpid():
            for provider in self._tools[1].providers:
                if hasattr(provider, "force_flush"):
                    provider.force_flush(FLUSH_TIMEOUT)


def _producer(carried: Any) -> trace.SpanContext:
    """The span that a run was enqueued in; not a valid one where none travelled, or somebody else wrote nonsense."""
    texts = {key: text for key, text in carried.items() if isinstance(text, str)} if isinstance(carried, dict) else {}
    return trace.get_current_span(_propagator.extract(texts, otel_context.Context())).get_span_context()


def with_trace(message: Message, span: trace.Span) -> Message:
    """The message with the context of this span; as it is when nobody makes spans."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span, otel_context.Context()))
    if not carrier:
        return message
    return replace(message, headers=Headers.loads(message.headers)._replace(trace=carrier).dumps())


def _operation(name: str, destination: str) -> Attributes:
    """What spans and metrics have in common: few values, so that no series is made for a run."""
    found: Attributes = {"messaging.system": SYSTEM, "messaging.operation.name": name, "messaging.operation.type": name}
    if destination:
        found["messaging.destination.name"] = destination
    return found


def _about(run: Message | Delivery) -> Attributes:
    text = run.payload
    return {
        "messaging.message.id": run.id,
        "messaging.message.body.size": len(text) if text.isascii() else len(text.encode()),
        "taskq.task": run.name,
    }


def _destination(queue_name: str) -> str:
    return queue_name.removeprefix(EXCHANGE)


def _span_name(operation: str, attributes: Attributes) -> str:
    return f"{operation} {attributes.get('messaging.destination.name', '')}".rstrip()


def _record(span: trace.Span, error: ErrorText, at: float | None) -> None:
    details = {
        "exception.type": error.class_path,
        "exception.message": error.message,
        "exception.stacktrace": error.traceback,
    }
    span.add_event("exception", details, None if at is None else int(at * 1e9))
    _note_error(span, error.class_path, error.summary)


def _note_error(span: trace.Span, class_path: str | int, text: str) -> None:
    span.set_attribute("error.type", class_path)
    span.set_status(trace.Status(trace.StatusCode.ERROR, text))


def _class_path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
