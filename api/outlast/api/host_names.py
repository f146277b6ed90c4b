"""The names by which this server is called.

A page of another site reaches a server without keys when its own name starts to lead here (DNS rebinding): to the
browser both are then one site. The name that it asked for stays in the Host header.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from outlast.shared.domain.addresses import is_among, is_loopback, name_in
from outlast.shared.settings import Settings

from .errors import UnknownHost, answer

_PROBED = ("/health", "/ready")
"""A probe may give a pod's address, or no Host at all. It learns nothing here."""


def are_checked(settings: Settings, *, on_loopback: bool) -> bool:
    """A server with keys does nothing for a page that has none. Beyond loopback only the setting knows the names."""
    return settings.auth != "api_keys" and (on_loopback or bool(settings.allowed_hosts))


class HostNames:
    """Answers 421 to a request for a name that is neither loopback's nor one of the given."""

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        self._app = app
        self._allowed = tuple(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _PROBED or self._is_ours(scope["headers"]):
            await self._app(scope, receive, send)
            return
        given = ", ".join(repr(host[:200].decode("latin-1")) for host in _hosts(scope["headers"])) or "missing"
        refusal = UnknownHost(
            f"The Host header is {given}. Without API keys this server answers to names of loopback, as localhost, "
            "and to those in OUTLAST_ALLOWED_HOSTS.",
            param="Host",
        )
        await answer(refusal)(scope, receive, send)

    def _is_ours(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        hosts = _hosts(headers)
        name = name_in(hosts[0].decode("latin-1")) if len(hosts) == 1 else None
        return name is not None and (is_loopback(name) or is_among(name, self._allowed))


def _hosts(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [value for name, value in headers if name == b"host"]
