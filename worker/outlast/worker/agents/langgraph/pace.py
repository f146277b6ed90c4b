"""Waiting in a graph's asynchronous code: while too much is not stored, and at the end of each node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler

from .listener import Listener


class Pace(AsyncCallbackHandler):
    """Has asynchronous code wait after what `Callbacks` has heard of it. LangChain skips it while there is no reason.

    In synchronous code LangChain would run it on a loop of its own, in vain: there `Callbacks` waits, if that can be.
    """

    run_inline = True
    raise_error = True

    def __init__(self, hear: Callable[[], None], listener: Listener) -> None:
        self.ending: set[UUID] = set()
        """Nodes that are about to end."""
        self._hear = hear
        self._loop = asyncio.get_running_loop()
        self._listener = listener

    @property
    def ignore_llm(self) -> bool:
        return not self._listener.ahead

    @property
    def ignore_chain(self) -> bool:
        return not self.ending

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

    async def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        await self._end(run_id)

    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        await self._end(run_id)

    async def _end(self, run_id: UUID) -> None:
        if run_id not in self.ending:
            return
        self.ending.discard(run_id)
        if asyncio.get_running_loop() is self._loop:
            self._hear()
            await self._listener.flush()
