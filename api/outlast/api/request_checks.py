"""What must hold of a request's body beyond its types, and what is said when it is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from outlast.shared.domain.errors import Invalid

from .schemas import ITEM_TYPES, OTHER_ITEM_TYPES, CreateResponse, InputItem

FORMATS = ("text", "json_schema", "json_object")
MAX_THREAD_CHARACTERS = 512
MAX_VALUES = 100_000  # in a field: to check more would hold up all other requests of the replica, and list their errors
MAX_METADATA_PAIRS, MAX_METADATA_KEY, MAX_METADATA_VALUE = 16, 64, 512
"""OpenAI's limits; the latter two in characters."""
_FORMAT_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What steers a terminal, or turns the direction of the text around it."""
_JSON_TYPES: dict[type, str] = {str: "a string", dict: "an object", bool: "true or false"}


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
    _check_presence(request)
    _check_metadata(request.metadata or {})
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
        if item.type in OTHER_ITEM_TYPES:
            continue
        if item.type not in ITEM_TYPES:
            known = ", ".join([*ITEM_TYPES, *sorted(OTHER_ITEM_TYPES)])
            raise Invalid(
                f"Invalid value: '{item.type[:64]}'. Known item types are {known}.",
                param=f"input[{index}].type",
            )
        for name in ITEM_TYPES["item_reference" if item.is_reference else item.type]:
            if getattr(item, name) is None:
                raise _missing(f"input[{index}].{name}")


def _check_presence(request: CreateResponse) -> None:
    """An empty list asks for nothing, unless it is to go on with what is there: OpenAI's rule."""
    if request.input == [] and request.previous_response_id is None and request.thread is None:
        raise Invalid(
            "'input' is empty. Send a message, or name what is to be continued: 'previous_response_id' or "
            "'conversation'.",
            param="input",
        )


def _check_metadata(metadata: Mapping[str, str]) -> None:
    """OpenAI's limits: programs that keep to them keep what they need."""
    if len(metadata) > MAX_METADATA_PAIRS:
        raise Invalid(f"'metadata' has at most {MAX_METADATA_PAIRS} pairs, not {len(metadata)}.", param="metadata")
    for key, value in metadata.items():
        if len(key) > MAX_METADATA_KEY:
            raise Invalid(f"A key of 'metadata' has at most {MAX_METADATA_KEY} characters.", param="metadata")
        if len(value) > MAX_METADATA_VALUE:
            raise Invalid(
                f"A value of 'metadata' has at most {MAX_METADATA_VALUE} characters.", param=f"metadata.{key}"
            )


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
    if (found := _CONTROL.search(str(name))) is not None:
        raise Invalid(
            f"A conversation id cannot hold control characters; this one has U+{ord(found[0]):04X}.", param=param
        )


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
