"""Logs: dotted events with fields (``run.claimed``), for people on a terminal and as JSON elsewhere."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

import structlog
from pydantic import SecretStr

from outlast.agent import Secret

from .domain.plain_text import on_a_line, visible
from .settings import Settings

_JSON_WEB_TOKEN = re.compile(r"\beyJ[\w-]{8,}(\.[\w-]*){2,4}")
_PASSWORD_IN_URL = re.compile(r"(://[^\s:/@]*):[^\s/@]+@")
_MASK = "***"
_RECOGNISABLE = 6  # characters of a password: a shorter one may be part of any word
_INDENTED = "\n    "  # where a line of an event's text goes on: only events begin at the edge
_concealed: list[str] = []


@contextmanager
def concealing(secret: Secret | None) -> Generator[None]:
    """Meanwhile no line shows this text, whoever writes it."""
    if secret is None:
        yield
        return
    _concealed.append(secret.reveal())
    try:
        yield
    finally:
        _concealed.remove(secret.reveal())


def configure(settings: Settings, *, part: str, stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's loggers to one stream in one form. ``part``: api, worker, dev, serve.

    The stream is the standard error, unless another is given.
    """
    out = stream or sys.stderr
    console = settings.log_format == "console" or (settings.log_format is None and out.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _name_part(part),
    ]
    rendering: list[Any] = (
        [_for_people(colors=out.isatty())]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    level = logging.getLevelNamesMapping().get(settings.log_level.upper(), logging.INFO)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering, _masking(settings)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # what it warns of we retry, and say so ourselves
    for chatty in ("celery", "kombu", "httpx", "httpx2", "uvicorn.access", "amqp"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))


def _name_part(part: str) -> Any:
    def add(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        event["part"] = part
        return event

    return add


def _for_people(*, colors: bool) -> Any:
    # Its own way to show tracebacks shows variables, and so secrets.
    renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_write_traceback)

    def render(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        match plain := _made_plain(event):
            case {"event": "agent.printed", "pid": pid, "text": str(text)}:
                return f"{plain['timestamp']} [agent {pid}] {on_a_line(text)}"
            case _:
                return renderer(logger, method, plain)

    return render


def _made_plain(event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Return an event of whose text a terminal obeys nothing, and nothing looks like an event of its own.

    The renderer quotes fields that have spaces, so that they form no other field.
    """
    plain = {on_a_line(key): visible(value) if isinstance(value, str) else value for key, value in event.items()}
    for free in ("event", "stack", "exception"):
        if isinstance(text := plain.get(free), str):
            plain[free] = text.replace("\n", _INDENTED)
    return plain


def _write_traceback(out: TextIO, exc_info: Any) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    out.write(visible(text.getvalue()).replace("\n", _INDENTED))


def _masking(settings: Settings) -> Any:
    """Take out passwords, wherever a finished line has them: those in addresses, and our own in any other form.

    And users' tokens: those of runs that are executed here, and whatever looks like one.
    """
    own = [word for url in (settings.database_url, settings.redis_url) if url for word in _passwords(url)]
    if settings.token_key is not None:
        own.append(settings.token_key.get_secret_value())

    def mask(_logger: Any, _method: str, line: str) -> str:
        for word in (*own, *_concealed):  # a copy: agents log in threads too
            line = line.replace(word, _MASK)
        return _PASSWORD_IN_URL.sub(rf"\1:{_MASK}@", _JSON_WEB_TOKEN.sub(_MASK, line))

    return mask


def _passwords(url: SecretStr) -> list[str]:
    """As they are written in an address, and as they are."""
    text = url.get_secret_value()
    try:
        password = urlsplit(text).password
    except ValueError:  # it is no address: the words of libpq, or nothing that will ever connect
        password = None
    found = [password, *re.findall(r"\bpassword\s*=\s*'?([^\s'&]+)", text)]
    forms = {form for word in found if word for form in (word, unquote(word))}
    return sorted((form for form in forms if len(form) >= _RECOGNISABLE), key=len, reverse=True)
