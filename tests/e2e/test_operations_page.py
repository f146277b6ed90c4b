"""The operators' view of the page in a real browser: seen, steered, and broken while it is open."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest

from outlast.shared.connections import Database
from outlast.shared.domain.keys import Scope
from tests.support.browser import Browser, Page, browsing, found
from tests.support.bulk import fill
from tests.support.keys import a_key
from tests.support.outages import Outages
from tests.support.processes import Part, Parts, free_port, parts, wait_serving
from tests.support.waiting import until_sync

PROGRAM = found()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium: install it, or set CHROMIUM to its program")

AGENTS = ",".join(f"{name}=tests.e2e.agents:{name}" for name in ("count", "hostile"))
EVIL = "<img src=x onerror=window.broken=1>"
ROWS = "document.querySelectorAll('#all-runs tbody tr').length"


@dataclass
class Server:
    parts: Parts
    url: str
    url_with_keys: str
    database_url: str
    worker: Part

    def submit(self, question: str, agent: str = "count") -> str:
        body = {"input": question, "model": agent, "background": True}
        return httpx.post(f"{self.url}/v1/responses", json=body, timeout=20).json()["id"]

    def status(self, run: str) -> str:
        return httpx.get(f"{self.url}/v1/responses/{run}", timeout=20).json()["status"]

    def attempts_of_failed(self, run: str) -> int:
        """0 while it has not failed."""
        with psycopg.connect(self.database_url, options="-c search_path=outlast") as connection:
            row = connection.execute(
                "SELECT attempt FROM runs WHERE id = %s AND status = 'failed'", (run.removeprefix("resp_"),)
            ).fetchone()
        return row[0] if row else 0

    def execute(self, statement: str, *values: Any) -> None:
        with psycopg.connect(self.database_url, autocommit=True, options="-c search_path=outlast") as connection:
            connection.execute(statement, values)  # type: ignore[arg-type]


@pytest.fixture
def server(database_url: str, redis_url: str, tmp_path: Any) -> Generator[Server]:
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OUTLAST_AGENTS": AGENTS,
        "OUTLAST_CHILDREN": "1",
        "OUTLAST_LOG_LEVEL": "error",
    }
    with parts(env, tmp_path) as started:
        port, port_with_keys = free_port(), free_port()
        worker = started.launch(["worker"], {})
        api = started.launch(["api", "--port", str(port)], {})
        with_keys = started.launch(["api", "--port", str(port_with_keys)], {"OUTLAST_AUTH": "api_keys"})
        worker.wait_ready()
        wait_serving(api, port)
        wait_serving(with_keys, port_with_keys)
        url, url_with_keys = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port_with_keys}"
        yield Server(started, url, url_with_keys, database_url, worker)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[Browser]:
    assert PROGRAM is not None
    with browsing(PROGRAM, tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def page(browser: Browser, server: Server) -> Generator[Page]:
    opened = browser.page()
    opened.goto(f"{server.url}/")
    opened.until("!document.querySelector('#operations-link').hidden")
    yield opened
    opened.close()


def row(run: str) -> str:
    return f"document.querySelector('#all-runs [data-key={json.dumps(run)}]')"


def choose(page: Page, name: str, value: str) -> None:
    page.run(f"""(() => {{ const field = document.querySelector('#filters [name={name}]');
        field.value = {json.dumps(value)}; field.dispatchEvent(new Event("change", {{ bubbles: true }})); }})()""")


def answer(page: Page, choice: str) -> None:
    page.until("document.querySelector('#sure-dialog').open")
    page.click(f"#sure-dialog [value={choice}]")


def test_a_running_run_is_seen_and_cancelled_after_a_question(page: Page, server: Server) -> None:
    run = server.submit("5000")
    page.click("#operations-link")
    page.until("document.querySelector('#findings-title').innerText.endsWith('is wrong')")  # what comes shifts the rest
    page.until(f"{row(run)}.innerText.includes('in progress')")
    page.until("document.querySelector('#workers tbody tr').innerText.includes('working')")
    page.until("document.querySelector('#queues tbody tr th').innerText === 'default'")

    button = f"#all-runs [data-key={json.dumps(run)}] button"
    page.click(button)
    answer(page, "no")
    assert server.status(run) == "in_progress"
    page.click(button)
    page.press("Escape")
    page.until("!document.querySelector('#sure-dialog').open")
    assert server.status(run) == "in_progress"
    page.click(button)
    answer(page, "yes")
    page.until(f"{row(run)} === null")
    choose(page, "status", "cancelled")
    page.until(f"{row(run)}.innerText.includes('cancelled')")
    assert server.status(run) == "cancelled"
    assert page.complaints == []


def test_a_failed_run_is_retried_and_a_refusal_is_said(page: Page, server: Server) -> None:
    run = server.submit("x and fail", "hostile")
    page.run("location.hash = 'operations'")
    page.until("document.querySelector('#findings-title').innerText.endsWith('is wrong')")
    choose(page, "status", "failed")
    page.until(f"{row(run)}.querySelector('button').innerText === 'Retry'")
    assert "<script>" in page.run(f"{row(run)}.innerText")

    page.click(f"#all-runs [data-key={json.dumps(run)}] button")
    answer(page, "yes")
    until_sync(lambda: server.attempts_of_failed(run) == 2)
    page.until(f"{row(run)}.querySelector('button').innerText === 'Retry'")
    server.execute("DELETE FROM run_events WHERE run_id = %s", run.removeprefix("resp_"))
    page.click(f"#all-runs [data-key={json.dumps(run)}] button")
    answer(page, "yes")
    page.until("document.querySelector('#operations-refusal').innerText.includes('cannot be retried')")
    assert page.run("window.broken === undefined") and page.complaints == []


def test_a_worker_with_html_in_its_name_is_text_and_drained(page: Page, server: Server) -> None:
    server.execute(
        """INSERT INTO workers (owner, host, pid, version, queues, children, slots, running, draining, seen_at)
           VALUES (%s, %s, 7, %s, '{}', 2147483647, 2147483647, 2147483647, false, now() + interval '1 hour')""",
        f"{EVIL}:7:..%x?y#z", EVIL, EVIL,
    )  # fmt: skip
    page.click("#operations-link")
    page.until("document.querySelector('#workers').innerText.includes('2,147,483,647')")
    page.until("document.querySelector('#findings').innerText.includes('is of version <img')", seconds=60)
    assert EVIL in page.text("#workers")
    page.run("[...document.querySelectorAll('#workers button')].find((b) => b.ariaLabel.includes('<img')).id = 'evil'")
    page.click("#evil")
    assert page.until("document.querySelector('#sure-question').innerText") == f"Drain {EVIL}:7?"
    answer(page, "yes")
    page.until("document.querySelector('#workers').innerText.includes('asked to drain')")
    assert page.run("window.broken === undefined") and page.run("document.querySelectorAll('main img').length") == 0
    assert page.complaints == []


async def test_ten_thousand_runs_are_filtered_and_paged(page: Page, server: Server, database: Database) -> None:
    server.worker.kill()
    for part in range(5):
        await database.run(lambda c: fill(c, 2000, f"busy {part}"))
    await database.run(lambda c: fill(c, 3, EVIL))
    page.click("#operations-link")
    page.until(
        "document.querySelector('#findings').innerText.includes('outlast worker')", seconds=60
    )  # what comes shifts the rest
    choose(page, "status", "queued")
    page.until(f"{ROWS} === 50 && !document.querySelector('#more-runs').hidden")
    page.click("#more-runs")
    page.until(f"{ROWS} === 100")
    page.until("document.querySelector('#queues').innerText.includes('10,000+')")
    choose(page, "principal", EVIL)
    page.until(f"{ROWS} === 3")
    choose(page, "older_than_seconds", "3600")
    page.until("document.querySelector('#all-runs .hint').innerText === 'None.'")
    choose(page, "agent", "x" * 600)
    page.until("document.querySelector('#operations-state').innerText.includes('Invalid value')")
    choose(page, "agent", "")
    page.until("document.querySelector('#operations-state').innerText.includes('queued')")
    assert page.complaints == []


def test_a_database_that_stops_is_said_and_what_was_seen_stays(page: Page, server: Server) -> None:
    page.click("#operations-link")
    page.until("document.querySelectorAll('#workers tbody tr').length === 1")
    with Outages(server.database_url).refused_logins():
        page.until("document.querySelector('#operations-state').innerText.includes('trying again')", seconds=40)
        assert page.run("document.querySelectorAll('#workers tbody tr').length") == 1
        page.until("document.querySelector('#findings').innerText.includes('DATABASE_URL')", seconds=40)
    page.until("document.querySelector('#operations-state').innerText.includes('running')", seconds=40)
    assert page.complaints == []


async def test_without_the_scope_there_is_nothing_to_see(browser: Browser, server: Server, database: Database) -> None:
    for name, scopes in (("alice", ()), ("root", (Scope.ADMIN,))):
        key = await a_key(database, name, *scopes)
        page = browser.page()
        page.goto(f"{server.url_with_keys}/#operations")
        page.until("document.querySelector('#key-dialog').open")
        page.type(key)
        page.press("Enter")
        page.until("document.querySelector('#agent').options.length > 0")
        if scopes:
            page.until("document.querySelectorAll('#workers tbody tr').length === 1")
            assert page.run("!document.querySelector('#operations-link').hidden")
            with psycopg.connect(server.database_url, autocommit=True) as connection:
                connection.execute("UPDATE outlast.api_keys SET scopes = '{}' WHERE principal = 'root'")
        page.until("location.hash === '' && document.querySelector('#operations-view').hidden", seconds=30)
        assert page.run("document.querySelector('#operations-link').hidden")
        assert page.complaints == []
        page.close()


def test_it_rests_while_nobody_sees_it(page: Page) -> None:
    page.run("""window.asked = []; window.fetch = ((fetch) => (url, options) => {
        window.asked.push(String(url)); return fetch(url, options); })(fetch)""")
    looks = "window.asked.filter((url) => url.includes('/admin/queue')).length"
    page.click("#operations-link")
    page.until(f"{looks} >= 2")
    page.click("#new")
    page.until("document.querySelector('#operations-view').hidden && !document.querySelector('#composer').hidden")
    before = page.run(looks)
    lists = "window.asked.filter((url) => url.includes('/v1/responses?')).length"
    later = page.run(lists) + 2
    page.until(f"{lists} >= {later}", seconds=40)  # the list of one's own runs is asked for every 8 s
    assert page.run(looks) - before <= 1


def test_it_fits_a_narrow_dark_screen_and_is_used_with_the_keyboard_alone(browser: Browser, server: Server) -> None:
    run = server.submit("5000")
    page = browser.page(width=360, height=640, dark=True)
    page.goto(f"{server.url}/#operations")
    page.until(f"{row(run)} !== null && document.querySelector('#findings-title').innerText.endsWith('is wrong')")
    assert page.run("document.activeElement.id") == "operations-title"
    assert page.run("document.documentElement.scrollWidth") == 360
    assert page.run("document.querySelector('#scroller').scrollWidth") <= 360
    for _ in range(30):
        page.press("Tab")
        if page.run(f"document.activeElement === {row(run)}.querySelector('button')"):
            break
    page.press("Enter")
    page.until("document.querySelector('#sure-dialog').open")
    assert page.run("document.activeElement.value") == "no"
    page.press("Tab")
    page.press("Enter")
    page.until(f"{row(run)} === null")
    assert server.status(run) == "cancelled"
    nameless = """[...document.querySelectorAll('#operations-view :is(button, select, input)')]
        .filter((e) => !e.hidden && !(e.innerText || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML)"""
    assert page.run(nameless) == []
    assert page.complaints == []
    page.close()
