"""Models that speak the Responses API themselves: langchain-openai in that mode, and an Outlast as its endpoint."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph
from pydantic import BaseModel, SecretStr

from outlast.agent import Annotation, Context, Reasoning, Refusal, Request, Text, Usage
from outlast.shared.settings import Settings
from tests.support.graphs import Conversation
from tests.support.service import Service, serving

CITED = {"type": "url_citation", "url": "https://example.org/goats", "title": "Goats", "start_index": 0, "end_index": 5}
FILE = {"type": "file_citation", "file_id": "f1", "filename": "goats.md", "index": 3}
PATH = {"type": "file_path", "file_id": "f2", "index": 0}


class Endpoint:
    """A graph whose model is another agent of the same service."""

    def __init__(self, **options: Any) -> None:
        self.url = ""
        self.asked: list[Request] = []
        self._options = options

    async def model(self, request: Request, context: Context):
        self.asked.append(request)
        if "json" in request.text:
            yield '{"name": '
            yield '"Rome"}'
        elif "no" in request.text:
            yield Refusal("I will not.")
        else:
            yield Reasoning("Hm.")
            yield Text("Goats eat")
            yield Annotation(CITED)
            yield Text(" grass.")
            yield Annotation(FILE)
            yield Annotation(PATH)
        yield Usage(12, 4)

    async def _node(self, state: Conversation) -> dict[str, Any]:
        options = {"use_responses_api": True, "store": False, "max_retries": 0, **self._options}
        model = ChatOpenAI(model="model", base_url=f"{self.url}/v1", api_key=SecretStr("none"), **options)
        return {"messages": [await model.ainvoke(state["messages"])]}

    def agents(self) -> dict[str, object]:
        graph = StateGraph(Conversation).add_node("node", self._node).add_edge(START, "node")
        return {"graph": graph, "model": self.model}


MODES = pytest.mark.parametrize("options", [{}, {"disable_streaming": True}, {"output_version": "v1"}])


async def asked(service: Service, endpoint: Endpoint, question: str, **more: Any) -> Any:
    endpoint.url = service.url
    async with service.openai.responses.stream(input=question, model="graph", **more) as stream:
        events = [event async for event in stream]
        return events, await stream.get_final_response()


@MODES
async def test_citations_and_files_pass(settings: Settings, options: dict[str, Any]) -> None:
    endpoint = Endpoint(**options)
    async with serving(settings, endpoint.agents()) as service:
        events, final = await asked(service, endpoint, "Goats?")

    assert final.output_text == "Goats eat grass."
    found = [annotation.to_dict() for annotation in final.output[-1].content[0].annotations]
    assert found == [CITED, FILE, PATH]
    told = [event for event in events if event.type == "response.output_text.annotation.added"]
    assert [event.annotation.to_dict() for event in told] == found
    assert final.usage.total_tokens == 16


class City(BaseModel):
    name: str


@MODES
async def test_a_form_is_asked_for_in_the_words_of_that_api(settings: Settings, options: dict[str, Any]) -> None:
    endpoint = Endpoint(**options)
    async with serving(settings, endpoint.agents()) as service:
        _, final = await asked(service, endpoint, "json", text_format=City)

    assert final.output_parsed == City(name="Rome")
    form = endpoint.asked[0].body["text"]["format"]
    assert (form["type"], form["name"], form["strict"]) == ("json_schema", "City", True)


@MODES
async def test_a_refusal_stays_one(settings: Settings, options: dict[str, Any]) -> None:
    endpoint = Endpoint(**options)
    async with serving(settings, endpoint.agents()) as service:
        _, final = await asked(service, endpoint, "no", text_format=City)

    assert final.status == "completed"
    [part] = final.output[-1].content
    assert (part.type, part.refusal) == ("refusal", "I will not.")
