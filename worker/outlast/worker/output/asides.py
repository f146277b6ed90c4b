"""What an agent says that is no item, or none yet: values for the end of the run, and calls held back until then.

The next event tells of an aside, with the step that said it. It survives or is superseded as an item is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from outlast.agent import Approval, ClientCall

from .items import Item, Origin, Path

STATE = "state"
_CALL_ID = {"function_call": "call_id", "mcp_approval_request": "approval_request_id"}


class Asides:
    """All of one run, in the order in which they were said. ``past`` are those that its log tells of."""

    def __init__(self, past: Sequence[Item] = ()) -> None:
        self._all = list(past)
        self._told = len(past)
        self._holders: dict[str, Item] = {}
        self._find_holders()

    @property
    def state(self) -> dict[str, Any]:
        """The values that were said last, by key."""
        return {key: aside.data["values"][key] for key, aside in self._holders.items()}

    @property
    def held(self) -> Iterator[ClientCall | Approval]:
        for aside in self._all:
            if aside.surviving and aside.type != STATE:
                make = ClientCall if aside.type == "function_call" else Approval
                yield make(aside.data["name"], aside.data["arguments"], aside.data[_CALL_ID[aside.type]])

    def remember(self, values: Mapping[str, Any], path: Path) -> None:
        """Later values replace earlier ones. What this step has said already is not said again: it may be large."""
        new = {key: value for key, value in values.items() if not self._holds(key, value, path)}
        if not new:
            return
        last = self._all[-1] if len(self._all) > self._told else None
        if last is None or last.type != STATE or last.origin.path != path:
            last = self._add({"type": STATE, "values": {}}, path)
        last.data["values"] |= new
        self._holders |= dict.fromkeys(new, last)

    def hold(self, call: ClientCall | Approval, path: Path) -> None:
        kind, key = (
            ("function_call", call.call_id)
            if isinstance(call, ClientCall)
            else ("mcp_approval_request", call.approval_id)
        )
        self._add({"type": kind, _CALL_ID[kind]: key, "name": call.name, "arguments": str(call.arguments)}, path)

    def supersede(self, surviving: Collection[str]) -> list[int]:
        """Drop those that do not survive. Returns their numbers."""
        lost = [aside for aside in self._all if aside.surviving and aside.id not in surviving]
        for aside in lost:
            aside.surviving = False
        self._find_holders()
        return [aside.index for aside in lost]

    def news(self) -> list[dict[str, Any]]:
        """Those that no event has told of, as an event tells of them."""
        new, self._told = self._all[self._told :], len(self._all)
        return [
            {name: value for name, value in aside.data.items() if name != "id"} | aside.origin.fields for aside in new
        ]

    def _add(self, data: dict[str, Any], path: Path) -> Item:
        aside = an_aside(len(self._all), {**data, **Origin(path=path).fields})
        self._all.append(aside)
        return aside

    def _holds(self, key: str, value: Any, path: Path) -> bool:
        holder = self._holders.get(key)
        return holder is not None and holder.origin.path == path and holder.data["values"][key] == value

    def _find_holders(self) -> None:
        states = [aside for aside in self._all if aside.surviving and aside.type == STATE]
        self._holders = {key: aside for aside in states for key in aside.data["values"]}


def an_aside(number: int, told: Mapping[str, Any], sequence_number: int | None = None) -> Item:
    """An aside, from what an event (of this number) tells of it. It is no item of the output, but is kept like one."""
    data = {name: value for name, value in told.items() if name != "path"}
    origin = Origin(path=told.get("path", ()))
    return Item(number, {"id": f"aside_{number}", **data}, open=False, origin=origin, done_seq=sequence_number)
