"""When a run is tried again, and how long it waits before."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from outlast.agent import Retry
from outlast.shared.domain.retry import Backoff, RetryPolicy, Transient, back_off
from outlast.shared.domain.runs import Run
from outlast.worker.failures import consequence
from tests.support.streams import a_run

POLICY = RetryPolicy(max_retries=3, base_seconds=1.0)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "sk-hunter2"


def waits(policy: RetryPolicy, jitter: float, *retries: int) -> list[float]:
    backoffs = [back_off(Transient("E"), policy, retries=made, seconds_left=1e6, jitter=jitter) for made in retries]
    return [backoff.seconds for backoff in backoffs if backoff]


def test_each_wait_is_twice_the_one_before_up_to_a_minute() -> None:
    many = RetryPolicy(max_retries=10_000, base_seconds=1.0)

    assert waits(many, 1.0, 0, 1, 2, 5, 6, 7, 9_999) == [1, 2, 4, 32, 60, 60, 60]
    assert waits(many, 0.0, 0, 1, 2, 9_999) == [0.5, 1, 2, 30]


def test_there_are_as_many_retries_as_the_policy_says() -> None:
    assert len(waits(POLICY, 0.5, 0, 1, 2, 3, 4)) == 3
    assert waits(RetryPolicy(0, 1.0), 0.5, 0) == []


def test_who_is_asked_to_wait_waits_at_least_so_long() -> None:
    asked = Transient("E", after=100)

    assert back_off(asked, POLICY, retries=0, seconds_left=1000, jitter=0) == Backoff(100, "E")
    longest = back_off(asked, POLICY, retries=2, seconds_left=1000, jitter=1)
    assert longest is not None and 100 < longest.seconds <= 110 + 1e-9
    assert back_off(Transient("E", after=0), POLICY, retries=0, seconds_left=1, jitter=1) == Backoff(0, "E")


def test_a_retry_that_could_not_begin_before_the_deadline_is_not_made() -> None:
    asked = Transient("E", after=10)

    assert back_off(asked, POLICY, retries=0, seconds_left=10, jitter=0) is None
    assert back_off(asked, POLICY, retries=0, seconds_left=10.1, jitter=0) is not None


def begun(*, retries: int = 0) -> Run:
    return a_run(retries=retries, attempt=retries + 1)


def told(error: Exception, *, retries: int = 0, seconds_left: float = 60) -> tuple[str, str]:
    ending = consequence(error, begun(retries=retries), POLICY, now=NOW, seconds_left=seconds_left, jitter=0)
    assert not isinstance(ending, Backoff)
    return ending.message, ending.code


def test_the_first_failures_are_followed_by_retries() -> None:
    for retries in (0, 1, 2):
        follows = consequence(
            ConnectionError(), begun(retries=retries), POLICY, now=NOW, seconds_left=math.inf, jitter=0
        )
        assert isinstance(follows, Backoff)


@pytest.mark.parametrize(
    ("error", "retries", "message"),
    [
        (ConnectionResetError(SECRET), 3, "The agent failed with ConnectionResetError, also after 3 retries."),
        (ValueError(SECRET), 2, "The agent failed with ValueError."),
        (Retry(), 3, "The agent failed with Retry, also after 3 retries."),
        (Retry("The shop is closed."), 3, "The shop is closed, also after 3 retries."),
    ],
)
def test_what_failed_for_good_is_told_without_its_words(error: Exception, retries: int, message: str) -> None:
    assert told(error, retries=retries) == (message, "agent_error")


def test_no_time_for_a_retry_is_told_as_the_failure() -> None:
    assert told(TimeoutError(SECRET), seconds_left=0.4) == ("The agent failed with TimeoutError.", "agent_error")
    assert told(Retry(after=61), retries=1)[0] == "The agent failed with Retry, also after 1 retry."


def test_an_agents_own_words_have_its_own_code() -> None:
    assert told(Retry("Closed", code="closed"), retries=3) == ("Closed, also after 3 retries.", "closed")


def test_a_retry_without_words_is_told_as_what_it_was_raised_from() -> None:
    error = Retry()
    error.__cause__ = ConnectionRefusedError(SECRET)

    assert told(error, retries=3)[0] == "The agent failed with ConnectionRefusedError, also after 3 retries."


@pytest.mark.parametrize("after", [float("nan"), float("inf")])
def test_a_retry_after_no_number_of_seconds_is_a_mistake(after: float) -> None:
    with pytest.raises(ValueError, match="a number of seconds"):
        Retry(after=after)


def test_a_retry_after_a_time_that_has_passed_is_one_at_once() -> None:
    assert Retry(after=-1).after == 0
