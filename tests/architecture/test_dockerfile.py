"""The Dockerfile, and what the rules say to broken copies of it. `make containers` runs its steps."""

from __future__ import annotations

import pytest

from tests.support.deployment.complaints import judged
from tests.support.deployment.dockerfile import DOCKERFILE, ROOT
from tests.support.deployment.dockerfile_rules import RULES, Source

TEXT = (ROOT / DOCKERFILE).read_text("utf-8")
BREAKS = [
    ("bases_are_pinned", "ARG PYTHON=python:3.12-slim-trixie", "ARG PYTHON=python:latest"),
    ("only_known_instructions", "COPY api api", "ADD https://example.com/api.tar.gz api"),
    ("sources_are_in_the_context", "COPY shared shared", "COPY shared sharde shared"),
    ("sources_are_in_the_context", "COPY shared shared", "COPY shared tests shared"),
    ("stages_come_before_their_use", "COPY --from=wheel /dist /dist\nRUN uv", "COPY --from=wheels /dist /dist\nRUN uv"),
    ("packages_are_locked_wheels", "--require-hashes --no-build /locks/worker.lock", "--no-build /locks/worker.lock"),
    ("packages_are_locked_wheels", "--no-deps --no-index /dist/*.whl", "/dist/*.whl"),
    ("packages_are_locked_wheels", "--only-binary :all: -r", "-r"),
    ("packages_have_one_place", "uv pip sync --quiet --python /opt/outlast/bin/python", "uv pip sync --quiet"),
    ("each_target_has_its_own_lock", "/locks/api.lock", "/locks/worker.lock"),
    ("the_wheel_is_built_once", "RUN uv venv", "RUN python -m hatchling build -t wheel -d /dist && uv venv"),
    ("what_runs_has_only_its_packages", "COPY --from=api-packages /opt/outlast", "COPY --from=api-packages / /"),
    ("what_runs_has_only_its_packages", "RUN groupadd", "RUN apt-get install -y gcc && groupadd"),
    ("nothing_runs_as_root", "USER 10001:10001\n", ""),
    ("nothing_runs_as_root", "USER 10001:10001", "USER outlast"),
    ("the_root_file_system_may_be_read_only", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"),
    ("the_root_file_system_may_be_read_only", "UV_COMPILE_BYTECODE=1", ""),
    ("health_is_asked_where_it_is_answered", "'127.0.0.1', 8081", "'127.0.0.1', 8080"),
    ("health_is_asked_where_it_is_answered", "HEALTHCHECK NONE\n", ""),
    ("commands_are_ours", '"--host", "0.0.0.0"', '"--bind", "0.0.0.0"'),
    ("commands_are_ours", 'ENTRYPOINT ["outlast", "worker"]', 'ENTRYPOINT ["outlast", "api"]'),
    ("signals_arrive", 'ENTRYPOINT ["outlast", "migrate"]', "ENTRYPOINT outlast migrate"),
    ("signals_arrive", "STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"),
    ("variables_are_known", "ENV OUTLAST_HEALTH_PORT=8081", "ENV OUTLAST_HEALTH_PORT=8081 OUTLAST_CHIDLREN=2"),
    ("there_are_no_secrets", "ENV OUTLAST_HEALTH_PORT=8081", "ENV OUTLAST_HEALTH_PORT=8081 OPENAI_API_KEY=sk-1"),
]


def test_nothing_is_wrong_with_it() -> None:
    assert judged(Source.of(TEXT), RULES) == []


@pytest.mark.parametrize(("rule", "whole", "broken"), BREAKS)
def test_a_broken_copy_is_refused_by_the_rule_for_it(rule: str, whole: str, broken: str) -> None:
    assert whole in TEXT
    assert rule in {complaint.rule for complaint in judged(Source.of(TEXT.replace(whole, broken, 1)), RULES)}


def test_every_rule_refuses_something() -> None:
    assert {rule.__name__ for rule in RULES} - {rule for rule, _, _ in BREAKS} == {"targets_are_there"}


def test_a_missing_target_is_refused() -> None:
    text = TEXT[: TEXT.index("FROM base AS migrate")]
    assert {complaint.rule for complaint in judged(Source.of(text), RULES)} == {"targets_are_there"}
