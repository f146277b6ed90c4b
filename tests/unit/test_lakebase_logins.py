"""One login for all connections of a process: minted once for many, before the last one expires, and not too often."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from outlast.shared.lakebase.faults import LoginFault, refusal
from outlast.shared.lakebase.login import Login, Logins
from tests.support.waiting import until_sync

LASTING = LoginFault("no such instance", "name another", lasting=True)
PASSING = LoginFault("the workspace is away", lasting=False)


class Mint:
    """Answers with what it is given, one after another, then with the last for ever."""

    def __init__(self, *answers: Login | LoginFault) -> None:
        self._answers = list(answers)
        self.asked = 0
        self.open = threading.Event()
        self.open.set()

    def __call__(self) -> Login:
        self.open.wait(10)
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        if isinstance(answer, LoginFault):
            raise answer
        return answer


def login(token: str = "t", *, seconds: float = 3600, age: float = 0) -> Login:
    return Login(host="h", user="u", token=token, minted_at=time.monotonic() - age, seconds=seconds)


async def test_a_herd_is_served_by_one_minting() -> None:
    mint = Mint(login())
    mint.open.clear()
    logins = Logins(mint)
    waiting = [asyncio.create_task(logins.get()) for _ in range(200)]
    await asyncio.sleep(0)
    mint.open.set()
    assert {found.token for found in await asyncio.gather(*waiting)} == {"t"}
    assert mint.asked == logins.minted == 1


async def test_one_who_gives_up_waiting_takes_it_from_nobody() -> None:
    mint = Mint(login())
    mint.open.clear()
    logins = Logins(mint)
    impatient, patient = asyncio.create_task(logins.get()), asyncio.create_task(logins.get())
    await asyncio.sleep(0)
    impatient.cancel()
    mint.open.set()
    assert (await patient).token == "t"


async def test_a_minting_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.shared.lakebase.login._HUNG_SECONDS", 0.0)
    hanging, abandoned = Mint(login("late", age=5)), threading.Event()
    hanging.open.clear()

    def mint() -> Login:
        return login("next") if abandoned.is_set() else hanging()

    logins = Logins(mint, abandoned.set)
    first = asyncio.create_task(logins.get())
    await asyncio.sleep(0)
    assert (await logins.get()).token == "next"
    hanging.open.set()
    assert (await first).token == "late"
    assert (await logins.get()).token == "next"


@pytest.mark.parametrize(("seconds", "age"), [(3600, 3290), (3600, 3301), (20, 14), (20, 16)])
def test_it_is_replaced_five_minutes_or_a_quarter_of_its_life_before_its_end(seconds: float, age: float) -> None:
    assert login(seconds=seconds, age=age).is_fresh is (age in (3290, 14))


async def test_the_old_one_is_given_while_the_next_is_minted_or_cannot_be() -> None:
    mint = Mint(login("old", seconds=20, age=16), LASTING)
    logins = Logins(mint)
    assert (await logins.get()).token == "old"
    assert (await logins.get()).token == "old"
    until_sync(lambda: mint.asked == 2)
    assert (await logins.get()).token == "old"


async def test_what_passes_is_tried_again_and_what_lasts_is_said_at_once() -> None:
    passing = Mint(PASSING, PASSING, login())
    assert (await Logins(passing).get()).token == "t"
    assert passing.asked == 3
    lasting = Mint(LASTING, login())
    with pytest.raises(LoginFault, match="no such instance"):
        await Logins(lasting).get()
    assert lasting.asked == 1


async def test_a_workspace_that_said_no_is_not_asked_by_each_connection() -> None:
    mint = Mint(LASTING)
    logins = Logins(mint)
    for _ in range(50):
        with pytest.raises(LoginFault):
            await logins.get()
    assert mint.asked <= 2


async def test_the_fault_is_forgotten_when_it_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.shared.lakebase.login._FIRST_PAUSE_SECONDS", 0.0)
    logins = Logins(Mint(LASTING, login()))
    with pytest.raises(LoginFault):
        await logins.get()
    assert (await logins.get()).token == "t"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


async def test_a_workspace_that_goes_on_saying_no_is_asked_more_rarely_and_it_is_logged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr("outlast.shared.lakebase.login.time", clock)
    monkeypatch.setattr("random.uniform", lambda least, most: least)
    expired = Login(host="h", user="u", token="t", minted_at=0, seconds=1)
    mint = Mint(*[LASTING] * 7, expired, LASTING)
    logins = Logins(mint)
    pauses: list[float] = []

    async def until_asked(times: int) -> None:
        with suppress(LoginFault):
            await logins.get()
        while mint.asked < times:
            clock.now += 0.5
            with suppress(LoginFault):
                await logins.get()

    with capture_logs() as lines:
        for times in range(1, 11):
            began = clock.now
            await until_asked(times)
            pauses.append(clock.now - began)
    assert pauses == [0, 0.5, 1, 2, 4, 7.5, 7.5, 7.5, 0, 0.5]
    assert [line["event"] for line in lines] == ["lakebase.no_login", "lakebase.login", "lakebase.no_login"]


async def test_a_workspace_that_is_silent_or_away_holds_nobody_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outlast.shared.lakebase.login._PATIENCE_SECONDS", 0.02)
    hanging = Mint(login())
    hanging.open.clear()
    with pytest.raises(LoginFault, match="does not answer"):
        await Logins(hanging).get()
    hanging.open.set()
    passing = Mint(PASSING)
    with pytest.raises(LoginFault, match="is away"):
        await asyncio.wait_for(Logins(passing).get(), 10)
    assert passing.asked == 1, "its patience is over"


async def test_a_refused_token_is_given_up_unless_it_is_quite_new() -> None:
    new, old = login("new"), login("old", age=60)
    logins = Logins(Mint(old, new, login("newer")))
    assert (await logins.get()).token == "old"
    logins.distrust("another's")
    assert (await logins.get()).token == "old"
    logins.distrust("old")
    assert (await logins.get()).token == "new"
    logins.distrust("new")
    assert (await logins.get()).token == "new"


def test_nothing_shows_a_token() -> None:
    assert "secret" not in repr(login("secret")) + str(replace(login("secret"), host="x"))


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ('FATAL:  password authentication failed for user "u"', "refuses the login of u"),
        ('FATAL:  role "u" does not exist', "has no role u"),
        ('FATAL:  database "d" does not exist', "has no database d"),
        ('FATAL:  permission denied for database "d"', "may not connect to the database d"),
        ("FATAL:  endpoint is disabled", "is disabled"),
    ],
)
def test_what_a_server_says_is_explained(said: str, means: str) -> None:
    found = refusal(said, user="u", database="d", target="the Lakebase instance i")
    assert found is not None and means in found.message and found.fix
    assert "u" not in found.told.split() and "instance" not in found.told  # clients see neither users nor hosts


def test_what_is_not_about_the_login_is_left_alone() -> None:
    for said in ("connection refused", "timeout expired", "server closed the connection unexpectedly"):
        assert refusal(said, user="u", database="d", target="i") is None
