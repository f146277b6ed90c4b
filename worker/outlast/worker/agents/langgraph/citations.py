"""What a text refers to: from LangChain's form of every provider's citations to the Responses API's. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_AS_THEY_ARE = {
    "container_file_citation": ("container_id", "file_id", "filename", "start_index", "end_index"),
    "file_path": ("file_id", "index"),
}


def annotations_in(block: Mapping[str, Any], offset: int = 0) -> Iterator[dict[str, Any]]:
    """Those of a block of text that begins at ``offset`` in its message. What the API has no form for is left out."""
    for given in block.get("annotations") or ():
        if (found := _annotation(given)) is not None:
            yield found | {name: found[name] + offset for name in ("start_index", "end_index") if name in found}


def _annotation(given: Mapping[str, Any]) -> dict[str, Any] | None:
    extras: Mapping[str, Any] = given.get("extras") or {}
    match given:
        case {"type": "citation", "url": str(url)} if url:
            place = {name: given[name] for name in ("start_index", "end_index") if isinstance(given.get(name), int)}
            return {"type": "url_citation", "url": url, "title": given.get("title") or url, **place}
        case {"type": "citation"} if extras.get("file_id"):
            index = extras.get("file_index") or extras.get("index") or 0
            name = given.get("title") or extras["file_id"]
            return {"type": "file_citation", "file_id": extras["file_id"], "filename": name, "index": index}
        case {"type": "non_standard_annotation", "value": {"type": str(kind)} as value} if kind in _AS_THEY_ARE:
            return {"type": kind, **{name: value[name] for name in _AS_THEY_ARE[kind] if name in value}}
        case _:
            return None
