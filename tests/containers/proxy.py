"""compose's proxy with compose's configuration: only the addresses in it are those of this machine."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.containers.images import Refused
from tests.containers.stack import Stack
from tests.support.processes import free_port
from tests.support.waiting import until_sync

_MISSING = "haproxy is not here: apt-get install haproxy"


@contextmanager
def proxy(configuration: Path, stack: Stack, work: Path) -> Generator[str]:
    """Its address, once it has found both replicas."""
    program = shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")
    if program is None:
        raise Refused(_MISSING)
    port = free_port()
    text = configuration.read_text("utf-8")
    for there, here in {
        "127.0.0.11:53": stack.names.address,
        "bind :8000": f"bind 127.0.0.1:{port}",
        "api:8000": f"api:{stack.api_port}",
    }.items():
        if text.count(there) != 1:
            raise Refused(f"{configuration.name} names {there} {text.count(there)} times")
        text = text.replace(there, here)
    (work / "haproxy.cfg").write_text(text)
    url = f"http://127.0.0.1:{port}"
    with (work / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([program, "-W", "-db", "-f", str(work / "haproxy.cfg")], stdout=log, stderr=log)
        try:
            until_sync(lambda: process.poll() is not None or _serves(url), seconds=20)
            if process.poll() is not None:
                raise Refused((work / "haproxy.log").read_text())
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _serves(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False
