"""Who is calling: the principal of the key, the user of Databricks' proxy, or the one that a trusted gateway names."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from outlast.agent import Secret
from outlast.shared.domain.errors import Invalid, NotAllowed, Unauthenticated
from outlast.shared.domain.keys import MAX_NAME_CHARACTERS, Identity, Scope, is_principal

from . import apps_proxy, other_sites
from .keyring import Keyring
from .services import Services

PRINCIPAL_HEADER = "x-outlast-principal"
ANYBODY = Identity("anonymous", frozenset(Scope))
"""Without authentication: everybody is the same principal, and everything is open."""
_MISSING = "No API key: send `Authorization: Bearer sk-outlast-…`. `outlast keys create NAME` makes a key."


async def identify(request: Request) -> Identity:
    """Raises Unauthenticated; NotAllowed for another site's page, and when the key may not act for others but does."""
    services: Services = request.app.state.services
    match services.settings.auth:
        case "api_keys":
            own = await _of_key(services.keyring, request.headers.getlist("authorization"))
        case "databricks":
            own = apps_proxy.caller(request, services.settings.admins)
        case _:
            other_sites.refuse_unasked(request)  # a server on a developer's own machine, which every page can reach
            own = ANYBODY
    names = request.headers.getlist(PRINCIPAL_HEADER)
    return _acting_for(own, names) if names else own


Caller = Annotated[Identity, Depends(identify)]


async def only_admins(request: Request, caller: Caller) -> Identity:
    """Raises NotAllowed without the scope admin."""
    if Scope.ADMIN not in caller.scopes:
        services: Services = request.app.state.services
        if services.settings.auth == "databricks":
            raise NotAllowed(f"This is for the users in OUTLAST_ADMINS. You are {caller.principal!r}.")
        raise NotAllowed(f"This needs an API key with the scope '{Scope.ADMIN}'.")
    return caller


def user_token(request: Request) -> Secret | None:
    """What an agent needs to act for whoever is calling, where they are known by Databricks' proxy.

    None for a caller who names another principal: the run of one user must not act as another.
    """
    services: Services = request.app.state.services
    if services.settings.auth != "databricks" or PRINCIPAL_HEADER in request.headers:
        return None
    return apps_proxy.user_token(request.headers)


async def _of_key(keyring: Keyring, headers: list[str]) -> Identity:
    if not headers:
        raise Unauthenticated(_MISSING)
    scheme, _, key = headers[0].partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer" or not key.strip():
        raise Unauthenticated(_MISSING)
    return await keyring.identify(key.strip())


def _acting_for(own: Identity, names: list[str]) -> Identity:
    if not own.may(Scope.ACT_FOR_OTHERS):
        raise NotAllowed(f"{PRINCIPAL_HEADER} needs the scope '{Scope.ACT_FOR_OTHERS}'.")
    name = _text(names[0])
    if len(names) > 1 or name is None or not is_principal(name):  # of two, one may be a user's own
        raise Invalid(
            f"Give {PRINCIPAL_HEADER} once, with 1 to {MAX_NAME_CHARACTERS} printable characters in UTF-8.",
            param=PRINCIPAL_HEADER,
        )
    return Identity(name, own.scopes)


def _text(header: str) -> str | None:
    """A header's text: its bytes are UTF-8 here, and HTTP reads them as Latin-1."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return None
