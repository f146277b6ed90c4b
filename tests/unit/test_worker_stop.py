"""A worker's pool that is asked to stop when it has not started, or in the middle of a claim."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from outlast.shared.settings import load
from outlast.worker.dispatcher import Dispatcher
from outlast.worker.pool.pool import RunPool


def new_pool() -> RunPool:
    settings = load(
        database_url="postgresql://u@127.0.0.1:1/none",
        redis_url="redis://127.0.0.1:1/0",
        agents={"agent": "no_such_module:agent"},
    )
    return RunPool.serving(settings, on_refusal=lambda _: None)()


@pytest.mark.parametrize("times", [1, 2])
def test_one_that_is_asked_to_stop_before_it_has_started_ends_with_0(times: int) -> None:
    pool = new_pool()
    for _ in range(times):
        pool.drain()
    with pytest.raises(SystemExit) as ended:
        pool.on_start()
    assert ended.value.code == 0


class Claiming:
    async def ring(self) -> None:
        await asyncio.Event().wait()


def test_a_bell_whose_claim_is_cancelled_is_not_acknowledged(caplog: pytest.LogCaptureFixture) -> None:
    pool, loop, acknowledged = new_pool(), asyncio.new_event_loop(), list[object]()
    pool._loop, pool._stop, pool._dispatcher = loop, asyncio.Event(), cast("Dispatcher", Claiming())
    pool.on_apply(None, callback=acknowledged.append).cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert acknowledged == [] and caplog.records == []
