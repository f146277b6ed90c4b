"""Events as lines."""

from __future__ import annotations

import json

import pytest

from outlast.shared.domain.events import Event
from outlast.shared.output.emissions import arguments, snapshot
from outlast.shared.wire import clean, clean_within, event_from, event_line, type_of


@pytest.mark.parametrize("text", ["plain", "\u2028\u2029\x85", "\r\n\t\0", "é 😀", '"\\', ""])
def test_an_event_is_one_line_for_every_splitter_and_comes_back_as_it_was(text: str) -> None:
    event = Event("response.output_text.delta", 7, {"delta": text})

    line = event_line(event)

    assert len(line.splitlines()) == 1
    assert json.loads(line) == {"type": event.type, "sequence_number": 7, "delta": text}
    assert type_of(line) == event.type
    assert event_from(line) == event


def test_lone_surrogates_within_values_are_replaced_keys_too() -> None:
    assert clean_within({"a\ud83d": ["\udfff", ("é\0", 1)]}) == {"a?": ["?", ["é\0", 1]]}
    assert snapshot({"a\ud83d": ["\udfff", {"é\0": None}]}) == {"a?": ["?", {"é\0": None}]}
    assert arguments({"a\ud83d": "\udfff"}) == '{"a?":"?"}'


def test_lone_surrogates_are_replaced_and_all_else_is_kept() -> None:
    assert clean("a\ud83d") == "a?"
    assert clean("é😀") == "é😀"
