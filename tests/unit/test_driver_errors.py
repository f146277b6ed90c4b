"""What is said of a database that was reached and did not do what was asked of it."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.errors import IdleInTransactionSessionTimeout, LockNotAvailable, QueryCanceled, TransactionTimeout

from outlast.shared.domain.errors import Unavailable
from outlast.shared.driver_errors import NoAnswer, translated


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (QueryCanceled("canceling statement due to statement timeout"), "did not finish a statement within"),
        (LockNotAvailable("canceling statement due to lock timeout"), "did not grant a lock within"),
        (
            TransactionTimeout("terminating connection due to transaction timeout"),
            "did not finish a transaction within",
        ),
        (IdleInTransactionSessionTimeout("terminating connection due to idle"), "had been idle for too long"),
        (NoAnswer("no answer within 6 s"), "did not answer in time"),
        (psycopg.OperationalError("connection refused"), "The database cannot be reached"),
    ],
)
def test_only_a_database_that_is_away_is_said_to_be_away(error: psycopg.Error, told: str) -> None:
    ours = translated(error)
    assert isinstance(ours, Unavailable) and told in ours.told
    assert str(error) in ours.message and str(error) not in ours.told
    assert ours.code == "unavailable"
