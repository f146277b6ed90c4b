"""Chat models and embeddings of a Databricks workspace, for agents that Outlast serves. Extra: databricks.

    from outlast.databricks import ChatDatabricks, DatabricksEmbeddings

They take the place of databricks-langchain's classes of the same names: LangChain's OpenAI classes, at the workspace's
``/serving-endpoints``, with a fresh token for each request.
"""

from __future__ import annotations

from typing import Any

from databricks.sdk.core import Config
from langchain_openai import OpenAIEmbeddings
from langchain_openai.chat_models.base import BaseChatOpenAI

from outlast.agent import AgentError

__all__ = ["ChatDatabricks", "DatabricksEmbeddings", "Workspace"]

_TEXTS_AT_ONCE = 20


class Workspace:
    """Found as databricks-sdk finds it: DATABRICKS_HOST with a token or a service principal, a profile, an app's."""

    def __init__(self, client: Any = None) -> None:
        """``client`` is a ``WorkspaceClient`` to use instead. Raises AgentError when no workspace can be used."""
        try:  # without these numbers it tries for 5 minutes
            config = client.config if client else Config(http_timeout_seconds=10, retry_timeout_seconds=30)
        except ValueError as error:
            raise AgentError(f"No Databricks workspace can be used: {error}") from None
        self._config: Config = config

    @property
    def base_url(self) -> str:
        return f"{self._config.host}/serving-endpoints"

    def token(self) -> str:
        """For one request. The SDK keeps it until shortly before it ends, then fetches the next one: blocks."""
        return self._config.authenticate()["Authorization"].removeprefix("Bearer ")


class ChatDatabricks(BaseChatOpenAI):
    """A serving endpoint of a chat model. Takes what LangChain's ``ChatOpenAI`` takes: temperature, max_tokens, …"""

    def __init__(self, *, endpoint: str | None = None, workspace_client: Any = None, **options: Any) -> None:
        """``model`` is another name of ``endpoint``. Raises AgentError when no workspace can be used."""
        super().__init__(**_options(endpoint, workspace_client, {"stream_usage": True, **options}))

    @property
    def _llm_type(self) -> str:
        return "chat-databricks"


class DatabricksEmbeddings(OpenAIEmbeddings):
    """A serving endpoint that makes vectors of texts, 20 texts in a request."""

    def __init__(self, *, endpoint: str | None = None, workspace_client: Any = None, **options: Any) -> None:
        """``model`` is another name of ``endpoint``. Raises AgentError when no workspace can be used."""
        texts = {"check_embedding_ctx_length": False, "chunk_size": _TEXTS_AT_ONCE}  # else it sends OpenAI's tokens
        super().__init__(**_options(endpoint, workspace_client, {**texts, **options}))


def _options(endpoint: str | None, client: Any, options: dict[str, Any]) -> dict[str, Any]:
    named = {"model": endpoint} if endpoint else {}
    if not named and not options.keys() & {"model", "model_name"}:
        raise AgentError("Name a serving endpoint: endpoint='databricks-gpt-5-2', for instance.")
    workspace = Workspace(client)
    return {"base_url": workspace.base_url, "api_key": workspace.token, **options, **named}
