"""A language model's endpoint as OpenAI's clients see it (``/chat/completions``), saying what the test scripts.

    with model_endpoint() as endpoint:
        endpoint.will(Call("search", {"query": "goat"}))      # the answer to the first request
        endpoint.will(Text("Goats eat grass."), Usage(12, 4))  # to the second
        ...
        assert endpoint.requests[0].body["temperature"] == 0.5

It is a Databricks workspace as well, as far as its models are concerned: it makes vectors of texts (``/embeddings``)
and has OAuth tokens for a service principal.

It has threads of its own, so that it serves tests with and without an event loop, and processes that they start.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias
from uuid import uuid4


@dataclass(frozen=True)
class Text:
    """A piece of the answer; streamed in pieces of its own, of ``size`` characters."""

    text: str
    size: int = 4


@dataclass(frozen=True)
class Reasoning:
    """What some endpoints stream as ``reasoning_content``."""

    text: str
    size: int = 4


@dataclass(frozen=True)
class Call:
    """A tool call. Several in one answer are parallel; the arguments are streamed in pieces."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict[str, Any])
    call_id: str | None = None
    size: int = 4


@dataclass(frozen=True)
class Usage:
    """What the answer cost. In a stream it is told only to who asks (``stream_options``)."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error. The message is the endpoint's own, which a test may fill with secrets."""

    status: int
    message: str = "no"
    code: str | None = None
    retry_after: str | None = None


@dataclass(frozen=True)
class Raw:
    """One frame of the stream, as it is."""

    data: str


class Stall:
    """Say nothing more, and keep the connection, until the client or the test ends it."""


class Cut:
    """Close the connection in the middle of the answer."""


Part: TypeAlias = Text | Reasoning | Call | Usage | Raw | Stall | Cut
Answer: TypeAlias = Sequence[Part] | Refusal


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]
    """By names in lower case."""
    body: Mapping[str, Any]

    @property
    def roles(self) -> list[str]:
        return [message["role"] for message in self.body["messages"]]

    @property
    def tools(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.body.get("tools", ())]


