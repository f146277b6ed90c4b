"""A worker and an API on a Redis that is not the plainest: both work, or both say the same and end."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from outlast.shared.settings import Settings
from tests.support.brokers import cluster, valkey
from tests.support.processes import free_port, parts
from tests.support.service import serving
from tests.support.waiting import until

PASSWORD = "hunter2 and/more?"
QUOTED = "hunter2%20and%2Fmore%3F"
ACL = "on >acl-secret ~{outlast}:* &outlast:* +@all -@dangerous +info +keys"


@contextmanager
def with_password(folder: Path) -> Generator[str]:
    with valkey(folder / "broker", requirepass=PASSWORD) as port:
        yield f"redis://:{QUOTED}@127.0.0.1:{port}/3"


@contextmanager
def with_user(folder: Path) -> Generator[str]:
    with valkey(folder / "broker") as port:
        with redis.Redis(port=port) as client:
            client.execute_command("ACL", "SETUSER", "someone", *ACL.split())
            client.execute_command("ACL", "SETUSER", "default", "off")
        yield f"redis://someone:acl-secret@127.0.0.1:{port}/0"


@contextmanager
def over_a_socket_with_password(folder: Path) -> Generator[str]:
    with valkey(folder / "broker", requirepass=PASSWORD, unixsocket=str(folder / "the socket")):
        yield f"unix://:{QUOTED}@{folder}/the%20socket?db=2"


@contextmanager
def one_node(folder: Path) -> Generator[str]:
    with cluster(folder / "broker", nodes=1) as [port]:
        yield f"redis://127.0.0.1:{port}/0"


MODES = [with_password, with_user, over_a_socket_with_password, one_node]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
async def test_a_worker_hears_its_bells(mode: object, database_url: str, settings: Settings, tmp_path: Path) -> None:
    with mode(tmp_path) as url:  # type: ignore[operator]
        env = {
            "DATABASE_URL": database_url,
            "REDIS_URL": url,
            "OUTLAST_AGENTS": "count=tests.e2e.agents:count",
            "OUTLAST_LOG_LEVEL": "warning",
        }
        along = settings.model_copy(update={"redis_url": SecretStr(url)})
        with parts(env, tmp_path) as started:
            worker = started.worker()
            async with serving(along, {"count": None}, workers=0) as service:
                assert (await service.openai.responses.create(input="3")).output_text == "0 1 2 "
                doorbell = service.replicas[0].services.doorbell
                hints = service.replicas[0].services.hints
                await until(lambda: is_true(hints.hearing))
                with redis.Redis.from_url(url) as client:
                    await until(lambda: is_true(client.llen("{outlast}:outlast.default") == 0))
                assert doorbell.lost == 0
            assert worker.stop() == 0
    assert worker.said == ""


async def test_a_broker_that_answers_with_errors_ends_no_worker(
    database_url: str, settings: Settings, tmp_path: Path
) -> None:
    with valkey(tmp_path / "broker") as port:
        url = f"redis://127.0.0.1:{port}/0"
        env = {"DATABASE_URL": database_url, "REDIS_URL": url, "OUTLAST_AGENTS": "count=tests.e2e.agents:count"}
        along = settings.model_copy(update={"redis_url": SecretStr(url)})
        with parts(env, tmp_path) as started, redis.Redis(port=port) as client:
            worker = started.worker()
            client.execute_command("ACL", "SETUSER", "default", "-brpop")
            await until(lambda: is_true("broker.refuses" in worker.said))
            async with serving(along, {"count": None}, workers=0) as service:
                assert (await service.openai.responses.create(input="3")).output_text == "0 1 2 "
                assert client.llen("{outlast}:outlast.default"), "no bell was rung that the worker could not hear"
                client.execute_command("ACL", "SETUSER", "default", "+brpop")
                await until(lambda: is_true(client.llen("{outlast}:outlast.default") == 0))
            assert worker.stop() == 0
    assert worker.said.count("broker.refuses") == 1


async def is_true(value: object) -> object:
    return value


def test_worker_and_api_refuse_a_node_without_our_keys_in_the_same_words(database_url: str, tmp_path: Path) -> None:
    with cluster(tmp_path / "broker", nodes=2) as ports:
        env = {
            "DATABASE_URL": database_url,
            "REDIS_URL": f"redis://127.0.0.1:{ports[0]}/0",
            "OUTLAST_AGENTS": "count=tests.e2e.agents:count",
        }
        with parts(env, tmp_path) as started:
            both = [started.launch(["worker"], {}), started.launch(["api", "--port", str(free_port())], {})]
            codes = [part.process.wait(60) for part in both]
            said = [part.said for part in both]
    assert codes == [1, 1]
    assert said[0] == said[1] and said[0].startswith("outlast: REDIS_URL names a node of a Redis cluster")
