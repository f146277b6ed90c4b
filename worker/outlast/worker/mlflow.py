"""MLflow behind `outlast.worker.recording`, which loads this module only where it is wanted.

A run has one trace, whose id and root follow from the run's own id: attempts in other processes add to it. The root is
sent by the attempt that ends the run; what the others did is sent as their children, while they do it.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import structlog
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator

from outlast.shared.domain.ids import response_id
from outlast.shared.domain.runs import Run, RunStatus
from outlast.shared.mlflow_traces import TraceIds

# MLflow's own variables, where its defaults do not suit a server; whoever sets one is obeyed.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it tells its makers how it is used
    "MLFLOW_ENABLE_OTLP_EXPORTER": "false",  # else prompts go to OpenTelemetry's collector, and none to MLflow
    "MLFLOW_CONFIGURE_LOGGING": "false",  # its words are lines of our log, in which passwords are masked
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ASYNC_TRACE_LOGGING_RETRY_TIMEOUT": "30",
    "MLFLOW_ASYNC_TRACE_LOGGING_MAX_INTERVAL_MILLIS": "1000",  # what a process that is killed has not sent is lost
    "MLFLOW_TRACE_BUFFER_TTL_SECONDS": "86400",  # a run may last longer than its hour
}
for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)
os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "true"  # else the event loop waits for the tracking server

import mlflow  # noqa: E402 - it reads some of these when it is loaded
from mlflow.entities import SpanType  # noqa: E402
from mlflow.tracing import enable, provider  # noqa: E402
from mlflow.tracing.trace_manager import InMemoryTraceManager  # noqa: E402

log = structlog.get_logger()

_TRACER = "mlflow.tracing.provider"  # OpenTelemetry keeps one tracer for each name
_RETRY_SECONDS = 30.0
_FLUSH_MS = 1000
_SELDOM_SECONDS = 60.0

_mlflow: Any = mlflow  # much of it has no types
_provider: Any = provider

_given: ContextVar[TraceIds | None] = ContextVar("given_ids", default=None)


def recorder() -> MLflow:
    for name in ("export.mlflow_v3", "export.async_export_queue", "fluent"):  # one line for each trace that is lost
        logging.getLogger(f"mlflow.tracing.{name}").addFilter(_Seldom())
    return MLflow()


class MLflow:
    """Records from when the tracking server has answered once; that is waited for in a thread of its own."""

    def __init__(self) -> None:
        self._open = threading.Event()
        threading.Thread(target=self._open_in_time, name="mlflow", daemon=True).start()

    def begin(self, run: Run) -> Attempt | None:
        if not self._open.is_set():
            return None
        try:
            return Attempt(run)
        except Exception as error:  # noqa: BLE001 - whatever MLflow may raise: no run fails because of it
            log.warning("recording.failed", error=type(error).__name__)
            return None

    def wait(self, seconds: float) -> None:
        self._open.wait(seconds)

    def stop(self, seconds: float) -> bool:
        if not self._open.is_set():
            return True
        options = {"terminate": True}
        ending = threading.Thread(target=_mlflow.flush_trace_async_logging, kwargs=options, name="mlflow", daemon=True)
        ending.start()
        ending.join(seconds)
        return not ending.is_alive()

    def _open_in_time(self) -> None:
        told = False
        while True:
            try:
                _find_experiment()
                break
            except Exception as error:  # noqa: BLE001 - MLflow is away, or refuses
                if not told:
                    log.warning("recording.waits", reason="MLflow does not answer", error=type(error).__name__)
                told = True
                time.sleep(_RETRY_SECONDS)
        self._open.set()
        log.info("recording.began", uri_scheme=mlflow.get_tracking_uri().partition(":")[0])


class Attempt:
    def __init__(self, run: Run) -> None:
        _give_ids()
        named = {
            "outlast.run": response_id(run.run_id),
            "outlast.agent": run.agent,
            "outlast.attempt": str(run.attempt),
        }
        self._whose = {"mlflow.trace.session": run.thread, "mlflow.trace.user": run.principal}
        self._ids = TraceIds.of(run.run_id)
        given = _given.set(self._ids)
        try:
            self._root = mlflow.start_span_no_context(
                run.agent,
                span_type=SpanType.AGENT,
                inputs={"input": run.request["input"]},
                attributes=named,
                tags=named,
                metadata=self._whose,
                start_time_ns=time.time_ns() - int((run.begun_seconds or 0) * 1e9),
            )
        finally:
            _given.reset(given)
        name = f"attempt {run.attempt}"
        self._span = mlflow.start_span_no_context(name, span_type=SpanType.TASK, parent_span=self._root)
        self._token = _provider.set_span_in_context(self._span)
        self._ended_as: RunStatus | None = None
        self._output: Sequence[Mapping[str, Any]] = ()

    def callbacks(self) -> Sequence[Any]:
        try:
            return [_graph_tracer()(run_inline=True)]
        except ImportError as error:
            log.warning("recording.no_graphs", reason=f"install outlast[mlflow], or mlflow: {error}")
            return ()

    def finished(self, status: RunStatus, output: Sequence[Mapping[str, Any]]) -> None:
        self._ended_as, self._output = status, output

    def end(self) -> None:
        try:
            _provider.detach_span_from_context(self._token)
            self._end()
        except Exception as error:  # noqa: BLE001 - as above
            log.warning("recording.failed", error=type(error).__name__)

    def _end(self) -> None:
        with InMemoryTraceManager.get_instance().get_trace(self._root.trace_id) as trace:
            ours = trace is not None and trace.span_dict.get(self._root.span_id) is self._root
            spans = list(trace.span_dict.values()) if ours and trace else []
            if ours and trace:
                trace.info.trace_metadata.update(self._whose)  # MLflow takes the thread's id in our tables for its name
        for span in reversed(spans):
            if span not in (self._root, self._span) and span.end_time_ns is None:
                span.end(status="ERROR")  # cut off; MLflow would wait for it
        status = "ERROR" if self._ended_as in (None, RunStatus.FAILED) else "OK"
        self._span.end(attributes={"outlast.outcome": self._ended_as or "handed_on"}, status=status)
        if self._ended_as is not None:
            self._root.end({"output": self._output}, {"outlast.status": self._ended_as}, status)
        elif ours:
            _hand_over(self._ids)


def _hand_over(ids: TraceIds) -> None:
    """Send what has been done here, and forget the trace, which another attempt ends."""
    made: TracerProvider = _provider.provider.get()
    made.force_flush(_FLUSH_MS)  # into the queue of what is to be sent: MLflow looks each span up in the trace
    InMemoryTraceManager.get_instance().pop_trace(ids.trace)


def _find_experiment() -> None:
    """Ask the tracking server where traces belong: later each trace would ask, on the event loop."""
    experiment, name = os.environ.get("MLFLOW_EXPERIMENT_ID"), os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if experiment:
        _mlflow.set_experiment(experiment_id=experiment)
    elif name:
        _mlflow.set_experiment(name)
    enable()


@functools.cache
def _graph_tracer() -> Any:
    """What MLflow's autolog puts into every LangChain call; where it finds one it adds none."""
    module: Any = importlib.import_module("mlflow.langchain.langchain_tracer")
    manager = InMemoryTraceManager.get_instance()

    class Tracer(module.MlflowLangchainTracer):
        def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
            """Each token would be an event of its span, with LangChain's chunk as JSON; the whole answer follows."""

        def _get_parent_span(self, parent_run_id: Any) -> Any:
            """A step begins in the context that the one before has left, where a span that has ended is current."""
            theirs: Any = super()
            found: Any = theirs._get_parent_span(parent_run_id)
            while found is not None and found.end_time_ns is not None and found.parent_id is not None:
                found = manager.get_span_from_id(found.trace_id, found.parent_id)
            return found

    return Tracer


class _Ids(IdGenerator):
    """The given ids for a root, and others' for everything else."""

    def __init__(self, others: IdGenerator) -> None:
        self._others = others

    def generate_trace_id(self) -> int:
        given = _given.get()
        return given.trace if given else self._others.generate_trace_id()

    def generate_span_id(self) -> int:
        given = _given.get()
        return given.root if given else self._others.generate_span_id()


def _give_ids() -> None:
    """Not once for all: the agents' code may have MLflow make itself a new provider, and so a new tracer."""
    tracer = _provider.provider.get_or_init_tracer(_TRACER)
    if isinstance(tracer, Tracer) and not isinstance(tracer.id_generator, _Ids):
        tracer.id_generator = _Ids(tracer.id_generator)


class _Seldom(logging.Filter):
    """One line a minute: while MLflow is away there would be one for each run."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _SELDOM_SECONDS
        return True
