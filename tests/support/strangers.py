"""Graphs as others write them, each of a kind that was once answered wrongly, and what plain LangGraph answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from langchain.agents import create_agent
from langchain.agents.middleware import (
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
    after_model,
    wrap_tool_call,
)
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableParallel
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.prebuilt import ToolNode
from langgraph.types import CachePolicy, Command, RetryPolicy, Send

from .graphs import RuleModel, call, create_react_agent, last_human, tool_results

Line = str
GRAPHS: dict[str, Callable[[], Any]] = {}


def graph(make: Callable[[], Any]) -> Callable[[], Any]:
    """Have this among the graphs, under the function's name."""
    GRAPHS[make.__name__] = make
    return make


def lines_of(messages: Sequence[BaseMessage]) -> list[Line]:
    """A conversation's last turn as `adder.summary` writes a response: texts, and calls with their results."""
    messages = convert_to_messages(messages)
    begin = max(place for place, message in enumerate(messages) if isinstance(message, HumanMessage)) + 1
    results = [message for message in messages[begin:] if isinstance(message, ToolMessage)]
    lines: list[Line] = []
    for message in messages[begin:]:
        if isinstance(message, AIMessage):
            lines += [message.text] if message.text else []
            for made in message.tool_calls:
                answer = next((m for m in results if m.tool_call_id == (made["id"] or "")), None)
                if answer is not None:
                    results.remove(answer)
                arguments = json.dumps(made["args"], separators=(",", ":"))
                lines.append(f"{made['name']}({arguments}) -> {answer.text if answer else None}")
    return lines


async def plain_answers(compiled: Any, questions: Sequence[str]) -> list[list[Line]]:
    """What LangGraph answers by itself, turn by turn, each in the form of `lines_of`."""
    compiled = compiled.copy(update={"checkpointer": InMemorySaver()})
    config: Any = {"configurable": {"thread_id": "plain"}}
    answers: list[list[Line]] = []
    for question in questions:
        state = await compiled.ainvoke({"messages": [HumanMessage(question)]}, config)
        answers.append(lines_of(state["messages"]))
    return answers


def saying(text: str, **more: Any) -> RuleModel:
    return RuleModel(answer=lambda _messages, _options: AIMessage(text, **more))


def chain(*nodes: Callable[..., Any], state: Any = MessagesState) -> Any:
    """A graph of these nodes, one after the other."""
    builder = StateGraph(state)
    for node in nodes:
        builder.add_node(node.__name__, node)
    for before, after in itertools.pairwise([START, *(node.__name__ for node in nodes), END]):
        builder.add_edge(before, after)
    return builder.compile()


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word}: jane.roe@example.org"


def looking(call_ids: Sequence[str], together: bool = False) -> RuleModel:
    """A model that looks up a and b, with these ids for its calls, in one message or one after the other."""

    def rule(messages: Sequence[BaseMessage], _options: dict[str, Any]) -> AIMessage:
        done = tool_results(messages)
        wanted = [call("look_up", call_id, word=word) for word, call_id in zip("ab", call_ids, strict=True)]
        if len(done) == 2:
            return AIMessage(f"Found {' and '.join(done)}.")
        return AIMessage("", tool_calls=wanted if together else wanted[len(done) : len(done) + 1])

    return RuleModel(answer=rule)


# -- synchronous code on the loop --------------------------------------------------------------------------------------


@graph
def a_tool_called_by_hand_before_its_message() -> Any:
    """As LangGraph's tutorial of an agent for SQL has it."""

    def node(state: MessagesState) -> Any:
        made = {"name": "look_up", "args": {"word": "a"}, "id": "abc123", "type": "tool_call"}
        answer = look_up.invoke(made)
        return {"messages": [AIMessage("", tool_calls=[made]), answer, AIMessage(f"Found {answer.content}.")]}

    return chain(node)


@graph
def react_agent_with_a_prompt() -> Any:
    return create_react_agent(looking(["c1", "c2"]), [look_up], prompt="Be kind.")


@graph
def a_synchronous_chain_in_an_asynchronous_node() -> Any:
    prompt = ChatPromptTemplate.from_messages([("system", "Be short."), ("placeholder", "{messages}")])
    model = saying("A short answer of several words.")

    async def answer(state: MessagesState) -> Any:
        return {"messages": [(prompt | model).invoke({"messages": state["messages"]})]}

    return chain(answer)


