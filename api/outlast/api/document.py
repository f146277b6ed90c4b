"""The API's document (OpenAPI): what FastAPI makes of the routes, with what they read and answer by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from fastapi import FastAPI

from outlast.shared.settings import Settings

from .schemas import CreateResponse

Operation = dict[str, Any]

ID: dict[str, Any] = {"pattern": "^resp_[0-9a-f]{32}$"}
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "If-None-Match names the version that there is."}}

_ERROR = "Error"
_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong, and the way out."},
                "type": {"type": "string", "enum": ["invalid_request_error", "rate_limit_error", "server_error"]},
                "param": {"type": ["string", "null"], "description": "The field that is wrong."},
                "code": {"type": ["string", "null"], "description": "The same for programs."},
            },
        }
    },
}
_NEVER_SENT = ("HTTPValidationError", "ValidationError")
"""FastAPI documents its own 422, in place of which this server sends 400."""
_SAFE = ("get", "head")
_WORDS = {
    400: "The request is not valid: `error.param` names the field.",
    401: "The caller is not known: `WWW-Authenticate` says how to be.",
    403: "This caller may not do this.",
    404: "There is no such thing, or it is another principal's.",
    408: "The request did not arrive in time.",
    413: "The request body is too large.",
    421: "`Host` is not a name of this server.",
    503: "The database cannot be reached, or the server is being stopped: ask again after the seconds in Retry-After.",
}


def install(app: FastAPI, settings: Settings, *, checks_host: bool) -> None:
    """Have the app describe what it does with these settings."""
    generate = app.openapi

    @cache
    def openapi() -> dict[str, Any]:
        document = generate()
        schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
        for name in _NEVER_SENT:
            schemas.pop(name, None)
        body = CreateResponse.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(body.pop("$defs", {}))
        schemas.update({"CreateResponse": body, _ERROR: _ERROR_SCHEMA})
        if settings.auth == "api_keys":
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]  # routes without a key say so
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                _complete(operation, _refusals(path, method, operation, settings, checks_host=checks_host))
        return document

    app.openapi = openapi


def _refusals(path: str, method: str, operation: Operation, settings: Settings, *, checks_host: bool) -> set[int]:
    """The statuses of errors that an operation may answer with, beside those that it names."""
    if path == "/health":
        return set()
    found = {503}
    if checks_host and path != "/ready":
        found.add(421)
    if "security" in operation:  # open to all
        return found
    found.add(400)  # X-Outlast-Principal, if nothing else
    if settings.auth in ("api_keys", "databricks"):
        found |= {401, 403}
    elif method not in _SAFE:
        found.add(403)
    if "requestBody" in operation:
        found |= {408, 413}
    if "{" in path or 429 in map(int, operation["responses"]):
        found.add(404)
    return found


def _complete(operation: Operation, refusals: set[int]) -> None:
    answers: dict[str, Any] = operation["responses"]
    if _is_fastapis(answers.get("422", {})):
        del answers["422"]
    for status in refusals:
        answers.setdefault(str(status), {"description": _WORDS[status]})
    for status, answer in answers.items():
        if int(status) >= 400:
            answer["content"] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{_ERROR}"}}}
    operation["responses"] = dict(sorted(answers.items()))


def _is_fastapis(answer: Mapping[str, Any]) -> bool:
    return _NEVER_SENT[0] in str(answer.get("content"))
