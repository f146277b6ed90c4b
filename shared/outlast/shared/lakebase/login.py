"""A login to a database, and the one that all connections of this process share."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog

from .faults import LoginFault

log = structlog.get_logger()

_EARLY_SECONDS = 300.0  # before it expires a login is replaced
_EARLY_SHARE = 0.25  # of a life that is short
_CONNECT_SECONDS = 10.0
_CONNECT_SHARE = 0.1
_PATIENCE_SECONDS = 10.0  # with a workspace in trouble, before those who wait are told
_HUNG_SECONDS = 20.0  # a minting that takes so long is left behind: the SDK waits for as long as a server tells it to
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 15.0
_SKEW_SECONDS = 60.0
_DISTRUST_SECONDS = 30.0  # a login that is refused though it is younger is not the reason


@dataclass(frozen=True, slots=True)
class Login:
    """Where to connect, as whom, and with what."""

    host: str
    user: str
    token: str = field(repr=False)
    minted_at: float
    """By the monotonic clock."""
    seconds: float
    """How long the token is taken."""
    skew_seconds: float = 0.0
    """How far this machine's clock is ahead of the workspace's (less than 0: behind), when that is plain to see."""

    @property
    def left_seconds(self) -> float:
        return self.minted_at + self.seconds - time.monotonic()

    @property
    def is_fresh(self) -> bool:
        return self.left_seconds > min(_EARLY_SECONDS, self.seconds * _EARLY_SHARE)

    @property
    def outlasts_a_connect(self) -> bool:
        """The server looks at it a moment later than we do."""
        return self.left_seconds > min(_CONNECT_SECONDS, self.seconds * _CONNECT_SHARE)


class Logins:
    """Mints a login when the last one is about to expire, in a thread: one for all who wait for it.

    Whoever needs a connection while the workspace is in trouble gets the old login for as long as it is taken.
    """

    def __init__(self, mint: Callable[[], Login], abandon: Callable[[], None] = lambda: None) -> None:
        """``mint`` blocks, and raises LoginFault. ``abandon``: one of its calls hangs; the next begins anew."""
        self._mint = mint
        self._abandon = abandon
        self._guard = threading.Lock()
        self._login: Login | None = None
        self._minting: Future[Login] | None = None
        self._minting_since = 0.0
        self._failures = 0
        self._not_before = 0.0
        self._fault: LoginFault | None = None
        self.minted = 0

    async def get(self) -> Login:
        """Raises LoginFault."""
        login = self._login
        if login is not None and login.is_fresh:
            return login
        minting = self._start()
        if login is not None and login.outlasts_a_connect:
            return login
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS * 2):
                return await asyncio.wrap_future(minting)
        except TimeoutError:
            raise LoginFault("The workspace does not answer", lasting=False) from None

    def distrust(self, token: str) -> None:
        """The server has refused it: the next connection gets another one, unless it is quite new."""
        with self._guard:
            login = self._login
            if login is not None and login.token == token and time.monotonic() - login.minted_at > _DISTRUST_SECONDS:
                self._login = None

    def _start(self) -> Future[Login]:
        """The minting that is under way, or a new one; after a failure not before some time has passed."""
        with self._guard:
            if self._minting is not None and not self._minting.done():
                if time.monotonic() - self._minting_since < _HUNG_SECONDS:
                    return self._minting
                self._abandon()
            self._minting, self._minting_since = Future(), time.monotonic()
            self._minting.set_running_or_notify_cancel()  # one who gives up waiting must not take it from the others
            if self._fault is not None and time.monotonic() < self._not_before:
                self._minting.set_exception(self._fault)
            else:
                threading.Thread(target=self._work, args=(self._minting,), name="lakebase login", daemon=True).start()
            return self._minting

    def _work(self, minting: Future[Login]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        tries = 0
        while True:
            try:
                login = self._mint()
            except LoginFault as fault:
                pause = min(_FIRST_PAUSE_SECONDS * 2**tries, _LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)
                tries += 1
                if fault.lasting or time.monotonic() + pause > deadline:
                    self._failed(fault)
                    minting.set_exception(fault)
                    return
                time.sleep(pause)
            except BaseException as error:  # a thread that ended silently would leave all waiting
                minting.set_exception(error)
                raise
            else:
                self._succeeded(login)
                minting.set_result(login)
                return

    def _failed(self, fault: LoginFault) -> None:
        with self._guard:
            pause = min(_FIRST_PAUSE_SECONDS * 4 * 2**self._failures, _LONGEST_PAUSE_SECONDS)
            self._failures += 1
            self._not_before = time.monotonic() + pause * random.uniform(0.5, 1.0)
            if self._fault is None or self._fault.message != fault.message:
                log.warning("lakebase.no_login", error=fault.message)
            self._fault = fault

    def _succeeded(self, login: Login) -> None:
        with self._guard:
            if self._login is None or self._login.minted_at < login.minted_at:  # else one that was left behind
                self._login = login
            self._fault, self._failures = None, 0
            self.minted += 1
        if abs(login.skew_seconds) > _SKEW_SECONDS:
            log.warning("lakebase.clock_skew", seconds=round(login.skew_seconds))
        log.info("lakebase.login", host=login.host, user=login.user, seconds=round(login.seconds))
