"""What is told of a stall: which lines of the agent's own files kept the loop."""

from __future__ import annotations

import asyncio
import faulthandler
import sysconfig
import tempfile

import pytest

from outlast.worker.stalls import cause_at, explanation, place_in, place_of

FOREIGN = ("/usr/lib/python3.11", "/srv/outlast/worker")
SITE = "/srv/venv/lib/python3.11/site-packages"


def frames(*shown: str) -> str:
    """Of "file:line function", as faulthandler writes them."""
    parts = [(*frame.split(" ")[0].rsplit(":", 1), frame.split(" ")[1]) for frame in shown]
    return "\n".join(f'  File "{file}", line {line} in {function}' for file, line, function in parts)


LOOP = ("/usr/lib/python3.11/asyncio/runners.py:118 run", "/srv/outlast/worker/pool/child.py:80 main")
POOL = ("/srv/outlast/worker/executing.py:120 _marked", "/usr/lib/python3.11/threading.py:982 run")


def stacks(*threads: tuple[str, ...]) -> str:
    other, last = threads[:-1], threads[-1]
    whole = [f"Thread 0x0 (most recent call first):\n{frames(*thread)}" for thread in other]
    return "\n\n".join([*whole, f"Current thread 0x1 (most recent call first):\n{frames(*last)}\n"])


def test_the_innermost_lines_of_the_agent_are_told_without_their_folders() -> None:
    said = stacks(
        ("/srv/app/other.py:7 waits", *POOL),
        (
            f"{SITE}/requests/api.py:9 get",
            "/srv/app/tools.py:5 fetch",
            f"{SITE}/langgraph/pregel/main.py:7 ainvoke",
            "/srv/app/agent.py:41 node",
            "/srv/app/agent.py:50 around",
            "/srv/app/agent.py:60 far",
            *LOOP,
        ),
    )
    assert (
        place_of(said, on_loop=True, foreign=FOREIGN)
        == "tools.py:5 in fetch, agent.py:41 in node, agent.py:50 in around"
    )
    assert place_of(said, on_loop=False, foreign=FOREIGN) == "other.py:7 in waits"


def test_nothing_is_told_when_it_could_be_any_of_several() -> None:
    both = stacks(("/srv/app/a.py:1 a", *POOL), ("/srv/app/b.py:2 b", *POOL), LOOP)
    assert place_of(both, on_loop=False, foreign=FOREIGN) is None
    assert place_of(both, on_loop=True, foreign=FOREIGN) is None
    assert place_of("", on_loop=True, foreign=FOREIGN) is None


def test_an_agent_that_is_installed_is_known_by_its_package() -> None:
    said = stacks((f"{SITE}/mine/graph.py:3 node", f"{SITE}/single.py:4 helper", f"{SITE}/theirs/x.py:5 y", *LOOP))
    assert place_of(said, on_loop=True, foreign=FOREIGN) is None
    assert (
        place_of(said, on_loop=True, foreign=FOREIGN, own=["mine", "single"])
        == "graph.py:3 in node, single.py:4 in helper"
    )


def test_a_stack_too_deep_to_be_whole_is_that_of_the_thread_that_wrote_it() -> None:
    said = stacks(("/srv/app/other.py:1 x",), ("/srv/app/agent.py:1 deep", "<string>:1 <module>"))
    assert place_of(said, on_loop=True, foreign=FOREIGN) == "agent.py:1 in deep"


def test_faulthandler_writes_what_is_understood() -> None:
    async def node() -> str:
        with tempfile.TemporaryFile("w+") as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            return file.read()

    said = asyncio.run(node())
    place = place_of(said, on_loop=True, foreign=[sysconfig.get_paths()["stdlib"]])
    assert place is not None and place.startswith("test_stalls.py:") and " in node, " in place


@pytest.mark.parametrize("place", ["agent.py:41 in node, a.py:1 in b", None])
def test_the_place_is_kept_in_the_cause(place: str | None) -> None:
    assert place_in(cause_at(place)) == place
    assert place_in("child_exited_1") is None and place_in(None) is None


def test_it_says_what_to_do() -> None:
    said = explanation("agent.py:41 in node", 5.0)
    assert said.startswith("The agent's code blocked the event loop for 5 s at agent.py:41 in node. ")
    assert all(
        way in said for way in ("asyncio.to_thread", "async client", "OUTLAST_ISOLATION", "OUTLAST_STALL_SECONDS")
    )
