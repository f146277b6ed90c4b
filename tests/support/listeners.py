"""Listeners of a graph that keep what they hear."""

from __future__ import annotations

import asyncio
from typing import Any

from outlast.shared.output.items import Path


class Noted:
    """A listener that notes what it is told."""

    ahead = False

    def __init__(self, told: list[Any]) -> None:
        self._told = told

    def emit(self, emission: object, path: Path = ()) -> None:
        self._told.append(emission)

    def withdraw(self, key: str) -> None:
        self._told.append(key)

    async def keep_pace(self) -> None: ...

    async def flush(self) -> None:
        await asyncio.sleep(0)
        self._told.append("flushed")

    def is_open(self, key: str) -> bool:
        return False

    def is_held(self, call_id: str) -> bool:
        return False

    def is_clients(self, tool: str) -> bool:
        return False

    def is_artificial(self, tool: str) -> bool:
        return False

    def called(self, by_client: bool) -> None: ...
