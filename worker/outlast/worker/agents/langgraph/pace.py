"""Waiting in a graph's asynchronous code: while too much is not stored, and at the end of each node."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from typing import Any, Protocol
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler

from outlast.shared.domain.errors import LeaseLost

from .listener import Listener


class Hearing(Protocol):
    """What has heard of a node's end; `Callbacks` is."""

    @property
    def nodes(self) -> Collection[UUID]:
        """Runs of nodes that are under way."""
        ...

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Hear of an end, if it was not heard of yet."""
        ...

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Hear of a failure, if it was not heard of yet."""
        ...


class Pace(AsyncCallbackHandler):
    """Has asynchronous code wait. LangChain skips it while there is no reason.

    LangChain keeps no order among handlers, so this one has `Callbacks` hear of a node's end before it waits.
    In synchronous code LangChain would run it on a loop of its own, in vain: there `Callbacks` waits, if that can be.
    """

    run_inline = True
    raise_error = True

    def __init__(self, hearing: Hearing, listener: Listener) -> None:
        self.ending: set[UUID] = set()
        """Nodes that are about to end."""
        self._hearing = hearing
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._listener = listener

    @property
    def ignore_llm(self) -> bool:
        return not self._listener.ahead

    @property
    def ignore_chain(self) -> bool:
        return threading.get_ident() != self._thread or not (self.ending or self._hearing.nodes)

    @property
    def ignore_agent(self) -> bool:
        return True

    @property
    def ignore_chat_model(self) -> bool:
        return True

    @property
    def ignore_retriever(self) -> bool:
        return True

    async def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        if asyncio.get_running_loop() is self._loop:
            await self._listener.keep_pace()

    def on_chain_start(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]  # not awaited: it is nothing
        return

    async def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._hearing.on_chain_end(outputs, run_id=run_id, **kwargs)
        await self._end(run_id)

    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._hearing.on_chain_error(error, run_id=run_id, **kwargs)
        await self._end(run_id)

    async def _end(self, run_id: UUID) -> None:
        if run_id not in self.ending:
            return
        self.ending.discard(run_id)
        if asyncio.get_running_loop() is self._loop:
            try:
                await self._listener.flush()
            except LeaseLost:
                # LangChain shields this task: once its own waiting is cancelled, nothing asks how the task has ended.
                if task := asyncio.current_task():
                    task.add_done_callback(_retrieve)
                raise


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
