"""What may happen to a Postgres database: its sessions ended, its logins refused, its transactions read-only."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.sql import SQL, Identifier


class Outages:
    """Made from outside the database, by its address."""

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        self._name = parts.path.lstrip("/")
        self._outside = urlunsplit(parts._replace(path="/postgres"))

    def end_sessions(self) -> int:
        """Returns how many there were."""
        with psycopg.connect(self._outside, autocommit=True) as connection:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            return connection.execute(query, (self._name,)).rowcount

    @contextmanager
    def refused_logins(self) -> Generator[None]:
        """Nobody is logged in, and nobody can log in."""
        self._alter("ALLOW_CONNECTIONS false")
        try:
            self.end_sessions()
            yield
        finally:
            self._alter("ALLOW_CONNECTIONS true")

    @contextmanager
    def read_only(self) -> Generator[None]:
        """Every session can only read, as on a standby. Those begun meanwhile stay so."""
        self._alter("SET default_transaction_read_only = on")
        try:
            self.end_sessions()
            yield
        finally:
            self._alter("RESET default_transaction_read_only")

    def _alter(self, how: str) -> None:
        with psycopg.connect(self._outside, autocommit=True) as connection:
            connection.execute(SQL("ALTER DATABASE {} " + how).format(Identifier(self._name)))  # type: ignore[arg-type]
