"""A tracking server as MLflow's client sees it: experiments, spans by OTLP, and traces that have ended."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

EXPERIMENT = {"experiment_id": "7", "name": "tests", "artifact_location": "", "lifecycle_stage": "active"}


@dataclass(frozen=True)
class Kept:
    """One span, as it was sent."""

    name: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]


@dataclass
class Tracking:
    url: str = ""
    answers: str | None = ""
    """What is said to whatever it is sent; empty: what MLflow says; None: nothing, ever."""
    ended: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Traces by their ids, as they were told of at their end."""
    received: bytes = b""
    """All bodies."""
    asked: int = 0
    _spans: list[tuple[str, Kept]] = field(default_factory=list[tuple[str, Kept]])
    closed: threading.Event = field(default_factory=threading.Event)

    def spans(self, trace_id: str) -> dict[str, Kept]:
        """By name."""
        return {span.name: span for trace, span in list(self._spans) if trace == trace_id}

    def take_spans(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for span in [span for scope in resource.scope_spans for span in scope.spans]:
                attributes = {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}
                kept = Kept(span.name, span.span_id.hex(), span.parent_span_id.hex(), attributes)
                self._spans.append((f"tr-{span.trace_id.hex()}", kept))

    def take_trace(self, body: bytes) -> dict[str, Any]:
        trace = json.loads(body)["trace"]
        self.ended[trace["trace_info"]["trace_id"]] = trace["trace_info"]
        stored = {**trace["trace_info"].get("tags", {}), "mlflow.trace.spansLocation": "TRACKING_STORE"}
        return {"trace": {"trace_info": {**trace["trace_info"], "tags": stored}}}


@contextmanager
def tracking_server() -> Generator[Tracking]:
    class Requests(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/version"):
                self._answer(b"3.17.2")
            else:
                self._answer(json.dumps({"experiment": EXPERIMENT}).encode())

        def do_POST(self) -> None:
            tracking.asked += 1
            body = self.rfile.read(int(self.headers["content-length"]))
            tracking.received += body
            if tracking.answers is None:
                tracking.closed.wait()
            elif tracking.answers:
                self._answer(tracking.answers.encode())
            elif self.path == "/v1/traces":
                tracking.take_spans(body)
                self._answer(b"")
            else:
                self._answer(json.dumps(tracking.take_trace(body)).encode())

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Requests) as server:
        server.daemon_threads = True
        tracking = Tracking(f"http://127.0.0.1:{server.server_address[1]}")
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        try:
            yield tracking
        finally:
            tracking.closed.set()
            server.shutdown()
            serving.join()
