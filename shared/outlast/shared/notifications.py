"""NOTIFY and LISTEN: hints that a run's log has grown. The tables are the truth; a hint may be lost, late or wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from uuid import UUID

import psycopg
from psycopg.sql import SQL, Identifier

from .connections import Connection, Database
from .domain.ids import from_short, short
from .driver_errors import translated

_TOKEN_CHARACTERS = 6  # with the longest name of a schema the channel still has no more than 63 bytes
_PAIRS_PER_PAYLOAD = 230  # of at most 34 characters; Postgres takes less than 8000 bytes


def channel(schema: str) -> str:
    return f"{schema}_run_events"


def payloads(heads: Iterable[tuple[UUID, int]]) -> list[str]:
    """Pairs of run and last number as NOTIFY payloads, as few as possible."""
    pairs = [f"{short(run_id)}:{last_seq}" for run_id, last_seq in heads]
    return [",".join(pairs[i : i + _PAIRS_PER_PAYLOAD]) for i in range(0, len(pairs), _PAIRS_PER_PAYLOAD)]


def heads(payload: str) -> list[tuple[UUID, int]]:
    """The pairs of a payload; what is not one of ours is skipped, since anybody may NOTIFY."""
    found: list[tuple[UUID, int]] = []
    for pair in payload.split(","):
        run, _, last_seq = pair.partition(":")
        try:
            found.append((from_short(run), int(last_seq)))
        except ValueError:
            continue
    return found


async def listen(
    database: Database, *, wanted: Callable[[], bool] = lambda: True, liveness_seconds: float = 5.0
) -> AsyncIterator[list[tuple[UUID, int]]]:
    """Follow the channel on a connection of its own. Yields once, empty, when LISTEN has taken effect.

    Whatever committed before that moment was not notified: the caller must look at everything then.
    Ends when it is time for another connection or nobody wants it any more, which is asked every ``liveness_seconds``,
    and by raising Unavailable when the connection is lost.
    """
    connection = await database.connect()
    try:
        await connection.execute(
            "SELECT set_config('application_name', current_setting('application_name') || ' listener', false)"
        )
        await connection.execute(SQL("LISTEN {}").format(Identifier(channel(database.schema))))
        yield []
        while True:
            async for notification in connection.notifies(timeout=liveness_seconds):
                yield heads(notification.payload)
            if database.has_aged(connection) or not wanted():
                return
            await connection.execute("SELECT 1")  # a half-open socket is silent; this is not
    except psycopg.Error as error:
        raise translated(error) from error
    finally:
        await connection.close()


async def notify(connection: Connection, schema: str, hints: list[str]) -> None:
    """Send hints in a transaction of their own: a commit that carries a NOTIFY holds a lock over the whole cluster."""
    await connection.execute(
        "SELECT pg_notify(%s, payload) FROM unnest(%b::text[]) AS payload",
        (channel(schema), hints),
        prepare=True,
    )


async def seconds_to_arrive(
    listening: Connection, notifying: Connection, schema: str, token: str, *, patience_seconds: float
) -> float | None:
    """How long a notification takes from one connection to another, on a channel made up for it. None: too long.

    ``token``: a few characters that nobody else uses now, of which the first six count.
    """
    made_up = f"{schema}_doctor_{token[:_TOKEN_CHARACTERS]}"
    loop = asyncio.get_running_loop()
    await listening.execute(SQL("LISTEN {}").format(Identifier(made_up)))
    sent_at = loop.time()
    await notifying.execute("SELECT pg_notify(%s, %s)", (made_up, token))
    arrived_at: float | None = None
    async for notification in listening.notifies(timeout=patience_seconds, stop_after=1):
        arrived_at = loop.time() if notification.channel == made_up else None
    await listening.execute(SQL("UNLISTEN {}").format(Identifier(made_up)))
    return None if arrived_at is None else arrived_at - sent_at
