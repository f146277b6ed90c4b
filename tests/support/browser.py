"""Headless Chromium over its pipe: no driver, no port, no package. Only what the tests of the page need."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.waiting import until_sync

ANSWER_SECONDS = 30
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--disable-extensions",
    "--mute-audio", "--hide-scrollbars", "--remote-debugging-pipe",
]  # fmt: skip
# The browser's ends of the pipe are its files 3 and 4.
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
_ABOVE = 20


def found() -> str | None:
    """The browser that CHROMIUM names, or one on PATH."""
    names = (
        [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else ["chromium", "chromium-browser", "google-chrome"]
    )
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """One process; each page has storage and cookies of its own."""

    def __init__(self, program: str, folder: Path) -> None:
        given_in, self._out = os.pipe()
        self._in, given_out = os.pipe()
        # Numbers that 3 and 4 do not overwrite.
        theirs_in, theirs_out = (fcntl.fcntl(end, fcntl.F_DUPFD, _ABOVE) for end in (given_in, given_out))
        command = [program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-IS", "-c", _START, str(theirs_in), str(theirs_out), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs_in, theirs_out),
            start_new_session=True,
        )
        for end in (given_in, given_out, theirs_in, theirs_out):
            os.close(end)
        self._rest = b""
        self._last_id = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._pages: dict[str, Page] = {}

    def page(self, *, width: int = 1280, height: int = 860, dark: bool = False) -> Page:
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call(
            "Target.createTarget", url="about:blank", browserContextId=context, width=width, height=height
        )["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, context)
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        return page

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._last_id += 1
        number = self._last_id
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_SECONDS
        while number not in self._answers:
            self._receive(deadline)
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _receive(self, deadline: float) -> None:
        readable, _, _ = select.select([self._in], [], [], max(0, deadline - time.monotonic()))
        data = os.read(self._in, 1 << 20) if readable else b""
        assert data, "the browser does not answer"
        *messages, self._rest = (self._rest + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            elif (page := self._pages.get(message.get("sessionId", ""))) is not None:
                page.hear(message["method"], message["params"])

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        os.close(self._in)
        os.close(self._out)


class Page:
    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context
        self.complaints: list[str] = []
        """Exceptions, console errors, and what the policy kept from happening."""

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def hear(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif (
            method == "Log.entryAdded" and params["entry"]["source"] != "network"
        ):  # a killed server is a network error
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.complaints.append(str(params["args"]))

    def goto(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def reload(self) -> None:
        self.run("window.before = true")
        self.call("Page.reload")
        self.until("!window.before && document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def run(self, script: str) -> Any:
        """The value of an expression; a promise's when it is kept."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"].get("exception", answer["exceptionDetails"]))
        return answer["result"].get("value")

    def until(self, condition: str, *, seconds: float = 20) -> Any:
        """The first true value; what is thrown while the page changes is not one."""

        def value() -> Any:
            with suppress(AssertionError):
                return self.run(condition)

        try:
            return until_sync(value, seconds=seconds)
        except TimeoutError:
            raise AssertionError(f"never true: {condition}\n{self.text()}\n{self.complaints}") from None

    def text(self, selector: str = "body") -> str:
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def click(self, selector: str) -> None:
        """As a person does: at its middle."""
        box = self.until(
            f"""(() => {{
                const found = document.querySelector({json.dumps(selector)});
                found?.scrollIntoView({{ block: "center" }});
                const box = found?.getBoundingClientRect();
                return box?.width ? [box.x + box.width / 2, box.y + box.height / 2] : null;
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowRight": 39, "ArrowDown": 40, " ": 32}
        pressed = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key], "modifiers": 8 if shift else 0}
        text = {"Enter": "\r", " ": " "}.get(key)
        self.call("Input.dispatchKeyEvent", type="keyDown", **pressed, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def picture(self) -> bytes:
        """A PNG, as base64."""
        return self.call("Page.captureScreenshot", format="png")["data"].encode()

    def close(self) -> None:
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)


@contextmanager
def browsing(program: str, folder: Path) -> Generator[Browser]:
    browser = Browser(program, folder)
    try:
        yield browser
    finally:
        browser.close()
