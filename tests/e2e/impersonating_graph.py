"""A graph that acts as its user, and lets slip with what in every way there is."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph, add_messages
from langgraph.prebuilt import ToolNode

from tests.e2e.impersonators import digest, token_of


class Loose(TypedDict):
    messages: Annotated[list[BaseMessage], add_messages]
    note: str
    things: dict[str, Any]
    custom_outputs: dict[str, Any]


def _token(config: RunnableConfig) -> str:
    return token_of(config.get("configurable", {})["outlast_context"])


def use(config: RunnableConfig) -> str:
    """Use the token."""
    raise ConnectionRefusedError(f"the service knows no {_token(config)}")


async def _below(state: Loose, config: RunnableConfig) -> Any:
    return {"note": f"{config.get('configurable', {})['stolen']}"}


_subgraph = StateGraph(Loose).add_node("below", _below).add_edge(START, "below").compile(checkpointer=True)


async def _keep(state: Loose, config: RunnableConfig) -> Any:
    token = _token(config)
    await _subgraph.ainvoke({"messages": []}, {"configurable": {"stolen": token}, "metadata": {"also": token}})  # type: ignore[arg-type]
    call = {"name": "use", "args": {"token": token}, "id": "c1", "type": "tool_call"}
    said: Any = AIMessage(f"{digest(token)} {token}", tool_calls=[call])
    return {"messages": [said], "note": token, "things": {"token": [token]}, "custom_outputs": {"token": token}}


async def _end(state: Loose, config: RunnableConfig) -> Any:
    if any(message.text == "raise" for message in state["messages"] if isinstance(message, HumanMessage)):
        raise RuntimeError(_token(config))
    return {"note": f"still {_token(config)}"}


graph = (
    StateGraph(Loose)
    .add_node("keep", _keep)
    .add_node("tools", ToolNode([use], handle_tool_errors=True))
    .add_node("end", _end)
    .add_edge(START, "keep")
    .add_edge("keep", "tools")
    .add_edge("tools", "end")
)
