"""As a project does it: one call in ``ready()``, and providers that each process makes for itself."""

from __future__ import annotations

import os
from collections.abc import Sequence

from django.apps import AppConfig


def set_up() -> None:
    """Spans wait in a thread of the SDK until they are many, or the process ends."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class FileExporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            text = "".join(f"{os.getpid()} {span.to_json(indent=None)}\n" for span in spans)
            descriptor = os.open(os.environ["TASKQ_TEST_TRACES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(FileExporter(), schedule_delay_millis=60_000))
    trace.set_tracer_provider(provider)


class TracingConfig(AppConfig):
    name = "tests.integration.tracing"

    def ready(self) -> None:
        # The process of the tests has this app only in some of them.
        if "TASKQ_TEST_TRACES" in os.environ:
            from django_taskq.contrib.opentelemetry import instrument

            instrument(setup=set_up, relation="parent")
