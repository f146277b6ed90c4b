"""The agents that are killed.

A function, one that fails, a chain of steps, a graph with branches, a graph within it and a tool, and LangGraph's
`create_react_agent`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import tool
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode

from outlast.agent import AgentError, Context, Request, ToolCall, ToolResult
from tests.chaos import gates, ledger, scenario, skew
from tests.support.graphs import Conversation, RuleModel, call, create_react_agent, last_human

skew.apply()

PACE_SECONDS = float(os.environ.get("CHAOS_PACE_SECONDS", "0.1"))


def _pause() -> float:
    return random.random() * 2 * PACE_SECONDS


async def words(request: Request, context: Context):
    """Says its words; each attempt begins again."""
    token, attempt = request.text, context.attempt
    ledger.note(ledger.START, token, attempt)
    ledger.note(ledger.BEGIN, token, attempt, "effect")
    yield ToolCall("effect", {}, f"call_{attempt}")
    await asyncio.sleep(_pause())
    ledger.note(ledger.EFFECT, token, attempt, "effect", detail=scenario.effect_key(token))
    ledger.note(ledger.END, token, attempt, "effect")
    yield ToolResult(f"call_{attempt}", scenario.effect_result(token))
    ledger.note(ledger.BEGIN, token, attempt, "answer")
    for word in scenario.words(attempt, token, "answer"):
        await asyncio.sleep(_pause())
        ledger.note(ledger.SAY, token, attempt, "answer", detail=word)
        yield f"{word} "
    ledger.note(ledger.END, token, attempt, "answer")


class Mishap(BaseException):
    """One that is no `Exception`."""


async def mishap(request: Request, context: Context):
    """Says its words, and fails in the way that its token names."""
    token, attempt = request.text, context.attempt
    ledger.note(ledger.START, token, attempt)
    for word in scenario.words(attempt, token, "mishap"):
        await asyncio.sleep(_pause())
        ledger.note(ledger.SAY, token, attempt, "mishap", detail=word)
        yield f"{word} "
    await _fail(scenario.mishap(token))


async def _fail(kind: str) -> None:
    match kind:
        case "own":
            raise AgentError("The agent says why.")
        case "recursion":
            await _fail(kind)
        case "group":
            raise BaseExceptionGroup("several", [SystemExit(1), ValueError("secret")])
        case "exit in thread":
            await asyncio.to_thread(sys.exit, 1)
        case "exit in task":
            await asyncio.create_task(_fail("exit"))
        case _:
            raise _MISHAPS[kind]("secret")


_MISHAPS: dict[str, type[BaseException]] = {
    "value": ValueError,
    "memory": MemoryError,
    "connection": ConnectionError,
    "exit": SystemExit,
    "interrupt": KeyboardInterrupt,
    "base": Mishap,
}


class Speaker(RuleModel):
    """Takes its time for every word, and notes it before it is said."""

    token: str
    attempt: int
    step: str

    def _note(self, chunk: ChatGenerationChunk) -> None:
        if word := chunk.text.strip():
            ledger.note(ledger.SAY, self.token, self.attempt, self.step, detail=word)

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any):
        for chunk in super()._stream(messages, stop, None, **options):
            time.sleep(_pause())
            self._note(chunk)
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any):
        async for chunk in super()._astream(messages, stop, None, **options):
            await asyncio.sleep(_pause())
            self._note(chunk)
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


class Step:
    """One execution of a node, which it notes."""

    def __init__(self, name: str, state: Conversation, config: RunnableConfig) -> None:
        self.name = name
        self.token = last_human(state["messages"])
        self.attempt: int = _context(config).attempt
        self._task = _task(config)

    def __enter__(self) -> Step:
        ledger.note(ledger.BEGIN, self.token, self.attempt, self.name, self._task)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            ledger.note(ledger.END, self.token, self.attempt, self.name, self._task)

    def speaker(self, *calls: Any) -> Speaker:
        text = " ".join(scenario.words(self.attempt, self.token, self.name))
        said = AIMessage(text, tool_calls=list(calls))
        return Speaker(answer=lambda _m, _o: said, token=self.token, attempt=self.attempt, step=self.name)


class Deciding(RuleModel):
    """The model of LangGraph's own agent: it calls its tool, and answers when it has the result."""

    async def _astream(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any):
        config, token = ensure_config(), last_human(messages)
        name, calls = ("answer", []) if messages[-1].type == "tool" else ("asking", [call("effect", "c", token=token)])
        with Step(name, {"messages": messages}, config) as step:
            async for chunk in step.speaker(*calls)._astream(messages, stop, run_manager, **options):
                yield chunk


