"""What of an interrupted graph is not said again."""

from __future__ import annotations

from typing import Any

import pytest

from outlast.shared.output.items import Item, Origin
from outlast.worker.agents.langgraph.survival import Reached, path_of, surviving

MESSAGE = {"id": "msg_1", "type": "message"}


def at(*places: tuple[str, int | None] | tuple[str, int | None, str]) -> list[dict[str, Any]]:
    """A path of nodes, whose tasks have their names."""
    return [
        {"node": place[0], "task": f"t-{place[0]}", "step": place[1]} | ({"call": place[2]} if len(place) > 2 else {})
        for place in places
    ]


async def survives(path: list[dict[str, Any]], graphs: dict[str, Reached], **changes: Any) -> bool:
    async def look(namespace: str) -> Reached | None:
        return graphs.get(namespace)

    item = Item(0, **({"data": MESSAGE, "open": False, "origin": Origin("k", path)} | changes))
    return "msg_1" in await surviving([item], look)


@pytest.mark.parametrize(
    ("path", "graphs", "expected"),
    [
        pytest.param(at(("a", 1)), {"": Reached(1)}, True, id="a step before the checkpoint"),
        pytest.param(at(("a", 2)), {"": Reached(1)}, False, id="a step after it"),
        pytest.param(at(("a", 2)), {"": Reached(1, frozenset({"t-a"}))}, True, id="a finished branch of that step"),
        pytest.param(at(("a", 2)), {"": Reached(1, frozenset({"t-b"}))}, False, id="beside a finished branch"),
        pytest.param(at(("a", 1)), {}, False, id="no checkpoint at all"),
        pytest.param(at(("a", 3)), {"": Reached(1)}, False, id="a step that async checkpoints have not reached"),
        pytest.param(
            at(("a", 2), ("x", 1)), {"": Reached(1), "a:t-a": Reached(1)}, True, id="a step of an inner graph"
        ),
        pytest.param(at(("a", 2), ("x", 2)), {"": Reached(1), "a:t-a": Reached(1)}, False, id="its unfinished step"),
        pytest.param(at(("a", 2), ("x", 9)), {"": Reached(2)}, True, id="an inner graph whose node is done"),
        pytest.param(at(("a", 2), ("x", 1)), {"": Reached(1)}, False, id="an inner graph without a checkpoint"),
        pytest.param(
            at(("a", None), ("x", 1)), {"": Reached(1), "a:t-a": Reached(1)}, True, id="an outer step that is not known"
        ),
        pytest.param(
            at(("a", 2, "1"), ("x", 1)), {"": Reached(1), "a:t-a|1": Reached(1)}, True, id="a node's second inner graph"
        ),
        pytest.param(
            at(("a", 2), ("task", 0)), {"": Reached(1, frozenset({"t-task"}))}, True, id="a finished task of a function"
        ),
        pytest.param([], {"": Reached(5)}, False, id="no step at all"),
    ],
)
async def test_an_item_survives_with_its_step(path: Any, graphs: dict[str, Reached], expected: bool) -> None:
    assert await survives(path, graphs) == expected


async def test_an_open_call_or_what_is_superseded_already_does_not_survive_but_open_text_of_a_finished_step() -> None:
    graphs = {"": Reached(1)}

    assert not await survives(at(("a", 1)), graphs, open=True, data={"id": "msg_1", "type": "mcp_call"})
    assert await survives(at(("a", 1)), graphs, open=True)
    assert not await survives(at(("a", 1)), graphs, surviving=False)


def test_a_path_is_read_from_what_callbacks_are_told() -> None:
    metadata = {"langgraph_checkpoint_ns": "outer:task-1|2|inner:task-2"}

    assert path_of(metadata, {"task-1": 3, "task-2": 0}) == [
        {"node": "outer", "task": "task-1", "step": 3, "call": "2"},
        {"node": "inner", "task": "task-2", "step": 0},
    ]
