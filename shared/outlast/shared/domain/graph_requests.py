"""What a request asks that no graph can do: items, content, tools and parameters. Pure.

Function agents get everything as it came. The API refuses such a request where it knows the agent as a graph; else
the run fails with the same words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

from .errors import Invalid

Json = Mapping[str, Any]

FUNCTION = "function"
ALLOWED_TOOLS = "allowed_tools"
ITEMS = frozenset({
    "message", "reasoning", "function_call", "function_call_output", "mcp_call", "mcp_list_tools",
    "mcp_approval_request", "item_reference",
})  # fmt: skip
"""Those that have messages, and those of our own responses that come back: they stand for nothing that is lost."""
TEXTS = frozenset({"input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text"})
PARTS = TEXTS | {"input_image", "input_file", "input_audio"}
KEPT: Mapping[str, Collection[Any]] = {
    "access_programs": (),
    "background_options": (),
    "context_management": (),
    "image": (),
    "include": (),
    "moderation": (),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "stream_options": (),
    "top_logprobs": (0,),
    "user": (),
}
"""OpenAI's parameters that no graph's model is given, each with the values that ask for nothing."""
_SHOWN_CHARACTERS = 64
_NO_FILES = "This server keeps no files: send the data itself as"


@dataclass(frozen=True, slots=True)
class Taken:
    """What an agent's graph takes beyond functions, by its operator's word."""

    tools: Collection[str] = ()
    """Types of tools that its models' provider runs."""
    strict: bool = False
    """Parameters that do nothing are refused."""


def problem_with(request: Json, taken: Taken) -> Invalid | None:
    """Return the first thing in a request, which has been checked, that a graph cannot do."""
    return next(_problems(request, taken), None)


def parameters_kept(request: Json) -> list[str]:
    """Return the parameters of a request that ask for something and do nothing."""
    return [name for name, idle in KEPT.items() if (value := request.get(name)) and value not in idle]


def _problems(request: Json, taken: Taken) -> Iterator[Invalid]:
    given = request["input"]
    if not isinstance(given, str):
        for index, item in enumerate(given):
            yield from _with_item(item, f"input[{index}]")
    tools: Sequence[Json] = request.get("tools") or ()
    yield from _with_tools(tools, taken.tools)
    yield from _with_choice(request.get("tool_choice"), tools)
    if request.get("prompt") is not None:
        yield Invalid(
            "'prompt' names a template that OpenAI keeps; no graph can be given it. Send its text as 'instructions'.",
            param="prompt",
            code="unsupported_parameter",
        )
    for name in parameters_kept(request) if taken.strict else ():
        yield unsupported_parameter(name)


def unsupported_parameter(name: str) -> Invalid:
    """Say that a parameter does nothing, where such a one is refused."""
    return Invalid(
        f"'{name}' reaches no model of this agent. Leave it out, or have the server accept what does nothing "
        "(OUTLAST_STRICT_PARAMETERS).",
        param=name,
        code="unsupported_parameter",
    )


# -- items and their content -------------------------------------------------------------------------------------------


def _with_item(item: Json, param: str) -> Iterator[Invalid]:
    kind: str = item.get("type") or "message"
    if kind not in ITEMS:
        yield Invalid(
            f"A graph has no message for an item of type '{kind[:_SHOWN_CHARACTERS]}', and this agent is a graph. "
            "Leave the item out, or send what it says as a message.",
            param=f"{param}.type",
            code="unsupported_item",
        )
    content, output = item.get("content"), item.get("output")
    if kind == "message" and isinstance(content, list):
        yield from _with_parts(cast("list[Json]", content), f"{param}.content")
    if kind in ("function_call_output", "mcp_call") and are_parts(output):
        yield from _with_parts(output, f"{param}.output")


def are_parts(output: Any) -> TypeGuard[Sequence[Json]]:
    """Tell whether what a tool has returned is parts of content, rather than any other JSON."""
    several = cast("list[Any]", output) if isinstance(output, list) else []
    return bool(several) and all(isinstance(part, dict) and cast("Json", part).get("type") in PARTS for part in several)


