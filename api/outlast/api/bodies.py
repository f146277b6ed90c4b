"""The body of a request, as JSON: the one place that reads it, for every route.

A route reads it when it knows its caller. Until then the connection holds back what has not arrived.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import Request
from starlette.types import Message

from outlast.shared.domain.errors import Invalid
from outlast.shared.wire import from_json

from .errors import TooLarge

MAX_JSON_VALUES = 1_000_000
"""16 MB of empty lists become 380 MB of objects and stop the event loop for a second."""
_SETTING = "OUTLAST_MAX_REQUEST_BYTES"
_STRING = re.compile(rb'"[^"]*"')


async def read_json(request: Request, limit: int, *, named: str = _SETTING) -> Any:
    """The body's value. Raises TooLarge, and Invalid for what is no JSON."""
    body = await _read(request, limit, named)
    if not body or body.isspace():
        raise Invalid("The request body is empty: send a JSON object.", code="invalid_json")
    if _has_too_many_values(body):
        raise TooLarge(f"The request body has more than {MAX_JSON_VALUES} JSON values.")
    try:
        return from_json(body)
    except ValueError as error:
        encoding = request.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise Invalid(
                f"The request body is compressed ({encoding[:64]}): send it as it is.", param="Content-Encoding"
            ) from None
        raise Invalid(f"The request body is not valid JSON: {error}.", code="invalid_json") from None


async def _read(request: Request, limit: int, named: str) -> bytearray:
    body = bytearray()
    size = 0
    more = True
    while more:
        message: Message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Invalid("The client disconnected before its request was complete.")
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size <= limit:
            body += piece
        more = message.get("more_body", False) and size <= 4 * limit  # read on, so that the client can read the answer
    if size > limit:
        raise TooLarge(f"The request body is larger than {limit} bytes ({named}).")
    return body


def _has_too_many_values(body: bytes | bytearray) -> bool:
    if len(body) <= MAX_JSON_VALUES or _separators(body) < MAX_JSON_VALUES:
        return False
    without_escapes = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if without_escapes.count(b'"') > 2 * MAX_JSON_VALUES:
        return True
    return _separators(_STRING.sub(b"", without_escapes)) >= MAX_JSON_VALUES  # a text may hold any number of commas


def _separators(body: bytes | bytearray) -> int:
    """A comma, or the start of a list or an object, stands before each value but the first."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")
