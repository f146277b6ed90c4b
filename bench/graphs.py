"""A graph of twenty steps, one of them with two branches, which writes down what it does and when."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph, add_messages

STEPS = 20
BRANCHED = 10
PACE = "BENCH_PACE_SECONDS"
PACE_SECONDS = float(os.environ.get(PACE, "1.5"))
LEDGER = "BENCH_LEDGER"


class State(TypedDict):
    messages: Annotated[list[BaseMessage], add_messages]


def write_down(config: RunnableConfig, name: str, what: str) -> None:
    context = config.get("configurable", {})["outlast_context"]
    line = f"{context.response_id} {context.attempt} {name} {what} {time.monotonic()}\n"
    file = os.open(Path(os.environ[LEDGER]), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


def step(name: str, seconds: float) -> Any:
    async def node(state: State, config: RunnableConfig) -> dict[str, Any]:
        write_down(config, name, "begun")
        model = GenericFakeChatModel(messages=iter([AIMessage(f"{name} is done")]))
        message = await model.ainvoke(state["messages"])
        await asyncio.sleep(seconds)
        write_down(config, name, "ended")
        return {"messages": [message]}

    return node


graph = StateGraph(State)
previous: Any = START
for number in range(1, STEPS + 1):
    names = [f"{number}-quick", f"{number}-slow"] if number == BRANCHED else [str(number)]
    for name in names:
        graph.add_node(name, step(name, PACE_SECONDS / 3 if name.endswith("quick") else PACE_SECONDS))
        if number == 1:
            graph.add_edge(START, name)
        elif isinstance(previous, str):
            graph.add_edge(previous, name)
    if number == BRANCHED + 1:
        graph.add_edge(previous, names[0])
    previous = names if len(names) > 1 else names[0]
