"""Traces: one for each run, over all its attempts, if somebody wants them (docs/tracing.md).

The trace of a run begins with its submission; what continues it is stored with the run. Everything here does nothing,
and loads nothing, until `configure` has found that traces are wanted.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Literal, Protocol

import structlog

from .domain.ids import response_id
from .domain.runs import Run, Submission
from .settings import Settings, SettingsError

log = structlog.get_logger()

Attributes = Mapping[str, str | int | float | bool]
Kind = Literal["server", "internal", "client"]

STARTED = "outlast.started"
"""An attribute of spans that say at once what may never come to its end."""

_STANDARD = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Span(Protocol):
    """Something that takes time, within a trace."""

    @property
    def traceparent(self) -> str:
        """What continues the trace elsewhere, as W3C Trace Context writes it."""
        ...

    def enter(self) -> None:
        """What is done in this context from now on is part of it, until it has ended."""
        ...

    def set(self, attributes: Attributes) -> None: ...

    def end(self, error: str | None = None) -> None:
        """``error``: the type of what went wrong; never its words, which may hold secrets."""
        ...


class Tracer(Protocol):
    def start(
        self,
        name: str,
        *,
        parent: Span | str | None,
        kind: Kind = "internal",
        attributes: Attributes,
        started_at: datetime | None = None,
    ) -> Span:
        """``parent``: a span of this process, the traceparent of another's, or none: it begins a trace."""
        ...

    def stop(self, seconds: float) -> None:
        """Hand over what is left, as far as that is done in so many seconds."""
        ...


_tracer: Tracer | None = None
_attempt: ContextVar[Span | None] = ContextVar("attempt_span", default=None)


def configure(settings: Settings, *, part: str) -> None:
    """Have this process trace, if it is to. Raises SettingsError when it was told to and cannot."""
    wanted = settings.otel
    if wanted is None:
        wanted = any(os.environ.get(name) for name in _STANDARD)
    if not wanted:
        return
    try:
        module = importlib.import_module("outlast.shared.otel")
    except ImportError:
        if settings.otel:
            raise SettingsError("OUTLAST_OTEL needs OpenTelemetry: install outlast[otel]") from None
        log.warning("tracing.not_installed", reason="OTEL_EXPORTER_OTLP_ENDPOINT is set; install outlast[otel]")
    else:
        use(module.exporting(part))


def use(tracer: Tracer | None) -> None:
    global _tracer
    _tracer = tracer


def tracer() -> Tracer | None:
    return _tracer


def stop(seconds: float) -> None:
    if _tracer is not None:
        _tracer.stop(seconds)


def trace_id(traceparent: str) -> str:
    return traceparent.split("-")[1]


@contextmanager
def submission(submitted: Submission, incoming: str | None) -> Generator[str | None]:
    """The root of a run's trace, which goes on with the caller's own. Gives what is to be stored with the run."""
    if _tracer is None:
        yield None
        return
    attributes = {
        "outlast.run": response_id(submitted.run_id),
        "outlast.agent": submitted.agent,
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": submitted.agent,
        "gen_ai.conversation.id": submitted.thread,
    }
    name = f"invoke_agent {submitted.agent}"
    span = _tracer.start(name, parent=incoming, kind="server", attributes=attributes, started_at=submitted.created_at)
    with _ended(span):
        yield span.traceparent


@contextmanager
def attempt(run: Run) -> Generator[Span | None]:
    """An attempt, below the root. What is done in this context is part of it. None: the run is not traced.

    Who is killed ends no span, so that it began is a span of its own, which is sent at once.
    """
    if _tracer is None or run.traceparent is None:
        yield None
        return
    attributes = {
        "outlast.run": response_id(run.run_id),
        "outlast.agent": run.agent,
        "outlast.attempt": run.attempt,
    }
    name = f"attempt {run.attempt}"
    _tracer.start(f"{name} started", parent=run.traceparent, attributes={**attributes, STARTED: True}).end()
    span = _tracer.start(name, parent=run.traceparent, attributes=attributes)
    span.enter()
    token = _attempt.set(span)
    try:
        with _ended(span):
            yield span
    finally:
        _attempt.reset(token)


def current_attempt() -> Span | None:
    """The span of the attempt on whose behalf this is asked."""
    return _attempt.get()


@contextmanager
def _ended(span: Span) -> Generator[None]:
    try:
        yield
    except BaseException as error:
        span.end(type(error).__name__)
        raise
    span.end()
