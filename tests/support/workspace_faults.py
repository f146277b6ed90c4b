"""What a workspace answers when it does not do what it is asked."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """An answer. Without a status the request is answered as it should be, only ``delay_seconds`` later."""

    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    delay_seconds: float = 0.0


def error(status: int, code: str, message: str, **headers: str) -> Fault:
    """As the REST API words one."""
    body = json.dumps({"error_code": code, "message": message}).encode()
    return Fault(status, body, {"content-type": "application/json", **headers})


def busy(retry_after: int = 1) -> Fault:
    text = "Current request has to be retried"
    return error(429, "REQUEST_LIMIT_EXCEEDED", text, **{"retry-after": str(retry_after)})


def broken() -> Fault:
    return error(500, "INTERNAL_ERROR", "An internal error occurred")


def unauthenticated() -> Fault:
    return error(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type for this API.")


def forbidden(message: str = "User does not have permission to use the database.") -> Fault:
    return error(403, "PERMISSION_DENIED", message)


def slow(seconds: float) -> Fault:
    return Fault(delay_seconds=seconds)


def html(status: int = 502) -> Fault:
    """A gateway's page. With status 200 it is what a sign-in page looks like to a program."""
    body = b"<html><head><title>Bad Gateway</title></head><body>nothing for programs</body></html>"
    return Fault(status, body, {"content-type": "text/html"})


def truncated() -> Fault:
    return Fault(200, b'{"token": "eyJraW', {"content-type": "application/json"})


def json_of(**fields: object) -> Fault:
    """Well-formed."""
    return Fault(200, json.dumps(fields).encode(), {"content-type": "application/json"})


def empty_object() -> Fault:
    """Well-formed, and without anything in it."""
    return json_of()


class Misbehaviour:
    """The faults that are on, each for so many calls or seconds, on the paths that contain some text."""

    def __init__(self) -> None:
        self._on: list[_On] = []

    def add(self, fault: Fault, *, calls: float, seconds: float, paths: str) -> None:
        self._on.append(_On(fault, paths, calls, time.monotonic() + seconds))

    def end(self) -> None:
        self._on.clear()

    def next(self, path: str) -> Fault | None:
        for on in list(self._on):
            if on.paths in path and on.calls > 0 and time.monotonic() < on.until:
                on.calls -= 1
                return on.fault
        return None


@dataclass
class _On:
    fault: Fault
    paths: str
    calls: float
    until: float
