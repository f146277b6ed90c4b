"""Redis in cluster mode: what serves all keys of an Outlast works, and a node that does not is told in words."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError
from pydantic import SecretStr
from redis.exceptions import MovedError, ResponseError

from outlast.shared import broker
from outlast.shared.broker import BrokerUnavailable, BrokerUnfit, asking, client
from outlast.shared.doctor.examination import examine
from outlast.shared.domain.findings import Finding, Severity
from outlast.shared.doorbell import broker_queue, ring_once
from outlast.shared.settings import Settings
from tests.support.brokers import asked, cluster


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Generator[list[int]]:
    with cluster(tmp_path_factory.mktemp("cluster"), nodes=2) as ports:
        yield ports


def url_of(port: int, database: int = 0) -> str:
    return f"redis://127.0.0.1:{port}/{database}"


async def findings(settings: Settings, url: str) -> list[Finding]:
    seen = await examine(settings.model_copy(update={"redis_url": SecretStr(url)}))
    return [finding for finding in seen.findings if finding.check == "broker"]


async def test_the_node_that_holds_all_our_keys_is_a_broker_like_any_other(
    nodes: list[int], settings: Settings
) -> None:
    await broker.check(url_of(nodes[-1]), "outlast")
    assert ring_once(url_of(nodes[-1]), "outlast", ["default", "isolated"])
    [found] = await findings(settings, url_of(nodes[-1]))
    assert found.severity is Severity.OK
    with asking():
        async with client(url_of(nodes[-1])) as redis:
            lists = [f"{{outlast}}:{broker_queue('outlast', queue)}" for queue in ("default", "isolated")]
            assert await redis.brpop(lists, timeout=1), "a worker listens to all its queues in one command"


async def test_another_node_is_refused_with_what_works(nodes: list[int], settings: Settings) -> None:
    with pytest.raises(BrokerUnfit) as caught:
        await broker.check(url_of(nodes[0]), "outlast")
    assert "cluster" in caught.value.seen and "serves all keys" in caught.value.fix
    [found] = await findings(settings, url_of(nodes[0]))
    assert found.severity is Severity.ERROR
    assert caught.value.seen in found.seen and caught.value.fix in (found.fix or "")
    assert str(nodes[-1]) not in found.seen


async def test_a_database_that_is_not_there_is_refused(nodes: list[int]) -> None:
    with pytest.raises(BrokerUnfit, match="a number that the server does not have"):
        await broker.check(url_of(nodes[-1], database=99), "outlast")


async def test_of_a_broker_that_is_away_nothing_is_said(tmp_path: Path) -> None:
    await broker.check(f"unix://{tmp_path}/nothing.sock", "outlast")


async def test_what_celery_says_of_a_broker_is_looked_into() -> None:
    hidden = OperationalError("1 127.0.0.1:2")
    hidden.__cause__ = MovedError("1 127.0.0.1:2")
    assert broker.unfitness(hidden) and not broker.unfitness(ResponseError("ERR unknown command"))
    with pytest.raises(BrokerUnavailable) as caught, asking():
        raise MovedError("1 127.0.0.1:2")
    assert caught.value.unfit


def test_no_key_of_ours_lies_in_another_slot(nodes: list[int]) -> None:
    assert [asked(port, "DBSIZE") for port in nodes[:-1]] == [0] * (len(nodes) - 1)
