"""What a graph takes and what of it is the answer: messages, fields of its state, or what a function returns."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.constants import END
from pydantic import BaseModel
from typing_extensions import is_typeddict

from outlast.shared.settings import GraphOptions, SettingsError

MESSAGES = "messages"
PREVIOUS = "__previous__"
"""The channel in which an entrypoint keeps what it finds as ``previous``."""
_ROOT = "__root__"  # the one field of a state that has no fields
_TOLD = (MESSAGES, "custom_outputs", "structured_response")
QUESTIONS = ("question", "query", "user_query", "input", "user_input", "prompt", "topic", "text", "task")
"""Usual names of the field that takes the question."""
ANSWERS = (
    "answer", "response", "output", "result", "report", "final_report", "final_answer", "final_response", "generation",
    "text", "summary",
)  # fmt: skip
"""Usual names of the field that holds the answer."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a graph is asked, and where its answer is."""

    kind: Literal["graph", "entrypoint"]
    input: str | None
    """The field that takes the question; None: the input is nothing else."""
    takes_messages: bool
    """Or else the question's text."""
    output: str | None = None
    """The field that holds the answer at the end."""
    is_said: bool = True
    """The answer is what the graph's messages say; otherwise it is looked for when the graph has ended."""
    make: Callable[..., Any] | None = None
    """The class of an entrypoint's input."""

    def asked(self, messages: Sequence[BaseMessage], inputs: Mapping[str, Any]) -> Any:
        """Return the input of a run; ``inputs`` are further fields."""
        value = list(messages) if self.takes_messages else _question(messages)
        if self.input is None:
            return value
        given = {self.input: value, **inputs}
        return self.make(**given) if self.make else given

    def remembered(self, values: Any, checkpoint: CheckpointTuple | None) -> list[BaseMessage]:
        """Return the messages that a thread has kept: in a graph's values, or where an entrypoint keeps them."""
        if self.kind == "entrypoint":
            values = checkpoint.checkpoint["channel_values"].get(PREVIOUS) if checkpoint else None
        inner: Any = cast("Mapping[str, Any]", values).get(MESSAGES) if isinstance(values, Mapping) else values
        if isinstance(inner, BaseMessage):
            return [inner]
        try:  # a graph may keep them as dicts
            return convert_to_messages(cast("list[Any]", inner)) if isinstance(inner, list) else []
        except (NotImplementedError, ValueError):  # a list of something else
            return []

    def told_channels(self, channels: Mapping[str, Any]) -> str | list[str]:
        """Return the channels that decide what the client is told while a graph with these channels runs."""
        if self.kind == "graph" and self.input is None:
            return _ROOT
        return [name for name in _TOLD if name in channels]

    def answer(self, values: Any) -> Any:
        """Return the answer in a graph's values at its end."""
        if self.output is None or not isinstance(values, Mapping):
            return values
        return cast("Mapping[str, Any]", values).get(self.output)

    def __str__(self) -> str:
        takes = self.input or (MESSAGES if self.takes_messages else "text")
        gives = "" if self.is_said else f" -> {self.output or 'what it returns'}"
        return f"{self.kind}: {takes}{gives}"


def shape_of(graph: Any, options: GraphOptions) -> Shape:
    """Return the shape of a compiled graph. Raises SettingsError when neither its names nor the settings tell it."""
    if PREVIOUS in graph.channels and graph.output_channels == END:
        return _entrypoint(graph, options)
    takes, gives = _fields(graph)
    hints = {name: graph.channels[name].ValueType for name in takes}
    field = _chosen(options.input, takes, QUESTIONS)
    output, is_said = _output(graph, options, gives, field)
    if field is None or (output is None and not is_said):
        raise SettingsError(_not_told(options, takes, gives))
    whole = field == _ROOT
    listed = field == MESSAGES or _is_list(hints.get(field))
    return Shape("graph", None if whole else field, listed, None if output == _ROOT else output, is_said)


def _output(graph: Any, options: GraphOptions, gives: Sequence[str], field: str | None) -> tuple[str | None, bool]:
    """Return the field of the answer, or that the answer is what the messages say."""
    if options.output and options.output != MESSAGES:
        if options.output not in graph.channels:
            raise SettingsError(_not_told(options, (), gives))
        return options.output, False
    root_says = gives == [_ROOT] and _is_list(graph.channels[_ROOT].ValueType)
    if MESSAGES in gives or options.output == MESSAGES or root_says:
        return None, True
    output = _chosen(None, [name for name in gives if name != field], ANSWERS)
    return output, output is None and MESSAGES in graph.channels


