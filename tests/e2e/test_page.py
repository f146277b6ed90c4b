"""The page in a real browser, while what it shows is reloaded, stopped and killed."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest

from outlast.shared.connections import Database, fixed
from tests.support.browser import Browser, Page, browsing, found
from tests.support.keys import a_key
from tests.support.processes import Part, Parts, free_port, parts, wait_serving

PROGRAM = found()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium: install it, or set CHROMIUM to its program")

AGENTS = ",".join(f"{name}=tests.e2e.agents:{name}" for name in ("count", "hostile", "flood"))
ANSWER = "[...document.querySelectorAll('.turn:last-child .answer > .message')].map((e) => e.textContent).join('')"
ENDED = "!['queued', 'in_progress', undefined].includes(document.querySelector('.turn:last-child')?.dataset.status)"
BEGUN = "Number(document.querySelector('.turn:last-child')?.dataset.last) > 25"


@dataclass
class Server:
    """One worker and an API for all tests of this module; each may kill them, and starts them again."""

    parts: Parts
    port: int
    port_with_keys: int
    """Of another replica, which asks for keys."""
    worker: Part
    api: Part

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, run: str) -> dict[str, Any]:
        return httpx.get(f"{self.url}/v1/responses/{run}").json()


@pytest.fixture(scope="module")
def server(shared_database_url: str, broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    env = {
        "DATABASE_URL": shared_database_url,
        "REDIS_URL": broker_url,
        "OUTLAST_AGENTS": AGENTS,
        "OUTLAST_LEASE_SECONDS": "1.5",
        "OUTLAST_BEAT_SECONDS": "0.3",
        "OUTLAST_CHILDREN": "1",
        "OUTLAST_LOG_LEVEL": "warning",
    }
    with parts(env, tmp_path_factory.mktemp("parts")) as started:
        port, port_with_keys = free_port(), free_port()
        worker = started.launch(["worker"], {})
        api = started.launch(["api", "--port", str(port)], {})
        with_keys = started.launch(["api", "--port", str(port_with_keys)], {"OUTLAST_AUTH": "api_keys"})
        worker.wait_ready()
        wait_serving(api, port)
        wait_serving(with_keys, port_with_keys)
        yield Server(started, port, port_with_keys, worker, api)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[Browser]:
    assert PROGRAM is not None
    with browsing(PROGRAM, tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def page(browser: Browser, server: Server) -> Generator[Page]:
    opened = browser.page()
    opened.goto(f"{server.url}/")
    opened.until("document.querySelector('#agent').options.length > 0")
    yield opened
    opened.close()


def ask(page: Page, question: str, agent: str = "count") -> None:
    page.run(f"document.querySelector('#agent').value = {json.dumps(agent)}")
    page.click("#question")
    page.type(question)
    page.press("Enter")


def run_of(page: Page) -> str:
    """The run that the address names."""
    return page.until("location.hash.slice(1)")


def check_whole(page: Page, server: Server, run: str) -> None:
    """What is shown is what the API says, and every event has come once."""
    response = server.get(run)
    said = "".join(p["text"] for item in response["output"] if item["type"] == "message" for p in item["content"])
    assert page.run(ANSWER).split() == said.split()
    log = httpx.get(f"{server.url}/v1/responses/{run}?stream=true").text
    last = log.count("\nevent: ") + log.startswith("event: ") - 1
    page.run("document.querySelector('#tab-events').click()")
    page.until(f"""document.querySelector('#panel-events .hint')?.textContent.replaceAll(',', '')
                   === '{last + 1} events numbered 0 to {last} none missing'""")
    assert page.complaints == []


def test_a_question_becomes_a_conversation_with_its_tools_and_its_picture(page: Page, server: Server) -> None:
    page.click("#question")
    page.type("2")
    page.press("Enter", shift=True)
    assert page.run("document.querySelector('#question').value") == "2\n"
    page.press("Enter")
    first = run_of(page)
    page.until(ENDED)

    assert page.text(".turn .question") == "2"
    assert "prepare" in page.text(".tool summary")
    page.click(".tool summary")
    assert page.text(".tool .arguments pre") == '{\n  "attempt": 1\n}' and page.text(".tool .output pre") == "ready"
    ask(page, "3")
    page.until(f"location.hash !== '#{first}'")
    second = run_of(page)
    page.until(ENDED)

    assert server.get(second)["conversation"] == server.get(first)["conversation"]
    page.until(f"document.querySelector('#runs [aria-current]')?.hash === '#{second}'")
    page.until("[...document.querySelectorAll('#runs .state')].slice(0, 2).every((e) => e.innerText === 'completed')")
    bars = page.run("[...document.querySelectorAll('.timeline .row')].map((e) => e.getAttribute('aria-label'))")
    rows = page.run("document.querySelectorAll('.as-table tbody tr').length")
    assert [label.split(" · ")[0] for label in bars] == ["queued", "attempt 1", "tool prepare", "answer"]
    assert rows == len(bars)
    check_whole(page, server, second)


def test_a_reload_in_mid_answer_changes_nothing(page: Page, server: Server) -> None:
    ask(page, "120")
    run = run_of(page)
    page.until(BEGUN)

    page.reload()

    page.until(ENDED)
    assert run_of(page) == run and page.text(".question") == "120"
    assert page.run("document.querySelectorAll('.turn').length") == 1
    check_whole(page, server, run)


def test_an_answer_outlasts_its_worker_and_is_shown_once(page: Page, server: Server) -> None:
    ask(page, "120")
    run = run_of(page)
    page.until(BEGUN)

    server.worker.kill()
    server.worker = server.parts.worker()

    page.until(ENDED, seconds=30)
    assert page.text(".takeover summary").startswith("Attempt 1 was lost with its worker; attempt 2 goes on")
    assert page.run("document.querySelectorAll('.answer > .message, .answer > .tool').length") == 2
    assert page.run("document.querySelectorAll('.takeover .message, .takeover .tool').length") == 2
    assert not page.run("document.querySelector('.takeover').open")
    labels = page.run("[...document.querySelectorAll('.timeline .row')].map((e) => e.classList[1])")
    assert labels == ["queue", *("attempt", "tool", "text"), "gap", *("attempt", "tool", "text")]
    check_whole(page, server, run)
    page.reload()
    page.until(ENDED)
    check_whole(page, server, run)


def test_an_answer_outlasts_the_api(page: Page, server: Server) -> None:
    ask(page, "120")
    run = run_of(page)
    page.until(BEGUN)

    server.api.kill()
    page.until("document.querySelector('.turn .state').innerText === 'reconnecting…'")
    server.api = server.parts.api(server.port)

    page.until(ENDED)
    check_whole(page, server, run)


def test_stop_ends_the_run(page: Page, server: Server) -> None:
    ask(page, "5000")
    run = run_of(page)
    page.until(BEGUN)

    page.click("#stop")

    page.until("document.querySelector('.turn').dataset.status === 'cancelled'")
    assert server.get(run)["status"] == "cancelled"
    assert page.run("document.querySelector('#stop').hidden")
    check_whole(page, server, run)


def test_the_end_is_followed_only_while_the_reader_is_there(page: Page, server: Server) -> None:
    page.resize(800, 320)
    ask(page, "5000")
    run = run_of(page)
    end = "(() => { const e = document.querySelector('#scroller'); return e.scrollHeight - e.clientHeight; })()"
    page.until(f"{end} > 100 && document.querySelector('#scroller').scrollTop > {end} - 30")

    page.run("document.querySelector('#scroller').scrollTop = 0")
    grown = page.run(end) + 60
    page.until(f"{end} > {grown}")
    assert page.run("document.querySelector('#scroller').scrollTop") == 0
    page.click("#to-end")
    page.until(f"document.querySelector('#scroller').scrollTop > {end} - 30")
    httpx.post(f"{server.url}/v1/responses/{run}/cancel", timeout=20)


def test_events_that_come_twice_late_or_in_pieces_are_taken_once_and_in_order(page: Page) -> None:
    taken = page.run(r"""(async () => {
        const { follow } = await import("/page/follow.js");
        const event = (n, type = "x") => {
            const data = JSON.stringify({ type, sequence_number: n, text: "é" });
            return `event: ${type}\ndata: ${data}\n\n`;
        };
        const connections = [
            ": ping\n\n" + event(0) + event(1) + event(1) + event(0) + event(3),
            null,
            event(1) + event(2),
            "data: [DONE]\n\n",
            event(3).replaceAll("\n", "\r\n") + event(4, "response.completed") + event(5),
        ];
        const asked = [], events = [], states = [];
        window.fetch = async (url) => {
            asked.push(new URL(url).search);
            const text = connections.shift();
            if (text === null) throw new TypeError("network");
            const bytes = new TextEncoder().encode(text);
            return new Response(new ReadableStream({
                start(controller) {
                    for (let at = 0; at < bytes.length; at += 5) controller.enqueue(bytes.slice(at, at + 5));
                    controller.close();
                },
            }));
        };
        const run = { id: "resp_1", last: -1, ended: false };
        await follow(run, {
            signal: new AbortController().signal,
            onConnection: (state) => states.push(state),
            onEvent: (event) => { run.last += 1; events.push(event.sequence_number + event.text); },
        });
        return { asked: asked.map((query) => query.split("starting_after=")[1] ?? ""), events, states };
    })()""")

    assert taken["events"] == ["0é", "1é", "2é", "3é", "4é"]
    assert taken["asked"] == ["", "1", "1", "2", "2"]
    assert taken["states"] == ["live", "reconnecting", "reconnecting", *(["live", "reconnecting"] * 2), "live"]


@pytest.mark.parametrize("question", ["", " and fail"])
def test_nothing_that_is_said_is_ever_run(page: Page, server: Server, question: str) -> None:
    said = f"<b onclick=window.broken=1>x</b>{question}"
    ask(page, said, "hostile")
    run = run_of(page)
    page.until(ENDED)
    page.run("document.querySelectorAll('details').forEach((e) => (e.open = true))")
    page.until("document.querySelector('#runs .run-title')?.innerText.startsWith('<b onclick')")

    assert page.text(".question") == said
    assert page.text(".tool-name").startswith("<img src=x")
    assert page.text(".part.error pre").startswith("<img src=x")
    if question:
        assert page.text(".failure").count("<script>") == 2
    page.run("document.querySelector('#tab-events').click()")
    page.until("document.querySelectorAll('.events li').length > 10")
    page.run("document.querySelectorAll('.events details').forEach((e) => (e.open = true))")
    strange = "script:not([src]), img:not([src='page/icon.svg']), [onerror], [onload], [onclick], iframe"
    assert page.run(f"document.body.querySelectorAll({json.dumps(strange)}).length") == 0
    assert page.run("[...document.querySelectorAll('a')].every((e) => /^https?:/.test(e.protocol))")
    page.reload()
    page.until(ENDED)
    assert page.run("window.broken === undefined")
    assert page.complaints == []
    assert server.get(run)["status"] == ("failed" if question else "completed")


def test_a_run_that_is_not_there_is_said(page: Page, server: Server) -> None:
    for name in (f"resp_{0:032x}", "<script>", "%E0%A4%A", "..%2f..%2fmodels"):
        page.goto(f"{server.url}/")
        page.run(f"location.hash = {json.dumps(name)}")
        page.until("document.querySelector('#instead').innerText.includes('not found')")
    assert page.complaints == []


def test_a_refused_question_comes_back(page: Page) -> None:
    page.run("""window.fetch = ((fetch) => (url, options) => fetch(url, options?.method === "POST"
        ? { ...options, body: '{"input": 5}' } : options))(fetch)""")
    ask(page, "hello")

    page.until("document.querySelector('#refusal').innerText.includes('input')")
    assert page.run("document.querySelector('#question').value") == "hello"
    assert page.run("document.querySelectorAll('.turn').length") == 0


async def test_a_key_is_asked_for_and_kept_in_the_tab_only(
    browser: Browser, server: Server, shared_database_url: str
) -> None:
    async with Database(fixed(shared_database_url), schema="outlast", application="tests").pooled(
        max_connections=1
    ) as database:
        key = await a_key(database, "alice")
    page = browser.page()
    page.goto(f"http://127.0.0.1:{server.port_with_keys}/")

    page.until("document.querySelector('#key-dialog').open")
    page.type("sk-outlast-wrong")
    page.press("Enter")
    page.until("document.querySelector('#key-reason').innerText.includes('was refused')")
    page.type(key)
    page.press("Enter")
    page.until("document.querySelector('#agent').options.length > 0")
    ask(page, "3")
    page.until(ENDED)

    assert page.run(ANSWER).split() == ["0", "1", "2"]
    assert key not in page.run("location.href + JSON.stringify(localStorage) + document.cookie")
    assert page.run("sessionStorage.getItem('outlast.key')") == key
    page.reload()
    page.until(ENDED)
    with psycopg.connect(shared_database_url) as connection:
        rows = connection.execute("SELECT count(*) FROM outlast.runs WHERE principal = 'alice'").fetchall()
    assert rows == [(1,)]
    page.click("#forget-key")
    page.until("document.querySelector('#key-dialog').open")
    assert page.complaints == []
    page.close()


def test_behind_the_proxy_of_databricks_apps_nobody_is_asked_for_a_key(browser: Browser, server: Server) -> None:
    port = free_port()
    api = server.parts.api(port, OUTLAST_AUTH="databricks")
    page = browser.page()
    page.goto(f"http://127.0.0.1:{port}/")
    page.until("document.body.innerText.includes('Nobody is named in X-Forwarded-User')")
    assert page.run("!document.querySelector('#key-dialog').open")

    page.call("Network.enable")
    page.call("Network.setExtraHTTPHeaders", headers={"X-Forwarded-User": "7@42"})
    page.reload()
    page.until("document.querySelector('#agent').options.length > 0")
    ask(page, "3")
    page.until(ENDED)

    assert page.run(ANSWER).split() == ["0", "1", "2"] and page.complaints == []
    page.close()
    assert api.stop() == 0


def test_a_very_long_answer_is_shown_whole(page: Page, server: Server) -> None:
    ask(page, "20000", "flood")
    run = run_of(page)
    page.until(ENDED, seconds=30)
    check_whole(page, server, run)


def test_it_fits_a_narrow_screen_and_is_used_with_the_keyboard_alone(browser: Browser, server: Server) -> None:
    page = browser.page(width=360, height=640, dark=True)
    page.goto(f"{server.url}/")
    page.until("document.querySelector('#agent').options.length > 0")
    assert page.run("document.documentElement.dataset.theme") == "dark"
    for _ in range(12):
        page.press("Tab")
        if page.run("document.activeElement.id") == "question":
            break
    page.type("4")
    page.press("Enter")
    page.until(ENDED)
    assert page.run("document.documentElement.scrollWidth") == 360
    page.run("document.querySelector('.inspect').focus()")
    page.press("Enter")
    page.until("document.querySelectorAll('.timeline .row').length === 4")
    assert page.run("document.activeElement.id") == "tab-timeline"
    page.run("document.querySelector('.timeline .row').focus()")
    page.press("ArrowDown")
    assert page.run("document.activeElement.getAttribute('aria-label')").startswith("attempt 1 · ")
    page.run("document.querySelector('#tab-timeline').focus()")
    page.press("ArrowRight")
    page.until("document.querySelectorAll('.events li').length > 5")
    assert page.run("document.documentElement.scrollWidth") == 360
    page.press("Escape")
    assert (
        page.run("document.querySelector('#inspector').hidden && document.activeElement.className") == "quiet inspect"
    )
    nameless = """[...document.querySelectorAll('button, select, textarea, input, a')]
        .filter((e) => !(e.innerText || e.getAttribute('aria-label') || e.labels?.length)).map((e) => e.outerHTML)"""
    assert [html for html in page.run(nameless) if "hidden" not in html] == []
    assert page.complaints == []
    page.close()
