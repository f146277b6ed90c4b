"""What an agent's author imports.

An agent is an async generator function. It takes the request and a context and yields what it
says and does; Outlast numbers it, stores it and streams it::

    from outlast.agent import Context, Request, ToolCall, ToolResult

    async def agent(request: Request, context: Context):
        yield ToolCall("clock", {}, call_id="c1")
        yield ToolResult("c1", "12:00")
        yield "It is noon."

A plain ``str`` is the same as ``Text(str)``. The vocabulary is closed: yielding anything else
fails the run with a message that names the type.

A run may be executed more than once (its worker died, a deploy drained it): ``context.attempt``
counts from 1, and what earlier attempts streamed is marked superseded for the client, but for what
they had said before a ``context.save()``. Side effects outside Outlast therefore happen at least
once; ``context.idempotency_key()`` lets whoever is asked twice notice it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from outlast.secret import Secret

__all__ = [
    "Agent",
    "AgentError",
    "Annotation",
    "Approval",
    "ClientCall",
    "Close",
    "Context",
    "Emission",
    "Reasoning",
    "Refusal",
    "Request",
    "Retry",
    "Secret",
    "State",
    "Text",
    "ToolCall",
    "ToolResult",
    "Usage",
    "idempotency_key",
]


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer, as long or short as it comes (usually a token or a line).

    Pieces that follow each other form one message; any other item between them ends it. Pieces with
    one ``key`` form one message whatever comes between them, until a `Close` of that key: for answers
    that are written at the same time.
    """

    delta: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """A source of the text before it: ``{"type": "url_citation", "url": "…", "title": "…"}``. ``key`` as in `Text`."""

    values: Mapping[str, Any]
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A piece of what the agent says instead of an answer that it will not give. ``key`` as in `Text`."""

    delta: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of a summary of the agent's reasoning, shown to the client as such. ``key`` as in `Text`."""

    delta: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """What is written under this key is complete. Closing what is not open means nothing."""

    key: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the agent runs itself. A `ToolResult` with the same ``call_id`` must follow.

    ``arguments`` is a JSON object, or its text. Several calls may be open at once.
    """

    name: str
    arguments: Mapping[str, Any] | str
    call_id: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The outcome of a `ToolCall`: its output, or with ``error`` the reason why there is none."""

    call_id: str
    output: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ClientCall:
    """A function of the client's (from ``request.tools``) that the client is asked to run.

    It is held back until the run completes, so that the client never sees half of it or one that a
    later attempt takes back. The client answers with a ``function_call_output`` item.
    """

    name: str
    arguments: Mapping[str, Any] | str
    call_id: str


@dataclass(frozen=True, slots=True)
class Approval:
    """A tool call that a person must approve first. Held back like `ClientCall`; yield it last.

    The client answers with an ``mcp_approval_response`` item that names ``approval_id``.
    """

    name: str
    arguments: Mapping[str, Any] | str
    approval_id: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens spent since the last `Usage`. The response shows the sum over the run."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """Values for the response's ``custom_outputs``; later ones replace earlier ones by key."""

    values: Mapping[str, Any]


Emission = (
    Text | Annotation | Refusal | Reasoning | Close | ToolCall | ToolResult | ClientCall | Approval | Usage | State
)


@dataclass(frozen=True, slots=True)
class Request:
    """What the client posted to ``/responses``.

    ``input`` is always a list of items (a string became one user message). ``body`` is the whole
    request as it was given, unknown fields included.
    """

    input: Sequence[Mapping[str, Any]]
    body: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def instructions(self) -> str | None:
        return self.body.get("instructions")

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The tools that the client offers, as it described them."""
        return self.body.get("tools") or ()

    @property
    def custom_inputs(self) -> Mapping[str, Any]:
        return self.body.get("custom_inputs") or {}

    @property
    def text(self) -> str:
        """The text of the last user message: what is being asked. Empty when there is none."""
        for item in reversed(self.input):
            if item.get("type", "message") == "message" and item.get("role") == "user":
                content: str | list[dict[str, Any]] = item.get("content") or ""
                if isinstance(content, str):
                    return content
                return "".join(part.get("text") or "" for part in content)
        return ""


Save = Callable[[Mapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Context:
    """Where and as whose the agent runs."""

    response_id: str
    """``resp_…``, as the client knows it."""
    thread_id: str
    """The conversation, as the client knows it."""
    principal: str
    """Who is calling."""
    agent: str
    """The name under which the agent is served."""
    attempt: int
    """1 for the first try."""
    deadline: datetime | None
    """When the run will be ended, over all its attempts."""
    saved: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What this attempt and earlier ones have saved, by name."""
    save_values: Save | None = field(default=None, repr=False, compare=False)
    user_token: Secret | None = field(default=None, compare=False)
    """To act as whoever is calling, on Databricks Apps. None elsewhere, and when it has ended: within the hour."""

    async def save(self, **values: Any) -> None:
        """Keep values for the next attempt, should this one be lost; those of the same name are replaced.

        What has been yielded before is stored with them and stays part of the answer, so the next attempt goes on from
        there: it finds the values in ``saved``. A message that is being written ends here; of a tool call without its
        result nothing is kept. For function agents: a graph has its checkpoints.

        The values are JSON, 256 KiB of it altogether; AgentError says what is wrong with others.
        """
        if self.save_values is None:
            raise RuntimeError("Only function agents can save: a graph has its checkpoints")
        await self.save_values(values)

    def idempotency_key(self, call_id: str) -> str:
        """The same for a call in every attempt of this run, and for no other: for services that take such a key."""
        return f"{self.response_id}:{call_id}"


find_idempotency_key: ContextVar[Callable[[], str | None]] = ContextVar("find_idempotency_key")
"""Set by the adapters."""


def idempotency_key() -> str:
    """That of the tool call which is being carried out: for tools of graphs, which have no `Context` at hand.

    Raises LookupError outside a tool.
    """
    find = find_idempotency_key.get(None)
    key = find() if find is not None else None
    if key is None:
        raise LookupError("No tool call is being carried out here")
    return key


class Agent(Protocol):
    """The shape of a function agent."""

    def __call__(self, request: Request, context: Context, /) -> AsyncIterator[Emission | str]: ...


class AgentError(Exception):
    """Fail the run with a message that the client may read.

    Any other exception fails it too, but the client learns no more than that it happened: a
    traceback may hold secrets. ``code`` becomes ``response.error.code``.
    """

    def __init__(self, message: str, *, code: str = "agent_error") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Retry(Exception):
    """Have the run tried again, after a while: from its last checkpoint, or from what a function agent has saved.

    For what will have passed by then. Lost connections, timeouts and busy services (HTTP 408, 429, 5xx) need no such
    word: they are tried again by themselves. ``after`` is how many seconds to wait at least; without it the wait is
    what the exception it was raised from asks for, or grows with each retry. When no retries are left
    (``OUTLAST_MAX_RETRIES``), or none could begin before the deadline, the run fails: the client may read ``message``,
    as with `AgentError`, or, without one, learns a type's name. Raises ValueError for seconds that are no number.
    """

    def __init__(self, message: str = "", *, after: float | None = None, code: str = "agent_error") -> None:
        super().__init__(message)
        if after is not None and not math.isfinite(after):
            raise ValueError(f"after={after}: a number of seconds")
        self.message = message
        self.after = None if after is None else max(after, 0.0)
        self.code = code
