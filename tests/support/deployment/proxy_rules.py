"""What must be true of the proxy in front of the API: of haproxy.cfg, and of its service in docker-compose.yml."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import compose
from .complaints import asked_ports
from .compose_rules import Source

_LONGEST_SILENCE_SECONDS = 3600
"""A foreground request says nothing before its run has ended: TASK_TIMEOUT_SECONDS at least."""
_NEEDED = (
    "resolvers docker",  # every replica, however many
    "option httpchk GET /ready",
    "option redispatch",
    "http-request disable-l7-retry unless METH_GET",  # a POST that was sent is not sent again
)


def the_proxy_is_where_it_is_asked(source: Source) -> Iterator[str]:
    bound = {int(port) for port in re.findall(r"^\s*bind :(\d+)", source.proxy, re.MULTILINE)}
    service = source.services.get("proxy", {})
    published = {int(port.rpartition(":")[2]) for port in service.get("ports", [])}
    asked = asked_ports(re.findall(r"127\.0\.0\.1:\d+", str(service.get("healthcheck", {}))))
    if not bound == published == asked:
        yield f"it binds {bound}, publishes {published} and is asked at {asked}"
    served = {int(port) for port in re.findall(r"\sapi:(\d+)", source.proxy)}
    if "api" in source.ours and served != source.ours["api"][1].ports:
        yield f"it asks api at {served}"


def streams_pass_the_proxy(source: Source) -> Iterator[str]:
    """Silence is no end, nothing is held back, and nothing is sent twice."""
    timeouts = dict(re.findall(r"^ +timeout (\S+)\s+(\w+)", source.proxy, re.MULTILINE))
    for side in ("client", "server"):
        if compose.seconds(timeouts.get(side, "0s")) <= _LONGEST_SILENCE_SECONDS:
            yield f"timeout {side} {timeouts.get(side)}"
    for line in _NEEDED:
        if line not in source.proxy:
            yield f"without {line}"
    if "option abortonclose" not in _section(source.proxy, "defaults"):  # in a backend it works now and then
        yield "defaults without option abortonclose"
    if "http-buffer-request" in source.proxy or re.search(r"^\s*(compression|filter)\b", source.proxy, re.MULTILINE):
        yield "it would hold events back"


def _section(text: str, name: str) -> str:
    found = re.search(rf"^{name}$(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


RULES = (the_proxy_is_where_it_is_asked, streams_pass_the_proxy)
