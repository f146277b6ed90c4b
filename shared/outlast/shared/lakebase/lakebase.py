"""A Lakebase database as the connections need it: where to connect, and with which login, now."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from outlast.shared.domain.errors import Unavailable
from outlast.shared.settings import Settings

from .faults import refusal
from .login import Login, Logins
from .target import Target, target_of


class Lakebase:
    """One for all connections of a process, so that they share its logins."""

    def __init__(self, target: Target, *, user: str | None, database: str, port: int, sslmode: str) -> None:
        """``user``: None for the one whom the workspace knows this login as."""
        self.target = target
        self.database = database
        self._user = user
        self._port = port
        self._sslmode = sslmode
        self._workspace: Any = None
        self._last: Login | None = None
        self.logins = Logins(self._mint, self._begin_anew)

    async def parameters(self) -> dict[str, Any]:
        """What libpq is to be told, for one connection. Raises LoginFault."""
        login = self._last = await self.logins.get()
        return {
            "host": login.host,
            "hostaddr": "",  # else PGHOSTADDR would send the token elsewhere
            "port": self._port,
            "dbname": self.database,
            "user": login.user,
            "password": login.token,
            "sslmode": self._sslmode,
        }

    def refused(self, said: str) -> Unavailable | None:
        """A connection was refused with these words: what that means, or None when it is not about the login."""
        login = self._last
        if login is None:
            return None
        fault = refusal(
            said,
            user=login.user,
            database=self.database,
            target=str(self.target),
            is_chosen=self._user is not None,
        )
        if fault is not None:
            self.logins.distrust(login.token)
        return fault

    def _mint(self) -> Login:
        workspace = self._workspace
        if workspace is None:  # in the thread that mints: importing the SDK takes a second
            module = importlib.import_module("outlast.shared.lakebase.workspace")
            workspace = self._workspace = module.Workspace(self.target, self._user)
        return workspace.mint()

    def _begin_anew(self) -> None:
        """A call of the SDK's hangs, and may hold its locks."""
        self._workspace = None


def lakebase_of(settings: Settings) -> Lakebase | None:
    """The Lakebase that the settings name; None where they name none, or a DATABASE_URL. Raises SettingsError."""
    target = None if settings.database_url is not None else target_of(settings)
    if target is None:
        return None
    return _shared(
        target, settings.lakebase_user, settings.lakebase_database, settings.lakebase_port, settings.lakebase_sslmode
    )


@cache
def _shared(target: Target, user: str | None, database: str, port: int, sslmode: str) -> Lakebase:
    return Lakebase(target, user=user, database=database, port=port, sslmode=sslmode)
