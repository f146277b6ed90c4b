"""Whether a database is one that Outlast can work on: looked at once, when a part starts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import uuid4

import structlog

from .connections import Connection, Database
from .domain.errors import Unavailable, Unfit
from .notifications import seconds_to_arrive
from .settings import Settings
from .store import diagnosis

T = TypeVar("T")

log = structlog.get_logger()

_LISTEN_SECONDS = 2.0


async def check_sessions(database: Database) -> None:
    """Raises Unfit when connections share sessions of the server, and Unavailable.

    A pooler that works by transaction takes from each connection what it relies on: the schema it works in, its time
    limits, its prepared statements.
    """
    facts = await _with_two(database, diagnosis.sessions)
    if facts.same_server or facts.moved or not (facts.kept_settings and facts.kept_statements):
        raise Unfit


async def with_a_tail_that_works(settings: Settings, database: Database) -> Settings:
    """The settings, with polling where a notification does not arrive. Raises Unavailable."""
    if settings.tail == "poll":
        return settings

    async def arrives(listening: Connection, notifying: Connection) -> bool:
        seconds = await seconds_to_arrive(
            listening, notifying, settings.db_schema, uuid4().hex, patience_seconds=_LISTEN_SECONDS
        )
        return seconds is not None

    try:
        works = await _with_two(database, arrives)
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 — whatever a server says that knows no LISTEN
        log.debug("listener.refused", error=type(error).__name__)
        works = False
    if not works:
        log.warning("listener.impossible", poll_interval_seconds=settings.poll_interval_seconds)
    return settings if works else settings.model_copy(update={"tail": "poll"})


async def _with_two(database: Database, work: Callable[[Connection, Connection], Awaitable[T]]) -> T:
    """On two new connections."""
    first, second = database.dedicated(), database.dedicated()
    try:
        return await first.run(lambda one: second.run(lambda other: work(one, other)))
    finally:
        await first.close()
        await second.close()
