"""The request body of ``POST /responses``, as it is described and read. `request_checks` says what else must hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from outlast.shared.domain.runs import Durability, MultitaskStrategy, ToolItems

Role = Literal["user", "assistant", "system", "developer"]
# What an item of each type must have. Items of ours that come back are taken as they are.
ITEM_TYPES: dict[str, tuple[str, ...]] = {
    "message": ("role", "content"),
    "reasoning": (),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "mcp_call": (),
    "mcp_list_tools": (),
    "mcp_approval_request": (),
    "mcp_approval_response": ("approval_request_id", "approve"),
    "compaction": (),
    "item_reference": ("id",),
}
OTHER_ITEM_TYPES = frozenset({
    "additional_tools", "apply_patch_call", "apply_patch_call_output", "code_interpreter_call", "compaction_trigger",
    "computer_call", "computer_call_output", "configuration_update", "custom_tool_call", "custom_tool_call_output",
    "file_search_call", "image_generation_call", "local_shell_call", "local_shell_call_output", "program",
    "program_output", "shell_call", "shell_call_output", "tool_search_call", "tool_search_output", "web_search_call",
})  # fmt: skip
"""OpenAI's items that Outlast makes nothing of. Function agents get them as they came."""
_MAX_EXPIRY_SECONDS = 2**31 - 1


class _Open(BaseModel):
    """Fields nobody knows here are kept: an agent may. Known ones are not converted: they are shown as they came."""

    model_config = ConfigDict(extra="allow", strict=True)


class ContentPart(_Open):
    type: str
    text: str | None = None


class InputItem(_Open):
    """An item the client sends, or one of ours that it sends back. Without a type it is a message."""

    type: str = "message"
    id: str | None = None
    role: Role | None = None
    content: str | list[ContentPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Any = None
    approval_request_id: str | None = None
    approve: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_other_types(cls, item: Any) -> Any:
        """Look at nothing but the type of an item that Outlast makes nothing of: its fields are of other types."""
        if not isinstance(item, dict):
            return item
        kind = cast("dict[str, Any]", item).get("type")
        return {"type": kind} if isinstance(kind, str) and kind in OTHER_ITEM_TYPES else cast("Any", item)

    @property
    def is_reference(self) -> bool:
        """Whether it stands for an item of an earlier response. It may come without its type: nothing else is an id."""
        if "type" in self.model_fields_set:
            return self.type == "item_reference"
        return self.id is not None and self.role is None and self.content is None


class ConversationRef(_Open):
    id: Annotated[str, Field(min_length=1)]


class DatabricksContext(_Open):
    conversation_id: str | None = None
    user_id: str | None = None


class TextOptions(_Open):
    format: dict[str, Any] | None = None


class Reasoning(_Open):
    effort: str | None = None
    summary: str | None = None


class Tool(_Open):
    type: str
    name: str | None = None


class ToolChoice(_Open):
    type: str


class CreateResponse(_Open):
    """OpenAI's request, with Databricks' ``custom_inputs`` and ``context``. Unknown fields are accepted and kept."""

    input: str | list[InputItem] = Field(description="A question as text, or a list of items.")
    model: str | None = Field(default=None, description="Names an agent; the default agent otherwise.")
    instructions: str | None = None
    stream: bool | None = Field(default=None, description="Answer with server-sent events.")
    background: bool | None = Field(
        default=None, description="Answer at once; the run goes on without this connection."
    )
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: Annotated[str, Field(min_length=1)] | ConversationRef | None = None
    metadata: dict[str, str] | None = None
    custom_inputs: dict[str, Any] | None = None
    context: DatabricksContext | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    tool_items: Annotated[ToolItems, Field(strict=False)] | None = Field(
        default=None, description="How tools that the server runs are shown."
    )
    durability: Annotated[Durability, Field(strict=False)] | None = Field(
        default=None, description="When a graph's checkpoints are written."
    )
    timeout_seconds: int | None = Field(
        default=None, ge=1, description="The run fails when it takes longer; at most what the server allows."
    )
    expire_queued_after_seconds: int | None = Field(
        default=None, ge=1, le=_MAX_EXPIRY_SECONDS, description="The run fails when no worker has taken it by then."
    )
    multitask_strategy: Annotated[MultitaskStrategy, Field(strict=False)] | None = Field(
        default=None, description="What happens when the conversation has another run that has not ended."
    )
    parallel_tool_calls: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    max_output_tokens: int | None = Field(default=None, ge=1)
    max_tool_calls: int | None = Field(default=None, ge=1)
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    user: str | None = None

    @property
    def thread(self) -> str | None:
        """The conversation this request names, if it names one."""
        _, name = self.named_thread
        return None if name is None else str(name)

    @property
    def named_thread(self) -> tuple[str, Any]:
        """The name as it was given, and where."""
        conversation, context = self.conversation, self.context
        for param, name in (
            ("conversation", conversation.id if isinstance(conversation, ConversationRef) else conversation),
            ("custom_inputs.thread_id", (self.custom_inputs or {}).get("thread_id")),
            ("context.conversation_id", context.conversation_id if context else None),
        ):
            if name not in (None, ""):
                return param, name
        return "conversation", None
