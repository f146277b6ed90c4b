"""Telling a stream to a person: the answer in one place, what happens beside it in another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, cast

from .client import Reconnected


class Narrator:
    """``say`` takes pieces of the answer as they come; ``tell`` takes whole lines about it."""

    def __init__(self, say: Callable[[str], None], tell: Callable[[str], None]) -> None:
        self._say = say
        self._tell = tell
        self._began: dict[str, float] = {}
        self._started = time.monotonic()
        self._mid_line = False
        self.response: dict[str, Any] = {}
        """The latest response object seen."""
        self.events = 0

    def see(self, event: dict[str, Any] | Reconnected) -> None:
        if isinstance(event, Reconnected):
            self._aside(f"~ connection lost after event {event.after}; continued at {event.after + 1}")
            return
        self.events = event["sequence_number"] + 1
        if "outlast" in event:
            self._aside(f"~ worker lost; attempt {event['outlast']['attempt']} continues")
        if "response" in event:
            self.response = event["response"]
        match event["type"]:
            case "response.output_text.delta":
                self._say(event["delta"])
                self._mid_line = not event["delta"].endswith("\n")
            case "response.output_item.added":
                self._began[event["item"]["id"]] = time.monotonic()
            case "response.output_item.done":
                self._item(event["item"])
            case _:
                pass

    def finish(self) -> bool:
        """Tell how it ended. True when the run completed."""
        status = self.response.get("status")
        seconds = time.monotonic() - self._started
        attempts = self.response.get("attempt_number", 1)
        more = f", {attempts} attempts" if attempts > 1 else ""
        if error := self.response.get("error"):
            self._aside(f"{status}: {error['message']}")
        word = "done" if status == "completed" else status
        self._aside(f"{word}  {seconds:.1f} s, {self.events} events{more}. outlast runs show {self.response.get('id')}")
        return status == "completed"

    def _item(self, item: dict[str, Any]) -> None:
        match item["type"]:
            case "mcp_call":
                milliseconds = (time.monotonic() - self._began.get(item["id"], time.monotonic())) * 1000
                self._aside(f"  {call(item):<34} {_shortened(result_of(item), 60)}, {milliseconds:.0f} ms")
            case "function_call":
                self._aside(f"  {call(item)} is for the client to answer")
            case "reasoning":
                for part in item.get("summary", ()):
                    self._aside(f"  ({_shortened(part['text'], 100)})")
            case "message" if self._mid_line:
                self._say("\n")
                self._mid_line = False
            case _:
                pass

    def _aside(self, line: str) -> None:
        if self._mid_line:
            self._say("\n")
            self._mid_line = False
        self._tell(line)


def result_of(item: dict[str, Any]) -> str:
    """What a tool answered, or why it did not."""
    if error := item.get("error"):
        return " ".join(part["text"] for part in error["content"])
    return item.get("output") or ""


def call(item: dict[str, Any]) -> str:
    """``search("leases", 5)``: a call as a person would write it."""
    try:
        arguments = json.loads(item["arguments"] or "{}")
    except ValueError:
        return f"{item['name']}({_shortened(item['arguments'], 40)})"
    values = list(cast("dict[str, object]", arguments).values()) if isinstance(arguments, dict) else [arguments]
    return f"{item['name']}({', '.join(_shortened(json.dumps(value, ensure_ascii=False), 40) for value in values)})"


def _shortened(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
