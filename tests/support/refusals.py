"""What every refusal of the API looks like."""

from __future__ import annotations

import httpx

NOBODY = f"resp_{0:032x}"
"""An id that a response might have, but none has."""


def refused(answer: httpx.Response, status: int, *, param: str | None = None, code: str | None = None) -> str:
    """The message of a refusal, whose form has been checked; its code only if one is given."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    body = answer.json()
    assert list(body) == ["error"] and list(body["error"]) == ["message", "type", "param", "code"]
    error = body["error"]
    assert error["message"] and error["type"] == "invalid_request_error" and len(answer.content) < 4000
    assert (error["param"], error["code"] if code else None) == (param, code), error
    return error["message"]
