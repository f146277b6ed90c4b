"""docker-compose.yml, and what the rules say to broken copies of it. `make containers` starts its services."""

from __future__ import annotations

import pytest

from tests.support.deployment import compose_rules, proxy_rules
from tests.support.deployment.complaints import judged
from tests.support.deployment.compose import COMPOSE
from tests.support.deployment.compose_rules import Source
from tests.support.deployment.dockerfile import ROOT

TEXT = (ROOT / COMPOSE).read_text("utf-8")
PROXY = (ROOT / "infra/docker/haproxy.cfg").read_text("utf-8")
EXAMPLE = (ROOT / ".env.example").read_text("utf-8")
RULES = compose_rules.RULES + proxy_rules.RULES
BREAKS = [
    ("keys_are_known", "    init: true\n", "    inti: true\n"),
    ("keys_are_known", "    user: haproxy\n", "    user: haproxy\n    privileged: true\n"),
    ("images_are_pinned", "haproxy:3.2-alpine", "haproxy:latest"),
    ("builds_have_a_target", "target: migrate}", "target: migrations}"),
    ("builds_have_a_target", "image: outlast-api:0.1.0", "image: outlast-worker:0.1.0"),
    ("what_is_named_exists", "networks: [front]", "networks: [outer]"),
    ("what_is_named_exists", "./infra/docker/haproxy.cfg", "./infra/docker/nginx.cfg"),
    ("each_waits_for_what_it_needs", "completed_successfully\n      postgres", "started\n      postgres"),
    ("what_ends_stays_ended_and_the_rest_comes_back", 'restart: "no"\n    environment: *', "environment: *"),
    ("the_proxy_is_where_it_is_asked", "http://127.0.0.1:8000/health", "http://127.0.0.1:8080/health"),
    ("health_is_asked_where_it_is_answered", '["CMD", "valkey-cli", "ping"]', '["NONE"]'),
    ("only_loopback_is_published", '"127.0.0.1:${PORT:-8000}:8000"', '"${PORT:-8000}:8000"'),
    ("only_loopback_is_published", "    user: valkey\n", '    user: valkey\n    ports: ["127.0.0.1:6379:6379"]\n'),
    ("only_loopback_is_published", "internal: true", "internal: false"),
    ("stopping_has_time", "stop_grace_period: 60s  # OUTLAST", "stop_grace_period: 30s  # OUTLAST"),
    ("limits_are_set", "limits: {cpus: \"1\", memory: 512M, pids: 100}", "limits: {cpus: \"1\", pids: 100}"),
    ("limits_are_set", 'OUTLAST_CHILDREN: "2"', 'OUTLAST_CHILDREN: "8"'),
    ("nothing_can_be_changed_in_a_container", "  read_only: true\n", "  read_only: false\n"),
    ("nothing_can_be_changed_in_a_container", "./examples:/app/examples:ro", "./examples:/app/examples"),
    ("nothing_can_be_changed_in_a_container", "    init: true\n", "    init: true\n    cap_add: [SYS_ADMIN]\n"),
    ("nothing_runs_as_root", "    user: valkey\n", ""),
    ("nothing_runs_as_root", "    network_mode: none\n", ""),
    ("variables_are_known", "OUTLAST_LOG_FORMAT: json", "OUTLAST_LOGFORMAT: json"),
    ("settings_are_valid", "OUTLAST_LOG_FORMAT: json", "OUTLAST_LOG_FORMAT: xml"),
    ("commands_are_ours", "    init: true\n", '    init: true\n    command: ["--threads", "2"]\n'),
    ("there_are_no_secrets", "POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:-}", "POSTGRES_PASSWORD: outlast"),
    ("there_are_no_secrets", "postgresql://outlast@postgres", "postgresql://outlast:outlast@postgres"),
    ("the_example_names_every_variable", "${OUTLAST_AUTH:-none}", "${AUTH:-none}"),
    ("the_example_names_every_variable", "${TASK_TIMEOUT_SECONDS:-3600}", "${TASK_TIMEOUT_SECONDS:-60}"),
    ("data_is_kept", '"--appendonly", "yes"', '"--appendonly", "no"'),
]  # fmt: skip
PROXY_BREAKS = [
    ("the_proxy_is_where_it_is_asked", "bind :8000", "bind :80"),
    ("the_proxy_is_where_it_is_asked", "server-template api 8 api:8000", "server-template api 8 api:8080"),
    ("stopping_has_time", "hard-stop-after 10s", "hard-stop-after 60s"),
    ("streams_pass_the_proxy", "timeout server 2h", "timeout server 50s"),
    ("streams_pass_the_proxy", "http-request disable-l7-retry unless METH_GET", ""),
    ("streams_pass_the_proxy", "    option abortonclose\n", ""),
    ("streams_pass_the_proxy", "    option dontlognull\n", "    option dontlognull\nbackend others\n"),
    ("streams_pass_the_proxy", "    balance leastconn", "    balance leastconn\n    compression algo gzip"),
]
EXAMPLE_BREAKS = [
    ("there_are_no_secrets", "POSTGRES_PASSWORD=", "POSTGRES_PASSWORD=outlast"),
    ("the_example_names_every_variable", "# Where the server listens on this machine's loopback address.\n", ""),
]


def refused_by(source: Source) -> set[str]:
    return {complaint.rule for complaint in judged(source, RULES)}


def test_nothing_is_wrong_with_it() -> None:
    assert judged(Source.of(TEXT), RULES) == []


@pytest.mark.parametrize(("rule", "whole", "broken"), BREAKS)
def test_a_broken_copy_is_refused_by_the_rule_for_it(rule: str, whole: str, broken: str) -> None:
    assert whole in TEXT
    assert rule in refused_by(Source.of(TEXT.replace(whole, broken, 1)))


@pytest.mark.parametrize(("rule", "whole", "broken"), PROXY_BREAKS)
def test_a_broken_proxy_is_refused(rule: str, whole: str, broken: str) -> None:
    assert whole in PROXY
    assert refused_by(Source.of(TEXT, proxy=PROXY.replace(whole, broken, 1))) == {rule}


@pytest.mark.parametrize(("rule", "whole", "broken"), EXAMPLE_BREAKS)
def test_a_broken_example_is_refused(rule: str, whole: str, broken: str) -> None:
    assert whole in EXAMPLE
    assert rule in refused_by(Source.of(TEXT, example=EXAMPLE.replace(whole, broken, 1)))


def test_every_rule_refuses_something() -> None:
    assert {rule.__name__ for rule in RULES} == {rule for rule, _, _ in [*BREAKS, *PROXY_BREAKS, *EXAMPLE_BREAKS]}
