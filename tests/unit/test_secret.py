"""A secret is shown to whoever asks for it, and to nobody else."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any

import orjson
import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from outlast.agent import Context, Secret

TEXT = "canary"
SECRET = Secret(TEXT)
CONTEXT = Context("resp_1", "conv_1", "alice", "agent", 1, None, user_token=SECRET)


def test_it_is_itself_wherever_it_goes() -> None:
    assert SECRET.reveal() == TEXT
    for copied in (
        copy.copy(SECRET),
        copy.deepcopy({"a": [SECRET]})["a"][0],
        dataclasses.asdict(CONTEXT)["user_token"],
    ):
        assert copied is SECRET


@pytest.mark.parametrize("thing", [SECRET, CONTEXT, {"a": SECRET}])
def test_it_does_not_show(thing: Any) -> None:
    shown = [repr(thing), str(thing), f"{thing}", "%s" % thing, json.dumps(thing, default=repr)]  # noqa: UP031
    shown += [
        repr({name: getattr(SECRET, name) for name in Secret.__slots__}),
        orjson.dumps(thing, default=repr).decode(),
    ]
    assert not any(TEXT in text for text in shown)


@pytest.mark.parametrize("thing", [SECRET, CONTEXT, {"a": SECRET}])
def test_it_cannot_be_stored(thing: Any) -> None:
    for store in (pickle.dumps, JsonPlusSerializer().dumps_typed, JsonPlusSerializer(pickle_fallback=True).dumps_typed):
        with pytest.raises(TypeError):
            store(thing)