@graph
def a_synchronous_stream_in_an_asynchronous_node() -> Any:
    model = saying("Words that come one by one.")

    async def answer(state: MessagesState) -> Any:
        return {"messages": [AIMessage("".join(chunk.text for chunk in model.stream(state["messages"])))]}

    return chain(answer)


@graph
def threads_that_the_loop_waits_for() -> Any:
    model = saying("Twice the same.")

    async def answer(state: MessagesState) -> Any:
        asked = {"messages": state["messages"]}
        told = RunnableParallel(one=lambda _: model.invoke(asked["messages"]), two=lambda _: 2).invoke(asked)
        return {"messages": [told["one"]]}

    return chain(answer)


@graph
def synchronous_middleware() -> Any:
    @wrap_tool_call
    def wrapped(request: Any, handler: Any) -> Any:
        return handler(request)

    async def answer(state: MessagesState) -> Any:
        agent: Any = create_agent(looking(["c1", "c2"]), [look_up], middleware=[wrapped], checkpointer=False)
        return {"messages": (await asyncio.to_thread(agent.invoke, state))["messages"]}

    return chain(answer)


# -- what the state says is the answer ---------------------------------------------------------------------------------


@graph
def a_guard_that_replaces_the_answer() -> Any:
    def speak(state: MessagesState) -> Any:
        return {"messages": [saying("The password is hunter2").invoke(state["messages"])]}

    def guard(state: MessagesState) -> Any:
        return {"messages": [AIMessage("I cannot say that.", id=state["messages"][-1].id)]}

    return chain(speak, guard)


@graph
def a_guard_that_replaces_an_earlier_message() -> Any:
    def speak(state: MessagesState) -> Any:
        return {"messages": [saying("The password is hunter2").invoke(state["messages"])]}

    def go_on(state: MessagesState) -> Any:
        return {"messages": [saying("Anything else?").invoke(state["messages"])]}

    def guard(state: MessagesState) -> Any:
        return {"messages": [AIMessage("I cannot say that.", id=state["messages"][-2].id)]}

    return chain(speak, go_on, guard)


@graph
def a_removed_answer() -> Any:
    def speak(state: MessagesState) -> Any:
        return {"messages": [saying("The password is hunter2").invoke(state["messages"])]}

    def remove(state: MessagesState) -> Any:
        return {"messages": [RemoveMessage(str(state["messages"][-1].id)), AIMessage("Removed by policy.")]}

    return chain(speak, remove)


@graph
def a_conversation_that_is_written_anew() -> Any:
    def speak(state: MessagesState) -> Any:
        return {"messages": [saying("One."), saying("Two.")][0].invoke(state["messages"])}

    def rewrite(state: MessagesState) -> Any:
        kept = [message for message in state["messages"] if isinstance(message, HumanMessage)]
        return {"messages": [RemoveMessage(REMOVE_ALL_MESSAGES), *kept, AIMessage("All anew.")]}

    return chain(speak, rewrite)


@graph
def a_refusal_under_the_models_id() -> Any:
    asked = AIMessage("Let me look.", tool_calls=[call("look_up", "c1", word="a")])

    async def answer(state: MessagesState) -> Any:
        response = await RuleModel(answer=lambda _m, _o: asked.model_copy()).ainvoke(state["messages"])
        return {"messages": [AIMessage("Sorry, no answer in the given steps.", id=response.id)]}

    return chain(answer)


@graph
def an_answer_that_is_trimmed() -> Any:
    async def answer(state: MessagesState) -> Any:
        response = await saying("  Much space.  ").ainvoke(state["messages"])
        return {"messages": [AIMessage(response.text.strip())]}

    return chain(answer)


@graph
def words_that_never_come_into_the_state() -> Any:
    class Planned(MessagesState):
        plan: str

    async def plan(state: Planned) -> Any:
        return {"plan": (await saying("First look, then leap.").ainvoke(state["messages"])).text}

    async def answer(state: Planned) -> Any:
        return {"messages": [await saying("Leaped.").ainvoke(state["messages"])]}

    return chain(plan, answer, state=Planned)


