"""What commands for operators share: one piece of work on the database, and one line when it cannot be done."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, TypeVar

import typer

from outlast.shared.connections import Connection, Database, Dedicated
from outlast.shared.domain.errors import Invalid, OutlastError
from outlast.shared.domain.plain_text import on_a_line
from outlast.shared.settings import Settings
from outlast.shared.store import schema

from .parts import configure_logs, settings_for_operators
from .terminal import echo

T = TypeVar("T")

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def operators_settings() -> Settings:
    """The settings, and logs that follow them. Raises SettingsError."""
    config = settings_for_operators()
    configure_logs(config)
    return config


def operators_database(config: Settings) -> Database:
    """The database that the settings name, or that of the running `outlast dev`. Raises SettingsError."""
    return Database.of(config, application="outlast cli")


def with_database(work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do idempotent work on the database. What goes wrong is told in one line, and ends the command."""

    async def once() -> T:
        database = operators_database(operators_settings())
        if database.lakebase is not None:  # the first login takes longer than work waits for a connection
            await database.lakebase.logins.get()
        async with database.pooled(max_connections=1):
            return await database.run(work)

    try:
        return asyncio.run(once())
    except OutlastError as error:
        fail(error)


def with_connection(work: Callable[[Dedicated], Awaitable[T]]) -> T:
    """Do work in steps on one connection, each of which may take a minute. What goes wrong ends the command."""

    async def once() -> T:
        connection = operators_database(operators_settings()).dedicated(statement_timeout="60s")
        try:
            await connection.run(schema.check)
            return await work(connection)
        finally:
            await connection.close()

    try:
        return asyncio.run(once())
    except OutlastError as error:
        fail(error)


def seconds_of(text: str, option: str) -> float:
    """The seconds that somebody wrote as 90s, 10m, 12h, 90d or 2w."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([smhdw])", text)
    if found is None:
        fail(Invalid(f"{option}: a number and one of s, m, h, d, w, as in 90d."))
    return int(found[1]) * _UNIT_SECONDS[found[2]]


def span(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes // 1440} d"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns as wide as what they hold; none without rows."""
    if not rows:
        return []
    lines = [headings, *([on_a_line(text) for text in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in lines]


def fail(error: OutlastError) -> NoReturn:
    echo(f"outlast: {error.message}", err=True)
    raise typer.Exit(1)
