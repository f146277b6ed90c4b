"""LangGraph's checkpoints in our schema: pooled, fenced by the attempt's lease, retried while it lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar, cast
from uuid import UUID

import structlog
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
from langgraph.checkpoint.serde.types import ERROR
from psycopg.rows import dict_row
from psycopg.types.json import set_json_dumps

from outlast.agent import Secret
from outlast.shared.connections import Connection, Database, turns
from outlast.shared.domain.errors import LeaseLost, Unavailable
from outlast.shared.domain.runs import Lease
from outlast.shared.store import rewinding
from outlast.worker.concealment import masked
from outlast.worker.stage import KEEP_PATIENCE_SECONDS

from .not_stored import NotStored
from .serialiser import NOT_STORED, Serialiser, dumps_json, storable

T = TypeVar("T")

log = structlog.get_logger()

_connection: ContextVar[Connection] = ContextVar("connection")
_there: ContextVar[Database] = ContextVar("there")
"""The database of a loop other than the run's own, in what is done there."""

_LOOK_SECONDS = 2.0  # less than what a stall takes: a worker must not be killed for a database that is away
_TURN_SECONDS = 0.5


class FencedSaver(AsyncPostgresSaver):
    """The saver of one attempt. Its tables, statements and serialisation are LangGraph's own.

    LangGraph's saver takes one connection, or a pool behind one lock, and tries once. Here every call has a connection
    of its own and is made again after a lost one, which is harmless: what it writes is known by checkpoint and task.
    Its sync methods may be called in any thread, that of the run's event loop included.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        lost: Callable[[], None] = lambda: None,
        concealed: Secret | None = None,
    ) -> None:
        super().__init__(conn=None, serde=Serialiser(lease.run_id.hex, concealed))  # type: ignore[arg-type]  # _cursor() takes it from the pool
        self.latest_id: str | None = None
        """The checkpoint of the whole graph that was written last."""
        self._database = database
        self._lease = lease
        self._lost = lost
        self._dumps_json = dumps_json if concealed is None else partial(_dumps_masked, concealed)

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
        checkpoint = {**checkpoint, "channel_values": storable(checkpoint["channel_values"])}
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

    async def rewind(self, thread_id: str) -> None:
        """Go back to the run's last checkpoint that holds all its state, before a new attempt goes on from it."""
        kind = NOT_STORED + self._lease.run_id.hex

        async def work() -> None:
            gone = await rewinding.rewind(_connection.get(), self._lease, thread_id=thread_id, not_stored=kind)
            if gone:
                log.info("checkpoints.rewound", checkpoints=gone)

        await self._on_connection(work)

    # -- the same for code that is not async -------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._elsewhere(lambda: self.aget_tuple(config))

    def list(self, config: RunnableConfig | None, **options: Any) -> Iterator[CheckpointTuple]:
        async def read() -> Sequence[CheckpointTuple]:
            return [found async for found in self.alist(config, **options)]

        return iter(self._elsewhere(read))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self._elsewhere(lambda: self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._elsewhere(lambda: self.aput_writes(config, writes, task_id, task_path))

    def get_delta_channel_history(self, **options: Any) -> Mapping[str, Any]:
        return self._elsewhere(lambda: self.aget_delta_channel_history(**options))

    def _elsewhere(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do it on another loop: this run's own may be what waits for it, in this thread or for this thread."""

        async def work(database: Database) -> T:
            _there.set(database)
            return await call()

        return self._database.second_loop.call(work)

    # -- what LangGraph's own methods do it with -----------------------------------------------------------------------

    async def _on_connection(self, call: Callable[[], Awaitable[T]]) -> T:
        if _connection.get(None) is not None:  # a call within a call
            return await call()

        async def work(connection: Connection) -> T:
            token = _connection.set(connection)
            try:
                return await call()
            finally:
                _connection.reset(token)

        there = _there.get(None)
        working = (there or self._database).run(work, patience_seconds=KEEP_PATIENCE_SECONDS)
        try:
            return await (working if there is None else self._while_own_loop_turns(working))
        except LeaseLost:  # LangGraph would tell only at the end of the graph
            if there is None:
                self._lost()
            else:
                self.loop.call_soon_threadsafe(self._lost)
            raise

    async def _while_own_loop_turns(self, work: Coroutine[Any, Any, T]) -> T:
        """Raises Unavailable when it takes long, and the run's own loop stands: a worker with it would be killed."""
        working = asyncio.create_task(work)
        while not (await asyncio.wait([working], timeout=_LOOK_SECONDS))[0]:
            if not await turns(self.loop, _TURN_SECONDS):
                working.cancel()
                raise Unavailable("The database did not answer in time, and the event loop waited for it.")
        return working.result()

    def _dump_blobs(self, thread_id: str, checkpoint_ns: str, values: dict[str, Any], versions: ChannelVersions) -> Any:
        dumps: Any = cast("Serialiser", self.serde).dumps_of
        return [
            (thread_id, checkpoint_ns, name, version, *dumps(name, values[name])) for name, version in versions.items()
        ]

    def _dump_writes(
        self,
        thread_id: str,
        checkpoint_ns: str,
        checkpoint_id: str,
        task_id: str,
        task_path: str,
        writes: Sequence[tuple[str, Any]],
    ) -> Any:
        dumps: Any = cast("Serialiser", self.serde).dumps_of
        place = (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path)
        return [
            (*place, WRITES_IDX_MAP.get(channel, number), channel, *dumps(channel, value))
            for number, (channel, value) in enumerate(writes)
        ]

    def _load_writes(self, writes: Any) -> Any:
        """A task of whose results one could not be stored has not finished: it is run again."""
        loaded = super()._load_writes(writes)
        unfinished = {task for task, _, value in loaded if isinstance(value, NotStored)}
        return [write for write in loaded if write[0] not in unfinished]

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncGenerator[Any]:
        """LangGraph asks for a pipeline to write: fence and writes are one transaction and one round trip."""
        connection = _connection.get()
        if not pipeline:
            async with connection.cursor(binary=True, row_factory=dict_row) as cursor:
                yield cursor
            return
        async with connection.pipeline(), connection.cursor(binary=True, row_factory=dict_row) as cursor:
            set_json_dumps(self._dumps_json, cursor)
            await cursor.execute("SELECT fence(%s, %s)", (self._lease.run_id, self._lease.attempt))
            yield cursor


def _dumps_masked(concealed: Secret, value: Any) -> str:
    return masked(dumps_json(value), concealed)


def _continue_ids_after(checkpoint_id: str) -> None:
    """Have later checkpoints sort after this one, which may be of a worker whose clock is ahead of ours.

    LangGraph takes the highest id for the latest checkpoint, and makes ids from the clock.
    """
    ids: Any = checkpoint_ids
    ids._last_v6_timestamp = max(ids._last_v6_timestamp or 0, _time_of(checkpoint_id))


def _time_of(checkpoint_id: str) -> int:
    return checkpoint_ids.UUID(checkpoint_id).time if UUID(checkpoint_id).version == 6 else 0
