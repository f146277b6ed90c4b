"""What commands for operators share: one piece of work on the database, and one line when it cannot be done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, TypeVar

import typer

from outlast.shared import logs
from outlast.shared.connections import Connection, Database, fixed
from outlast.shared.domain.errors import OutlastError
from outlast.shared.settings import Settings

from .parts import settings_for_operators

T = TypeVar("T")


def operators_settings() -> Settings:
    """The settings, and logs that follow them. Raises SettingsError."""
    config = settings_for_operators()
    logs.configure(config, part="cli")
    return config


def operators_database(config: Settings) -> Database:
    """The database that the settings name, or that of the running `outlast dev`. Raises SettingsError."""
    return Database(fixed(config.required_database_url()), schema=config.db_schema, application="outlast cli")


def with_database(work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do idempotent work on the database. What goes wrong is told in one line, and ends the command."""

    async def once() -> T:
        async with operators_database(operators_settings()).pooled(max_connections=1) as database:
            return await database.run(work)

    try:
        return asyncio.run(once())
    except OutlastError as error:
        fail(error)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns as wide as what they hold; none without rows."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    ]


def fail(error: OutlastError) -> NoReturn:
    typer.echo(f"outlast: {error.message}", err=True)
    raise typer.Exit(1)
