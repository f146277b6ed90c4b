"""LangGraph's checkpoints in our schema: pooled, fenced by the attempt's lease, retried while it lasts."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    id as checkpoint_ids,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import ERROR
from psycopg.rows import dict_row
from psycopg.types.json import set_json_dumps

from outlast.agent import Secret
from outlast.shared.connections import Connection, Database
from outlast.shared.domain.errors import LeaseLost
from outlast.shared.domain.runs import Lease
from outlast.worker.concealment import masked, masked_bytes
from outlast.worker.stage import KEEP_PATIENCE_SECONDS

T = TypeVar("T")

_connection: ContextVar[Connection] = ContextVar("connection")


class Serialiser(JsonPlusSerializer):
    """LangGraph's own, but for a secret that must not be stored."""

    def __init__(self, concealed: Secret | None) -> None:
        super().__init__()
        self._concealed = concealed

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, data = super().dumps_typed(obj)
        return kind, masked_bytes(data, self._concealed)


class FencedSaver(AsyncPostgresSaver):
    """The saver of one attempt. Its tables, statements and serialisation are LangGraph's own.

    LangGraph's saver takes one connection, or a pool behind one lock, and tries once. Here every call has a connection
    of its own and is made again after a lost one, which is harmless: what it writes is known by checkpoint and task.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        lost: Callable[[], None] = lambda: None,
        concealed: Secret | None = None,
    ) -> None:
        serialiser = Serialiser(concealed) if concealed is not None else None
        super().__init__(conn=None, serde=serialiser)  # type: ignore[arg-type]  # _cursor() takes it from the pool
        self.latest_id: str | None = None
        """The checkpoint of the whole graph that was written last."""
        self._database = database
        self._lease = lease
        self._lost = lost
        self._concealed = concealed

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        get = super().aget_tuple
        found = await self._on_connection(lambda: get(config))
        if found is not None:
            _continue_ids_after(found.checkpoint["id"])
        return found

    async def alist(self, config: RunnableConfig | None, **options: Any) -> AsyncIterator[CheckpointTuple]:
        listing = super().alist

        async def read() -> list[CheckpointTuple]:
            return [found async for found in listing(config, **options)]

        for found in await self._on_connection(read):
            yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        put = super().aput
        stored = await self._on_connection(lambda: put(config, checkpoint, metadata, new_versions))
        if not config.get("configurable", {}).get("checkpoint_ns"):
            self.latest_id = checkpoint["id"]
        return stored

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        put = super().aput_writes
        if any(channel == ERROR for channel, _ in writes):
            # A task that was cancelled after its last line comes with its results, and LangGraph would take it for
            # finished; but it was still waiting for what it had said to be stored.
            writes = [write for write in writes if write[0] in WRITES_IDX_MAP]
        await self._on_connection(lambda: put(config, writes, task_id, task_path))

    async def aget_delta_channel_history(self, **options: Any) -> Any:
        history = super().aget_delta_channel_history
        return await self._on_connection(lambda: history(**options))

    async def _on_connection(self, call: Callable[[], Awaitable[T]]) -> T:
        if _connection.get(None) is not None:  # a call within a call
            return await call()

        async def work(connection: Connection) -> T:
            token = _connection.set(connection)
            try:
                return await call()
            finally:
                _connection.reset(token)

        try:
            return await self._database.run(work, patience_seconds=KEEP_PATIENCE_SECONDS)
        except LeaseLost:
            self._lost()  # LangGraph would tell only at the end of the graph
            raise

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncGenerator[Any]:
        """LangGraph asks for a pipeline to write: fence and writes are one transaction and one round trip."""
        connection = _connection.get()
        if not pipeline:
            async with connection.cursor(binary=True, row_factory=dict_row) as cursor:
                yield cursor
            return
        async with connection.pipeline(), connection.cursor(binary=True, row_factory=dict_row) as cursor:
            if self._concealed is not None:
                set_json_dumps(lambda value: masked(json.dumps(value), self._concealed), cursor)
            await cursor.execute("SELECT fence(%s, %s)", (self._lease.run_id, self._lease.attempt))
            yield cursor


def _continue_ids_after(checkpoint_id: str) -> None:
    """Have later checkpoints sort after this one, which may be of a worker whose clock is ahead of ours.

    LangGraph takes the highest id for the latest checkpoint, and makes ids from the clock.
    """
    ids: Any = checkpoint_ids
    ids._last_v6_timestamp = max(ids._last_v6_timestamp or 0, _time_of(checkpoint_id))


def _time_of(checkpoint_id: str) -> int:
    return checkpoint_ids.UUID(checkpoint_id).time if UUID(checkpoint_id).version == 6 else 0
