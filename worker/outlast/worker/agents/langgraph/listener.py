"""The attempt at a run, as what listens to its graph sees it."""

from __future__ import annotations

from typing import Protocol

from outlast.shared.output.items import Path


class Listener(Protocol):
    """One attempt at a run. All but ``inside_tool`` are called on its event loop."""

    def emit(self, emission: object, path: Path = ()) -> None:
        """Tell the client something. Raises EmissionError and LeaseLost."""
        ...

    def withdraw(self, key: str) -> None:
        """Take back what was told under this key. Raises LeaseLost."""
        ...

    @property
    def ahead(self) -> bool:
        """Whether more was told than can wait: the graph is to `keep_pace`."""
        ...

    async def keep_pace(self) -> None:
        """Wait while too much is not stored yet. Raises LeaseLost."""
        ...

    async def flush(self) -> None:
        """Wait until all that was told is stored. Raises LeaseLost."""
        ...

    def is_open(self, key: str) -> bool:
        """Whether the tool call of this key waits for its result."""
        ...

    def is_held(self, call_id: str) -> bool:
        """Whether the client will be asked to answer the call that it knows by this id."""
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