def _with_parts(parts: Sequence[Json], param: str) -> Iterator[Invalid]:
    for index, part in enumerate(parts):
        if (wrong := _with_part(part, f"{param}[{index}]")) is not None:
            yield wrong


def _with_part(part: Json, param: str) -> Invalid | None:
    match kind := str(part["type"]):
        case "input_image":
            return None if _is_text(part, "image_url") else _without_data(part, param, "image_url", "a data URL")
        case "input_file":
            has_data = _is_text(part, "file_data") or _is_text(part, "file_url")
            return None if has_data else _without_data(part, param, "file_data", "a data URL")
        case "input_audio":
            return None if isinstance(part.get("input_audio"), dict) else _missing(f"{param}.input_audio")
        case _ if kind in TEXTS:
            field = "refusal" if kind == "refusal" else "text"
            return None if isinstance(part.get(field), str) else _missing(f"{param}.{field}")
        case _:
            return Invalid(
                f"No model of a graph can be given content of type '{kind[:_SHOWN_CHARACTERS]}', and this agent is a "
                "graph. It takes input_text, input_image, input_file and input_audio.",
                param=f"{param}.type",
                code="unsupported_content",
            )


def _is_text(part: Json, name: str) -> bool:
    value = part.get(name)
    return isinstance(value, str) and bool(value)


def _without_data(part: Json, param: str, field: str, form: str) -> Invalid:
    if part.get("file_id") is None:
        return _missing(f"{param}.{field}")
    return Invalid(f"{_NO_FILES} '{field}', in {form}.", param=f"{param}.file_id", code="unsupported_content")


def _missing(param: str) -> Invalid:
    return Invalid(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


# -- tools -------------------------------------------------------------------------------------------------------------


def _with_tools(tools: Sequence[Json], taken: Collection[str]) -> Iterator[Invalid]:
    for index, tool in enumerate(tools):
        kind = str(tool["type"])
        if kind != FUNCTION and kind not in taken:
            takes = " and ".join(["functions", *sorted(taken)])
            yield Invalid(
                f"Nothing here runs a tool of type '{kind[:_SHOWN_CHARACTERS]}': this agent takes {takes}. Leave it "
                "out, or have the agent hand it to its model (OUTLAST_GRAPH_TOOLS).",
                param=f"tools[{index}].type",
                code="unsupported_tool",
            )


def _with_choice(choice: Any, tools: Sequence[Json]) -> Iterator[Invalid]:
    if not isinstance(choice, dict):
        return
    chosen = cast("Json", choice)
    if chosen["type"] != ALLOWED_TOOLS:
        yield from _with_chosen(chosen, tools, "tool_choice")
        return
    if chosen.get("mode", "auto") not in ("auto", "required"):
        yield Invalid("Invalid value: supported values are auto and required.", param="tool_choice.mode")
    allowed = chosen.get("tools")
    if not isinstance(allowed, list):
        yield _missing("tool_choice.tools")
        return
    for index, tool in enumerate(cast("list[Any]", allowed)):
        yield from _with_chosen(tool, tools, f"tool_choice.tools[{index}]")


def _with_chosen(chosen: Any, tools: Sequence[Json], param: str) -> Iterator[Invalid]:
    if not isinstance(chosen, dict) or not isinstance(kind := cast("Json", chosen).get("type"), str):
        yield _missing(f"{param}.type")
        return
    name = cast("Json", chosen).get("name")
    if kind == FUNCTION and not isinstance(name, str):
        yield _missing(f"{param}.name")
    elif (
        isinstance(name, str)
        and kind == FUNCTION
        and not any(tool["type"] == FUNCTION and tool["name"] == name for tool in tools)
    ):
        yield Invalid(
            f"No function of the name '{name[:_SHOWN_CHARACTERS]}' is among the request's 'tools'. Name it there too, "
            "also when it is one of the agent's own.",
            param=f"{param}.name",
        )
    elif kind != FUNCTION and not any(tool["type"] == kind for tool in tools):
        yield Invalid(
            f"No tool of type '{kind[:_SHOWN_CHARACTERS]}' is among the request's 'tools'.", param=f"{param}.type"
        )
