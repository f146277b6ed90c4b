"""The first question: `outlast dev` asks it by itself, so that the main job is seen."""

from __future__ import annotations

import json
import os
import textwrap
import time
from typing import Any

from outlast.shared.domain.errors import OutlastError

from .client import Client, Reconnected
from .narration import call, result_of
from .supervised import API_KEY
from .terminal import echo, echo_line

QUESTION = "What happens to a run when its worker is killed?"


def say_hello(url: str) -> None:
    """Ask, and print the answer with the numbers of its events. A failure is told, not raised."""
    echo(f'\n  hello   "{QUESTION}"')
    key = os.environ.get(API_KEY)
    began = time.monotonic()
    first, number = 0, -1
    response: dict[str, Any] = {}
    try:
        for event in Client(url, key).create({"input": QUESTION}):
            if isinstance(event, Reconnected):
                continue
            number = event["sequence_number"]
            response = event.get("response", response)
            if event["type"] == "response.output_item.done":
                _print_item(first, number, event["item"])
                first = number + 1
    except OutlastError as error:
        echo_line(f"   failed  {error.message}")
        return
    seconds = time.monotonic() - began
    with_key = f'-H "authorization: Bearer ${API_KEY}" ' if key else ""
    echo(
        f"   {response['status']:<9} {response['id']}, attempt {response['attempt_number']}, "
        f"{number + 1} events, {seconds:.1f} s\n"
        f'   replay it: curl -N {with_key}"{url}/v1/responses/{response["id"]}?stream=true"\n'
    )


def _print_item(first: int, last: int, item: dict[str, Any]) -> None:
    numbers = f"{first}-{last}"
    if item["type"] == "mcp_call":
        lines = [f"{call(item)}: {_first_line(result_of(item))}"]
    elif item["type"] == "message":
        text = "".join(part["text"] for part in item["content"])
        lines = [line for paragraph in text.splitlines() for line in textwrap.wrap(paragraph, 110)]
    else:
        lines = [item["type"]]
    echo(f"   {numbers:<9} " + "\n             ".join(lines[:8]))


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return textwrap.shorten(line if line else json.dumps(text), 70, placeholder="…")
