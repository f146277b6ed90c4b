"""Items of earlier responses in a request's input: named by an ``item_reference``, or sent back whole.

A name is replaced by the item. What a later attempt superseded is left out, however it comes: clients send back all
that they were streamed. An id of ours finds its run; one of the agent's making is looked for in the same runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from outlast.shared.connections import Database
from outlast.shared.domain.errors import Invalid
from outlast.shared.domain.ids import parse_item_id
from outlast.shared.store import items
from outlast.shared.wire import from_json, to_json

from .errors import TooLarge
from .schemas import InputItem

MAX_RESPONSES = 1000
Json = dict[str, Any]


class ItemNotFound(Invalid):
    """The input names an item that there is not."""

    default_code = "item_not_found"


async def resolved(
    database: Database,
    given: Sequence[Json],
    checked: Sequence[InputItem],
    principal: str,
    *,
    previous: UUID | None,
    max_bytes: int,
) -> list[Json]:
    """The input as the agent gets it. ``checked`` are the items ``given``, ``previous`` is the run that is continued.

    Raises ItemNotFound for what is unknown, another principal's, deleted or not finished, and TooLarge.
    """
    run_ids = {place[0] for item in checked if (place := _place(item)) is not None}
    if previous is not None and any(item.is_reference for item in checked):
        run_ids.add(previous)
    if len(run_ids) > MAX_RESPONSES:
        raise Invalid(f"The input has items of more than {MAX_RESPONSES} responses.", param="input")
    outputs = await _read(database, principal, run_ids, checked, max_bytes) if run_ids else _Outputs()
    kept = outputs.put_into(given, checked)
    if run_ids and len(to_json({"input": kept}).encode()) > max_bytes:
        raise _too_large(max_bytes)
    return kept


class _Outputs:
    """What is known of the outputs of some runs: finished items that are part of the answer, and the others."""

    def __init__(self) -> None:
        self.items: dict[str, Json] = {}
        self._open: set[str] = set()
        self._superseded: dict[str, str] = {}
        """With what they said."""

    def add_answer(self, response: str) -> None:
        self.items.update((item["id"], item) for item in from_json(response)["output"])

    def add_events(self, lines: Iterable[str]) -> None:
        for event in map(from_json, lines):
            for superseded in event.get("outlast", {}).get("superseded", ()):
                self._superseded[superseded] = _said(self.items.pop(superseded, {}))
            match event:
                case {"type": "response.output_item.added", "item": {"id": id}}:
                    self._open.add(id)
                case {"type": "response.output_item.done", "item": {"id": id} as item}:
                    self._open.discard(id)
                    if id in self._superseded:
                        self._superseded[id] = _said(item)
                    else:
                        self.items[id] = item
                case _:
                    pass

    def put_into(self, given: Sequence[Json], checked: Sequence[InputItem]) -> list[Json]:
        gone = {place: said for id, said in self._superseded.items() if (place := parse_item_id(id)) is not None}
        kept: list[Json] = []
        named: set[str] = set()
        for index, (item, form) in enumerate(zip(given, checked, strict=True)):
            if not form.is_reference:
                # A message that says more is kept: some clients put all that was streamed under its first id.
                place = _place(form)
                if place not in gone or (form.type == "message" and not gone[place].startswith(_said(item))):
                    kept.append(item)
            elif form.id is not None and form.id not in named:  # naming it twice does not double it
                named.add(form.id)
                if form.id not in self._superseded:
                    kept.append(self._item(form.id, f"input[{index}].id"))
        return kept

    def _item(self, id: str, param: str) -> Json:
        if id in self.items:
            return self.items[id]
        why = "is not finished: its response is in progress" if id in self._open else "not found"
        raise ItemNotFound(f"Item with id '{id[:100]}' {why}.", param=param)


async def _read(
    database: Database, principal: str, run_ids: set[UUID], checked: Sequence[InputItem], max_bytes: int
) -> _Outputs:
    """Answers first; logs, which are longer, only of runs that go on and where an answer lacks what is mentioned."""
    outputs = _Outputs()
    found = await database.run(lambda c: items.answers(c, principal, run_ids, max_bytes=max_bytes))
    for answer in found:
        if answer.response is not None:
            outputs.add_answer(answer.response)
        elif answer.status.terminal:
            raise _too_large(max_bytes)
    known = {parse_item_id(id) for id in outputs.items}
    lacking = {place[0] for item in checked if (place := _place(item)) is not None and place not in known}
    looked_at = {a.run_id for a in found if a.run_id in lacking or not a.status.terminal}
    if looked_at:
        outputs.add_events(await database.run(lambda c: items.item_events(c, looked_at)))
    return outputs


def _place(item: InputItem) -> tuple[UUID, int] | None:
    """Where the item comes from. Some clients send calls and their outputs back by nothing but the call's id."""
    return parse_item_id(item.id or "") or parse_item_id(item.call_id or "")


def _said(item: Json) -> str:
    content: str | list[Json] = item.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(
        f"The responses that the input names are larger than {max_bytes} bytes (OUTLAST_MAX_REQUEST_BYTES).",
        param="input",
    )
