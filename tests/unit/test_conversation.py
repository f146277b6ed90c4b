"""Which messages of a request a conversation has not seen yet."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from outlast.worker.agents.langgraph.conversation import to_messages
from outlast.worker.agents.langgraph.history import answering, unknown_answers, unseen


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def calls(call_id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "look", "arguments": '{"at":"it"}'}


def answers(call_id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": "seen"}


def brief(messages: list[BaseMessage]) -> list[str]:
    """A message in a word: who, what, and which calls."""
    return [
        f"{message.type} {message.text}".strip() + "".join(f" {c['id']}" for c in getattr(message, "tool_calls", ()))
        for message in messages
    ]


STATE = to_messages([user("one"), calls("c1"), answers("c1"), assistant("first, with a tool"), user("two"),
                     assistant("second")], "state")  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "new"),
    [
        pytest.param([user("three")], ["human three"], id="the new question alone"),
        pytest.param([user("two")], ["human two"], id="the same question again"),
        pytest.param(
            [user("one"), assistant("first"), user("two"), assistant("second"), user("three")],
            ["human three"],
            id="everything, as the client has seen it",
        ),
        pytest.param(
            [user("one"), assistant("fir"), assistant("first"), user("two"), assistant("second"), user("three")],
            ["human three"],
            id="everything, with what a lost attempt had said",
        ),
        pytest.param(
            [user("two"), assistant("second"), user("three"), user("four")],
            ["human three", "human four"],
            id="the last turns",
        ),
        pytest.param(
            [
                user("one"),
                calls("c1"),
                answers("c1"),
                assistant("first"),
                user("two"),
                assistant("second"),
                user("two"),
            ],
            ["human two"],
            id="everything with the calls, and the last question again",
        ),
        pytest.param(
            [user("other"), assistant("talk"), user("three")],
            ["human other", "ai talk", "human three"],
            id="another conversation",
        ),
        pytest.param([answers("c1"), user("three")], ["human three"], id="an answer that is known"),
        pytest.param([calls("c2"), answers("c2")], ["ai c2", "tool seen"], id="a call and answer of the client's own"),
    ],
)
def test_only_what_is_new_is_added(sent: list[dict[str, Any]], new: list[str]) -> None:
    assert brief(unseen(to_messages(sent, "run"), STATE)) == new


def test_a_new_conversation_takes_everything() -> None:
    sent = to_messages([user("one"), assistant("first"), user("one")], "run")

    assert brief(unseen(sent, [])) == ["human one", "ai first", "human one"]


def test_answers_come_first_and_what_is_not_answered_is_said_to_be_undone() -> None:
    state = to_messages([user("one"), calls("c1"), calls("c2"), calls("c3"), answers("c1")], "state")
    new = to_messages([user("and?"), answers("c3")], "run")

    assert [(m.type, getattr(m, "tool_call_id", "")) for m in answering(new, state)] == [
        ("tool", "c3"), ("tool", "c2"), ("human", "")
    ]  # fmt: skip


def test_calls_answered_long_ago_need_nothing() -> None:
    assert brief(answering(to_messages([user("three")], "run"), STATE)) == ["human three"]


def test_an_answer_without_a_call_is_found_out() -> None:
    assert unknown_answers(to_messages([answers("c1"), answers("c9")], "run"), STATE) == ["c9"]
    assert unknown_answers(to_messages([calls("c9"), answers("c9")], "run"), []) == []


def test_every_kind_of_item_becomes_what_models_take() -> None:
    messages = to_messages(
        [
            {"role": "developer", "content": "Be brief."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "assistant", "id": "msg_1", "content": [{"type": "refusal", "refusal": "No."}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": "no json"},
            {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "seen"}]},
            {"type": "mcp_call", "id": "mcp_1", "name": "add", "arguments": '{"a":1}', "output": "1", "error": None},
            {"type": "mcp_call", "id": "mcp_2", "name": "add", "arguments": "{}", "output": None,
             "error": {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "broken"}]}},
            {"type": "mcp_list_tools", "tools": []},
        ],
        "run",
    )  # fmt: skip

    assert [type(message) for message in messages] == [
        SystemMessage, HumanMessage, AIMessage, ToolMessage, AIMessage, ToolMessage, AIMessage, ToolMessage
    ]  # fmt: skip
    said, answer, added, sum_, failed, error = messages[2:]
    assert isinstance(said, AIMessage) and isinstance(added, AIMessage) and isinstance(failed, AIMessage)
    assert (said.text, said.tool_calls[0]["args"]) == ("No.", {"arguments": "no json"})
    assert (answer.text, sum_.text, error.text) == ("seen", "1", "broken")
    assert (added.tool_calls[0]["args"], failed.tool_calls[0]["id"]) == ({"a": 1}, "mcp_2")
    assert isinstance(error, ToolMessage) and error.status == "error"


@pytest.mark.parametrize(
    ("output", "text"),
    [(None, ""), ("seen", "seen"), (5, "5"), ({"a": 1}, '{"a": 1}'), ([1, "b"], '[1, "b"]'), ([], "[]")],
)
def test_whatever_a_client_calls_an_output_is_text_for_the_model(output: Any, text: str) -> None:
    [message] = to_messages([{"type": "function_call_output", "call_id": "c1", "output": output}], "run")

    assert message.text == text


@pytest.mark.parametrize(
    "item",
    [
        {"type": "mcp_call"},
        {"type": "mcp_call", "id": "mcp_1", "name": "look"},
        {"type": "mcp_call", "id": "mcp_1", "name": "look", "output": {"a": 1}, "arguments": "[]"},
        {"type": "mcp_call", "id": "mcp_1", "name": "look", "error": "broken"},
        {"type": "mcp_call", "id": "mcp_1", "name": "look", "error": {"content": ["broken", 1]}},
        {"type": "mcp_call", "id": "mcp_1", "name": "look", "error": {"content": "broken"}},
        {"type": "message", "role": "user", "content": []},
    ],
)
def test_half_an_item_breaks_nothing(item: dict[str, Any]) -> None:
    assert all(isinstance(message.content, str) for message in to_messages([item], "run"))


def test_messages_have_the_same_ids_whenever_they_are_made() -> None:
    items = [user("a"), {**user("b"), "id": "msg_x"}, calls("c1"), answers("c1")]

    ids = [message.id for message in to_messages(items, "run")]

    assert ids == [message.id for message in to_messages(items, "run")]
    assert len(set(ids)) == 4 and ids[1] == "msg_x"
