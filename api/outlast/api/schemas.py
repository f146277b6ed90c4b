"""The request body of ``POST /responses``: what is checked, and what is said when it is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlast.shared.domain.errors import Invalid
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
FORMATS = ("text", "json_schema", "json_object")
_FORMAT_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_JSON_TYPES: dict[type, str] = {str: "a string", dict: "an object", bool: "true or false"}
MAX_THREAD_CHARACTERS = 512
MAX_VALUES = 100_000  # in a field: to check more would hold up all other requests of the replica, and list their errors
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


def parse(body: Any) -> CreateResponse:
    """Check a decoded body. Raises Invalid, which names the field."""
    if not isinstance(body, dict):
        raise Invalid("The request body must be a JSON object.")
    _check_counts(body)  # type: ignore[arg-type]
    try:
        request = CreateResponse.model_validate(body)
    except ValidationError as error:
        raise _explained(error) from None
    if not isinstance(request.input, str):
        _check_items(request.input)
    for index, tool in enumerate(request.tools or ()):
        if tool.type == "function" and tool.name is None:
            raise _missing(f"tools[{index}].name")
    if request.conversation is not None and request.previous_response_id is not None:
        raise Invalid("Give either 'conversation' or 'previous_response_id', not both.", param="previous_response_id")
    _check_thread(*request.named_thread)
    if request.text is not None and request.text.format is not None:
        _check_format(request.text.format)
    return request


def _check_counts(body: dict[str, Any]) -> None:
    """Only of what is looked into: an agent's own fields may be as many as fit into a body."""
    if len(body) > MAX_VALUES:
        raise Invalid(f"The request body has more than {MAX_VALUES} fields.")
    for param in ("input", "tools", "metadata", "text"):
        left, waiting = MAX_VALUES, [body.get(param)]
        while waiting:
            value = waiting.pop()
            if not isinstance(value, (dict, list)):
                continue
            left -= len(value)  # type: ignore[arg-type]
            if left < 0:
                raise Invalid(f"Invalid value for '{param}': more than {MAX_VALUES} values.", param=param)
            waiting.extend(value.values() if isinstance(value, dict) else value)  # type: ignore[arg-type]


def _check_items(items: Sequence[InputItem]) -> None:
    for index, item in enumerate(items):
        if item.type not in ITEM_TYPES:
            raise Invalid(
                f"Invalid value: '{item.type[:64]}'. Supported item types are {', '.join(ITEM_TYPES)}.",
                param=f"input[{index}].type",
            )
        for name in ITEM_TYPES["item_reference" if item.is_reference else item.type]:
            if getattr(item, name) is None:
                raise _missing(f"input[{index}].{name}")


def _check_format(form: Mapping[str, Any]) -> None:
    """The form that the answer is to have. Whether its schema is one the worker says, which has the means."""
    kind = form.get("type")
    if kind is None:
        raise _missing("text.format.type")
    if kind not in FORMATS:
        shown = repr(kind[:64]) if isinstance(kind, str) else "no string"
        raise Invalid(f"Invalid value: {shown}. Supported values are {', '.join(FORMATS)}.", param="text.format.type")
    if kind != "json_schema":
        return
    for name, type_ in {"name": str, "schema": dict, "description": str, "strict": bool}.items():
        value = form.get(name)
        if value is None and name in ("name", "schema"):
            raise _missing(f"text.format.{name}")
        if value is not None and not isinstance(value, type_):
            what = _JSON_TYPES[type_]
            raise Invalid(
                f"Invalid value for 'text.format.{name}': Input should be {what}.",
                param=f"text.format.{name}",
                code="invalid_type",
            )
    if not _FORMAT_NAME.fullmatch(form["name"]):
        raise Invalid(
            "Invalid value for 'text.format.name': at most 64 letters, digits, underscores and dashes.",
            param="text.format.name",
        )


def _check_thread(param: str, name: Any) -> None:
    if name is None:
        return
    if type(name) not in (str, int):
        raise Invalid(f"Invalid value for '{param}': Input should be a string.", param=param, code="invalid_type")
    if len(str(name)) > MAX_THREAD_CHARACTERS:
        raise Invalid(f"A conversation id has at most {MAX_THREAD_CHARACTERS} characters.", param=param)
    if "\0" in str(name):  # which Postgres cannot keep in a text
        raise Invalid("A conversation id cannot hold a NUL character.", param=param)


def _missing(param: str) -> Invalid:
    return Invalid(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def _explained(error: ValidationError) -> Invalid:
    """The first field's problem, of several that a union may report the deepest, in the words of OpenAI's errors."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    field = problems[0]["loc"][0]
    first = max((p for p in problems if p["loc"][0] == field), key=lambda p: len(p["loc"]))
    param = _path(first["loc"])
    if first["type"] == "missing":
        return _missing(param)
    code = "invalid_type" if first["type"].endswith("_type") else "invalid_value"
    return Invalid(f"Invalid value for '{param}': {first['msg']}.", param=param, code=code)


def _path(loc: tuple[int | str, ...]) -> str:
    """``input[0].role``; the names that pydantic adds for a union's branches are left out."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "ConversationRef", "ToolChoice"):
            path += f".{part}" if path else part
    return path