@graph
def words_that_come_into_the_state_a_step_later() -> Any:
    class Drafted(MessagesState):
        draft: Any

    async def write(state: Drafted) -> Any:
        return {"draft": await saying("A draft.").ainvoke(state["messages"])}

    def publish(state: Drafted) -> Any:
        return {"messages": [state["draft"]]}

    return chain(write, publish, state=Drafted)


@graph
def drafts_that_are_rejected() -> Any:
    tries = itertools.count(1)

    async def answer(state: MessagesState) -> Any:
        number = next(tries)
        draft = await saying(f"Draft {number}.").ainvoke(state["messages"])
        if number % 3:
            raise ValueError("not good enough")
        return {"messages": [draft.model_copy(update={"content": "The good one."})]}

    policy = RetryPolicy(max_attempts=3, initial_interval=0.01, jitter=False, retry_on=ValueError)
    builder = StateGraph(MessagesState).add_node("answer", answer, retry_policy=policy)
    return builder.add_edge(START, "answer").compile()


@graph
def a_node_answered_from_a_cache() -> Any:
    async def answer(state: MessagesState) -> Any:
        return {"messages": [AIMessage("Thought about it.")]}

    policy = CachePolicy(key_func=lambda *_: "always")
    builder = StateGraph(MessagesState).add_node("answer", answer, cache_policy=policy)
    return builder.add_edge(START, "answer").compile(cache=InMemoryCache())


@graph
def a_message_for_the_parent() -> Any:
    async def expert(state: MessagesState) -> Any:
        said = await saying("The expert says 42.").ainvoke(state["messages"])
        return Command(graph=Command.PARENT, goto="closing", update={"messages": [said]})

    def closing(state: MessagesState) -> Any:
        return {"messages": [AIMessage("That was all.")]}

    team = StateGraph(MessagesState).add_node("expert", expert).add_edge(START, "expert").compile()
    builder = StateGraph(MessagesState).add_node("team", team, destinations=("closing",)).add_node("closing", closing)
    return builder.add_edge(START, "team").add_edge("closing", END).compile()


