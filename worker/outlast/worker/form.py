"""The form in which a request wants its answer (``text.format``), and whether the answer has it.

`jsonschema` is loaded by the first request that names a schema. A schema comes from the client: it may neither fetch
anything nor keep a worker busy for ever.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from outlast.agent import AgentError
from outlast.shared.output.items import Item, kind_of, text_of

from .agents.adapter import Adapter
from .stage import Stage

JSON_SCHEMA, JSON_OBJECT = "json_schema", "json_object"
_MAX_REFERENCES = 100_000
"""How many ``$ref`` one check follows: a schema of a kilobyte can ask for billions."""
_SHOWN_CHARACTERS = 200


def form_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON that a request asks for: its ``text.format``, unless that is plain text."""
    options: Mapping[str, Any] = body.get("text") or {}
    form: Mapping[str, Any] = options.get("format") or {}
    return form if form.get("type") in (JSON_SCHEMA, JSON_OBJECT) else None


async def execute(agent: Adapter, stage: Stage) -> None:
    """Run an agent to its end, and see that its answer has the form which was asked for. Raises AgentError if not."""
    form = form_of(stage.request.body)
    if form is None:
        await agent.execute(stage)
        return
    await asyncio.to_thread(check_schema, form)
    await agent.execute(stage)
    if not stage.output.asking:  # else it is not the answer yet
        await asyncio.to_thread(check, form, stage.output.surviving)


def check_schema(form: Mapping[str, Any]) -> None:
    """Raises AgentError for a schema that is none."""
    if form["type"] != JSON_SCHEMA:
        return
    jsonschema: Any = importlib.import_module("jsonschema")
    try:
        jsonschema.Draft202012Validator.check_schema(_of_one_draft(form["schema"]), format_checker=None)
    except RecursionError:
        raise AgentError("'text.format.schema' is too deep.", code="invalid_json_schema") from None
    except jsonschema.SchemaError as error:
        reason = str(error.message)[:_SHOWN_CHARACTERS]
        raise AgentError(f"'text.format.schema' is not a JSON schema: {reason}.", code="invalid_json_schema") from None


def check(form: Mapping[str, Any], answer: Sequence[Item]) -> None:
    """Look at every message, as clients do that parse them. Raises AgentError for one in another form.

    A refusal is an answer too.
    """
    kinds = [kind_of(item) for item in answer]
    if not {"message", "refusal"} & set(kinds):
        raise _misfit("it has no message")
    texts = [text_of(item) for item, kind in zip(answer, kinds, strict=True) if kind == "message"]
    for text in texts:
        try:
            value: Any = json.loads(text, parse_constant=_no_json)
        except (ValueError, RecursionError):
            raise _misfit("a message of it is not JSON, or only the beginning of some") from None
        wrong = _first_fault(form["schema"] if form["type"] == JSON_SCHEMA else {"type": "object"}, value)
        if wrong is not None:
            raise _misfit(wrong)


def _misfit(why: str) -> AgentError:
    return AgentError(
        f"The answer does not have the form that 'text.format' asks for: {why}. Ask for another form, or for a longer "
        "answer ('max_output_tokens'), or give the agent a model that can keep to a form.",
        code="invalid_answer_format",
    )


def _no_json(constant: str) -> None:
    raise ValueError(constant)


def _first_fault(schema: Any, value: object) -> str | None:
    """What is wrong with a value, by a schema."""
    validator: Any = _validators()(_of_one_draft(schema), registry=importlib.import_module("referencing").Registry())
    unresolvable = importlib.import_module("referencing.exceptions").Unresolvable
    try:
        fault = next(validator.iter_errors(value), None)
    except unresolvable:
        raise AgentError("'text.format.schema' refers to what is not within it.", code="invalid_json_schema") from None
    except (_TooManyReferences, RecursionError):
        raise AgentError("'text.format.schema' refers to itself too often.", code="invalid_json_schema") from None
    if fault is None:
        return None
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault.absolute_path)
    return f"{where.removeprefix('.') or 'it'}: {fault.message[:_SHOWN_CHARACTERS]}"


class _TooManyReferences(Exception):
    pass


_UNCHECKED = ("pattern", "patternProperties", "unevaluatedItems", "unevaluatedProperties")
"""Left to the model: regular expressions may never end, and what is unevaluated follows references uncounted."""


def _validators() -> Any:
    """A validator's class for one check."""
    base: Any = importlib.import_module("jsonschema").Draft202012Validator
    followed = itertools.count()

    def counted(follow: Any) -> Any:
        def reference(*given: Any) -> Iterator[Any]:
            if next(followed) == _MAX_REFERENCES:
                raise _TooManyReferences
            return follow(*given)

        return reference

    def additional(validator: Any, others: Any, instance: Any, schema: Collection[str]) -> Iterator[Any]:
        none = iter(())
        known: Any = base.VALIDATORS["additionalProperties"]
        return none if "patternProperties" in schema else known(validator, others, instance, schema)

    references = {name: counted(base.VALIDATORS[name]) for name in ("$ref", "$dynamicRef")}
    ours = {**dict.fromkeys(_UNCHECKED, _unchecked), **references, "additionalProperties": additional}
    return importlib.import_module("jsonschema.validators").extend(base, ours)


def _unchecked(*_: Any) -> Iterator[Any]:
    return iter(())


def _of_one_draft(schema: Any) -> Any:
    """The schema without ``$schema``, which would have its parts checked by another class."""
    match schema:
        case dict():
            named = cast("dict[str, Any]", schema)
            return {name: _of_one_draft(value) for name, value in named.items() if name != "$schema"}
        case list():
            return [_of_one_draft(value) for value in cast("list[Any]", schema)]
        case _:
            return schema
