"""One trace for each run: from the request that brings it, over its attempts, to what the agent does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Sequence
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from outlast.agent import Context, Request, Retry
from outlast.shared import tracing
from outlast.shared.connections import Database
from outlast.shared.otel import OpenTelemetry
from outlast.shared.settings import Settings, SettingsError, load
from tests.support.graphs import Conversation, RuleModel, call
from tests.support.service import serving
from tests.support.waiting import until

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


class Traced:
    """What has been traced, and a tracer such as that of a user's own instrumentation."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.users = self.provider.get_tracer("user")

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def one(self, name: str) -> ReadableSpan:
        [found] = [span for span in self.spans if span.name == name]
        return found

    async def ended(self, name: str) -> ReadableSpan:
        """A run's client may know of its end before its worker has closed the span."""

        async def there() -> bool:
            return any(span.name == name for span in self.spans)

        await until(there)
        return self.one(name)


@pytest.fixture
def traced() -> Generator[Traced]:
    made = Traced()
    tracing.use(OpenTelemetry(made.provider))
    yield made
    tracing.use(None)


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def id_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def trace_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}"


def a_graph(users: trace.Tracer) -> Any:
    @tool
    async def look_up(word: str) -> str:
        """Look a word up."""
        with users.start_as_current_span("user in tool"):
            return f"{word}: secret-result"

    def answer(messages: Sequence[BaseMessage], _options: dict[str, Any]) -> AIMessage:
        usage: Any = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        if isinstance(messages[-1], ToolMessage):
            return AIMessage("secret-answer", usage_metadata=usage)
        return AIMessage("", tool_calls=[call("look_up", "call_1", word="lease")], usage_metadata=usage)

    model = RuleModel(answer=answer).bind_tools([look_up])

    async def agent(state: Conversation) -> dict[str, Any]:
        said = await model.ainvoke(state["messages"])
        with users.start_as_current_span("user after model"):
            return {"messages": [said]}

    graph = StateGraph(Conversation).add_node("agent", agent).add_node("tools", ToolNode([look_up]))
    return graph.add_edge(START, "agent").add_conditional_edges("agent", tools_condition).add_edge("tools", "agent")


async def test_a_trace_goes_from_the_caller_to_models_and_tools(settings: Settings, traced: Traced) -> None:
    async with serving(settings, {"graph": a_graph(traced.users)}) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
            answer = await http.post(
                "/responses",
                json={"input": "secret-question"},
                headers={"traceparent": f"00-{TRACE}-{CALLER}-01"},
            )
        assert answer.json()["status"] == "completed" and answer.headers["x-trace-id"] == TRACE
        attempt = await traced.ended("attempt 1")

    assert {trace_of(span) for span in traced.spans} == {TRACE}
    root = traced.one("invoke_agent graph")
    assert f"{parent_of(root):016x}" == CALLER and root.kind is trace.SpanKind.SERVER
    assert parent_of(attempt) == parent_of(traced.one("attempt 1 started")) == id_of(root)
    assert attempt.attributes is not None
    assert attempt.attributes["outlast.run"] == answer.json()["id"]
    assert (attempt.attributes["outlast.attempt"], attempt.attributes["outlast.outcome"]) == (1, "completed")

    steps = [span for span in traced.spans if span.name.startswith("step ")]
    assert [span.name for span in steps] == ["step agent", "step tools", "step agent"]
    assert {parent_of(step) for step in steps} == {id_of(attempt)}
    chats = [span for span in traced.spans if span.name.startswith("chat ")]
    assert [parent_of(chat) for chat in chats] == [id_of(steps[0]), id_of(steps[2])]
    for chat in chats:
        assert chat.attributes is not None and chat.kind is trace.SpanKind.CLIENT
        assert chat.attributes["gen_ai.operation.name"] == "chat"
        assert chat.attributes["gen_ai.usage.input_tokens"] == 7 and chat.attributes["gen_ai.usage.output_tokens"] == 3
    called = traced.one("execute_tool look_up")
    assert parent_of(called) == id_of(steps[1])
    assert called.attributes is not None and called.attributes["gen_ai.tool.call.id"] == "call_1"

    assert parent_of(traced.one("user in tool")) == id_of(called)
    after = [span for span in traced.spans if span.name == "user after model"]
    assert [parent_of(span) for span in after] == [id_of(steps[0]), id_of(steps[2])]
    everything = "".join(span.to_json() for span in traced.spans)
    assert "secret-" not in everything


