"""Errors as OpenAI's clients expect them, for every kind of failure and every route."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path

from outlast.shared.domain import errors
from outlast.shared.wire import to_json

from . import answer_headers

log = structlog.get_logger()


class TooLarge(errors.Invalid):
    """The request body is too large."""

    default_code = "request_too_large"


class UnknownHost(errors.Invalid):
    """The request is for another server."""

    default_code = "host_not_allowed"


# Family -> status and type; subclasses are covered by their base. 409 is for what a retry can mend: the SDK retries it.
_FAMILIES: dict[type[errors.OutlastError], tuple[int, str]] = {
    TooLarge: (413, "invalid_request_error"),
    UnknownHost: (421, "invalid_request_error"),
    errors.Invalid: (400, "invalid_request_error"),
    errors.AlreadyFinished: (400, "invalid_request_error"),
    errors.CannotRetry: (400, "invalid_request_error"),
    errors.Unauthenticated: (401, "invalid_request_error"),
    errors.NotAllowed: (403, "invalid_request_error"),
    errors.IdempotencyKeyReused: (422, "invalid_request_error"),
    errors.ThreadBusy: (422, "invalid_request_error"),
    errors.QueueFull: (429, "rate_limit_error"),
    errors.NotFound: (404, "invalid_request_error"),
    errors.Unavailable: (503, "server_error"),
    errors.SchemaMismatch: (503, "server_error"),
    errors.OutlastError: (500, "server_error"),
}

_COUNTED = (401, 403, 429)  # what a caller's key or a limit keeps out


class Json(Response):
    """JSON bytes by orjson, or text that is JSON already."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return content.encode() if isinstance(content, str) else to_json(content).encode()


def error_body(message: str, *, type: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def install(app: FastAPI) -> None:
    """Answer every exception with OpenAI's error body."""
    app.add_exception_handler(errors.OutlastError, _ours)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(Exception, _unexpected)


def answer(error: errors.OutlastError) -> Response:
    status, kind = next(_FAMILIES[family] for family in type(error).__mro__ if family in _FAMILIES)
    headers: dict[str, str] = {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if status == 503:
        log.warning("request.unavailable", error=error.message)
        headers["retry-after"] = "1"
    if isinstance(error, errors.QueueFull):
        headers["retry-after"] = str(error.retry_after_seconds)
    if isinstance(error, (errors.AlreadyFinished, errors.IdempotencyKeyReused, errors.ThreadBusy)):
        headers["x-should-retry"] = "false"
    return Json(error_body(error.told, type=kind, param=error.param, code=error.code), status, headers)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.OutlastError)
    refusal = answer(error)
    if refusal.status_code in _COUNTED:
        request.app.state.services.metrics.requests_refused.labels(code=error.code).inc()
    return refusal


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    message = {
        404: f"Unknown request URL: {request.method} {path}.",
        405: f"{request.method} is not supported by {path}.",
    }.get(error.status_code, str(error.detail))
    code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request.app, request.url.path)) or headers.get("Allow", "")
    body = error_body(message, type="invalid_request_error", code=code)
    return Json(body, error.status_code, headers)


def _methods(app: FastAPI, path: str) -> list[str]:
    """Those of all routes of a path: the framework knows those of the first one. Ids do not have a path's own name."""
    routes = list(iter_route_contexts(app.routes))
    matching = [route for route in routes if route.path == path] or [
        route for route in routes if compile_path(route.path or "")[0].match(path)
    ]
    return sorted({method for route in matching for method in route.methods or ()})


async def _validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"][1:]) or None
    message = f"Invalid value for '{param}': {first['msg']}." if param else f"{first['msg']}."
    return Json(error_body(message, type="invalid_request_error", param=param, code="invalid_value"), 400)


async def _unexpected(request: Request, _error: Exception) -> Response:
    # The traceback is logged by the server; the client learns nothing of it.
    body = error_body("The server had an error while processing the request.", type="server_error")
    failure = Json(body, 500)
    failure.raw_headers = answer_headers.completed(failure.raw_headers, request.state.request_id)
    return failure
