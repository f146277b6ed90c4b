"""OpenTelemetry behind `outlast.shared.tracing`, which loads this module only where traces are wanted."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .tracing import STARTED, Attributes, Kind, Span

_PROPAGATOR = TraceContextTextMapPropagator()
_KINDS = {
    "server": trace.SpanKind.SERVER,
    "internal": trace.SpanKind.INTERNAL,
    "client": trace.SpanKind.CLIENT,
}
_DELAY = "OTEL_BSP_SCHEDULE_DELAY"
_DELAY_MS = 1000  # OpenTelemetry's own is 5 s: what a process that is killed has not sent is lost
_PROMPT_MS = 100


def exporting(part: str) -> OpenTelemetry:
    """Send spans by OTLP over HTTP, as the standard variables say; or to where the process sends its spans already."""
    existing = trace.get_tracer_provider()
    if isinstance(existing, TracerProvider):
        return OpenTelemetry(existing)
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # each try to reach a collector is a warning
    # At the end of the process it would wait for the collector, however long that takes.
    provider = TracerProvider(resource=_resource(part), shutdown_on_exit=False)
    provider.add_span_processor(_PromptStarts())
    trace.set_tracer_provider(provider)
    return OpenTelemetry(provider)


def _resource(part: str) -> Resource:
    told = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({} if told else {"service.name": f"outlast-{part}"})


class OpenTelemetry:
    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("outlast", version("outlast"))

    def start(
        self,
        name: str,
        *,
        parent: Span | str | None,
        kind: Kind = "internal",
        attributes: Attributes,
        started_at: datetime | None = None,
    ) -> OpenSpan:
        within = context.Context()
        if isinstance(parent, OpenSpan):
            within = trace.set_span_in_context(parent.span, within)
        elif isinstance(parent, str):
            within = _PROPAGATOR.extract({"traceparent": parent}, within)
        begun = int(started_at.timestamp() * 1e9) if started_at else None
        return OpenSpan(self._tracer.start_span(name, within, _KINDS[kind], attributes, start_time=begun))

    def stop(self, seconds: float) -> None:
        ending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(seconds)


class OpenSpan:
    def __init__(self, span: trace.Span) -> None:
        self.span = span

    @property
    def traceparent(self) -> str:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(self.span, context.Context()))
        return carrier["traceparent"]

    def enter(self) -> None:
        context.attach(trace.set_span_in_context(_Innermost(self.span, trace.get_current_span())))

    def set(self, attributes: Attributes) -> None:
        self.span.set_attributes(attributes)

    def end(self, error: str | None = None) -> None:
        if error is not None:
            self.span.set_attribute("error.type", error)
            self.span.set_status(trace.StatusCode.ERROR, error)
        self.span.end()


class _Innermost(trace.Span):
    """The span that a context is in: this one until it has ended, and then the one around it.

    Frameworks tell of an end from tasks of their own, where the context of the code that goes on cannot be changed.
    """

    def __init__(self, span: trace.Span, outer: trace.Span) -> None:
        self._span = span
        self._outer = outer

    @property
    def _live(self) -> trace.Span:
        return self._span if self._span.is_recording() else self._outer

    def get_span_context(self) -> trace.SpanContext:
        # Of a trace that is not sampled nothing is recorded, but it goes on being that trace.
        outer = self._live.get_span_context()
        return outer if outer.is_valid else self._span.get_span_context()

    def is_recording(self) -> bool:
        return self._live.is_recording()

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self._live.set_attributes(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        self._live.set_attribute(key, value)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        self._live.add_event(name, attributes, timestamp)

    def update_name(self, name: str) -> None:
        self._live.update_name(name)

    def set_status(self, status: Any, description: str | None = None) -> None:
        self._live.set_status(status, description)

    def record_exception(
        self, exception: BaseException, attributes: Any = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        self._live.record_exception(exception, attributes, timestamp, escaped)

    def end(self, end_time: int | None = None) -> None:
        """Ours to end."""


class _PromptStarts(SpanProcessor):
    """Batches; those of spans that say what has just begun are sent within a tenth of a second."""

    def __init__(self) -> None:
        delay = None if _DELAY in os.environ else _DELAY_MS
        self._batches = BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=delay)
        self._starts = BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=_PROMPT_MS)

    def on_end(self, span: ReadableSpan) -> None:
        started = span.attributes is not None and STARTED in span.attributes
        (self._starts if started else self._batches).on_end(span)

    def shutdown(self) -> None:
        self._starts.shutdown()
        self._batches.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._starts.force_flush(timeout_millis) and self._batches.force_flush(timeout_millis)
