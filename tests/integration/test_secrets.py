"""What an agent's exception says may hold secrets: it is for the operator's log, and for nobody else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest
import structlog
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import SecretStr

from outlast.agent import Context, Request, Retry, Secret, ToolCall
from outlast.shared import logs
from outlast.shared.connections import Database
from outlast.shared.settings import Settings, load
from tests.support.log import stored_lines
from tests.support.service import serving

SECRET = "hunter2-and-more"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
DSN = f"postgresql://admin:{SECRET}@db.internal:5432/prod"


class Talkative(Exception):
    """Says what it should not, in every way there is."""

    def __init__(self) -> None:
        super().__init__(DSN, {"password": SECRET})
        self.add_note(f"note: {SECRET}")
        self.dsn = DSN

    def __str__(self) -> str:
        return f"cannot connect to {DSN}"

    def __repr__(self) -> str:
        return f"Talkative({DSN!r})"


def plain() -> Exception:
    return Talkative()


def nested() -> Exception:
    error = RuntimeError(f"outer {SECRET}")
    error.__cause__ = ValueError(f"inner {DSN}")
    error.__cause__.__context__ = Talkative()
    return error


def grouped() -> Exception:
    return ExceptionGroup(f"several, {SECRET}", [Talkative(), ExceptionGroup(DSN, [KeyError(SECRET)])])


def of_a_driver() -> Exception:
    return psycopg.OperationalError(f'connection to "{DSN}" failed: password {SECRET}')


def transient() -> Exception:
    """The run is tried again, and fails in the end."""
    return ConnectionError(f"{DSN} refused")


def chained_retry() -> Exception:
    error = Retry()
    error.__cause__ = Talkative()
    return error


RAISED: list[Callable[[], Exception]] = [plain, nested, grouped, of_a_driver, transient, chained_retry]


def function_agent(make: Callable[[], Exception]) -> Any:
    async def agent(_request: Request, _context: Context):
        yield "half an answer"
        yield ToolCall("connect", {"to": "db"}, call_id="call_1")
        raise make()

    return agent


def graph_agent(make: Callable[[], Exception]) -> Any:
    async def node(state: MessagesState) -> Any:
        raise make()

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph


@pytest.mark.parametrize("kind", [function_agent, graph_agent])
async def test_no_word_of_an_exception_reaches_a_client(settings: Settings, database: Database, kind: Any) -> None:
    brief = settings.model_copy(update={"retry_seconds": 0.05, "max_retries": {"*": 1}})
    agents = {make.__name__: kind(make) for make in RAISED}
    async with serving(brief, agents) as service, httpx.AsyncClient(base_url=service.url, timeout=60) as http:
        shown: list[str] = []
        for name in agents:
            streamed = await http.post("/responses", json={"model": name, "input": "x", "stream": True})
            answered = await http.post("/responses", json={"model": name, "input": "x"})
            response = answered.json()
            assert response["status"] == "failed" and "response.failed" in streamed.text, name
            for path in ("", "?stream=true", "?wait=1"):
                shown.append((await http.get(f"/responses/{response['id']}{path}")).text)
            shown += [streamed.text, answered.text, str(answered.headers), str(streamed.headers)]
            shown += await stored_lines(database, response["id"])
        for path in ("/metrics", "/admin/queue", "/responses", "/conversations"):
            shown.append((await http.get(path)).text)
        rows = "SELECT to_jsonb(r)::text FROM runs r UNION ALL SELECT to_jsonb(w)::text FROM workers w"
        cursor = await database.run(lambda c: c.execute(rows))
        shown += [row[0] for row in await cursor.fetchall()]
    assert len(shown) > 7 * len(agents)
    for text in shown:
        for secret in (SECRET, "db.internal", "cannot connect", "note:"):
            assert secret not in text
    assert any("Talkative" in text for text in shown)  # its type is told


# -- the operator's log ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "console"])
def test_passwords_are_masked_in_every_line(form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ours = load(
        database_url=SecretStr("postgresql://me:p%40ssw0rd%21x@db/name"),
        redis_url=SecretStr("redis://:rediss3cret@cache:6379/0"),
        token_key=SecretStr("key-of-tokens-0123456789-0123456789"),
        log_format=form,
        agents={},
    )
    logs.configure(ours, part="api")
    log = structlog.get_logger()
    try:
        raise Talkative
    except Talkative:
        log.exception("agent.failed", field="rediss3cret", nested={"x": ["p%40ssw0rd%21x", "p@ssw0rd!x"]})
    logging.getLogger("of.an.agent").error("%s and %s", DSN, "redis://:other@x")
    with logs.concealing(Secret("users-token")), logs.concealing(Secret("users-token")), logs.concealing(None):
        log.error("some.event", tokens=["users-token", f"Bearer {JWT}"], key="key-of-tokens-0123456789-0123456789")

    said = capsys.readouterr().err

    of_tokens = ("users-token", "eyJ", "c2lnbmF0dXJl", "key-of-tokens")
    for secret in ("rediss3cret", "p%40ssw0rd%21x", "p@ssw0rd!x", f":{SECRET}@", ":other@", *of_tokens):
        assert secret not in said
    log.error("users-token")
    assert "users-token" in capsys.readouterr().err, "it is not kept longer than its run lasts"
    assert "agent.failed" in said and "Traceback" in said and "postgresql://admin:***@db.internal" in said
    if form == "json":
        assert [json.loads(line)["level"] for line in said.splitlines()] == ["error", "error", "error"]


def test_a_short_password_does_not_mutilate_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    ours = load(database_url=SecretStr("postgresql://me:me@db/name"), log_format="json", agents={})
    logs.configure(ours, part="api")
    structlog.get_logger().warning("some.event", name="me@example.org", url="postgresql://me:me@db/name")
    said = json.loads(capsys.readouterr().err)
    assert (said["event"], said["name"], said["url"]) == (
        "some.event",
        "me@example.org",
        "postgresql://me:***@db/name",
    )