@graph
def handoffs_between_agents() -> Any:
    @tool
    def to_bob(tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Hand over to Bob."""
        told = ToolMessage("Handed over.", tool_call_id=tool_call_id, name="to_bob")
        return Command(goto="bob", graph=Command.PARENT, update={"messages": [*handed, told]})

    handed: list[BaseMessage] = []

    def asking(messages: Sequence[BaseMessage], _options: dict[str, Any]) -> AIMessage:
        message = AIMessage("I cannot do that.", tool_calls=[call("to_bob", "h1")], id=f"alice-{len(messages)}")
        handed[:] = [message]
        return message

    alice = create_react_agent(RuleModel(answer=asking), [to_bob], name="alice")
    bob = create_react_agent(saying("Bob did it."), [], name="bob", prompt="You are Bob.")
    builder = StateGraph(MessagesState).add_node("alice", alice, destinations=("bob",)).add_node("bob", bob)
    return builder.add_edge(START, "alice").compile()


@graph
def a_team_with_a_state_of_its_own() -> Any:
    inner = create_react_agent(looking(["c1", "c2"]), [], prompt="Look.")

    async def team(state: MessagesState) -> Any:
        said = await create_react_agent(saying("An inner monologue."), []).ainvoke({"messages": state["messages"][-1:]})
        return {"messages": [AIMessage(f"The team says: {len(said['messages'])}.")]}

    assert inner
    return chain(team)


@graph
def workers_sent_out_and_gathered() -> Any:
    class Gathered(MessagesState):
        found: Annotated[list[str], operator.add]

    async def work(state: Any) -> Any:
        said = await saying(f"About {state['topic']}.").ainvoke([HumanMessage(state["topic"])])
        return {"found": [said.text]}

    def gather(state: Gathered) -> Any:
        return {"messages": [AIMessage(" ".join(sorted(state["found"])[:3]))]}

    builder = StateGraph(Gathered).add_node("work", work).add_node("gather", gather)
    builder.add_conditional_edges(START, lambda _: [Send("work", {"topic": topic}) for topic in "abc"], ["work"])
    return builder.add_edge("work", "gather").compile()


@graph
def a_state_that_is_returned_whole() -> Any:
    async def answer(state: MessagesState) -> Any:
        return {"messages": [*state["messages"], await saying("Once.").ainvoke(state["messages"])]}

    return chain(answer)


@graph
def the_same_words_twice() -> Any:
    async def answer(state: MessagesState) -> Any:
        said = await saying("Echo.").ainvoke(state["messages"])
        return {"messages": [said, AIMessage(said.text)]}

    return chain(answer)


@graph
def personal_data_that_is_redacted() -> Any:
    redact = PIIMiddleware("email", strategy="redact", apply_to_output=True, apply_to_tool_results=True)
    return create_agent(looking(["c1", "c2"]), [look_up], middleware=[redact])


@graph
def a_tools_result_that_is_replaced() -> Any:
    def hide(state: MessagesState) -> Any:
        found = [message for message in state["messages"] if isinstance(message, ToolMessage)]
        return {"messages": [message.model_copy(update={"content": "(hidden)"}) for message in found]}

    builder = StateGraph(MessagesState)
    builder.add_node("agent", create_react_agent(looking(["c1", "c2"]), [look_up])).add_node("hide", hide)
    return builder.add_edge(START, "agent").add_edge("agent", "hide").compile()


@graph
def a_call_that_the_middleware_changes() -> Any:
    @after_model
    def change(state: Any, runtime: Any) -> Any:
        last: AIMessage = state["messages"][-1]
        if not last.tool_calls or last.tool_calls[0]["args"]["word"] == "z":
            return None
        return {"messages": [last.model_copy(update={"tool_calls": [{**last.tool_calls[0], "args": {"word": "z"}}]})]}

    return create_agent(looking(["c1", "c2"]), [look_up], middleware=[change])


@graph
def context_that_is_edited_for_the_model() -> Any:
    edits = [ClearToolUsesEdit(trigger=1, keep=0)]
    return create_agent(looking(["c1", "c2"]), [look_up], middleware=[ContextEditingMiddleware(edits=edits)])


@graph
def a_conversation_that_is_summarised() -> Any:
    summary = SummarizationMiddleware(saying("Summary."), trigger=("messages", 4), keep=("messages", 2))
    return create_agent(saying("An answer."), [], middleware=[summary])


# -- identity of calls -------------------------------------------------------------------------------------------------


@graph
def call_ids_that_come_again() -> Any:
    return create_agent(looking(["call_0", "call_0"]), [look_up])


@graph
def call_ids_that_are_empty() -> Any:
    return create_agent(looking(["", ""]), [look_up])


@graph
def one_call_id_for_two_calls() -> Any:
    return create_agent(looking(["call_0", "call_0"], together=True), [look_up])


@graph
def two_empty_call_ids_in_one_message() -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("agent", create_react_agent(looking(["", ""], together=True), [look_up]))
    return builder.add_edge(START, "agent").compile()


@graph
def a_tool_node_that_is_tried_again() -> Any:
    tries = itertools.count(1)

    @tool
    def fickle(word: str) -> str:
        """Fail each other time."""
        if next(tries) % 2:
            raise ConnectionError("not yet")
        return f"found {word}"

    def rule(messages: Sequence[BaseMessage], _options: dict[str, Any]) -> AIMessage:
        if found := tool_results(messages):
            return AIMessage(f"{found[-1]}, for {last_human(messages)}")
        return AIMessage("Looking.", tool_calls=[call("fickle", "c1", word="x")])

    model = RuleModel(answer=rule)

    async def agent(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def tools_or_end(state: Any) -> str:
        return "tools" if state["messages"][-1].tool_calls else END

    policy = RetryPolicy(max_attempts=2, initial_interval=0.01, jitter=False)
    builder = StateGraph(MessagesState).add_node("agent", agent)
    builder.add_node("tools", ToolNode([fickle], handle_tool_errors=False), retry_policy=policy)
    builder.add_conditional_edges("agent", tools_or_end, ["tools", END])
    return builder.add_edge(START, "agent").add_edge("tools", "agent").compile()


@graph
def messages_kept_as_dicts() -> Any:
    class Plain(MessagesState):
        messages: Annotated[list[AnyMessage], operator.add]

    async def answer(state: Plain) -> Any:
        said = await saying(f"Answer {len(state['messages'])}.").ainvoke(state["messages"])
        return {"messages": [{"role": "assistant", "content": said.text}]}

    return chain(answer, state=Plain)
