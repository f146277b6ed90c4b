"""What the agents do, as values: who says what, what follows what, and what an undisturbed run leaves behind.

Every word carries the attempt that said it, the run it belongs to, its step and its number: ``2|c17.4|plan|0``.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

WORDS = 6

FUNCTION = "words"
CHAIN = "chain"
BRANCHES = "branches"
REACT = "react"
MISHAP = "mishap"
GRAPHS = (CHAIN, BRANCHES, REACT)
AGENTS = (FUNCTION, *GRAPHS, MISHAP)

MISHAPS: Mapping[str, str] = {
    "value": "The agent failed with ValueError.",
    "own": "The agent says why.",
    "recursion": "The agent failed with RecursionError.",
    "memory": "The agent failed with MemoryError.",
    "connection": "The agent failed with ConnectionError, also after 3 retries.",
    "group": "The agent failed with BaseExceptionGroup.",
    "exit": "The agent failed with SystemExit.",
    "exit in thread": "The agent failed with SystemExit.",
    "exit in task": "The agent failed with SystemExit.",
    "interrupt": "The agent failed with KeyboardInterrupt.",
    "base": "The agent failed with Mishap.",
}
"""How the agent of this name fails, and what its clients are told."""

CHAIN_STEPS = tuple(f"step{number}" for number in range(6))

FOLLOWERS: Mapping[str, Mapping[str, frozenset[str]]] = {
    FUNCTION: {},
    MISHAP: {},
    CHAIN: {step: frozenset({after}) for step, after in pairwise(CHAIN_STEPS)},
    BRANCHES: {
        "plan": frozenset({"left", "first", "thread"}),
        "first": frozenset({"second"}),
        "left": frozenset({"asking"}),
        "second": frozenset({"asking"}),
        "thread": frozenset({"asking"}),
        "asking": frozenset({"effect"}),
        "effect": frozenset({"report"}),
    },
    REACT: {"asking": frozenset({"effect"}), "effect": frozenset({"answer"})},
}
"""By agent and step: the steps that begin only when the result of this one has been kept."""

_IN_STATE: Mapping[str, Sequence[str]] = {
    CHAIN: CHAIN_STEPS,
    # The results of branches are merged in the order of the nodes' names: inside, left, thread.
    BRANCHES: ("plan", "first", "second", "left", "thread", "asking", "effect", "report"),
    REACT: ("asking", "effect", "answer"),
}
_SAID_WHOLE = {"thread": 1}
"""Steps with fewer words than the others."""


def steps(agent: str) -> Sequence[str]:
    """The steps of an undisturbed run."""
    return _IN_STATE.get(agent, ("effect", "answer"))


def mishap(token: str) -> str:
    """How this run fails, in each of its attempts."""
    kinds = sorted(MISHAPS)
    return kinds[zlib.crc32(token.encode()) % len(kinds)]


def later(agent: str, step: str) -> frozenset[str]:
    """All steps that come after this one, however many are between."""
    direct = FOLLOWERS[agent].get(step, frozenset())
    return direct.union(*(later(agent, follower) for follower in direct))


def words(attempt: int, token: str, step: str) -> list[str]:
    """What a step says."""
    return [f"{attempt}|{token}|{step}|{number}" for number in range(_SAID_WHOLE.get(step, WORDS))]


def attempts_in(text: str) -> set[int]:
    """The attempts that have said it."""
    return {int(word.partition("|")[0]) for word in text.split()}


def plain(text: str) -> str:
    """What was said, without who said it."""
    return re.sub(r"(^| )\d+\|", r"\1", text)


def effect_key(token: str) -> str:
    return f"{token}:effect"


def effect_result(token: str) -> str:
    return f"done {effect_key(token)}"


# -- what is in a conversation -----------------------------------------------------------------------------------------


def label(kind: str, text: str) -> str:
    """A message in the state of a graph, in short: whose it is and which step has made it."""
    if kind == "human":
        return f"{text}|human"
    if kind == "tool":
        return f"{text.removeprefix('done ').partition(':')[0]}|effect"
    return "|".join(plain(text).split(" ")[0].split("|")[:2])


def report(labels: Sequence[str]) -> str:
    """The last word of a graph: what it has found in its state."""
    return ",".join(labels)


def labels(agent: str, tokens: Sequence[str]) -> list[str]:
    """The state of a thread after these runs."""
    return [f"{token}|{name}" for token in tokens for name in ("human", *_IN_STATE[agent])]


def state(agent: str, tokens: Sequence[str]) -> list[str]:
    """The same as texts."""
    texts: list[str] = []
    for number, token in enumerate(tokens):
        texts.append(token)
        texts += [_text(agent, tokens[: number + 1], step) for step in _IN_STATE[agent]]
    return texts


def answers(agent: str, tokens: Sequence[str]) -> Iterator[str]:
    """The items of the last run's answer; ``tokens`` are the runs of its thread so far, it being the last."""
    for step in steps(agent):
        text = _text(agent, tokens, step)
        yield f"effect -> {text}" if step == "effect" else text


def item_text(item: Mapping[str, Any]) -> str:
    """An output item in the form of `answers`."""
    if item["type"] == "mcp_call":
        return f"{item['name']} -> {item['output']}"
    return plain("".join(part["text"] for part in item["content"]).strip())


def _text(agent: str, tokens: Sequence[str], step: str) -> str:
    token = tokens[-1]
    if step == "effect":
        return effect_result(token)
    if step == "report":
        seen = labels(agent, tokens)[:-1]
        return f"{token}|report|{report(seen)}"
    return plain(" ".join(words(0, token, step)))
