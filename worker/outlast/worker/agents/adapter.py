"""What an attempt wants of an agent, whichever framework it is written in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from outlast.shared.connections import Database
from outlast.shared.domain.runs import AgentKind, Run
from outlast.shared.output.items import Item
from outlast.worker.stage import Stage


class Adapter(Protocol):
    """One agent, shared by its runs. As a text it says what kind of agent it is and what it takes."""

    @property
    def kind(self) -> AgentKind: ...

    async def surviving(self, run: Run, items: Sequence[Item], database: Database) -> Collection[str]:
        """Prepare a later attempt. Returns the ids of those items of earlier ones that it will not say again.

        What they left half done in the agent's own state is taken back, by this attempt's lease.
        """
        ...

    async def execute(self, stage: Stage) -> None:
        """Run the agent's code to its end. Whatever it raises fails the run; of AgentError the client learns why."""
        ...
