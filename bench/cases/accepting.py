"""(a) and (h): what an API process answers when nothing has to be executed."""

from __future__ import annotations

from bench import load
from bench.figures import Figure, percentiles, rate
from bench.processes import in_own_process
from bench.stack import CONNECTIONS, PORTS, Stack

SECONDS = 5.0
POLL_SECONDS = 3.0


async def accept(stack: Stack) -> list[Figure]:
    """Background submissions of about 1 KB by 32 clients of one API process, while no worker runs.

    The bare rate is taken just before and just after; the ratio is to their mean.
    """
    async with stack.apis():
        await in_own_process(load.submit, PORTS[0], [load.request("burst", "1")] * 100)
        before = await stack.bare_rate()
        body = load.request("burst", "1" * 950)
        times = await in_own_process(load.keep_posting, PORTS[0], "/responses", body, CONNECTIONS, SECONDS)
        after = await stack.bare_rate()
    await stack.forget_runs()
    bare = (before + after) / 2
    return [
        Figure("bare INSERT before", before, "/s"),
        Figure("bare INSERT after", after, "/s"),
        rate("accepted background submissions", len(times) / SECONDS, bare, at_least=0.10),
        *percentiles("accept", times, p99=100),
    ]


async def poll(stack: Stack) -> list[Figure]:
    """``GET /responses/{id}`` by 32 clients of one API process: of 100 finished runs, then of 100 queued ones."""
    figures: list[Figure] = []
    async with stack.apis():
        async with stack.worker():
            finished = await in_own_process(load.submit, PORTS[0], [load.request("burst", "20")] * 100)
            await stack.until_idle()
            figures += await _polled("finished", finished)
        queued = await in_own_process(load.submit, PORTS[0], [load.request("burst", "20")] * 100)
        figures += await _polled("queued", queued)
    await stack.forget_runs()
    return figures


async def _polled(what: str, ids: list[str]) -> list[Figure]:
    paths = [f"/responses/{run}" for run in ids]
    times = await in_own_process(load.keep_getting, PORTS[0], paths, CONNECTIONS, POLL_SECONDS)
    return [Figure(f"polls of {what} runs", len(times) / POLL_SECONDS, "/s"), *percentiles(f"poll, {what}", times)]
