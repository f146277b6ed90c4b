"""Who is told what a graph says."""

from __future__ import annotations

from typing import Protocol

from outlast.shared.output.items import Path


class Listener(Protocol):
    """One attempt at a run."""

    async def emit(self, emission: object, path: Path = ()) -> None: ...

    async def flush(self) -> None: ...

    async def retract(self, key: str) -> None:
        """Take back what is being said under this key."""
        ...

    def is_open(self, call_id: str) -> bool:
        """Whether this tool call waits for its result."""
        ...

    def is_clients(self, tool: str) -> bool:
        """Whether the client runs this tool."""
        ...

    def is_artificial(self, tool: str) -> bool:
        """Whether there is no such tool: a call of it is a structured response."""
        ...

    def called(self, by_client: bool) -> None:
        """The model has called a tool."""
        ...
