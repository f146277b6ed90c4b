"""The REST API of a Databricks workspace, as far as databricks-sdk calls it for Lakebase.

It has threads of its own, so that it serves tests with and without an event loop, and processes that they start.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from . import workspace_faults as faults
from .directory import Directory, Endpoint, Instance, Principal
from .workspace_faults import Fault, Misbehaviour

WORKSPACE_ID = "1234567890123456"
Answer = Mapping[str, Any] | Fault


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    status: int


class RestApi:
    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.misbehaviour = Misbehaviour()
        self.calls: list[Call] = []
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Connection)
        self._server.daemon_threads = True
        self._server.api = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        for verb, pattern, public in _PUBLIC:
            if method == verb and pattern.fullmatch(path):
                return public(self, headers, body)
        principal = self.directory.caller(headers.get("authorization", "").removeprefix("Bearer "))
        if principal is None:
            return faults.unauthenticated()
        for verb, pattern, work in _ROUTES:
            if method == verb and (found := pattern.fullmatch(path)):
                if not principal.permitted and work is not _me:
                    return faults.forbidden()
                return work(self.directory, principal, {**query, **found.groupdict(), **(_json(body))})
        return faults.error(404, "ENDPOINT_NOT_FOUND", f"No API found for '{method} {path}'.")


def _json(body: bytes) -> dict[str, Any]:
    return json.loads(body) if body else {}


def _host_metadata(api: RestApi, headers: Mapping[str, str], body: bytes) -> Answer:
    return {"oidc_endpoint": f"{api.url}/oidc", "workspace_id": WORKSPACE_ID, "account_id": "account", "cloud": "AWS"}


def _authorization_server(api: RestApi, headers: Mapping[str, str], body: bytes) -> Answer:
    return {
        "issuer": f"{api.url}/oidc",
        "authorization_endpoint": f"{api.url}/oidc/v1/authorize",
        "token_endpoint": f"{api.url}/oidc/v1/token",
        "grant_types_supported": ["client_credentials", "authorization_code", "refresh_token"],
    }


def _access_token(api: RestApi, headers: Mapping[str, str], body: bytes) -> Answer:
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    client_id, _, secret = base64.b64decode(encoded).decode().partition(":") if scheme == "Basic" else ("", "", "")
    principal = api.directory.client(client_id, secret)
    if parse_qs(body.decode()).get("grant_type") != ["client_credentials"]:
        return _oauth_error(400, "unsupported_grant_type", "Only client_credentials is known here")
    if principal is None:
        return _oauth_error(401, "invalid_client", "Client authentication failed")
    token = api.directory.grant_access(principal)
    seconds = int(api.directory.access_seconds)
    return {"access_token": token, "scope": "all-apis", "token_type": "Bearer", "expires_in": seconds}


def _oauth_error(status: int, code: str, description: str) -> Fault:
    body = json.dumps({"error": code, "error_description": description, "error_id": "00000000"}).encode()
    return Fault(status, body, {"content-type": "application/json"})


def _me(directory: Directory, principal: Principal, given: Mapping[str, Any]) -> Answer:
    schema = "urn:ietf:params:scim:schemas:core:2.0:User"
    emails = [{"type": "work", "value": principal.name, "primary": True}] if principal.is_user else []
    named = {"userName": principal.name, "displayName": "an app" if not emails else "a user"}
    return {"schemas": [schema], "id": "42", "active": True, "emails": emails, **named}


def _instance(directory: Directory, principal: Principal, given: Mapping[str, Any]) -> Answer:
    found = [_shown(i) for i in directory.instances if i.name == given["name"]]
    return found[0] if found else faults.error(404, "NOT_FOUND", f"Database instance '{given['name']}' not found.")


def _instance_by_uid(directory: Directory, principal: Principal, given: Mapping[str, Any]) -> Answer:
    found = [_shown(i) for i in directory.instances if i.uid == given.get("uid")]
    return found[0] if found else faults.error(404, "NOT_FOUND", f"Database instance '{given.get('uid')}' not found.")


def _instances(directory: Directory, principal: Principal, given: Mapping[str, Any]) -> Answer:
    """One a page: who takes the first page for all is found out."""
    return _page("database_instances", [_shown(i) for i in directory.instances], given)


def _shown(instance: Instance) -> Mapping[str, Any]:
    dns = {"read_write_dns": instance.host, "read_only_dns": instance.host}
    stopped = instance.state == "STOPPED"
    numbers = {"capacity": "CU_1", "pg_version": "PG_VERSION_16", "node_count": 1, "effective_stopped": stopped}
    return {"name": instance.name, "uid": instance.uid, "state": instance.state, **dns, **numbers}


def _instance_credential(directory: Directory, principal: Principal, given: Mapping[str, Any]) -> Answer:
    names = tuple(given.get("instance_names", ()))
    if not names:
        return faults.error(400, "INVALID_PARAMETER_VALUE", "instance_names must not be empty")
    for name in names:
        if name not in {i.name for i in directory.instances}:
            return faults.error(404, "NOT_FOUND", f"Database instance '{name}' not found.")
    credential = directory.mint(principal, names)
    return {"token": credential.token, "expiration_time": _time(credential.expires_at)}


def _project(directory: Directory, principal: Principal, given: Mapping[str, Any]) -> Answer:
    known = given["project"] in {e.project for e in directory.endpoints}
    return {"name": given["project"], "uid": given["project"]} if known else _missing("project", given["project"])


def _branches(directory: Directory, principal: Principal, given: Mapping[str, Any]) -> Answer:
    names = sorted({e.branch for e in directory.endpoints if e.project == given["project"]})
    if not names:
        return _missing("project", given["project"])
    return _page("branches", [{"name": name, "parent": given["project"]} for name in names], given)


def _branch(directory: Directory, principal: Principal, given: Mapping[str, Any]) -> Answer:
    known = given["branch"] in {e.branch for e in directory.endpoints}
    state = {"current_state": "READY", "default": True}
    return {"name": given["branch"], "status": state} if known else _missing("branch", given["branch"])


def _endpoints(directory: Directory, principal: Principal, given: Mapping[str, Any]) -> Answer:
    found = [_endpoint_shown(e) for e in directory.endpoints if e.branch == given["branch"]]
    return _page("endpoints", found, given) if found else _missing("branch", given["branch"])


def _endpoint(directory: Directory, principal: Principal, given: Mapping[str, Any]) -> Answer:
    found = [_endpoint_shown(e) for e in directory.endpoints if e.name == given["endpoint"]]
    return found[0] if found else _missing("endpoint", given["endpoint"])


def _endpoint_shown(endpoint: Endpoint) -> Mapping[str, Any]:
    status = {"endpoint_type": endpoint.kind, "current_state": endpoint.state, "disabled": endpoint.disabled}
    hosts = {"host": endpoint.host}
    return {
        "name": endpoint.name,
        "uid": endpoint.uid,
        "parent": endpoint.branch,
        "create_time": "2026-01-02T03:04:05Z",
        "status": {**status, "hosts": hosts, "suspend_timeout_duration": "300s"},
    }


def _endpoint_credential(directory: Directory, principal: Principal, given: Mapping[str, Any]) -> Answer:
    if given.get("endpoint") not in {e.name for e in directory.endpoints}:
        return _missing("endpoint", str(given.get("endpoint")))
    credential = directory.mint(principal, (given["endpoint"],))
    return {"token": credential.token, "expire_time": _time(credential.expires_at)}


def _missing(what: str, name: str) -> Fault:
    return faults.error(404, "NOT_FOUND", f"{what} id not found: {name}")


def _page(name: str, found: list[Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    at = int(given.get("page_token", 0))
    more = {"next_page_token": str(at + 1)} if at + 1 < len(found) else {}
    return {name: found[at : at + 1], **more}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_PUBLIC: list[tuple[str, re.Pattern[str], Callable[[RestApi, Mapping[str, str], bytes], Answer]]] = [
    ("GET", re.compile(r"/\.well-known/databricks-config"), _host_metadata),
    ("GET", re.compile(r"/oidc/\.well-known/oauth-authorization-server"), _authorization_server),
    ("POST", re.compile(r"/oidc/v1/token"), _access_token),
]
_POSTGRES = "/api/2.0/postgres"
_PROJECT = r"(?P<project>projects/[^/]+)"
_BRANCH = r"(?P<branch>projects/[^/]+/branches/[^/]+)"
_ROUTES: list[tuple[str, re.Pattern[str], Callable[[Directory, Principal, Mapping[str, Any]], Answer]]] = [
    ("GET", re.compile(r"/api/2\.0/preview/scim/v2/Me"), _me),
    ("GET", re.compile(r"/api/2\.0/database/instances"), _instances),
    ("GET", re.compile(r"/api/2\.0/database/instances:findByUid"), _instance_by_uid),
    ("GET", re.compile(r"/api/2\.0/database/instances/(?P<name>[^/]+)"), _instance),
    ("POST", re.compile(r"/api/2\.0/database/credentials"), _instance_credential),
    ("GET", re.compile(f"{_POSTGRES}/{_PROJECT}"), _project),
    ("GET", re.compile(f"{_POSTGRES}/{_PROJECT}/branches"), _branches),
    ("GET", re.compile(f"{_POSTGRES}/{_BRANCH}"), _branch),
    ("GET", re.compile(f"{_POSTGRES}/{_BRANCH}/endpoints"), _endpoints),
    ("GET", re.compile(rf"{_POSTGRES}/(?P<endpoint>projects/[^/]+/branches/[^/]+/endpoints/[^/]+)"), _endpoint),
    ("POST", re.compile(f"{_POSTGRES}/credentials"), _endpoint_credential),
]


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        api: RestApi = self.server.api  # type: ignore[attr-defined]
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fault = api.misbehaviour.next(url.path)
        if fault is not None:
            api.closing.wait(fault.delay_seconds)
        if fault is None or fault.status is None:
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            given = api.answer(self.command, url.path, query, headers, body)
        else:
            given = fault
        answer = given if isinstance(given, Fault) else Fault(200, json.dumps(given).encode(), _JSON)
        api.calls.append(Call(self.command, url.path, answer.status or 200))
        self._send(answer)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test has the calls."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(int(self.server.api.directory.now()))  # type: ignore[attr-defined]

    def _send(self, answer: Fault) -> None:
        try:
            self.send_response(answer.status or 200)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer.body)))
            self.send_header("connection", "close")  # a client keeps no connection beyond its test
            self.end_headers()
            self.wfile.write(answer.body)
        except (BrokenPipeError, ConnectionResetError):  # it has waited long enough
            self.close_connection = True


_JSON = {"content-type": "application/json"}