def saying(name: str, *, then: Callable[[str], Any] | None = None) -> Any:
    """A step that calls its model once, and after it perhaps a tool."""

    async def node(state: Conversation, config: RunnableConfig) -> dict[str, Any]:
        with Step(name, state, config) as step:
            await gates.passed(step.name, step.attempt)
            speaker = step.speaker(*([then(step.token)] if then else []))
            return {"messages": [await speaker.ainvoke(state["messages"])]}

    return node


def in_a_thread(state: Conversation, config: RunnableConfig) -> dict[str, Any]:
    with Step("thread", state, config) as step:
        return {"messages": [step.speaker().invoke(state["messages"])]}


@tool
async def effect(token: str, config: RunnableConfig) -> str:
    """Do what cannot be undone."""
    attempt, task = _context(config).attempt, _task(config)
    ledger.note(ledger.BEGIN, token, attempt, "effect", task)
    await asyncio.sleep(_pause())
    ledger.note(ledger.EFFECT, token, attempt, "effect", task, scenario.effect_key(token))
    ledger.note(ledger.END, token, attempt, "effect", task)
    return scenario.effect_result(token)


async def report(state: Conversation, config: RunnableConfig) -> dict[str, Any]:
    """Says what the state holds: a message that was lost or doubled shows in the answer."""
    with Step("report", state, config) as step:
        found = [scenario.label(message.type, message.text) for message in state["messages"]]
        word = f"{step.attempt}|{step.token}|report|{scenario.report(found)}"
        ledger.note(ledger.SAY, step.token, step.attempt, "report", detail=word)
        return {"messages": [AIMessage(word)]}


def _context(config: RunnableConfig) -> Context:
    return config["configurable"]["outlast_context"]  # type: ignore[typeddict-item]


def _task(config: RunnableConfig) -> str:
    """The innermost of the tasks that this is part of."""
    namespace: str = config["metadata"]["langgraph_checkpoint_ns"]  # type: ignore[typeddict-item]
    return namespace.rpartition("|")[2].rpartition(":")[2]


def _noting(aput_writes: Any) -> Any:
    """Note when LangGraph has stored the results of a task: from then on nobody may run it again."""

    @functools.wraps(aput_writes)
    async def noted(self: Any, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        await aput_writes(self, config, writes, task_id, task_path)
        if not any(str(channel).startswith("__") for channel, _ in writes):
            ledger.note(ledger.KEPT, task=task_id)

    return noted


AsyncPostgresSaver.aput_writes = _noting(AsyncPostgresSaver.aput_writes)  # type: ignore[method-assign]

chain: StateGraph[Any, Any, Any, Any] = StateGraph(Conversation)
for before, name in zip((START, *scenario.CHAIN_STEPS), scenario.CHAIN_STEPS, strict=False):
    chain.add_node(name, saying(name)).add_edge(before, name)

inner = StateGraph(Conversation).add_node("first", saying("first")).add_node("second", saying("second"))
inner.add_edge(START, "first").add_edge("first", "second")

branches: StateGraph[Any, Any, Any, Any] = StateGraph(Conversation)
branches.add_node("plan", saying("plan"))
branches.add_node("left", saying("left"))
branches.add_node("inside", inner.compile())
branches.add_node("thread", in_a_thread)
branches.add_node("asking", saying("asking", then=lambda token: call("effect", f"call_{token}", token=token)))
branches.add_node("tools", ToolNode([effect]))
branches.add_node("report", report)
branches.add_edge(START, "plan")
for branch in ("left", "inside", "thread"):
    branches.add_edge("plan", branch)
branches.add_edge(["left", "inside", "thread"], "asking")
branches.add_edge("asking", "tools").add_edge("tools", "report")

react = create_react_agent(Deciding(answer=lambda _m, _o: AIMessage("")), [effect], prompt="Do what is asked for.")
