"""Telling the client of a graph's messages and their calls, and taking back what was told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from langchain_core.messages import AIMessage, ToolMessage

from outlast.agent import ClientCall, Close, Text, ToolCall, ToolResult
from outlast.shared.output.items import Item, Path

from . import speech, structured
from .listener import Listener
from .told import Call, Told, are_the_same, task_of, text_of_item

log = structlog.get_logger()


class Telling:
    """What was told, by message and by call."""

    def __init__(self, listener: Listener, surviving: Sequence[Item] = (), *, was_corrected: bool = False) -> None:
        """``surviving`` is what earlier attempts told that still counts: it is not told again.

        ``was_corrected``: one of them took back some of what it had told.
        """
        self._listener = listener
        self._told: list[Told] = []
        self._messages: dict[str, Told] = {}
        """By the ids of messages: a node may make one of its own of what its model has said."""
        self._calls: dict[str, Call] = {}
        self._results: dict[str, Call] = {}
        """By the ids of the messages that answer them."""
        self._base: set[str] = set()
        """Ids of messages that are older than the run, or its input."""
        self._older: set[str] = set()
        """Those of them that the state held at the end of the last step."""
        self._base_texts: Counter[tuple[str, str]] = Counter()
        """The same for messages without an id."""
        self._seen: set[str] = set()
        """Ids of messages that nodes were given."""
        self._responses: dict[str, str] = {}
        """The structured responses that were told, by their keys."""
        self._corrected = was_corrected
        self._resumed = bool(surviving)
        self._failed: set[str] = set()
        self._broken: dict[str, Told] = {}
        for item in surviving:
            self._remember(item)

    def begin_message(self, key: str, path: Path) -> Told:
        """Begin a message under this key; an earlier one of the key is withdrawn, as it is in the state."""
        if earlier := self._messages.get(key):
            self._withdraw(earlier)
        told = Told(key, path)
        self._told.append(told)
        self._messages[key] = told
        return told

    def say(self, told: Told, message: AIMessage) -> None:
        """Tell the text and the reasoning of a message, or of a chunk of one."""
        for piece in speech.pieces(message, told.key):
            if isinstance(piece, Text):
                told.pieces.append(piece.delta)
            self._listener.emit(piece, told.path)

    def finish_message(self, told: Told, message: AIMessage) -> None:
        """The message is whole: tell its calls."""
        told.pieces = [told.text]
        self._messages[speech.id_of(message)] = told
        self._listener.emit(Close(told.key))
        told.calls = self._tell_calls(told, message)

    def tell(self, message: AIMessage, path: Path) -> Told:
        """Tell a message that no model has streamed."""
        told = self.begin_message(speech.id_of(message), path)
        self.say(told, message)
        self.finish_message(told, message)
        return told

    def holds(self, text: str) -> bool:
        """Tell whether any message was told with this text."""
        return text.strip() in {told.text.strip() for told in self._told}

    def tell_json(self, text: str, key: str, path: Path) -> None:
        """Tell a structured response, unless that has been done. The state's messages do not hold it."""
        if key not in self._responses:
            self._responses[key] = text
            self._listener.emit(Text(text, key), path)
            self._listener.emit(Close(key))

    @property
    def texts(self) -> list[str]:
        """Of the messages that were told."""
        return [told.text for told in self._told]

    # -- telling -------------------------------------------------------------------------------------------------------

    def _tell_calls(self, told: Told, message: AIMessage) -> list[Call]:
        calls = self._register(told.key, message, told.path)
        for call, wire_id in zip(calls, speech.wire_call_ids(message), strict=True):
            if call.result is not None or self._listener.is_open(call.key) or self._listener.is_held(wire_id):
                continue  # by an earlier attempt
            if self._listener.is_artificial(call.name) or self._was_a_response(call):
                call.artificial = True
                continue
            by_client = self._listener.is_clients(call.name)
            if by_client:
                call.wire_id = wire_id
                self._listener.emit(ClientCall(call.name, call.arguments, wire_id), told.path)
            else:
                self._listener.emit(ToolCall(call.name, call.arguments, call.key), told.path)
            if isinstance(call.arguments, str):
                log.warning("call.arguments_not_json", tool=call.name)
            self._listener.called(by_client)
        return calls

    def _was_a_response(self, call: Call) -> bool:
        """Whether an earlier attempt told of this call as the structured response that it made."""
        return self._resumed and any(structured.is_made_by(call.arguments, text) for text in self._responses.values())

    def _register(self, key: str, message: AIMessage, path: Path) -> list[Call]:
        """The calls of a message, told or not: a tool of an earlier attempt's step may be about to carry them out."""
        calls: list[Call] = []
        for number, made in enumerate(speech.calls_of(message)):
            name, label = f"{key}:{number}", made["id"] or ""
            call = self._calls.get(name) or self._calls.get(label)  # the label: as older releases told it
            call = call or self._unmade(made, path)
            if call is None or (call.call_id and not call.made(made)):
                call = Call(name, path, made["name"], made["args"], label)
            call.call_id, call.arguments, call.unmade = label, made["args"], False
            self._calls[call.key] = call
            calls.append(call)
        return calls

    def _unmade(self, made: Mapping[str, Any], path: Path) -> Call | None:
        """The call of this kind that was carried out before a message made it."""
        for call in self._calls.values():
            is_of_task = call.unmade and (not path or task_of(call.path) == task_of(path))  # the state tells no task
            if is_of_task and (call.name, call.arguments) == (made["name"], made["args"]):
                return call if call.call_id in ("", made["id"]) else None
        return None

    def _tell_result(self, call: Call, message: ToolMessage, path: Path) -> None:
        status, output = call.result = speech.result_of(message)
        call.path = path
        self._note_answer(call, speech.id_of(message))
        if call.artificial:
            return
        if not self._listener.is_open(call.key):  # it was called in an earlier attempt, or not by a model
            self._listener.emit(ToolCall(call.name, call.arguments, call.key), path)
        failed = status == "error"
        self._listener.emit(ToolResult(call.key, "" if failed else output, output if failed else None), path)

    def _note_answer(self, call: Call, message_id: str) -> None:
        self._results[message_id] = call
        call.answers.add(message_id)

    def _forget_result(self, call: Call) -> None:
        for message_id in call.answers:
            self._results.pop(message_id, None)
        call.answers.clear()
        call.result = None

    def _withdraw(self, told: Told) -> None:
        self._listener.withdraw(told.key)
        self._told.remove(told)
        for name in [name for name, other in self._messages.items() if other is told]:
            del self._messages[name]

    def _withdraw_call(self, call: Call) -> None:
        self._listener.withdraw(call.wire_id or call.key)
        self._forget_result(call)
        if self._calls.get(call.key) is call:
            del self._calls[call.key]

    def _twin(self, message: AIMessage, among: Iterable[Told]) -> Told | None:
        """What was told in the same words, by another message."""
        text, made = speech.text_of(message), speech.calls_of(message)
        if not (text or made):
            return None
        return next((told for told in among if told.text == text and are_the_same(told.calls, made)), None)

    # -- what earlier attempts told ------------------------------------------------------------------------------------

    def _remember(self, item: Item) -> None:
        key, path = item.origin.key, item.origin.path
        if key is None:
            return
        if key.startswith(structured.KEY):
            self._responses[key] = text_of_item(item)
            return
        match item.type:
            case "message" | "reasoning":
                told = self._messages.get(key) or self.begin_message(key, path)
                if item.type == "message":
                    told.pieces.append(text_of_item(item))
            case "mcp_call" | "function_call":
                arguments = speech.arguments_of(item.data["arguments"])
                call = Call(key, path, item.data["name"], arguments, "", unmade=":" not in key)
                self._calls[key] = call
                if item.type == "mcp_call" and item.data["status"] != "in_progress":
                    failure = item.data.get("error")
                    output = failure["content"][0]["text"] if failure else item.data.get("output") or ""
                    call.result = ("error" if failure else "success", output)
            case "function_call_output":
                if call := self._calls.get(key):
                    call.result = ("success", item.data["output"])
            case _:
                pass
