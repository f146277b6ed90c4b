"""Which versions of Postgres are refused, and by which name."""

from __future__ import annotations

import pytest

from outlast.shared.connections.versions import check_version
from outlast.shared.domain.errors import Unfit


@pytest.mark.parametrize("number", [0, 140_000, 140_023, 150_020, 180_006, 190_000])
def test_these_are_worked_on(number: int) -> None:
    check_version(number)


@pytest.mark.parametrize(("number", "written"), [(139_999, "13.9999"), (130_004, "13.4"), (90_624, "9.6.24")])
def test_these_are_too_old(number: int, written: str) -> None:
    with pytest.raises(Unfit) as refused:
        check_version(number)
    assert refused.value.message == f"PostgreSQL {written} is too old: Outlast needs 14 or newer."
