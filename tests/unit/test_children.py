"""A worker whose agents take their time says what it waits for."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from outlast.shared.settings import load
from outlast.worker.pool import children
from outlast.worker.pool.children import Children
from tests.support.waiting import until


async def test_what_is_loaded_and_since_when_is_told_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_TELL_SECONDS", 0.01)
    waiting = Children(load(agents={"slow": "m:slow", "other": "m:other"}), cast("Any", None))
    ready = asyncio.Event()
    becoming = asyncio.ensure_future(ready.wait())

    with capture_logs() as said:
        first = asyncio.create_task(waiting.wait_for_first(cast("Any", becoming)))

        async def told_twice() -> bool:
            return len(said) > 1

        await until(told_twice)
        assert not first.done()
        ready.set()
        await first

    assert said[0] == {"event": "agents.loading", "log_level": "info", "agents": "slow, other", "seconds": 0}
