"""The context of a graph: values for its ``context_schema``, from a request and from the settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_type_hints

from pydantic import AliasChoices, BaseModel, ConfigDict, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

from outlast.agent import AgentError, Context, Request
from outlast.shared.settings import GraphOptions, SettingsError

CODE = "invalid_context"
SETTING = "OUTLAST_GRAPH_CONTEXT"
_WAYS = f"in the request's custom_inputs or context, or for all requests in {SETTING}"
_OURS = {"thread_id", "user_id", "run_id", "store"}  # of `configurable`
_OF_OTHERS = ("__", "checkpoint_", "outlast_")
_SECRET = ("auth", "key", "password", "secret", "token")  # names whose defaults are not kept with the checkpoints


@dataclass(frozen=True, slots=True)
class Given:
    """What one run of a graph is given."""

    context: Any
    configurable: Mapping[str, Any]
    """The same for code that reads its config instead, as before LangGraph had contexts."""


class Present(dict[str, Any]):
    """A context that is there although nothing is in it: LangGraph takes one that is false for none."""

    def __bool__(self) -> bool:
        return True


class ContextSchema:
    """The fields of a graph's context; what an agent's settings say of them holds where a request says nothing."""

    def __init__(self, schema: Any, options: GraphOptions) -> None:
        """Raises SettingsError when the settings name fields that there are not, or values that do not fit."""
        self._schema = schema
        self._hints = _hints(schema)
        self._names = _names(schema, self._hints)
        # A pydantic model checks them itself, with its own validators.
        self._checks = {} if _is_model(schema) else {name: _check(hint) for name, hint in self._hints.items()}
        self._set = dict(options.context) if schema is None else self._from_settings(options)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._names.values()))

    def given(self, request: Request, context: Context) -> Given:
        """Return what a run of this request is given. Raises AgentError, which names the fields that are wrong."""
        if self._schema is None:
            return Given(None, _configurable(self._set))
        told: Any = request.body.get("context")
        sources: list[Mapping[str, Any]] = [told if isinstance(told, dict) else {}, request.custom_inputs]
        values = self._set | {self._names[k]: v for source in sources for k, v in source.items() if k in self._names}
        known = {"user_id": context.principal, "thread_id": context.thread_id, "conversation_id": context.thread_id}
        values |= {name: known[name] for name in self._lacking(values) if name in known}
        made = self._made(values)
        return Given(made, _configurable(values | _defaults(made, self.fields, values)))

    def _from_settings(self, options: GraphOptions) -> dict[str, Any]:
        if unknown := [name for name in options.context if name not in self._names]:
            there = ", ".join(self.fields) or "no fields"
            raise SettingsError(f"Agent {options.agent}: {SETTING} names {unknown[0]}; its graph's context has {there}")
        values = {self._names[k]: v for k, v in options.shared_context.items() if k in self._names}
        values |= {self._names[name]: value for name, value in options.context.items()}
        try:
            self._valid(values)
        except _Unfit as error:
            raise SettingsError(f"Agent {options.agent}: {SETTING}: {error}") from None
        return values

    def _lacking(self, values: Mapping[str, Any]) -> list[str]:
        """Return the fields that have no value and no default."""
        return [name for name in self.fields if name not in values and not _has_default(self._schema, name)]

    def _valid(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values in their types: an object of JSON as the class that it stands for."""
        return {name: _validated(name, value, self._checks.get(name)) for name, value in values.items()}

    def _made(self, values: Mapping[str, Any]) -> Any:
        lacking = [] if is_typeddict(self._schema) else self._lacking(values)  # whose keys nothing enforces
        if lacking:
            raise AgentError(f"The graph's context needs {', '.join(lacking)}: give it {_WAYS}.", code=CODE)
        try:
            if _is_model(self._schema):
                return self._schema.model_validate(values, by_name=True, by_alias=True)
            valid = self._valid(values)
        except (_Unfit, ValidationError) as error:
            wrong = _told(error) if isinstance(error, ValidationError) else error
            raise AgentError(f"The graph's context cannot be made. {wrong}.", code=CODE) from None
        return Present(valid) if not dataclasses.is_dataclass(self._schema) else cast("Any", self._schema)(**valid)


class _Unfit(Exception):
    """Says which field's value is of a wrong type."""


def _validated(name: str, value: Any, check: TypeAdapter[Any] | None) -> Any:
    try:
        return check.validate_python(value) if check else value
    except ValidationError as error:
        raise _Unfit(_told(error, name)) from None


def _is_model(schema: Any) -> bool:
    return isinstance(schema, type) and issubclass(schema, BaseModel)


def _configurable(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in _OURS and not k.startswith(_OF_OTHERS)}


def _defaults(made: Any, fields: tuple[str, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the schema itself has filled in, but for what may be a secret: all of it is kept."""
    if isinstance(made, dict):
        return {}
    names = [name for name in fields if not any(word in name.lower() for word in _SECRET) or name in values]
    return {name: getattr(made, name) for name in names if hasattr(made, name)}


def _hints(schema: Any) -> dict[str, Any]:
    if schema is None:
        return {}
    try:
        return get_type_hints(schema)
    except Exception:  # noqa: BLE001  # names that only type checkers know: those fields are not checked
        return dict.fromkeys(getattr(schema, "__annotations__", {}))


def _names(schema: Any, hints: Mapping[str, Any]) -> dict[str, str]:
    """Return the names under which fields may be given, and the fields."""
    if _is_model(schema):
        names: dict[str, str] = {}
        for name, info in schema.model_fields.items():
            aliases = info.validation_alias
            others = aliases.choices if isinstance(aliases, AliasChoices) else [aliases, info.alias]
            names |= {key: name for key in (name, *others) if isinstance(key, str)}
        return names
    if dataclasses.is_dataclass(schema):
        return {field.name: field.name for field in dataclasses.fields(schema) if field.init}
    return {name: name for name in hints}


def _has_default(schema: Any, name: str) -> bool:
    if _is_model(schema):
        return not schema.model_fields[name].is_required()
    if dataclasses.is_dataclass(schema):
        [field] = [field for field in dataclasses.fields(schema) if field.name == name]
        return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    return hasattr(schema, name)


def _check(hint: Any) -> TypeAdapter[Any] | None:
    """Return what tells whether a value is of this type; None where pydantic cannot."""
    for config in (ConfigDict(arbitrary_types_allowed=True), None):
        try:
            return TypeAdapter(hint, config=config) if hint is not None else None
        except Exception:  # noqa: BLE001  # a type of the graph's own, or one that allows no config
            continue
    return None


def _told(error: ValidationError, name: str = "") -> str:
    """Return the fields and what is wrong with them, without their values."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    places = [".".join(str(part) for part in ((name,) if name else ()) + one["loc"]) for one in found]
    return "; ".join(f"{place}: {one['msg']}" for place, one in zip(places, found, strict=True))
