"""Which run ends processes without a word."""

from __future__ import annotations

import math

from outlast.shared.domain.ids import new_uuid
from outlast.shared.domain.runs import Lease
from outlast.worker.pool.suspects import Suspects

POISON, *INNOCENT = [new_uuid() for _ in range(9)]


def test_a_run_that_had_the_process_to_itself_is_charged_at_once() -> None:
    assert Suspects().convicted({Lease(POISON, 1)}) == {Lease(POISON, 1)}


def test_of_several_the_one_that_was_there_each_time_is_charged_and_no_other() -> None:
    suspects = Suspects()
    assert not suspects.convicted({Lease(run, 1) for run in (POISON, *INNOCENT)})
    assert not suspects.convicted({Lease(run, 2) for run in (POISON, *INNOCENT[:4])})
    assert not suspects.convicted({Lease(run, 3) for run in (POISON, *INNOCENT[2:6])})
    assert suspects.convicted({Lease(run, 4) for run in (POISON, INNOCENT[5], INNOCENT[6])}) == {Lease(POISON, 4)}
    assert suspects.convicted({Lease(run, 5) for run in (POISON, *INNOCENT)}) == {Lease(POISON, 5)}


def test_a_death_without_any_suspect_begins_anew() -> None:
    suspects = Suspects()
    suspects.convicted({Lease(POISON, 1)})
    assert not suspects.convicted({Lease(run, 1) for run in INNOCENT})


def test_the_death_of_an_idle_process_is_nobodys_doing() -> None:
    assert not Suspects().convicted(set())


def test_after_three_deaths_a_child_takes_half_of_the_suspects_for_a_while() -> None:
    now = 100.0
    suspects = Suspects(lambda: now)
    assert suspects.limit() == math.inf
    for attempt in (1, 2):
        suspects.convicted({Lease(run, attempt) for run in (POISON, *INNOCENT)})
        assert suspects.limit() == math.inf, "what is killed from outside holds up nothing"
    suspects.convicted({Lease(run, 3) for run in (POISON, *INNOCENT)})
    assert suspects.limit() == 4
    now += 61
    assert suspects.limit() == math.inf
    suspects.convicted({Lease(run, 4) for run in INNOCENT[:2]})
    suspects.convicted({Lease(new_uuid(), 1), Lease(new_uuid(), 1)})
    assert suspects.limit() == math.inf
    suspects.convicted({Lease(POISON, 2)})
    assert suspects.limit() == math.inf
