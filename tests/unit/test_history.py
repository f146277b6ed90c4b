"""Histories that clients send again: to a state that was cut, with questions and call ids that repeat themselves."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from outlast.worker.agents.langgraph.conversation import to_messages
from outlast.worker.agents.langgraph.history import answering, has_unknown_turns, open_calls, unknown_answers, unseen
from outlast.worker.agents.langgraph.speech import wire_call_ids

SUMMARY = HumanMessage("Here is a summary of the conversation to date: …", id="summary")


def talk(*texts: str) -> list[dict[str, Any]]:
    """A client's history: questions, and answers as ``> text``."""
    return [
        {"role": "assistant", "content": text[2:]} if text.startswith("> ") else {"role": "user", "content": text}
        for text in texts
    ]


def state(*texts: str) -> list[BaseMessage]:
    return to_messages(talk(*texts), "state")


def calling(*ids: str | None, message_id: str = "m1") -> AIMessage:
    return AIMessage("", id=message_id, tool_calls=[{"name": "look", "args": {}, "id": call_id} for call_id in ids])


def answer(call_id: str, output: str = "seen") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


@pytest.mark.parametrize(
    ("known", "sent", "new"),
    [
        pytest.param(["two", "> b"], ["one", "> a", "two", "> b", "three"], ["three"], id="trimmed"),
        pytest.param(["> b"], ["one", "> a", "two", "> b", "three"],
                     ["one", "a", "two", "b", "three"], id="no question is left, and none is remembered"),
        pytest.param(["yes", "> b"], ["go", "> a", "yes", "> b", "yes"], ["yes"], id="the same answer again"),
        pytest.param(["yes", "> b", "yes", "> c"], ["yes", "> a", "yes", "> b", "yes", "> c", "yes", "no"],
                     ["yes", "no"], id="the same answer many times"),
        pytest.param(["yes", "> a"], ["yes", "> a", "go", "> b", "yes", "> c", "on"], ["on"],
                     id="the same text long ago"),
        pytest.param(["one", "> a", "two"], ["one", "> a", "two", "three"], ["three"],
                     id="a question whose run failed"),
        pytest.param(["one", "> a"], ["one", "two"], ["one", "two"], id="questions alone"),
        pytest.param(["one", "> a", "added by a node"], ["one", "> a", "two"], ["two"], id="a message of a node's"),
    ],
)  # fmt: skip
def test_what_comes_after_the_latest_known_question_is_new(known: list[str], sent: list[str], new: list[str]) -> None:
    assert [m.text for m in unseen(to_messages(talk(*sent), "run"), state(*known))] == new


def test_a_summary_is_no_question_of_the_clients() -> None:
    sent = to_messages(talk("one", "> a", "two", "> b", "three"), "run")

    assert [m.text for m in unseen(sent, [SUMMARY, *state("two", "> b")])] == ["three"]


@pytest.mark.parametrize("left", [[SUMMARY], [SUMMARY, AIMessage("b", id="b")], []])
def test_where_the_state_has_forgotten_the_questions_those_of_the_request_before_tell_the_place(
    left: list[BaseMessage],
) -> None:
    sent = to_messages(talk("one", "> a", "two", "> b", "three"), "run")

    assert has_unknown_turns(sent, left)
    assert [m.text for m in unseen(sent, left, asked_before=["one", "two"])] == ["three"]
    assert [m.text for m in unseen(sent, left, asked_before=["two"])] == ["three"]


def test_turns_that_the_state_knows_need_no_look_at_the_request_before() -> None:
    assert not has_unknown_turns(to_messages(talk("one", "> a", "two"), "run"), state("one", "> a"))
    assert not has_unknown_turns(to_messages(talk("two"), "run"), state("one", "> a"))
    assert has_unknown_turns(to_messages(talk("one", "> a", "two", "> b", "three"), "run"), state("one", "> a"))


def test_a_call_id_that_a_model_uses_again_is_answered_by_the_last_answer() -> None:
    before = [HumanMessage("one"), calling("call_0"), ToolMessage("first", tool_call_id="call_0"), AIMessage("a")]
    now = [*before, HumanMessage("two"), calling("call_0", message_id="m2")]
    call = {"type": "function_call", "call_id": "call_0", "name": "look", "arguments": "{}"}
    sent = [*talk("one"), call, answer("call_0", "first"), *talk("> a", "two"), call, answer("call_0", "second")]

    for items in (sent, [call, answer("call_0", "second")], [answer("call_0", "second")]):
        new = unseen(to_messages(items, "run"), now)
        assert [(m.type, m.text) for m in answering(new, now)] == [("tool", "second")]
    assert unseen(to_messages([answer("call_0", "late")], "run"), [*now, ToolMessage("x", tool_call_id="call_0")]) == []


def test_answers_that_took_turns_with_their_calls_are_all_new() -> None:
    now = [HumanMessage("one"), calling("a", "b")]
    calls = [{"type": "function_call", "call_id": name, "name": "look", "arguments": "{}"} for name in "ab"]
    sent = to_messages([*talk("one"), calls[0], answer("a"), calls[1], answer("b")], "run")

    assert [m.tool_call_id for m in unseen(sent, now) if isinstance(m, ToolMessage)] == ["a", "b"]


def test_calls_that_a_model_does_not_tell_apart_have_ids_of_their_own_for_clients() -> None:
    told = wire_call_ids(calling("x", "x", "", None, "y"))

    assert (told[0], told[4], len(set(told))) == ("x", "y", 5)
    assert told == wire_call_ids(calling("x", "x", "", None, "y")) != wire_call_ids(calling("x", "x", message_id="m2"))
    assert set(told[1:4]).isdisjoint(wire_call_ids(calling("x", "x", "", None, "y", message_id="m2"))[1:4])


def test_answers_to_calls_that_a_model_does_not_tell_apart_go_back_under_its_own_ids() -> None:
    now = [HumanMessage("one"), calling("x", "x", "")]
    first, second, third = wire_call_ids(calling("x", "x", ""))
    sent = to_messages([answer(third, "3"), answer(second, "2")], "run")
    new = unseen(sent, now)

    assert unknown_answers(new, now) == []
    answers = [m for m in answering(new, now) if isinstance(m, ToolMessage)]
    assert [m.tool_call_id for m in answers] == ["x", "x", ""]
    assert [(m.status, m.text) for m in answers[1:]] == [("success", "2"), ("success", "3")]
    assert (answers[0].status, first) == ("error", "x")
    assert list(open_calls([*now, ToolMessage("1", tool_call_id="x")])) == [second, third]


def test_what_stands_for_a_missing_answer_has_an_id_of_its_own_in_each_turn() -> None:
    ids = {answering([], [calling("call_0", message_id=name)])[0].id for name in ("m1", "m2")}

    assert len(ids) == 2
