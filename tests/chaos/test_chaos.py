"""A short campaign with a fixed seed: whatever breaks, no promise does. The long one is ``make chaos``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.chaos.campaign import Campaign, complaints
from tests.chaos.world import SMALL, running

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")

SEED = 20_261_123
SECONDS = 25.0


@pytest.fixture
def folder() -> Generator[Path]:
    """With a short path, for the servers' sockets."""
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as name:
        yield Path(name)


async def test_nothing_that_was_promised_is_broken_by_what_breaks(folder: Path) -> None:
    async with running(SMALL, folder) as world:
        report = await Campaign(world, SEED, print).run(SECONDS)
        said = "\n".join([*report.lines(), complaints(report.violations), world.said()[-5000:]])
    assert not report.violations, said
    assert report.takeovers, f"nothing was interrupted, or this has shown nothing\n{said}"
