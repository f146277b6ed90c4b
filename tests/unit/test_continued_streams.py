"""However often a run loses its worker, clients put one right answer together from its stream."""

from __future__ import annotations

import os

import pytest

from outlast.shared.output.emissions import counted
from tests.support.streams import check_stream
from tests.support.takeovers import anonymous, tell

RUNS = int(os.environ.get("CONTINUED_STREAMS", "60"))
BATCH = 20


@pytest.mark.parametrize("first", range(0, RUNS, BATCH))
def test_a_stream_goes_on_to_the_answer_of_a_run_that_nothing_interrupted(first: int) -> None:
    for seed in range(first, min(first + BATCH, RUNS)):
        story = tell(seed)
        check_stream(story.lines)
        found, expected = (anonymous(r, story.never_answered) for r in (story.response, story.expected))
        assert found == expected, f"seed {seed}"
        assert story.response["usage"] == counted(story.spent), f"seed {seed}"
