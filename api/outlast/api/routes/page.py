"""Pages that need no key. What the one at ``/`` shows comes from the public API, with the reader's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from outlast.api import reference

from .responses import matches

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Nothing from elsewhere, nothing inline, and no text ever becomes HTML (Trusted Types), whatever an agent says.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {  # the others are those of every answer
    "cache-control": "no-cache",  # asked for again each time, by its tag: after an upgrade all files are of one release
    "content-security-policy": _POLICY,
}


def install(app: FastAPI) -> None:
    """A route for each file: index.html is ``/``, the others are under ``/page``."""
    for file in files("outlast.api").joinpath("page").iterdir():
        path = "/" if file.name == "index.html" else f"/page/{file.name}"
        app.add_route(path, _serving(file), methods=["GET"], include_in_schema=False)

    app.add_route("/docs", _reference, methods=["GET"], include_in_schema=False)


async def _reference(request: Request) -> Response:
    app: FastAPI = request.app
    return Response(reference.page(app.openapi()), headers=_HEADERS, media_type=_TYPES["html"])


def _serving(file: Traversable) -> Callable[[Request], Awaitable[Response]]:
    content = file.read_bytes()
    headers = {**_HEADERS, "etag": f'"{sha256(content).hexdigest()[:32]}"'}
    media_type = _TYPES[file.name.rpartition(".")[2]]

    async def serve(request: Request) -> Response:
        if matches(request.headers.get("if-none-match", ""), headers["etag"]):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return serve
