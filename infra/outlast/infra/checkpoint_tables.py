"""LangGraph's checkpoint tables, made by its own set-up in our schema. Imported only where langgraph is installed."""

from __future__ import annotations

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row

from outlast.infra.migrate import sole_runner
from outlast.shared.connections import Database


async def prepare(database: Database) -> None:
    """Create or upgrade the tables; does nothing when they are current."""
    async with sole_runner(database) as connection:
        connection.row_factory = dict_row  # type: ignore[assignment]  # what the saver reads
        await AsyncPostgresSaver(connection).setup()  # type: ignore[arg-type]
