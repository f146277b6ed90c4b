"""``outlast ask``: one question, its answer as it comes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from outlast.shared import settings

from .client import Client, Reconnected
from .narration import Narrator
from .supervised import API_KEY, running_dev
from .terminal import echo, echo_line

DEFAULT_URL = "http://127.0.0.1:8000"


def client(url: str | None) -> Client:
    """A client of this API, or of the running `outlast dev`, or of the usual address."""
    running = None if url else running_dev(settings.load())
    return Client(url or (running.url if running else DEFAULT_URL), os.environ.get(API_KEY))


def ask(question: str, *, model: str | None, conversation: str | None, url: str | None) -> int:
    """Returns 0 when the run completed, 1 otherwise, 130 when the person left."""
    body: dict[str, Any] = {"input": question}
    if model:
        body["model"] = model
    if conversation:
        body["conversation"] = conversation
    return narrate(client(url).create(body))


def follow(response_id: str, *, starting_after: int, url: str | None) -> int:
    return narrate(client(url).follow(response_id, starting_after))


def narrate(events: Iterator[dict[str, Any] | Reconnected]) -> int:
    narrator = Narrator(lambda piece: echo(piece, nl=False), lambda line: echo_line(line, err=True))
    told_id = False
    try:
        for event in events:
            narrator.see(event)
            if not told_id and narrator.response:
                told_id = True
                echo_line(narrator.response["id"], err=True)
    except KeyboardInterrupt:
        echo(err=True)
        if run := narrator.response.get("id"):
            echo(f"The run goes on: outlast runs follow|cancel {run}", err=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads the answer any more
        return 1
    return 0 if narrator.finish() else 1
