"""A Databricks workspace as an OpenAI-compatible endpoint: its address and fresh tokens. Extra: databricks."""

from __future__ import annotations

import asyncio

from databricks.sdk.core import Config

from outlast.agent import AgentError

__all__ = ["Workspace"]


class Workspace:
    """Found as databricks-sdk finds it: DATABRICKS_HOST with a token or a service principal, a profile, Azure."""

    def __init__(self) -> None:
        """Raises AgentError when there is none."""
        try:
            self._config = Config(http_timeout_seconds=10, retry_timeout_seconds=30)  # else it tries for 5 minutes
        except ValueError as error:
            raise AgentError(f"DATABRICKS_MODEL is set, but no workspace can be used: {error}") from None

    @property
    def base_url(self) -> str:
        return f"{self._config.host}/serving-endpoints"

    async def token(self) -> str:
        """Asked for before each request; the SDK keeps one until shortly before it ends, then fetches the next."""
        headers = await asyncio.to_thread(self._config.authenticate)
        return headers["Authorization"].removeprefix("Bearer ")
