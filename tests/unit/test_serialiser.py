"""What of a graph's state is stored when Postgres or msgpack cannot hold all of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.types import Interrupt, Send
from pydantic import BaseModel

from outlast.agent import AgentError, Secret
from outlast.worker.agents.langgraph.not_stored import NotStored
from outlast.worker.agents.langgraph.serialiser import NOT_STORED, Serialiser, dumps_json, storable

RUN = "0" * 32
BAD, CLEAN = "x\ud83dy\0z", "x?y\0z"


class Frame:
    def __init__(self) -> None:
        self.rows = [1, 2, 3]
        self.lock = threading.Lock()


@dataclass
class Note:
    text: str
    words: dict[str, Any]


class Page(BaseModel):
    text: str
    words: dict[str, Any]


class Pair(NamedTuple):
    left: Any
    right: Any


def there_and_back(value: Any, channel: str = "c") -> Any:
    serialiser = Serialiser(RUN)
    return serialiser.loads_typed(serialiser.dumps_of(channel, value))


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (BAD, CLEAN),
        ([BAD], [CLEAN]),
        ({BAD: {BAD: [BAD]}}, {CLEAN: {CLEAN: [CLEAN]}}),
        (Note(BAD, {BAD: [1]}), Note(CLEAN, {CLEAN: [1]})),
        (Page(text=BAD, words={BAD: {BAD: 1}}), Page(text=CLEAN, words={CLEAN: {CLEAN: 1}})),
        (Pair({BAD: 1}, 2), Pair({CLEAN: 1}, 2)),
        (Send("n", {BAD: BAD}), Send("n", {CLEAN: CLEAN})),
        (Interrupt({BAD: BAD}, id="i"), Interrupt({CLEAN: CLEAN}, id="i")),
    ],
)  # fmt: skip
def test_lone_surrogates_are_replaced_and_nul_is_kept(value: Any, stored: Any) -> None:
    assert there_and_back(value) == stored


def test_a_tool_s_arguments_and_its_artifact_are_cleaned_too() -> None:
    called = AIMessage("", tool_calls=[{"name": "t", "args": {BAD: BAD}, "id": "c1"}])
    answered = ToolMessage(BAD, tool_call_id="c1", artifact={BAD: (BAD,)})
    call, answer = there_and_back([called, answered], "messages")
    assert call.tool_calls[0]["args"] == {CLEAN: CLEAN}
    assert (answer.content, answer.artifact) == (CLEAN, {CLEAN: [CLEAN]})


def test_what_can_be_stored_is_stored_as_langgraph_does() -> None:
    value = {"a": "ä😀\0", b"\0": b"\xff", 1: [None, 1.5], "m": [AIMessage("hi", id="1")]}
    serialiser = Serialiser(RUN)
    assert serialiser.dumps_of("c", value) == super(Serialiser, serialiser).dumps_typed(value)
    assert there_and_back(value) == value


@pytest.mark.parametrize("value", [Frame(), [Frame()], {"a": {"b": Frame()}}, Pair(1, Frame())])
def test_a_value_that_cannot_be_stored_is_replaced_by_one_that_says_so(value: Any) -> None:
    kind, _ = Serialiser(RUN).dumps_of("frame", value)
    found = there_and_back(value, "frame")
    assert kind == NOT_STORED + RUN
    assert isinstance(found, NotStored)
    assert repr(found) == "<Frame of the channel frame, not stored>"
    assert repr(there_and_back(found, "other")) == repr(found)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(("value", "kind"), [(2**70, "int"), (nested(2000), "list"), ((n for n in ()), "generator")])
def test_what_is_too_large_or_too_deep_is_not_stored_either(value: Any, kind: str) -> None:
    assert repr(there_and_back([value])).startswith(f"<{kind} of")


USES: list[Callable[[Any], Any]] = [
    lambda it: it.rows,
    lambda it: it["rows"],
    lambda it: list(it),
    lambda it: len(it),
    lambda it: "yes" if it else "no",
    lambda it: f"{it}",
    lambda it: str(it),
    lambda it: it + 1,
    lambda it: 1 + it,
    lambda it: it(),
    lambda it: 1 in it,
    lambda it: it > 1,
]


@pytest.mark.parametrize("use", USES)
def test_who_uses_it_learns_what_to_do(use: Callable[[Any], Any]) -> None:
    with pytest.raises(AgentError, match=r"channel 'frame' held a Frame.*UntrackedValue") as raised:
        use(NotStored("frame", "Frame", RUN))
    assert raised.value.code == "state_not_stored"


def test_of_messages_only_what_no_model_is_given_is_left_out() -> None:
    messages: list[BaseMessage] = [
        AIMessage("", additional_kwargs={"raw": Frame(), "kept": 1}, tool_calls=[{"name": "t", "args": {}, "id": "c"}]),
        ToolMessage("3 rows", tool_call_id="c", artifact=Frame()),
        ToolMessage("4 rows", tool_call_id="d", artifact={"rows": 4}),
    ]
    asked, answered, other = there_and_back(messages, "messages")
    assert (asked.additional_kwargs["kept"], asked.tool_calls[0]["id"]) == (1, "c")
    assert (answered.content, other.artifact) == ("3 rows", {"rows": 4})
    for left_out in (asked.additional_kwargs["raw"], answered.artifact):
        assert repr(left_out) == "<Frame of the channel messages, not stored>"
    again = there_and_back([asked, answered, other], "messages")
    assert repr(again[1].artifact) == repr(answered.artifact)


def test_a_secret_in_the_state_is_a_mistake() -> None:
    with pytest.raises(AgentError, match="'token' holds a Secret"):
        Serialiser(RUN).dumps_of("token", {"it": Secret("x" * 20)})


@pytest.mark.parametrize("value", ["a\0b", BAD, float("nan"), float("inf")])
def test_what_json_in_postgres_cannot_hold_goes_into_a_blob(value: Any) -> None:
    values = storable({"odd": value, "plain": "ä", "number": 1.5})
    assert (values["plain"], values["number"]) == ("ä", 1.5)
    assert not isinstance(values["odd"], (str, float))
    stored = there_and_back(values["odd"])
    assert stored == value or str(stored) in (CLEAN, "nan")


def test_json_is_left_as_it_is_unless_postgres_would_refuse_it() -> None:
    plain = {"a": "ä\\u0000 \\ud83d", "b": [1, None, 1.5, True], "😀": "😀"}
    assert json.loads(dumps_json(plain)) == plain
    odd = {BAD: BAD, "n": float("nan"), "o": [object], "t": ("a\0",)}
    assert json.loads(dumps_json(odd)) == {"x?yz": "x?yz", "n": None, "o": ["<class 'object'>"], "t": ["a"]}
