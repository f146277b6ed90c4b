"""What of a request's messages a conversation has not seen yet: a client may send all of it again. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from .conversation import NOT_ANSWERED, OUTPUT
from .speech import wire_call_ids


class OpenCall(NamedTuple):
    """A tool call that a conversation ends with and that has no answer."""

    own_id: str
    """As the model has named it; it need not be the only one of this name."""
    name: str
    answer_id: str
    """The id of a message that stands for its answer."""


def unseen(
    messages: Sequence[BaseMessage],
    state: Sequence[BaseMessage],
    own: Collection[str] = (),
    asked_before: Sequence[str] = (),
) -> list[BaseMessage]:
    """Return what of these messages a conversation in this state lacks.

    ``own`` are ids of items that the conversation's runs have made: their messages are in the state, in its own form.
    ``asked_before`` are the questions of an earlier request, for a state that holds none of them any more. The place
    is told by the questions: the client's view of an answer (without tools, perhaps with what a lost attempt had said)
    need not be ours. A question alone is always new.
    """
    if not state and not asked_before:
        return list(messages)
    begin = _place(messages, state, asked_before)
    waiting = open_calls(state)
    answers = {m.tool_call_id: m for m in messages if isinstance(m, ToolMessage) and m.tool_call_id in waiting}
    known = _call_ids(state)
    rest = messages[begin:]
    late = {id(message) for message in rest}
    new: list[BaseMessage] = [m for m in answers.values() if id(m) not in late]  # calls and answers took turns
    for message in rest:
        match message:
            case ToolMessage() if message.tool_call_id in waiting:  # the last one: models use ids again
                if answers[message.tool_call_id] is message:
                    new.append(message)
            case _ if (message.id or "").removesuffix(OUTPUT) in own:
                continue
            case ToolMessage() if message.tool_call_id in known:
                continue
            case AIMessage() if message.tool_calls and _call_ids([message]) <= known:
                continue
            case _:
                new.append(message)
    return new


def has_unknown_turns(messages: Sequence[BaseMessage], state: Sequence[BaseMessage]) -> bool:
    """Tell whether these messages hold answers to questions that the state does not know, or not any more."""
    return any(isinstance(m, AIMessage) for m in messages[_place(messages, state) :])


def questions(messages: Sequence[BaseMessage]) -> list[str]:
    """Return the texts of the client's messages."""
    return [m.text for m in messages if isinstance(m, HumanMessage)]


def answering(new: Sequence[BaseMessage], state: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return the new messages, those first that answer the calls at the conversation's end: models insist on all.

    Calls under one id are answered in their order, which alone tells them apart.
    """
    waiting = open_calls(state)
    given = {m.tool_call_id: m for m in new if isinstance(m, ToolMessage) and m.tool_call_id in waiting}
    answered = {waiting[told].own_id for told in given}
    answers = [
        given[told].model_copy(update={"tool_call_id": call.own_id}) if told in given else _not_answered(call)
        for told, call in sorted(waiting.items(), key=lambda one: one[1].own_id not in answered)
    ]
    first = {id(message) for message in given.values()}
    return [*answers, *(m for m in new if id(m) not in first)]


def _not_answered(call: OpenCall) -> ToolMessage:
    return ToolMessage(NOT_ANSWERED, tool_call_id=call.own_id, name=call.name, status="error", id=call.answer_id)


def unknown_answers(new: Sequence[BaseMessage], state: Sequence[BaseMessage]) -> list[str]:
    """Return call ids that are answered, but were never called."""
    known = _call_ids(state) | _call_ids(new)
    return [m.tool_call_id for m in new if isinstance(m, ToolMessage) and m.tool_call_id not in known]


def open_calls(state: Sequence[BaseMessage]) -> dict[str, OpenCall]:
    """Return the calls that the conversation ends with and that have no answer, by the ids that clients know."""
    answered: list[str] = []
    for message in reversed(state):
        if isinstance(message, ToolMessage):
            answered.append(message.tool_call_id)
        elif isinstance(message, AIMessage):
            return _unanswered(message, answered)
        else:
            break
    return {}


def _unanswered(message: AIMessage, answered: list[str]) -> dict[str, OpenCall]:
    """Of several calls with one id the first ones have been answered."""
    waiting: dict[str, OpenCall] = {}
    calls = zip(message.tool_calls, wire_call_ids(message), strict=False)  # those that are no JSON come after them
    for place, (call, told) in enumerate(calls):
        own_id = call["id"] or ""
        if own_id in answered:
            answered.remove(own_id)
        else:
            waiting[told] = OpenCall(own_id, call["name"], f"{message.id}-{place}{OUTPUT}")
    return waiting


def _place(messages: Sequence[BaseMessage], state: Sequence[BaseMessage], asked_before: Sequence[str] = ()) -> int:
    """Return where in these messages begins what comes after the latest known question and its replies."""
    return max(_after(messages, questions(state)), _after(messages, asked_before))


def _after(messages: Sequence[BaseMessage], asked: Sequence[str]) -> int:
    """Return where the replies end to the latest of the asked questions that the messages hold; 0 without one.

    Of several places the one counts before which the most questions agree, and of these the last: questions repeat
    themselves, and both the state and the messages may have been cut at their beginning.
    """
    places = [place for place, message in enumerate(messages) if isinstance(message, HumanMessage)]
    texts = [messages[place].text for place in places]
    bounds = [*places, len(messages)]
    ends = [_end_of_replies(messages, bounds[turn], bounds[turn + 1]) for turn in range(len(places))]
    for known in range(len(asked), 0, -1):
        common = [_common(asked[:known], texts[: turn + 1]) for turn in range(len(texts))]
        best = max(((same, ends[turn] > 0, turn) for turn, same in enumerate(common)), default=(0, False, 0))
        same, has_replies, turn = best
        if same and has_replies:
            return ends[turn]
        if same > 1 and turn + 1 < len(places):  # a question whose run has failed, and the client has asked on
            return places[turn] + 1
    return 0


def _end_of_replies(messages: Sequence[BaseMessage], begin: int, end: int) -> int:
    """Return where the replies to a question end; 0 when it has none."""
    return max((place + 1 for place in range(begin, end) if isinstance(messages[place], AIMessage)), default=0)


def _common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return how many of the last texts agree."""
    same = 0
    for one, other in zip(reversed(ours), reversed(theirs), strict=False):
        if one != other:
            break
        same += 1
    return same


def _call_ids(messages: Sequence[BaseMessage]) -> set[str]:
    return {told for m in messages if isinstance(m, AIMessage) for told in wire_call_ids(m)}
