"""Why a login to Lakebase cannot be had, and what mends it: for people, in one sentence each."""

from __future__ import annotations

from outlast.shared.domain.errors import Unavailable

_REFUSED = "The database refuses this server's login."
_NO_LOGIN = "This server cannot get a login to its database."


class LoginFault(Unavailable):
    """This server cannot get a login to its database."""

    def __init__(self, cause: str, fix: str = "", *, lasting: bool) -> None:
        super().__init__(_NO_LOGIN, reason=f"{cause}. {fix}" if fix else cause)
        self.cause = cause
        self.fix = fix
        self.lasting = lasting
        """Trying again does not help, until somebody has changed something."""


class LoginRefused(Unavailable):
    """The database refuses this server's login."""

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(_REFUSED, reason=f"{cause}. {fix}")
        self.cause = cause
        self.fix = fix


def refusal(said: str, *, user: str, database: str, target: str, is_chosen: bool = False) -> LoginRefused | None:
    """What a server's refusal of a connection means; None for what is not about the login.

    ``said``: its words. ``is_chosen``: a variable names the user, not the workspace.
    """
    text = said.lower()
    if "password authentication failed" in text or "token" in text or "oauth" in text:
        if is_chosen:
            return LoginRefused(
                f"{target} refuses the login of {user}, whom LAKEBASE_USER or PGUSER names",
                "Unset both: the role is then the one that the token is for, which `outlast lakebase grant` makes",
            )
        return LoginRefused(
            f"{target} refuses the login of {user}",
            "Its workspace may have revoked it, or there is no role for it there: `outlast lakebase grant` prints what "
            "makes one",
        )
    if "role " in text and "does not exist" in text:
        return LoginRefused(f"{target} has no role {user}", "`outlast lakebase grant` prints what makes it")
    if "database " in text and "does not exist" in text:
        return LoginRefused(
            f"{target} has no database {database}",
            f"Name one that is there in LAKEBASE_DATABASE, or CREATE DATABASE {database}",
        )
    if "permission denied for database" in text:
        return LoginRefused(
            f"{user} may not connect to the database {database} of {target}",
            "`outlast lakebase grant` prints the statements that let it",
        )
    if "suspended" in text or "disabled" in text:
        return LoginRefused(f"{target} is disabled", "Enable it: Lakebase > the project > Branches > Computes > Start")
    return None
