"""What the client was told of a graph's messages, and what corrects it: what the graph's state holds is the answer.

The words of models are told as they come. At the end of a step the messages in the state decide: what was replaced or
removed is withdrawn, what was not told is told. Pure: it reads no clock and waits for nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from outlast.agent import Close
from outlast.shared.output.items import Path

from . import speech
from .telling import Telling
from .told import Call, Told, are_the_same, content_of, is_older, task_of


class Transcript(Telling):
    """One attempt's."""

    # -- while the graph runs ------------------------------------------------------------------------------------------

    def know(self, messages: Iterable[BaseMessage]) -> None:
        """Take these for told: they are older than the run, or its input."""
        for message in messages:
            if message.id is None:
                self._base_texts[content_of(message)] += 1
            else:
                self._base.add(message.id)

    def see(self, messages: Iterable[BaseMessage]) -> None:
        """Note what a node is given: it does not say that. Calls without a result may be carried out by it."""
        unanswered: dict[str, AIMessage] = {}
        for message in messages:
            if message.id is not None and message.id not in self._seen:
                self._seen.add(message.id)
                if isinstance(message, AIMessage) and message.id not in self._messages:
                    unanswered |= {call["id"] or "": message for call in speech.calls_of(message)}
            if isinstance(message, ToolMessage):
                unanswered.pop(message.tool_call_id, None)
        for message in {id(message): message for message in unanswered.values()}.values():
            self._register(speech.id_of(message), message, ())

    def begin_task(self, task: str) -> None:
        """Withdraw what this task has said if it failed before: it begins again."""
        if task not in self._failed:
            return
        self._failed.discard(task)
        for told in [told for told in self._told if told.task == task]:
            self._withdraw(told)
            for call in told.calls:
                self._withdraw_call(call)
        for call in [call for call in self._calls.values() if call.begun_in == task]:
            call.begun_in = None
            if call.result is not None:
                self._forget_result(call)
                self._listener.withdraw(call.key)

    def fail_task(self, task: str) -> None:
        self._failed.add(task)

    def begin_model(self, task: str) -> None:
        """Withdraw what a model had said in this task when it failed: it is called again."""
        if broken := self._broken.pop(task, None):
            self._withdraw(broken)

    def fail_model(self, told: Told) -> None:
        self._broken[told.task] = told

    def return_message(self, message: BaseMessage, path: Path) -> None:
        """Tell a message that a node returns, unless that has been done. A changed one is the state's to judge."""
        key = speech.id_of(message)
        if isinstance(message, ToolMessage):
            self.answer(message, path)
        elif isinstance(message, AIMessage) and not (key in self._messages or key in self._seen or key in self._base):
            told = self._twin(message, [told for told in self._told if told.task == task_of(path)])
            if told is None:
                self.tell(message, path)
            else:
                self._messages[key] = told

    def begin_call(self, name: str, call_id: str, arguments: Any, path: Path) -> Call | None:
        """Find the call that a tool begins to carry out, or make one when no message told of it.

        None when this task has carried it out before.
        """
        task = task_of(path)
        named = [call for call in self._calls.values() if call.call_id == call_id]
        waiting = [call for call in named if call.result is None and call.begun_in is None]
        call = next((call for call in waiting if call.arguments == arguments), waiting[0] if waiting else None)
        if call is None and not any(call.begun_in == task for call in named):
            call = Call("", path, name, arguments or {}, call_id, unmade=True)
        if call is not None:
            call.begun_in = task
        return call

    def answer(self, message: ToolMessage, path: Path, call: Call | None = None) -> None:
        """Tell the result of a call. One that was told already is the state's to judge."""
        key = speech.id_of(message)
        if key in self._results or key in self._base or key in self._seen:
            return
        task = task_of(path)
        mine = [c for c in self._calls.values() if c.call_id == message.tool_call_id and c.wire_id is None]
        waiting = [c for c in mine if c.result is None]
        call = call or next((c for c in waiting if c.begun_in == task), next(iter(waiting), None))
        if call is None and any(c.begun_in == task for c in mine):
            return  # it was answered by this task
        call = call or Call("", path, message.name or "tool", {}, message.tool_call_id, unmade=True)
        if not call.key:
            call.key = key
            self._calls[key] = call
        call.begun_in = call.begun_in or task
        self._tell_result(call, message, path)

    # -- the state decides ---------------------------------------------------------------------------------------------

    def settle(self, messages: Sequence[BaseMessage]) -> list[str]:
        """Make what was told what the state holds at the end of a step. Returns the keys in the state's order."""
        order, claimed, present = self._correct(messages)
        older = {message.id for message in messages if message.id in self._base}
        if order or older >= self._older:
            self._withdraw_removed(claimed, present)
        else:  # the question went with its answer: the state was cut, and the answer is none the worse
            self._forget()
        self._older = older
        return order

    def add(self, messages: Sequence[BaseMessage]) -> None:
        """Make what was told of these messages what they hold, and tell what was not. All else stays as it is."""
        self._correct(messages)

    def _correct(self, messages: Sequence[BaseMessage]) -> tuple[list[str], Collection[Told], Collection[Call]]:
        """Returns the keys in order, and what was told of these messages."""
        claimed: set[Told] = set()
        present: dict[Call, None] = {}
        waiting: dict[str, list[Call]] = defaultdict(list)
        texts = self._base_texts.copy()
        ids = {message.id for message in messages}
        order: list[str] = []
        for message in messages:
            if is_older(message, texts):
                continue
            if isinstance(message, AIMessage) and (told := self._claim(message, claimed)):
                claimed.add(told)
                present |= dict.fromkeys(told.calls)
                order += [told.key, *(call.key for call in told.calls)]
                for call in told.calls:
                    if ids.isdisjoint(call.answers):
                        waiting[call.call_id].append(call)
            elif isinstance(message, ToolMessage) and (call := self._settle_result(message, waiting)):
                order += [] if call in present else [call.key]
                present[call] = None
        return order, claimed, present

    def finish(self, messages: Sequence[BaseMessage]) -> list[str]:
        """Settle at the end of the run: words that never came into the state are no answer, if it holds one.

        Returns the keys in the state's order where something was corrected; else the order of the stream is right.
        """
        order = self.settle(messages)
        if any(told.in_state for told in self._told):
            for told in [told for told in self._told if not told.in_state]:
                unanswered = [call for call in told.calls if call.result is None]
                self._withdraw(told)
                for call in unanswered:
                    self._withdraw_call(call)
        return order if self._corrected else []

    def _claim(self, message: AIMessage, claimed: Collection[Told]) -> Told | None:
        """The telling of this message, corrected where it differs; None for one that is older than the run."""
        told = self._messages.get(message.id or "")
        if told is None or told in claimed:
            if message.id in self._base:
                return None
            self._messages.pop(message.id or "", None)
            twin = self._twin(message, [told for told in self._told if told not in claimed])
            if twin is None:
                self._corrected |= self._resumed  # it may be older than what was told before
                return self.tell(message, ())
            if message.id is not None:
                self._messages[message.id] = twin
            return twin
        if told.text != speech.text_of(message):
            self._corrected = True
            self._listener.withdraw(told.key)
            told.pieces.clear()
            self.say(told, message)
            self._listener.emit(Close(told.key))
        self._correct_calls(told, message)
        return told

    def _correct_calls(self, told: Told, message: AIMessage) -> None:
        made = speech.calls_of(message)
        if not are_the_same(told.calls, made):
            self._corrected |= bool(told.calls)  # without: an earlier attempt told of them, or they are new
            for call in told.calls:
                self._withdraw_call(call)
            told.calls = self._tell_calls(told, message)

    def _settle_result(self, message: ToolMessage, waiting: Mapping[str, list[Call]]) -> Call | None:
        """The call that this message answers, its result corrected; None for one that is older, or the client's."""
        call = self._results.get(message.id or "")
        if call is None:
            if message.id in self._base:
                return None
            candidates = waiting.get(message.tool_call_id)
            call = candidates.pop(0) if candidates else self._answered_elsewhere(message)
        if call is None or call.wire_id is not None:
            return None
        if call.result != speech.result_of(message):
            if call.result is not None:
                self._corrected = True
                self._listener.withdraw(call.key)
            self._tell_result(call, message, call.path)
        elif message.id is not None:
            self._note_answer(call, message.id)
        return call

    def _answered_elsewhere(self, message: ToolMessage) -> Call | None:
        """The call of a result whose own message the state has no more, or never had."""
        for call in self._calls.values():
            if call.call_id == message.tool_call_id and call.result == speech.result_of(message):
                return call
        return None

    def _forget(self) -> None:
        for known in (*self._told, *self._calls.values()):
            known.in_state = False

    def _withdraw_removed(self, claimed: Collection[Told], present: Collection[Call]) -> None:
        for told in list(self._told):
            if told.in_state and told not in claimed:
                self._withdraw(told)
            told.in_state = told in claimed
        for call in list(self._calls.values()):
            if call.in_state and call not in present:
                self._withdraw_call(call)
            call.in_state = call in present
