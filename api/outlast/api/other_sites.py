"""What the page of another site makes a visitor's browser send here: it comes with the visitor's cookies and network.

Where requests need a key nothing comes of it: a browser adds none by itself.
"""

from __future__ import annotations

from fastapi import Request
from starlette.datastructures import Headers

from outlast.shared.domain.errors import NotAllowed

_READS = ("GET", "HEAD", "OPTIONS")  # other sites cannot look at the answers
_NAMES = ("host", "x-forwarded-host")
_CODE = "cross_site_request"
_OWN = ("same-origin", "none")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def refuse(request: Request) -> None:
    """Raises NotAllowed, unless it only reads."""
    if request.method in _READS:
        return
    site = request.headers.get("sec-fetch-site")
    if site is None and not _is_own_origin(request.headers):
        raise NotAllowed(
            "A page of another site has sent this: its Origin is not this server's Host. "
            "A proxy that changes Host has to send the first one as X-Forwarded-Host.",
            code=_CODE,
        )
    if site is not None and site not in _OWN:
        raise NotAllowed("A page of another site has sent this.", code=_CODE)


def refuse_unasked(request: Request) -> None:
    """Leaves alone what a browser sends only after it was told that it may, by a gateway: JSON. Raises NotAllowed."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        refuse(request)


def _is_own_origin(headers: Headers) -> bool:
    """Browsers leave Sec-Fetch-Site out on plain HTTP beyond loopback. What may change things has an Origin everywhere.

    No page can have a browser send X-Forwarded-Host unasked.
    """
    for origin in headers.getlist("origin"):
        scheme, _, host = origin.lower().partition("://")
        port = _DEFAULT_PORTS.get(scheme, "")
        ours = {_host(name, port) for header in _NAMES for name in headers.getlist(header)}
        if not host or _host(host, port) not in ours:
            return False
    return True


def _host(given: str, default_port: str) -> str:
    return given.strip().lower().removesuffix(default_port)