class ModelEndpoint:
    """Answers each request with the next scripted answer, or with what ``otherwise`` makes of it."""

    def __init__(self) -> None:
        self.prefix = f"/{uuid4().hex}"
        self.requests: list[Request] = []
        self.stalled = threading.Event()
        """Set as soon as an answer has come to its `Stall`."""
        self.otherwise: Callable[[Request], Answer] = lambda _: Refusal(500, "The test has scripted no answer.")
        self.tokens: list[str] = []
        """The OAuth tokens that were given out, each for a second: databricks-sdk never uses one twice."""
        self._script: deque[Answer] = deque()
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Connection)
        self._server.daemon_threads = True
        self._server.endpoint = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """Unlike that of any other endpoint: LangChain keeps its clients by it, and ports come again in later loops."""
        return f"{self.origin}{self.prefix}/v1"

    def will(self, *parts: Part) -> None:
        self._script.append(parts)

    def will_refuse(self, status: int, message: str = "no", **more: Any) -> None:
        self._script.append(Refusal(status, message, **more))

    def next_answer(self, request: Request) -> Answer:
        self.requests.append(request)
        return self._script.popleft() if self._script else self.otherwise(request)

    def stall(self) -> None:
        self.stalled.set()
        self._ended.wait()

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def model_endpoint() -> Generator[ModelEndpoint]:
    endpoint = ModelEndpoint()
    try:
        yield endpoint
    finally:
        endpoint.close()


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # chunked: only so is a cut distinct from an end

    def do_POST(self) -> None:
        endpoint: ModelEndpoint = self.server.endpoint  # type: ignore[attr-defined]
        given = self.rfile.read(int(self.headers["content-length"]))
        if self.path.endswith("/oidc/v1/token"):
            endpoint.tokens.append(f"token-{len(endpoint.tokens)}-of-the-workspace")
            self._send(200, {"access_token": endpoint.tokens[-1], "token_type": "Bearer", "expires_in": 1})
            return
        body = json.loads(given)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.path.endswith("/embeddings"):
            endpoint.requests.append(Request(self.path.removeprefix(endpoint.prefix), headers, body))
            vectors = [{"index": n, "embedding": [float(len(text)), 1.0]} for n, text in enumerate(body["input"])]
            self._send(200, {"object": "list", "data": vectors, "model": body["model"], "usage": {}})
            return
        answer = endpoint.next_answer(Request(self.path.removeprefix(endpoint.prefix), headers, body))
        try:
            if not self.path.endswith("/chat/completions"):
                self._send(404, {"error": {"message": f"no such path: {self.path}"}})
            elif isinstance(answer, Refusal):
                self._refuse(answer)
            elif body.get("stream"):
                self._stream(endpoint, body, answer)
            else:
                self._send(200, _completion(body, answer))
        except (BrokenPipeError, ConnectionResetError):  # the client has left
            self.close_connection = True

    def do_GET(self) -> None:
        endpoint: ModelEndpoint = self.server.endpoint  # type: ignore[attr-defined]
        oidc = f"{endpoint.origin}/oidc"
        match self.path:
            case "/.well-known/databricks-config":
                self._send(200, {"oidc_endpoint": oidc})
            case "/oidc/.well-known/oauth-authorization-server":
                self._send(
                    200, {"token_endpoint": f"{oidc}/v1/token", "authorization_endpoint": f"{oidc}/v1/authorize"}
                )
            case _:
                self.send_error(404)

    do_PUT = do_DELETE = lambda self: self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test has the requests."""

    def _refuse(self, refusal: Refusal) -> None:
        error = {"message": refusal.message, "type": "error", "param": None, "code": refusal.code}
        self._send(refusal.status, {"error": error}, retry_after=refusal.retry_after)

    def _send(self, status: int, content: object, *, retry_after: str | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("connection", "close")  # a client keeps no connection beyond its test's event loop
        self.send_header("content-length", str(len(data)))
        if retry_after is not None:
            self.send_header("retry-after", retry_after)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, endpoint: ModelEndpoint, body: Mapping[str, Any], answer: Sequence[Part]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for frame in _frames(body, answer):
            if isinstance(frame, str):
                data = f"data: {frame}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()
                continue
            if isinstance(frame, Stall):
                endpoint.stall()
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")


def _frames(body: Mapping[str, Any], answer: Sequence[Part]) -> Iterator[str | Stall | Cut]:
    """The stream's frames in OpenAI's order: the role, the deltas, the reason of the end, the usage."""
    calls = itertools.count()
    yield _chunk(body, {"role": "assistant", "content": ""})
    for part in answer:
        match part:
            case Text(text, size):
                yield from (_chunk(body, {"content": piece}) for piece in _pieces(text, size))
            case Reasoning(text, size):
                yield from (_chunk(body, {"reasoning_content": piece}) for piece in _pieces(text, size))
            case Call():
                yield from (_chunk(body, {"tool_calls": [delta]}) for delta in _call_deltas(next(calls), part))
            case Raw(data):
                yield data
            case Stall() | Cut():
                yield part
            case Usage():
                pass
    yield _chunk(body, {}, finish_reason=_finish_reason(answer))
    usages = [_usage(part) for part in answer if isinstance(part, Usage)]
    if usages and (body.get("stream_options") or {}).get("include_usage"):
        yield _chunk(body, None, usage=usages[0])
    yield "[DONE]"


def _call_deltas(index: int, call: Call) -> Iterator[Mapping[str, Any]]:
    """The first names the call; those that follow have only its index and a piece of its arguments."""
    head = {"index": index, "id": _id_of(index, call), "type": "function"}
    yield {**head, "function": {"name": call.name, "arguments": ""}}
    for piece in _pieces(_arguments(call), call.size):
        yield {"index": index, "function": {"arguments": piece}}


def _chunk(body: Mapping[str, Any], delta: Mapping[str, Any] | None, **more: Any) -> str:
    reason = more.pop("finish_reason", None)
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
    head = {"id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    return json.dumps({**head, "choices": choices, **more})


def _completion(body: Mapping[str, Any], answer: Sequence[Part]) -> Mapping[str, Any]:
    text = "".join(part.text for part in answer if isinstance(part, Text))
    calls = [part for part in answer if isinstance(part, Call)]
    functions = [
        {"id": _id_of(n, c), "type": "function", "function": {"name": c.name, "arguments": _arguments(c)}}
        for n, c in enumerate(calls)
    ]
    message = {"role": "assistant", "content": text or None, **({"tool_calls": functions} if functions else {})}
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(answer)}
    usages = [_usage(part) for part in answer if isinstance(part, Usage)]
    head = {"id": "chatcmpl-test", "object": "chat.completion", "created": 1, "model": body["model"]}
    return {**head, "choices": [choice], "usage": usages[0] if usages else None}


def _usage(usage: Usage) -> Mapping[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _finish_reason(answer: Sequence[Part]) -> str:
    return "tool_calls" if any(isinstance(part, Call) for part in answer) else "stop"


def _id_of(index: int, call: Call) -> str:
    return call.call_id or f"call_{id(call):x}_{index}"


def _arguments(call: Call) -> str:
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)


def _pieces(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))