async def test_attempts_of_one_run_are_under_one_root(settings: Settings, traced: Traced) -> None:
    async def flaky(_request: Request, context: Context):
        with traced.users.start_as_current_span(f"user {context.attempt}"):
            yield "word"
            if context.attempt == 1:
                raise Retry("secret-words")

    async with serving(settings.model_copy(update={"retry_seconds": 0.01}), {"flaky": flaky}) as service:
        response = await service.openai.responses.create(input="x")
        assert response.status == "completed"
        second = await traced.ended("attempt 2")

    root, first = traced.one("invoke_agent flaky"), traced.one("attempt 1")
    assert parent_of(root) is None
    assert parent_of(first) == parent_of(second) == id_of(root)
    assert {trace_of(span) for span in traced.spans} == {trace_of(root)}
    assert first.attributes is not None and first.attributes["outlast.outcome"] == "retried"
    assert parent_of(traced.one("user 1")) == id_of(first) and parent_of(traced.one("user 2")) == id_of(second)


async def test_what_a_failure_says_is_not_traced(settings: Settings, traced: Traced) -> None:
    async def node(state: Conversation) -> dict[str, Any]:
        raise ValueError("secret-password")

    graph = StateGraph(Conversation).add_node("node", node).add_edge(START, "node")
    async with serving(settings, {"graph": graph}) as service:
        assert (await service.openai.responses.create(input="x")).status == "failed"
        attempt = await traced.ended("attempt 1")

    step = traced.one("step node")
    assert step.status.status_code is trace.StatusCode.ERROR
    assert step.attributes is not None and step.attributes["error.type"] == "ValueError"
    assert attempt.attributes is not None and attempt.attributes["outlast.outcome"] == "failed"
    assert "secret-" not in "".join(span.to_json() for span in traced.spans)


@pytest.mark.parametrize(
    "given", ["", "nonsense", "00-" + "0" * 32 + f"-{CALLER}-01", f"ff-{TRACE}-{CALLER}-01", "00-" + "g" * 52]
)
async def test_a_header_that_is_no_trace_begins_a_new_one(settings: Settings, traced: Traced, given: str) -> None:
    async def echo(request: Request, _context: Context):
        yield request.text

    async with serving(settings, {"echo": echo}) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
            answer = await http.post("/responses", json={"input": "x"}, headers={"traceparent": given})
        await traced.ended("attempt 1")
    root = traced.one("invoke_agent echo")
    assert parent_of(root) is None and answer.headers["x-trace-id"] == trace_of(root) != TRACE


async def test_a_caller_who_does_not_sample_is_followed(settings: Settings, traced: Traced, database: Database) -> None:
    async def echo(request: Request, _context: Context):
        yield request.text

    async with serving(settings, {"echo": echo}) as service, httpx.AsyncClient(base_url=service.url) as http:
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
        answer = await http.post("/responses", json={"input": "x"}, headers=headers)
    assert answer.json()["status"] == "completed" and answer.headers["x-trace-id"] == TRACE
    assert traced.spans == ()


async def test_a_repeated_request_is_told_the_trace_of_the_first(settings: Settings, traced: Traced) -> None:
    async def echo(request: Request, _context: Context):
        yield request.text

    async with serving(settings, {"echo": echo}) as service, httpx.AsyncClient(base_url=service.url) as http:
        told = [
            (await http.post("/responses", json={"input": "x"}, headers={"idempotency-key": "k"})).headers["x-trace-id"]
            for _ in range(2)
        ]
    assert told[0] == told[1] == trace_of(traced.one("invoke_agent echo"))


async def test_without_traces_nothing_is_stored_or_said(settings: Settings, database: Database) -> None:
    async def echo(request: Request, _context: Context):
        yield request.text

    async with serving(settings, {"echo": echo}) as service, httpx.AsyncClient(base_url=service.url) as http:
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
        answer = await http.post("/responses", json={"input": "x"}, headers=headers)
    assert "x-trace-id" not in answer.headers
    cursor = await database.run(lambda c: c.execute("SELECT traceparent FROM runs"))
    assert await cursor.fetchall() == [(None,)]


# -- when it is on -----------------------------------------------------------------------------------------------------


def test_nothing_of_opentelemetry_is_loaded_unless_it_is_wanted() -> None:
    everything = "import outlast.api.app, outlast.worker.runtime, outlast.worker.agents.langgraph.agent"
    configured = "from outlast.shared import tracing, settings; tracing.configure(settings.load(), part='api')"
    asked = "import sys; print('outlast.shared.otel' in sys.modules)"
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    for code, env, loaded in (
        (everything, {}, False),
        (configured, {}, False),
        (configured, {"OUTLAST_OTEL": "true"}, True),
        (configured, endpoint, True),
        (configured, endpoint | {"OUTLAST_OTEL": "false"}, False),
    ):
        said = subprocess.run([sys.executable, "-c", f"{code}\n{asked}"], env=env, capture_output=True, text=True)
        assert said.stdout.strip() == str(loaded), (code, env, said.stderr)


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "outlast.shared.otel", None)


def test_who_asks_for_traces_without_the_extra_is_told(not_installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"outlast\[otel\]"):
        tracing.configure(load(otel=True), part="api")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracing.configure(load(), part="api")  # it may be meant for others
    assert tracing.tracer() is None
