"""What graphs take and what of them is the answer, by their names and by settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph, add_messages
from langgraph.managed import IsLastStep
from pydantic import BaseModel

from outlast.agent import Close, Text
from outlast.shared.settings import GraphOptions, SettingsError
from outlast.worker.agents.langgraph.result import answer_in
from outlast.worker.agents.langgraph.shape import Shape, shape_of
from outlast.worker.agents.langgraph.transcript import Transcript
from tests.support.listeners import Noted

ASKED = [HumanMessage("one"), AIMessage("said"), HumanMessage("two")]


class Question(TypedDict):
    question: str


class Answer(TypedDict):
    answer: str


class Both(TypedDict):
    question: str
    answer: str


class Talk(TypedDict):
    chat: Annotated[list[AnyMessage], add_messages]
    response: str


class Ambiguous(TypedDict):
    topic: str
    question: str
    answer: str


class Model(BaseModel):
    query: str = ""
    report: dict[str, Any] = {}


@dataclass
class Record:
    topic: str = ""
    text: str = ""


@dataclass
class Unusual:
    changeme: str = "example"


class Managed(MessagesState):
    is_last_step: IsLastStep


class Internal(Both):
    messages: Annotated[list[AnyMessage], add_messages]


def graph(state: Any, **schemas: Any) -> Any:
    return StateGraph(state, **schemas).add_node("node", lambda state: {}).add_edge(START, "node").compile()


def shape(made: Any, **options: Any) -> Shape:
    return shape_of(made, GraphOptions("qa", **options))


@pytest.mark.parametrize(
    ("made", "told", "given"),
    [
        (graph(MessagesState), "graph: messages", {"messages": ASKED}),
        (graph(Managed), "graph: messages", {"messages": ASKED}),
        (graph(Both), "graph: question -> answer", {"question": "two"}),
        (graph(Internal, input_schema=Question, output_schema=Answer), "graph: question -> answer",
         {"question": "two"}),
        (graph(Internal, input_schema=Question), "graph: question", {"question": "two"}),
        (graph(MessagesState, output_schema=Answer), "graph: messages -> answer", {"messages": ASKED}),
        (graph(Model), "graph: query -> report", {"query": "two"}),
        (graph(Record), None, None),
        (graph(Annotated[list[AnyMessage], add_messages]), "graph: messages", ASKED),
    ],
)  # fmt: skip
def test_usual_names_tell_how_a_graph_is_asked(made: Any, told: str | None, given: Any) -> None:
    if told is None:
        with pytest.raises(SettingsError):
            shape(made)
        return
    assert str(shape(made)) == told
    assert shape(made).asked(ASKED, {}) == given


def test_settings_tell_it_where_names_do_not() -> None:
    assert str(shape(graph(Ambiguous), input="topic")) == "graph: topic -> answer"
    assert str(shape(graph(Unusual), input="changeme", output="changeme")) == "graph: changeme -> changeme"
    assert str(shape(graph(Record), input="topic")) == "graph: topic -> text"
    assert shape(graph(Talk), input="chat").asked(ASKED, {"custom_inputs": {}}) == {"chat": ASKED, "custom_inputs": {}}


@pytest.mark.parametrize(
    ("made", "options", "told"),
    [
        (graph(Unusual), {}, "takes changeme and gives changeme"),
        (graph(Ambiguous), {}, "takes topic, question, answer and gives topic, question, answer"),
        (graph(Both), {"input": "query"}, "takes question, answer"),
        (graph(Both), {"output": "report"}, "gives question, answer"),
    ],
)
def test_a_graph_that_nothing_tells_how_to_ask_is_refused_with_its_fields(
    made: Any, options: dict[str, str], told: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        shape(made, **options)

    assert told in refused.value.message
    assert "OUTLAST_GRAPH_INPUT=qa=field and OUTLAST_GRAPH_OUTPUT=qa=field" in refused.value.message


@entrypoint()
def bare(inputs, *, previous=None):
    return ""


@entrypoint()
async def of_text(topic: str) -> str:
    return ""


@entrypoint()
async def of_messages(messages, previous):
    return ""


@entrypoint()
def of_list(said: list[AnyMessage]) -> str:
    return ""


@entrypoint()
def of_record(record: Record) -> str:
    return ""


@entrypoint()
def of_model(given: Model) -> str:
    return ""


@entrypoint()
def of_talk(given: MessagesState) -> str:
    return ""


@entrypoint()
def of_unusual(given: Unusual) -> str:
    return ""


@pytest.mark.parametrize(
    ("made", "given"),
    [
        (bare, {"messages": ASKED}),
        (of_text, "two"),
        (of_messages, ASKED),
        (of_list, ASKED),
        (of_model, Model(query="two")),
        (of_talk, {"messages": ASKED}),
    ],
)
def test_the_first_parameter_tells_how_a_function_is_asked(made: Any, given: Any) -> None:
    assert shape(made).asked(ASKED, {}) == given
    assert not shape(made).is_said


def test_functions_of_unusual_classes_need_a_setting_too() -> None:
    with pytest.raises(SettingsError, match="takes changeme and gives what it returns"):
        shape(of_unusual)
    assert shape(of_unusual, input="changeme").asked(ASKED, {}) == Unusual("two")
    assert shape(of_record, input="topic").asked(ASKED, {}) == Record("two")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("A text.", "A text."),
        (None, ""),
        ("", ""),
        ({"score": 1, "at": float("nan")}, '{"score":1,"at":null}'),
        ([1, {"a": 2}], '[1,{"a":2}]'),
        ([], "[]"),
        (Model(query="q"), '{"query":"q","report":{}}'),
    ],
)
def test_what_a_function_returns_is_said_as_what_it_is(value: Any, said: str) -> None:
    assert answer_in(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"messages": []}, []),
        (AIMessage("a", id="a"), ["a"]),
        ([AIMessage("a", id="a"), AIMessage("b", id="b")], ["a", "b"]),
        ({"messages": [AIMessage("old", id="old"), HumanMessage("q"), AIMessage("new", id="new")]}, ["new"]),
        ({"messages": [{"role": "assistant", "content": "dict"}]}, ["dict"]),
    ],
)
def test_messages_that_a_function_returns_are_said_after_the_last_question(value: Any, said: list[str]) -> None:
    assert [message.text for message in answer_in(value) if isinstance(message, AIMessage)] == said


def test_what_was_told_already_is_corrected_by_what_is_returned_and_not_told_again() -> None:
    told: list[Any] = []
    transcript = Transcript(Noted(told))
    transcript.know([AIMessage("kept", id="kept")])
    transcript.tell(AIMessage("All of it.", id="m1"), ())
    told.clear()

    assert transcript.holds("All of it.\n") and not transcript.holds("More.")
    transcript.add([AIMessage("kept", id="kept"), AIMessage("All of it.", id="copy")])
    assert told == []
    transcript.add([AIMessage("changed", id="m1")])
    assert told == ["m1", Text("changed", "m1"), Close("m1")]
