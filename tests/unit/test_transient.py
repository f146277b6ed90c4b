"""Which exceptions are worth another try: those of real libraries, and of others that are known by name only."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import databricks.sdk.errors as databricks
import httpx
import httpx2
import openai
import psycopg
import pytest
import redis
import requests
import urllib3

from outlast.agent import AgentError, Retry
from outlast.shared.domain.errors import LeaseLost, Unavailable
from outlast.shared.domain.retry import Transient
from outlast.shared.output.emissions import EmissionError
from outlast.worker.transient import ASKED_MOST_SECONDS, transient

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REQUEST = httpx2.Request("POST", "http://model/v1")


def answered(status: int, **headers: str) -> openai.APIStatusError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(status, headers=named, request=REQUEST)
    return openai.APIStatusError("no", response=response, body=None)


def of(module: str, *names: str, **attributes: Any) -> Exception:
    """An exception of a library that is not here: its class, and those that it inherits from, by name."""
    kind: Any = Exception
    for name in names:
        kind = type(name, (kind,), {"__module__": module})
    error = kind("no")
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def because(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def looping() -> Exception:
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__cause__ = second, first
    return first


class Hostile(Exception):
    """Whatever is asked of it, it fails."""

    @property
    def response(self) -> object:
        raise RuntimeError("no response yet")

    status_code = response
    body = response


BAD_GATEWAY = httpx.HTTPStatusError(
    "no",
    request=httpx.Request("GET", "http://x"),
    response=httpx.Response(502, request=httpx.Request("GET", "http://x")),
)
WORTH_A_RETRY: dict[str, Exception] = {
    "asked for": Retry(),
    "a reset": ConnectionResetError(),
    "a timeout": TimeoutError(),
    "asyncio's": TimeoutError(),
    "no name": socket.gaierror(-3, "no"),
    "no route": OSError(errno.EHOSTUNREACH, "no"),
    "a cut below TLS": ssl.SSLEOFError(),
    "408": answered(408),
    "429": answered(429),
    "500": answered(500),
    "529": answered(529),
    "httpx status": BAD_GATEWAY,
    "httpx cut": httpx.RemoteProtocolError("no"),
    "httpx refused": httpx.ConnectError("no"),
    "httpx slow": httpx.ReadTimeout("no"),
    "httpx2 cut": httpx2.RemoteProtocolError("no"),
    "openai connection": openai.APIConnectionError(request=REQUEST),
    "openai timeout": openai.APITimeoutError(REQUEST),
    "openai in its stream": openai.APIError("no", REQUEST, body={"type": "server_error"}),
    "requests": requests.ConnectionError(),
    "requests slow": requests.ReadTimeout(),
    "urllib3": urllib3.exceptions.ProtocolError(),
    "urllib3's last try": urllib3.exceptions.MaxRetryError(None, "", ConnectionRefusedError()),  # type: ignore[arg-type]
    "databricks": databricks.RequestLimitExceeded("no"),
    "databricks down": databricks.TemporarilyUnavailable("no"),
    "psycopg": psycopg.errors.AdminShutdown("no"),
    "redis": redis.TimeoutError(),
    "aiohttp": of("aiohttp.client_exceptions", "ClientConnectionError", "ServerDisconnectedError"),
    "aiohttp status": of("aiohttp.client_exceptions", "ClientResponseError", status=503),
    "anthropic": of("anthropic", "APIConnectionError"),
    "anthropic in its stream": of(
        "anthropic", "APIStatusError", status_code=200, body={"type": "error", "error": {"type": "overloaded_error"}}
    ),
    "google": of("google.genai.errors", "APIError", "ServerError", code=503),
    "google quota": of("google.api_core.exceptions", "ResourceExhausted", code=429),
    "grpc": of("grpc.aio._call", "AioRpcError", code=lambda: SimpleNamespace(name="UNAVAILABLE")),
    "wrapped": because(RuntimeError("the tool failed"), ConnectionRefusedError()),
    "wrapped twice": because(RuntimeError(), because(RuntimeError(), answered(503))),
    "all of a group": ExceptionGroup("", [TimeoutError(), ExceptionGroup("", [answered(429)])]),
    "asked for because of a mistake": because(Retry(), ValueError()),
}
FAILS_AT_ONCE: dict[str, Exception] = {
    "a mistake": ValueError("no"),
    "anything": Exception("no"),
    "a file": FileNotFoundError("no"),
    "a full disk": OSError(errno.ENOSPC, "no"),
    "the agent's own end": AgentError("no"),
    "the agent's own end of a timeout": because(AgentError("no"), TimeoutError()),
    "nonsense said": EmissionError("no"),
    "ours": LeaseLost(),
    "ours too": Unavailable(),
    "400": answered(400),
    "401": answered(401),
    "403": answered(403),
    "404": answered(404),
    "409": answered(409),
    "422": answered(422),
    "501": answered(501),
    "505": answered(505),
    "a refusal for good": answered(429, x_should_retry="false"),
    "a refusal because of a lost connection": because(answered(400), ConnectionError()),
    "a mistake because of a lost connection": because(KeyError("no"), ConnectionError()),
    "httpx mistake": httpx.UnsupportedProtocol("no"),
    "httpx ours": httpx.LocalProtocolError("no"),
    "openai in its stream": openai.APIError("no", REQUEST, body={"type": "invalid_request_error"}),
    "openai's odd words": openai.APIError("no", REQUEST, body="server_error"),
    "requests mistake": requests.exceptions.InvalidURL("no"),
    "requests without answer": requests.HTTPError("no"),
    "databricks": databricks.NotFound("no"),
    "psycopg": psycopg.errors.SyntaxError("no"),
    "aiohttp status": of("aiohttp.client_exceptions", "ClientResponseError", status=404),
    "grpc": of("grpc", "RpcError", code=lambda: SimpleNamespace(name="NOT_FOUND")),
    "grpc broken": of("grpc", "RpcError", code=lambda: 1 / 0),
    "a namesake": of("mine", "APIConnectionError"),
    "a code of its own": of("mine", "MyError", code=503),
    "not all of a group": ExceptionGroup("", [TimeoutError(), ValueError()]),
    "caused by itself": looping(),
    "hostile": Hostile(),
    "cancelled within": because(RuntimeError(), asyncio.CancelledError()),
}


@pytest.mark.parametrize("name", WORTH_A_RETRY)
def test_what_may_pass_is_worth_a_retry(name: str) -> None:
    assert transient(WORTH_A_RETRY[name], NOW) is not None


@pytest.mark.parametrize("name", FAILS_AT_ONCE)
def test_what_would_only_happen_again_is_not(name: str) -> None:
    assert transient(FAILS_AT_ONCE[name], NOW) is None


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (answered(429, retry_after="7"), 7),
        (answered(429, retry_after="0.5"), 0.5),
        (answered(503, retry_after_ms="250", retry_after="9"), 0.25),
        (answered(429, retry_after=format_datetime(NOW + timedelta(seconds=30), usegmt=True)), 30),
        (answered(429, retry_after=format_datetime(NOW - timedelta(days=1), usegmt=True)), 0),
        (answered(429, retry_after="86400"), ASKED_MOST_SECONDS),
        (answered(429, retry_after="1e400"), None),
        (answered(429, retry_after="nan"), None),
        (answered(429, retry_after="-1"), None),
        (answered(429, retry_after="soon"), None),
        (answered(429, retry_after="Thu, 01 Jan 2026 00:00:00"), None),
        (answered(429), None),
        (databricks.TooManyRequests("no", retry_after_secs=9), 9),
        (of("aiohttp", "ClientResponseError", status=429, headers={"retry-after": "3"}), 3),
        (because(RuntimeError(), answered(429, retry_after="7")), 7),
        (Retry(after=2), 2),
        (Retry(after=3600), 3600),
        (because(Retry(), answered(429, retry_after="7")), 7),
        (because(Retry(after=1), answered(429, retry_after="7")), 1),
        (ExceptionGroup("", [answered(429, retry_after="7"), answered(429, retry_after="9"), TimeoutError()]), 9),
    ],
)
def test_the_wait_is_what_the_answer_asks_for(error: Exception, after: float | None) -> None:
    found = transient(error, NOW)

    assert found is not None and found.after == after


def test_its_name_is_that_of_the_outermost_exception_and_of_what_a_retry_was_raised_from() -> None:
    assert transient(because(RuntimeError(), TimeoutError()), NOW) == Transient("RuntimeError")
    assert transient(because(Retry(), answered(429)), NOW) == Transient("APIStatusError")
    assert transient(Retry(), NOW) == Transient("Retry")
