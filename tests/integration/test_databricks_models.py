"""`outlast.databricks`: a graph's model and vectors at a workspace's serving endpoints, by a service principal."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool

from outlast.agent import AgentError
from outlast.databricks import ChatDatabricks, DatabricksEmbeddings
from outlast.shared.settings import Settings
from tests.support.model_endpoint import Call, ModelEndpoint, Text, Usage, model_endpoint
from tests.support.service import serving

SECRET = "the-secret-of-the-service-principal"


@tool
def price(item: str) -> str:
    """What it costs."""
    return f"{item}: 3"


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[ModelEndpoint]:
    with model_endpoint() as endpoint:
        monkeypatch.setenv("HOME", str(tmp_path))  # no profile of the developer's
        monkeypatch.setenv("DATABRICKS_HOST", endpoint.origin)
        monkeypatch.setenv("DATABRICKS_CLIENT_ID", "principal")
        monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", SECRET)
        yield endpoint


async def test_a_graph_streams_words_and_tool_calls_with_a_fresh_token_for_each_request(
    workspace: ModelEndpoint, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    workspace.will(Call("price", {"item": "tea"}))
    workspace.will(Text("Tea is 3."), Usage(12, 4))
    graph = create_agent(ChatDatabricks(endpoint="large", temperature=0.5, max_tokens=50), [price])
    async with serving(settings, {"shop": graph}) as service:
        stream = await service.openai.responses.create(input="What is tea?", stream=True)
        events = [event async for event in stream]

    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 1 and "".join(deltas) == "Tea is 3."
    end = events[-1]
    assert end.type == "response.completed" and end.response.usage and end.response.usage.total_tokens == 16
    [called, said] = end.response.output
    assert called.type == "mcp_call" and (called.name, called.output) == ("price", "tea: 3")
    assert said.type == "message"

    asked = workspace.requests
    assert {request.path for request in asked} == {"/serving-endpoints/chat/completions"}
    assert [request.body["max_tokens"] for request in asked] == [50, 50]
    used = [request.headers["authorization"] for request in asked]
    assert len(set(used)) == 2 and set(used) <= {f"Bearer {token}" for token in workspace.tokens}
    told = "".join(event.to_json() for event in events) + "".join(capfd.readouterr())
    assert not [secret for secret in (SECRET, *workspace.tokens) if secret in told]
    assert not [secret for secret in (SECRET, *workspace.tokens) if secret in repr(graph.get_graph())]


async def test_texts_become_vectors(workspace: ModelEndpoint) -> None:
    embeddings = DatabricksEmbeddings(endpoint="vectors")
    assert await embeddings.aembed_documents(["a", "bb"]) == [[1.0, 1.0], [2.0, 1.0]]
    assert embeddings.embed_query("ccc") == [3.0, 1.0]
    assert {(request.path, request.body["model"]) for request in workspace.requests} == {
        ("/serving-endpoints/embeddings", "vectors")
    }


def test_a_model_without_a_name_is_refused(workspace: ModelEndpoint) -> None:
    with pytest.raises(AgentError, match="Name a serving endpoint"):
        ChatDatabricks()
    assert ChatDatabricks(model="large").model_name == "large"
