"""The request body of ``POST /responses``: what is checked, and what is said when it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlast.shared.domain.errors import Invalid
from outlast.shared.domain.runs import ToolItems

Role = Literal["user", "assistant", "system", "developer"]
ITEM_TYPES = (
    "message", "reasoning", "function_call", "function_call_output", "mcp_call", "mcp_list_tools",
    "mcp_approval_request", "mcp_approval_response", "compaction", "item_reference",
)  # fmt: skip


class _Open(BaseModel):
    """Fields nobody knows here are kept: an agent may."""

    model_config = ConfigDict(extra="allow")


class ContentPart(_Open):
    type: str
    text: str | None = None


class InputItem(_Open):
    """An item the client sends, or one of ours that it sends back. Without a type it is a message."""

    type: str = "message"
    role: Role | None = None
    content: str | list[ContentPart] | None = None


class ConversationRef(_Open):
    id: Annotated[str, Field(min_length=1, max_length=512)]


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
    conversation: Annotated[str, Field(min_length=1, max_length=512)] | ConversationRef | None = None
    metadata: dict[str, str] | None = None
    custom_inputs: dict[str, Any] | None = None
    context: DatabricksContext | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    tool_items: ToolItems | None = Field(default=None, description="How tools that the server runs are shown.")
    parallel_tool_calls: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
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
        if self.conversation is not None:
            return self.conversation if isinstance(self.conversation, str) else self.conversation.id
        for given in (
            (self.custom_inputs or {}).get("thread_id"),
            self.context and self.context.conversation_id,
        ):
            if given:
                return str(given)
        return None


def parse(body: Any) -> CreateResponse:
    """Check a decoded body. Raises Invalid, which names the field."""
    if not isinstance(body, dict):
        raise Invalid("The request body must be a JSON object.")
    try:
        request = CreateResponse.model_validate(body)
    except ValidationError as error:
        raise _explained(error) from None
    if not isinstance(request.input, str):
        _check_items(request.input)
    if request.conversation is not None and request.previous_response_id is not None:
        raise Invalid("Give either 'conversation' or 'previous_response_id', not both.", param="previous_response_id")
    if request.thread is not None and len(request.thread) > 512:
        raise Invalid("A conversation id has at most 512 characters.", param="conversation")
    return request


def _check_items(items: Sequence[InputItem]) -> None:
    for index, item in enumerate(items):
        if item.type not in ITEM_TYPES:
            raise Invalid(
                f"Invalid value: '{item.type[:64]}'. Supported item types are {', '.join(ITEM_TYPES)}.",
                param=f"input[{index}].type",
            )
        if item.type == "message":
            if item.role is None:
                raise Invalid(f"Missing required parameter: 'input[{index}].role'.", param=f"input[{index}].role")
            if item.content is None:
                raise Invalid(f"Missing required parameter: 'input[{index}].content'.", param=f"input[{index}].content")


def _explained(error: ValidationError) -> Invalid:
    """The first problem, of several that a union may report the deepest, in the words of OpenAI's errors."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    first = max(problems, key=lambda p: len(p["loc"])) if problems[0]["loc"][0] == "input" else problems[0]
    param = _path(first["loc"])
    if first["type"] == "missing":
        return Invalid(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    code = "invalid_type" if first["type"].endswith("_type") else "invalid_value"
    return Invalid(f"Invalid value for '{param}': {first['msg']}.", param=param, code=code)


def _path(loc: tuple[int | str, ...]) -> str:
    """``input[0].role``; the names that pydantic adds for a union's branches are left out."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "ConversationRef"):
            path += f".{part}" if path else part
    return path
