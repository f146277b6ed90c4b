"""State as bytes and as JSON. What Postgres or msgpack cannot hold is stored as far as it can be."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from functools import partial
from typing import Any, cast

import structlog
from langgraph.checkpoint.serde import _msgpack
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from outlast.agent import AgentError, Secret
from outlast.shared.wire import clean
from outlast.worker.concealment import masked_bytes

from .mending import culprit, with_clean_keys, without_asides
from .not_stored import CODE, NotStored

log = structlog.get_logger()

NOT_STORED = "not_stored:"
"""The type of a value in LangGraph's tables in whose place nothing is stored, before the id of its run."""

# Else LangGraph warns of it when it finds one within a message, or refuses it (LANGGRAPH_STRICT_MSGPACK).
_known: Any = _msgpack
_known.SAFE_MSGPACK_TYPES |= {(NotStored.__module__, NotStored.__name__)}


class Serialiser(JsonPlusSerializer):
    """LangGraph's own. A secret that must not be stored is masked, and what cannot be stored is left out."""

    def __init__(self, run: str, concealed: Secret | None = None) -> None:
        super().__init__()
        self._run = run
        self._concealed = concealed
        self._told: set[tuple[str, str]] = set()

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Raises TypeError, and what a value's own methods raise."""
        if isinstance(obj, Inlined):
            obj = obj.value
        if isinstance(obj, NotStored):
            return NOT_STORED + obj.fields["run"], super().dumps_typed(obj.fields)[1]
        kind, data = super().dumps_typed(obj)
        return kind, masked_bytes(data, self._concealed)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        kind, content = data
        if kind.startswith(NOT_STORED):
            return NotStored(**super().loads_typed(("msgpack", content)))
        return super().loads_typed(data)

    def dumps_of(self, channel: str, value: Any) -> tuple[str, bytes]:
        """The value as far as it can be stored; what cannot be is told of once."""
        try:
            return self.dumps_typed(value)
        except Exception:  # noqa: BLE001 — a value's own methods are asked, and may raise anything
            return self._mended(channel, value)

    def _mended(self, channel: str, value: Any) -> tuple[str, bytes]:
        for mend in (with_clean_keys, partial(self._without_asides, channel)):
            with suppress(Exception):  # then that was not why
                return self.dumps_typed(mend(value))
        return self.dumps_typed(self._left_out(channel, value))

    def _without_asides(self, channel: str, value: Any) -> Any:
        return without_asides(with_clean_keys(value), self._fits, partial(self._left_out, channel))

    def _left_out(self, channel: str, value: Any) -> NotStored:
        refused = value
        with suppress(RecursionError):  # values may be nested too deeply, or hold themselves
            refused = culprit(value, self._fits)
        kind = type(refused).__name__
        if isinstance(refused, Secret):
            raise AgentError(f"The channel {channel!r} holds a Secret, which must not be stored.", code=CODE)
        if (channel, kind) not in self._told:
            self._told.add((channel, kind))
            log.warning("checkpoint.value_not_stored", channel=channel, type=kind)
        return NotStored(channel, kind, self._run)

    def _fits(self, value: Any) -> bool:
        try:
            self.dumps_typed(value)
        except Exception:  # noqa: BLE001 — as above
            return False
        return True


class Inlined:
    """A value that LangGraph would put into a column of JSON, and JSON in Postgres cannot hold."""

    def __init__(self, value: str | float) -> None:
        self.value = value


def storable(channel_values: dict[str, Any]) -> dict[str, Any]:
    """The values of a checkpoint; those that must not go into its JSON are stored as bytes."""
    odd = {channel: Inlined(value) for channel, value in channel_values.items() if _is_odd(value)}
    return channel_values | odd if odd else channel_values


def _is_odd(value: Any) -> bool:
    match value:
        case str():
            return "\0" in value or clean(value) is not value
        case float():
            return not math.isfinite(value)
        case _:
            return False


def dumps_json(value: Any) -> str:
    """JSON that Postgres takes."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(_plain(value))
    return json.dumps(_plain(value)) if "\\u0000" in text or "\\ud" in text else text


def _plain(value: Any) -> Any:
    match value:
        case str():
            return clean(value.replace("\0", ""))
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {_plain(str(k)): _plain(v) for k, v in cast("dict[Any, Any]", value).items()}
        case list() | tuple():
            return [_plain(part) for part in cast("list[Any]", value)]
        case None | bool() | int() | float():
            return value
        case _:
            return repr(cast("object", value))
