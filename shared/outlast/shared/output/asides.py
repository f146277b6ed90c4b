"""What an agent says that is no item, or none yet: values for the end of the run, and calls held back until then.

The next event tells of an aside, with the step that said it. It survives or is superseded as an item is. One that no
event has told of yet can be stored beside the log, at the end of a step that is to survive.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from outlast.agent import Approval, ClientCall

from .items import Item, Origin, Path

STATE = "state"
_CALL_ID = {"function_call": "call_id", "mcp_approval_request": "approval_request_id"}


class Asides:
    """All of one run, in the order in which they were said.

    ``past`` are those of earlier attempts; the log tells of the first ``told`` of them.
    """

    def __init__(self, attempt: int, past: Sequence[Item] = (), told: int = 0) -> None:
        self._attempt = attempt
        self._all = list(past)
        self._told = told
        self._kept = len(past)
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

    @property
    def asking(self) -> list[Path]:
        """The steps that have said what is held."""
        return [aside.origin.path for aside in self._all if aside.surviving and aside.type != STATE]

    def remember(self, values: Mapping[str, Any], path: Path) -> None:
        """Later values replace earlier ones. What this step has said already is not said again: it may be large."""
        new = {key: value for key, value in values.items() if not self._holds(key, value, path)}
        if not new:
            return
        last = self._all[-1] if len(self._all) > self._kept else None
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

    def supersede(self, surviving: Collection[str]) -> list[str]:
        """Drop those that do not survive. Returns their ids."""
        lost = [aside for aside in self._all if aside.surviving and aside.id not in surviving]
        for aside in lost:
            aside.surviving = False
        self._find_holders()
        return [aside.id for aside in lost]

    def withdraw(self, call_id: str) -> list[str]:
        """Drop what is held back under this id. Returns the ids of what an event or an earlier attempt told of."""
        lost: list[str] = []
        for place, aside in enumerate(self._all):
            if aside.surviving and aside.type != STATE and aside.data[_CALL_ID[aside.type]] == call_id:
                aside.surviving = False
                if place < self._kept:
                    lost.append(aside.id)
        return lost

    def tell(self) -> list[dict[str, Any]]:
        """Those that no event has told of, for one that does."""
        untold = self.keep()
        self._told = self._kept
        return untold

    def keep(self) -> list[dict[str, Any]]:
        """The same, to be stored beside the log: what is said from now on is not part of them."""
        self._kept = len(self._all)
        return [aside.data | aside.origin.fields for aside in self._all[self._told :] if aside.surviving]

    def _add(self, data: dict[str, Any], path: Path) -> Item:
        aside = an_aside({"id": f"{self._attempt}.{len(self._all)}", **data, **Origin(path=path).fields})
        self._all.append(aside)
        return aside

    def _holds(self, key: str, value: Any, path: Path) -> bool:
        holder = self._holders.get(key)
        return holder is not None and holder.origin.path == path and holder.data["values"][key] == value

    def _find_holders(self) -> None:
        states = [aside for aside in self._all if aside.surviving and aside.type == STATE]
        self._holders = {key: aside for aside in states for key in aside.data["values"]}


def an_aside(told: Mapping[str, Any], sequence_number: int | None = None) -> Item:
    """An aside, from what an event (of this number) tells of it. It is no item of the output, but is kept like one."""
    data = {name: value for name, value in told.items() if name != "path"}
    return Item(-1, data, open=False, origin=Origin(path=told.get("path", ())), done_seq=sequence_number)
