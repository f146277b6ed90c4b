"""``make bench``: what this machine does, each rate of commits beside the bare one of the same minute.

bench/README.md says what each case measures and what the figures are not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from bench import results
from bench.arguments import chosen, say
from bench.cases import accepting, claiming, delivery, disk, execution, history, streams, takeover
from bench.figures import Figure, table
from bench.stack import Stack, running_stack

Case = Callable[[Stack], Awaitable[list[Figure]]]
CASES: dict[str, Case] = {
    "a": accepting.accept,
    "b": delivery.deliver,
    "c": execution.store,
    "d": delivery.first_word,
    "e": streams.hold_streams,
    "f": execution.sleeping,
    "g": claiming.claim,
    "h": accepting.poll,
    "i": takeover.take_over,
    "j": history.keep,
    "k": disk.fill,
}


async def measure(names: list[str]) -> dict[str, list[Figure]]:
    began = time.monotonic()
    figures: dict[str, list[Figure]] = {}
    async with running_stack() as stack:
        for name in names:
            say(f"{time.monotonic() - began:5.0f} s  ({name}) {CASES[name].__name__}")
            try:
                figures[name] = await CASES[name](stack)
                say(table(figures[name]))
            except Exception as error:  # noqa: BLE001 — the other cases are worth having
                say(f"FAILED: {type(error).__name__}: {error}")
                await stack.forget_runs()
    say(f"{time.monotonic() - began:5.0f} s  done")
    return figures


def main() -> None:
    names = chosen("make bench", CASES)
    figures = asyncio.run(measure(names))
    print(table([figure for found in figures.values() for figure in found]))
    print(f"written to {results.write(figures, whole=len(figures) == len(CASES))}")


if __name__ == "__main__":
    main()
