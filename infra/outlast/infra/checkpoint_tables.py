"""LangGraph's checkpoint tables, made by its own set-up in our schema. Imported only where langgraph is installed."""

from __future__ import annotations

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg.sql import SQL, Literal

from outlast.infra.migrate import checkpoints_made_by as made_by, sole_runner
from outlast.shared.connections import Database


async def prepare(database: Database) -> None:
    """Create or upgrade the tables; does nothing when they are current."""
    async with sole_runner(database) as connection:
        connection.row_factory = dict_row  # type: ignore[assignment]  # what the saver reads
        await AsyncPostgresSaver(connection).setup()  # type: ignore[arg-type]
        # So that the next start need not import langgraph to know that there is nothing to do.
        await connection.execute(SQL("COMMENT ON TABLE checkpoints IS {}").format(Literal(made_by())))
