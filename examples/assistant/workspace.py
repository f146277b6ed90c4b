"""A Databricks workspace as an OpenAI-compatible endpoint: its address and fresh tokens. Extra: databricks."""

from __future__ import annotations

import asyncio

from databricks.sdk.core import Config

__all__ = ["Workspace"]


class Workspace:
    """Found as databricks-sdk finds it: DATABRICKS_HOST with a token or a service principal, a profile, Azure."""

    def __init__(self) -> None:
        """Raises ValueError when there is none."""
        self._config = Config()

    @property
    def base_url(self) -> str:
        return f"{self._config.host}/serving-endpoints"

    async def token(self) -> str:
        """Asked for before each request; the SDK keeps one until shortly before it ends, then fetches the next."""
        headers = await asyncio.to_thread(self._config.authenticate)
        return headers["Authorization"].removeprefix("Bearer ")
