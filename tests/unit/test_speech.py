"""What messages and models say, and which of them are not to be heard."""

from __future__ import annotations

import pytest

from outlast.worker.agents.langgraph.speech import is_hidden


@pytest.mark.parametrize(
    ("tags", "hidden"),
    [
        ([["nostream"]], True),
        ([["langsmith:nostream"]], True),
        ([None, ["mine", "nostream"]], True),
        ([["mine"], None], False),
        ([[]], False),
    ],
)
def test_models_with_langgraphs_tag_of_any_release_are_hidden(tags: list[list[str] | None], hidden: bool) -> None:
    assert is_hidden(*tags) is hidden
