"""Which exceptions of an agent may not happen again: what networks and busy services do, and what asks for a retry.

Libraries are recognised by the names of their classes: agents bring their own, and this process need not have them.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

from outlast.agent import AgentError, Retry
from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.retry import Transient

ASKED_MOST_SECONDS = 300.0
"""A service that asks for more is tried again after so long."""
_DEPTH = 10  # of causes and groups that are looked at

# By the package that a class comes from: connections, timeouts and broken protocols. Subclasses count.
_CONNECTION_ERRORS: Mapping[str, frozenset[str]] = {
    "aiohttp": frozenset({"ClientConnectionError", "ClientPayloadError"}),
    "anthropic": frozenset({"APIConnectionError"}),
    "asyncpg": frozenset({"PostgresConnectionError", "CannotConnectNowError", "TooManyConnectionsError"}),
    "builtins": frozenset({"ConnectionError", "TimeoutError"}),
    "databricks": frozenset({"DeadlineExceeded", "InternalError", "TemporarilyUnavailable", "TooManyRequests"}),
    "google": frozenset({"RetryError", "TransportError"}),
    "http": frozenset({"IncompleteRead"}),
    "httpcore": frozenset({"NetworkError", "ProxyError", "RemoteProtocolError", "TimeoutException"}),
    "httpx": frozenset({"NetworkError", "ProxyError", "RemoteProtocolError", "TimeoutException"}),
    "openai": frozenset({"APIConnectionError"}),
    "psycopg": frozenset({"OperationalError"}),
    "psycopg2": frozenset({"OperationalError"}),
    "redis": frozenset({"ConnectionError", "TimeoutError"}),
    "requests": frozenset({"ChunkedEncodingError", "ConnectionError", "Timeout"}),
    "socket": frozenset({"gaierror"}),
    "ssl": frozenset({"SSLEOFError", "SSLZeroReturnError"}),
    "urllib3": frozenset({"IncompleteRead", "ProtocolError", "TimeoutError"}),
}
_PACKAGE_OF = {"httpcore2": "httpcore", "httpx2": "httpx"}  # successors with the same classes
_NETWORK_ERRORS = {errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH}
_STATUS_NAMES = {"aiohttp": "status", "google": "code", "urllib": "code"}  # others call it status_code
_GRPC_STATUSES = {"ABORTED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
# What openai's and anthropic's streams say in the middle of an answer, whose HTTP status was 200.
_STREAM_ERRORS = {"api_error", "overloaded_error", "rate_limit_error", "server_error", "timeout_error"}
_PASSING_STATUSES = {408, 429, *range(500, 600)} - {501, 505}
# Whoever raises one of these because of a lost connection says that it is something else.
_MISTAKES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, NotImplementedError,
    TypeError, ValueError,
)  # fmt: skip


def transient(error: Exception, now: datetime, depth: int = _DEPTH) -> Transient | None:
    """What to try again because of; None for what would only happen again. ``now`` is for answers that name a date."""
    cause = type(error).__name__
    if isinstance(error, Retry):
        return _wanted(error, now, depth)
    if isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        return _all([transient(each, now, depth - 1) for each in group.exceptions], cause) if depth else None
    if isinstance(error, AgentError | OutlastError):
        return None
    status = _status(error)
    if status is not None and status >= 400:
        passes = status in _PASSING_STATUSES and _header(error, "x-should-retry") != "false"
        return Transient(cause, _asked(error, now)) if passes else None
    if _is_connection_error(error) or _code_of_grpc(error) in _GRPC_STATUSES or _said_in_stream(error):
        return Transient(cause, _asked(error, now))
    if isinstance(error, _MISTAKES) or not depth:
        return None
    found = next((found for each in _causes(error) if (found := transient(each, now, depth - 1))), None)
    return Transient(cause, found.after) if found else None


def _wanted(error: Retry, now: datetime, depth: int) -> Transient:
    """What an agent asks for itself, perhaps because of another error that tells more."""
    reason = error.__cause__ if isinstance(error.__cause__, Exception) and depth else None
    found = transient(reason, now, depth - 1) if reason else None
    after = error.after if error.after is not None or found is None else found.after
    return Transient(type(reason or error).__name__, after)


def _all(found: list[Transient | None], cause: str) -> Transient | None:
    """Of a group nothing may be left that would happen again."""
    each = [one for one in found if one]
    if len(each) < len(found):
        return None
    return Transient(cause, max((one.after for one in each if one.after is not None), default=None))


def _causes(error: Exception) -> Iterator[Exception]:
    for cause in (error.__cause__, _attribute(error, "reason")):  # urllib's two keep it in ``reason``
        if isinstance(cause, Exception):
            yield cause


def _is_connection_error(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in _NETWORK_ERRORS:
        return True
    return any(each.__name__ in _CONNECTION_ERRORS.get(_package(each), ()) for each in type(error).__mro__)


def _package(kind: type) -> str:
    root = kind.__module__.partition(".")[0]
    return _PACKAGE_OF.get(root, root)


def _packages(error: Exception) -> set[str]:
    return {_package(kind) for kind in type(error).__mro__}


def _status(error: Exception) -> int | None:
    """The HTTP status of the answer that it is about."""
    own = [name for package, name in _STATUS_NAMES.items() if package in _packages(error)]
    values = [_attribute(error, name) for name in ("status_code", *own)]
    for value in (*values, _attribute(_attribute(error, "response"), "status_code")):
        if isinstance(value, int):
            return value
    return None


def _code_of_grpc(error: Exception) -> str | None:
    code = _attribute(error, "code") if "grpc" in _packages(error) else None
    try:
        return str(_attribute(code(), "name")) if callable(code) else None
    except Exception:  # noqa: BLE001 — code of another's
        return None


def _said_in_stream(error: Exception) -> bool:
    body = _attribute(error, "body") if _packages(error) & {"anthropic", "openai"} else None
    inner = _field(body, "error") or body
    return _field(inner, "type") in _STREAM_ERRORS


def _asked(error: Exception, now: datetime) -> float | None:
    """The seconds that the answer says to wait."""
    if (milliseconds := _number(_header(error, "retry-after-ms"))) is not None:
        return min(milliseconds / 1000, ASKED_MOST_SECONDS)
    value = _header(error, "retry-after") or _attribute(error, "retry_after_secs")  # the latter is Databricks'
    seconds = _number(value)
    if seconds is None and isinstance(value, str):
        seconds = _seconds_until(value, now)
    return None if seconds is None else min(seconds, ASKED_MOST_SECONDS)


def _seconds_until(date: str, now: datetime) -> float | None:
    try:
        return max((parsedate_to_datetime(date) - now).total_seconds(), 0)
    except (TypeError, ValueError, OverflowError):  # TypeError: it names no time zone
        return None


def _number(value: object) -> float | None:
    try:
        number = float(cast("Any", value))
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _header(error: Exception, name: str) -> str | None:
    headers = _attribute(_attribute(error, "response"), "headers") or _attribute(error, "headers")
    value = _field(headers, name)
    return value if isinstance(value, str) else None


def _field(mapping: object, name: str) -> object:
    get = _attribute(mapping, "get")
    try:
        return get(name) if callable(get) else None
    except Exception:  # noqa: BLE001 — code of another's
        return None


def _attribute(thing: object, name: str) -> object:
    """None when there is none, or when asking for it fails: what looks like an error is somebody else's code."""
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 — a property may raise anything
        return None
