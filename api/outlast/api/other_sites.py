"""What the page of another site makes a visitor's browser send here: it comes with the visitor's cookies and network.

Where requests need a key nothing comes of it: a browser adds none by itself.
"""

from __future__ import annotations

from fastapi import Request

from outlast.shared.domain.errors import NotAllowed

_READS = ("GET", "HEAD", "OPTIONS")  # other sites cannot look at the answers
_OWN = ("same-origin", "none")


def refuse(request: Request) -> None:
    """Raises NotAllowed, unless it only reads."""
    if request.method not in _READS and request.headers.get("sec-fetch-site", "none") not in _OWN:
        raise NotAllowed("A page of another site has sent this.", code="cross_site_request")


def refuse_unasked(request: Request) -> None:
    """Leaves alone what a browser sends only after it was told that it may, by a gateway: JSON. Raises NotAllowed."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        refuse(request)
