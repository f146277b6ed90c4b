"""Real processes on a Lakebase whose logins expire, are refused, or cannot be had for a while."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Generator

import httpx
import psycopg
import pytest

from tests.support import workspace_faults as faults
from tests.support.rotation import RUNS, STREAMS, Load, Service, figures, rotate, service
from tests.support.waiting import until, until_sync
from tests.support.workspace import Workspace

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")

CREDENTIAL_SECONDS = 8.0
SECONDS = 2 * CREDENTIAL_SECONDS
PROCESSES = 4  # the API, the worker's parent and child, and the command


@pytest.fixture(scope="module")
def started(shared_database_url: str, broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    with (
        Workspace(shared_database_url, credential_seconds=CREDENTIAL_SECONDS) as workspace,
        service(workspace, broker_url, tmp_path_factory.mktemp("lakebase")) as serving,
    ):
        yield serving


@pytest.fixture
def serving(started: Service) -> Generator[Service]:
    """All tests share the processes; after each the workspace is well again."""
    started.workspace.front.logins.clear()
    yield started
    started.workspace.behave()
    started.workspace.principal.revoked = False


async def test_logins_that_expire_fail_no_run_and_leave_no_gap_in_a_stream(serving: Service) -> None:
    workspace, began = serving.workspace, time.time()
    before = len(workspace.mints)
    outcome = await rotate(serving, seconds=SECONDS)
    code, said = await asyncio.to_thread(serving.command, "runs", "list")
    told = figures(workspace, outcome, time.time() - began)

    assert set(outcome.statuses) == {"completed"} and outcome.statuses.total() >= RUNS, told
    assert len(outcome.streamed) == STREAMS
    assert code == 0, said
    # One that was given in time may arrive too late on a slow machine: it is replaced, and nobody notices.
    assert len(workspace.front.refused) <= len(workspace.front.accepted) / 50, told
    lives = (time.time() - began) / (0.75 * CREDENTIAL_SECONDS) + 1  # a login is replaced when a quarter is left
    minted = len(workspace.mints) - before
    assert minted <= PROCESSES * lives, told
    assert len(workspace.front.accepted) > 3 * minted, told
    assert "expired" in refused_with(workspace, workspace.mints[0].token)


def refused_with(workspace: Workspace, password: str) -> str:
    """Why the front refuses a login with this password."""
    user = workspace.principal.name
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(
            host="127.0.0.1", port=workspace.port, user=user, password=password, dbname=workspace.database
        ).close()
    return str(workspace.front.refused[-1].refused)


async def test_a_workspace_that_fails_for_longer_than_a_login_lasts_fails_no_run(serving: Service) -> None:
    workspace = serving.workspace
    async with Load(serving.url) as load:
        running = [asyncio.create_task(load.stream(60)) for _ in range(3)]
        await load.run()
        workspace.misbehave(faults.broken(), paths="")
        newest = workspace.mints[-1].expires_at
        asked = [asyncio.create_task(load.run("graph")) for _ in range(5)]

        async def all_have_expired() -> bool:
            return time.time() > newest

        await until(all_have_expired)
        workspace.front.drop()
        assert await until(lambda: answers(f"{serving.url}/ready", 503))
        workspace.behave()
        await asyncio.gather(*running, *asked)
        await load.run()
    assert load.outcome.statuses == {"completed": 7}


async def answers(url: str, status: int) -> httpx.Response | None:
    async with httpx.AsyncClient(timeout=30) as http:
        answer = await http.get(url)
    return answer if answer.status_code == status else None


async def test_a_revoked_principal_is_told_so_everywhere(serving: Service) -> None:
    workspace = serving.workspace
    async with Load(serving.url) as load:
        await load.run()
    workspace.principal.revoked = True
    workspace.front.drop()

    ready = await until(lambda: answers(f"{serving.url}/ready", 503))
    async with httpx.AsyncClient(timeout=30) as http:
        asked = await http.post(f"{serving.url}/responses", json={"model": "words", "input": "go"})
    assert asked.status_code == 503 and asked.headers["retry-after"]
    for answer in (ready, asked):
        assert "login" in answer.json()["error"]["message"], answer.text
        assert workspace.principal.name not in answer.text
    code, said = await asyncio.to_thread(serving.command, "runs", "list")
    assert code == 1 and "invalid_client" in said and len(said.splitlines()) == 1, said
    until_sync(lambda: f"refuses the login of {workspace.principal.name}" in serving.api.said)
    everything = said + serving.api.said + serving.worker.said
    assert not any(mint.token in everything for mint in workspace.mints)
    assert workspace.principal.secret not in everything


async def test_a_suspended_database_is_woken_by_the_next_request(serving: Service) -> None:
    async with Load(serving.url) as load:
        await load.run()
        serving.workspace.suspend(wake_seconds=1.0)
        await asyncio.gather(*(load.run("graph") for _ in range(3)))
        serving.workspace.suspend(wake_seconds=1.0, refusing=True)
        await asyncio.gather(*(load.run("graph") for _ in range(3)))
    assert load.outcome.statuses == {"completed": 7}
    assert serving.workspace.endpoint.state == "ACTIVE"
