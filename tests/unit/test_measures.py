"""What workers count: handed on without being lost or doubled, and never falling."""

from __future__ import annotations

import json

from hypothesis import given, strategies as st

from outlast.shared.domain.measures import FLUSH_SECONDS, RUN_SECONDS, Sample, Tally


def test_a_bucket_holds_what_is_not_above_its_bound() -> None:
    tally = Tally()
    for seconds in (0.0, 0.1, 0.1000001, 3600.0, 3601.0):
        tally.observe(RUN_SECONDS, seconds, "mine", "completed")
    [sample] = tally.samples["run_seconds"]
    assert sample.counts[:2] == [2, 1] and sample.counts[-2:] == [1, 1] and sum(sample.counts) == 5
    assert sample.labels == ["mine", "completed"]


observations = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(min_value=0, max_value=100).map(float), st.booleans())
)


@given(observations)
def test_what_is_handed_on_is_what_was_counted_however_often_it_is_taken(seen: list[tuple[str, float, bool]]) -> None:
    child, parent, alone = Tally(), Tally(), Tally()
    totals: list[int] = []
    for agent, seconds, hand_on in seen:
        for tally in (child, alone):
            tally.counters[f"runs_{agent}"] += 1
            tally.observe(RUN_SECONDS, seconds, agent, "completed")
            tally.observe(FLUSH_SECONDS, seconds)
        if hand_on:
            parent.add(**json.loads(json.dumps(child.take())))
        totals.append(parent.counters.total())
    if rest := child.take():
        parent.add(**rest)
    assert child.take() == {}
    assert totals == sorted(totals)
    assert parent.counters == alone.counters

    def by_labels(tally: Tally) -> dict[str, list[Sample]]:
        return {name: sorted(found, key=lambda s: s.labels) for name, found in tally.samples.items()}

    assert by_labels(parent) == by_labels(alone)
