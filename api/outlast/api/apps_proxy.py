"""Who is calling through the proxy of Databricks Apps, which lets users in itself and names them in headers.

Whoever reaches the port without the proxy can write what they like into these headers: they are read with
``OUTLAST_AUTH=databricks`` only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastapi import Request
from starlette.datastructures import Headers

from outlast.agent import Secret
from outlast.shared.domain.errors import Unauthenticated
from outlast.shared.domain.keys import MAX_NAME_CHARACTERS, Identity, Scope, is_principal

from . import other_sites

USER = "x-forwarded-user"
EMAIL = "x-forwarded-email"
TOKEN = "x-forwarded-access-token"
CODE = "no_identity"

_TOKEN_CHARACTERS = range(20, 16_385)  # a shorter one may be part of any word, and is searched for in what is stored
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750
_MISSING = (
    "Nobody is named in X-Forwarded-User. With OUTLAST_AUTH=databricks this server is reached through the proxy of "
    "Databricks Apps, which sets it; this request came past it."
)


def caller(request: Request, admins: Iterable[str]) -> Identity:
    """The user whom the proxy names. Raises Unauthenticated when it names nobody, or not exactly one.

    Browsers send the proxy's cookie also with what other sites make them send: that raises NotAllowed.
    """
    user, email = _name(request.headers, USER), _name(request.headers, EMAIL)
    if user is None:
        raise Unauthenticated(_MISSING, code=CODE)
    other_sites.refuse(request)
    is_admin = any(_names(admin, user, email) for admin in admins)
    return Identity(user, frozenset({Scope.ADMIN} if is_admin else ()))


def _names(admin: str, user: str, email: str | None) -> bool:
    """An id is compared with ids and an email with emails: an id that looks like an admin's email is no admin."""
    if _is_email(admin):
        return email is not None and admin.lower() == email.lower()
    return admin == user


def _is_email(name: str) -> bool:
    """What follows an @ is a domain there. In a user's id it is the number of a workspace, which is no domain."""
    _, at, domain = name.rpartition("@")
    return bool(at) and not domain.isdecimal()


def user_token(headers: Headers) -> Secret | None:
    """The token with which one may act for the caller; None where the app does not ask its users for it.

    Raises Unauthenticated when it cannot be one, and never repeats it.
    """
    values = headers.getlist(TOKEN)
    if not values:
        return None
    if len(values) > 1 or len(values[0]) not in _TOKEN_CHARACTERS or not _TOKEN.fullmatch(values[0]):
        least, most = _TOKEN_CHARACTERS[0], _TOKEN_CHARACTERS[-1]
        raise Unauthenticated(f"{TOKEN} is not one bearer token of {least} to {most} characters.", code=CODE)
    return Secret(values[0])


def _name(headers: Headers, header: str) -> str | None:
    values = headers.getlist(header)
    if not values:
        return None
    try:
        [name] = [value.encode("latin-1").decode() for value in values]  # the bytes are UTF-8
    except ValueError:  # two of them, of which one may be the caller's own; or no UTF-8
        name = ""
    if not is_principal(name):
        raise Unauthenticated(
            f"{header} is not one name of 1 to {MAX_NAME_CHARACTERS} printable characters in UTF-8.", code=CODE
        )
    return name
