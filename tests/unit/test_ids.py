"""Ids of items: made from the run and the place, and read back."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, strategies as st

from outlast.shared.domain.ids import item_id, parse_item_id, response_id

RUN = UUID(int=0x0192_F00D << 96 | 0xABCDEF)


@given(st.uuids(), st.sampled_from(["msg_", "rs_", "mcp_", "fc_", "fco_", "call_"]), st.integers(0, 2**32 - 1))
def test_an_item_id_finds_its_run_and_its_place(run_id: UUID, prefix: str, index: int) -> None:
    assert parse_item_id(item_id(run_id, prefix, index)) == (run_id, index)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "msg_1",
        "id_of_another_server",
        response_id(RUN),
        item_id(RUN, "msg_", 0)[:-1],
        item_id(RUN, "msg_", 0) + "\n",
        item_id(RUN, "", 0),
        item_id(RUN, "msg_", 0).upper(),
        f"msg_{RUN.hex}00001",  # one place has one id
        f"msg_{RUN.hex}{'f' * 9}",
        f"msg_{'٣' * 36}",
    ],
)
def test_an_id_of_another_make_names_no_run(text: str) -> None:
    assert parse_item_id(text) is None
