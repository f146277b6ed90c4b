"""A private Postgres: the database of `outlast dev` and of the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlencode

from .accounts import Account, account_for_postgres, away_folder
from .binaries import PostgresBinaries, find_postgres, postgres_in
from .errors import EmbeddedError
from .server import Server, StopSteps
from .sockets import fits

USER = "postgres"
DATABASE = "outlast"
PORT = 5432  # only part of the socket's name, but always given: PGPORT would change it on either side
# Who uses a managed Postgres often has the opposite in the environment, as PGSSLMODE=require.
_CONNECTION = {"port": str(PORT), "sslmode": "disable", "channel_binding": "disable"}
_SETTINGS: Mapping[str, str] = {"listen_addresses": "", "max_connections": "200"}
# For psql: psycopg belongs behind the one door, in outlast.shared.
_ENSURE_DATABASE = r"""
SELECT 'CREATE DATABASE outlast' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'outlast') \gexec
"""
_BUILTIN = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
FIRST_WITH_BUILTIN_LOCALES = 17
_STATUS_LINE = 7  # of postmaster.pid, counted from 0


class Postgres(Server):
    """Its cluster is in `folder`/data, its socket where only its user can enter. No TCP port, no password.

    `settings` overrule the server's, as in {"fsync": "off"}. `binaries` and `account` replace those found.
    """

    _name: ClassVar[str] = "Postgres"
    _variable: ClassVar[str] = "DATABASE_URL"
    _socket_name: ClassVar[str] = f".s.PGSQL.{PORT}"
    _stop_steps: ClassVar[StopSteps] = ((signal.SIGINT, 15), (signal.SIGQUIT, 5), (signal.SIGKILL, 5))

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        binaries: PostgresBinaries | None = None,
        account: Account | None = None,
    ) -> None:
        super().__init__(folder)
        self._settings = {**_SETTINGS, **(settings or {})}
        self._given_binaries = binaries
        self._given_account = account

    @cached_property
    def binaries(self) -> PostgresBinaries:
        """Raises EmbeddedError when none are found."""
        return self._given_binaries or find_postgres()

    @property
    def version(self) -> str:
        """As in 18.6. Raises EmbeddedError when no server is found."""
        return self.binaries.version

    @property
    def url(self) -> str:
        """What DATABASE_URL would be, for libpq."""
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?{urlencode({'host': self.socket.parent, **_CONNECTION})}"

    def _prepare(self) -> None:
        self._account = self._given_account or account_for_postgres()
        self._home = self._reachable_home()
        self._refuse_other_major()

    def _reachable_home(self) -> Path:
        """The folder itself, or one elsewhere if the account cannot enter it."""
        if not self._account.reaches(self.folder):
            return away_folder(self.folder, self._account)
        # Another user's socket never goes to the temp folder: there that user could have laid it out for us.
        if self._account.is_other_user and not fits(self.folder / "socket" / self._socket_name):
            return away_folder(self.folder, self._account)
        return self.folder

    def _refuse_other_major(self) -> None:
        try:
            made_by = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return
        if made_by != self.binaries.major:
            raise EmbeddedError(
                f"{self.data} was made by Postgres {made_by}, but the Postgres found here is {self.version} "
                f"({self.binaries.folder}). Move {self.folder} away to begin with an empty database, "
                f"or set DATABASE_URL to a Postgres {made_by} that has your data."
            )

    def _make_data(self, timeout_seconds: float) -> None:
        self._ensure_reachable_binaries()
        if self.data.exists():
            self._account.take(self.data)
            return
        for unfinished in self._home.glob("data.new-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix="data.new-", dir=self._home))
        self._account.take(new)
        self._initdb(new, timeout_seconds)
        new.rename(self.data)  # an initdb cut short is never taken for a cluster

    def _ensure_reachable_binaries(self) -> None:
        if self._account.reaches(self.binaries.server):
            return
        package = self.binaries.package
        if package is None:
            raise EmbeddedError(
                f"User {self._account.uid} cannot run {self.binaries.server}: "
                "install Postgres for all users, or start outlast as a plain user, or set DATABASE_URL."
            )
        copy = self._home / f"programs-{self.version}"
        if not copy.exists():
            self._copy_programs(package, copy)
        folder = copy / self.binaries.folder.relative_to(package.parent)
        self.binaries = postgres_in(folder, package=copy / package.name)

    def _copy_programs(self, package: Path, copy: Path) -> None:
        new = Path(tempfile.mkdtemp(prefix="programs.new-", dir=self._home))
        for part in (package, package.with_name(f"{package.name}.libs")):  # libraries its programs load
            if part.exists():
                shutil.copytree(part, new / part.name, ignore=shutil.ignore_patterns("include"))
        self._account.take(new)
        new.rename(copy)

    def _initdb(self, data: Path, timeout_seconds: float) -> None:
        fixed = [f"--username={USER}", "--auth=trust", "--encoding=UTF8"]
        initdb = [str(self.binaries.initdb), "--no-sync", "--no-instructions", *fixed, "-D", str(data)]
        options = locale_options(self.binaries.major)
        if not any(self._spawn([*initdb, *option], data).wait(timeout_seconds) == 0 for option in options):
            raise self._failure("could not make a new cluster: initdb failed")

    def _launch(self) -> None:
        self._disown_lock_files()
        super()._launch()

    def _command(self) -> Sequence[str]:
        options = [word for key, value in self._settings.items() for word in ("-c", f"{key}={value}")]
        where = ["-D", str(self.data), "-k", str(self.socket.parent), "-p", str(PORT)]
        return [str(self.binaries.server), *where, *options]

    def _disown_lock_files(self) -> None:
        """Put our number into left-over lock files: Postgres ignores its parent's.

        It will not start while the process named there lives, whatever that is by now: numbers are used again
        after a reboot or in a new container. We hold the server's lock, so no server is alive; and Postgres
        still looks whether the shared memory named there is in use."""
        for left in (self.data / "postmaster.pid", self.socket.with_name(f"{self._socket_name}.lock")):
            if left.exists():
                _, *rest = left.read_bytes().split(b"\n")
                left.write_bytes(b"\n".join([str(os.getpid()).encode(), *rest]))

    def _is_ready(self) -> bool:
        """By its own word in postmaster.pid: trying to connect would fill its log."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        is_ours = lines[:1] == [str(self.pid)]
        return is_ours and len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready"

    def _await_ready(self, timeout_seconds: float) -> None:
        super()._await_ready(timeout_seconds)
        psql = [self.binaries.psql, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", self._url("postgres")]
        made = subprocess.run(
            psql, input=_ENSURE_DATABASE, capture_output=True, text=True, check=False, timeout=timeout_seconds
        )
        if made.returncode != 0:
            raise self._failure(f"has no database {DATABASE} ({made.stderr.strip()})")


def locale_options(major: str) -> list[tuple[str, ...]]:
    """What to ask of initdb, best first. C.UTF-8, never C: lower() and ~* must know letters beyond ASCII."""
    if int(major) < FIRST_WITH_BUILTIN_LOCALES:
        return [("--locale=C.UTF-8",)]
    if sys.platform == "darwin":  # its C library may lack C.UTF-8; the builtin provider does not need it
        return [(*_BUILTIN, "--locale=C.UTF-8"), (*_BUILTIN, "--locale=C")]
    return [(*_BUILTIN, "--locale=C.UTF-8")]