def _fields(graph: Any) -> tuple[list[str], list[str]]:
    """Return the fields that a graph takes, and those that it gives."""
    builder = getattr(graph, "builder", None)
    if builder is None:  # made of nodes and channels by hand
        return _listed(graph.input_channels), _listed(graph.output_channels)
    taken, given = builder.schemas[builder.input_schema], builder.schemas[builder.output_schema]
    kept = {name for name, channel in graph.channels.items() if hasattr(channel, "ValueType")}  # others are managed
    return [name for name in taken if name in kept], [name for name in given if name in kept]


def _listed(channels: str | Sequence[str]) -> list[str]:
    return [channels] if isinstance(channels, str) else list(channels)


def _chosen(setting: str | None, fields: Sequence[str], usual: Sequence[str]) -> str | None:
    """Return the field that is set, or that has a usual name, if it is the only one."""
    if setting is not None:
        return setting if setting in fields else None
    if MESSAGES in fields:
        return MESSAGES
    if fields == [_ROOT]:
        return _ROOT
    found = [name for name in fields if name in usual]
    return found[0] if len(found) == 1 else None


def _not_told(options: GraphOptions, takes: Sequence[str], gives: Sequence[str]) -> str:
    told = f"takes {', '.join(takes)} and gives {', '.join(gives)}" if takes else f"gives {', '.join(gives)}"
    return (
        f"Agent {options.agent}: its graph has no messages to talk with; it {told}. Say which field takes the question "
        f"and which holds the answer: OUTLAST_GRAPH_INPUT={options.agent}=field and "
        f"OUTLAST_GRAPH_OUTPUT={options.agent}=field"
    )


# -- the functional API ------------------------------------------------------------------------------------------------


def _entrypoint(graph: Any, options: GraphOptions) -> Shape:
    name, hint = _first_parameter(graph)
    output = options.output if options.output != MESSAGES else None
    fields = _class_fields(hint)
    make = hint if fields and not is_typeddict(hint) else None
    if options.input is not None:
        listed = options.input == MESSAGES or _is_list(fields.get(options.input))
        return Shape("entrypoint", options.input, listed, output, False, make)
    if fields:
        field = _chosen(None, list(fields), QUESTIONS)
        if field is None:
            raise SettingsError(_not_told(options, list(fields), ["what it returns"]))
        return Shape("entrypoint", field, field == MESSAGES or _is_list(fields[field]), output, False, make)
    unknown = hint in (Any, None)
    if hint is str or (unknown and name in QUESTIONS):
        return Shape("entrypoint", None, False, output, False)
    if _is_list(hint) or (unknown and name == MESSAGES):
        return Shape("entrypoint", None, True, output, False)
    return Shape("entrypoint", MESSAGES, True, output, False)


def _first_parameter(graph: Any) -> tuple[str, Any]:
    """Return the name and the type of what an entrypoint's function takes first."""
    [node] = graph.nodes.values()
    function = inspect.unwrap(node.bound.func or node.bound.afunc)
    name = next(iter(inspect.signature(function).parameters))
    try:
        return name, get_type_hints(function).get(name)
    except Exception:  # noqa: BLE001  # names that only type checkers know
        return name, None


def _class_fields(hint: Any) -> dict[str, Any]:
    """Return the fields of a class that is made of fields, with their types."""
    if not isinstance(hint, type) or not (
        is_typeddict(hint) or dataclasses.is_dataclass(hint) or issubclass(hint, BaseModel)
    ):
        return {}
    if issubclass(hint, BaseModel):
        return {name: info.annotation for name, info in hint.model_fields.items()}
    try:
        return get_type_hints(cast("Any", hint))
    except Exception:  # noqa: BLE001  # names that only type checkers know
        return dict(hint.__annotations__)


def _is_list(hint: Any) -> bool:
    """Tell whether this is the type of several messages, rather than of a text."""
    if get_origin(hint) is Annotated:
        return _is_list(get_args(hint)[0])
    kind = get_origin(hint) or hint
    return isinstance(kind, type) and not issubclass(kind, str | bytes) and issubclass(kind, Sequence)


def _question(messages: Sequence[BaseMessage]) -> str:
    asked = [message for message in messages if isinstance(message, HumanMessage)]
    return (asked or list(messages))[-1].text
