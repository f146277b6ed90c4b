# Every recipe runs in this folder with relative names, so its path may hold spaces.
PORT ?= 8000
ARGS ?=
# Tests wait for processes, leases and locks more than they compute: one more of them than there are cores.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
export PYTHON

.PHONY: help run demo test test-postgres chaos containers test-clients setup setup-lint lint format lock schema bench bench-peers

help: ## List these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-12s  %s\n' "$$name" "$$text"; done

run: setup ## Start everything at http://127.0.0.1:8000 (PORT=8001 for another port); Ctrl-C stops it, the data stays
	@exec .venv/bin/outlast dev --port $(PORT)

demo: setup ## Kill a worker and an API while an answer is on its way, and prove that nothing of it is lost
	@exec .venv/bin/outlast demo

test: lint ## Run the linters, then all tests (ARGS="-k lease tests/unit" for some)
	.venv/bin/pytest -q --durations=15 -n $(WORKERS) --dist worksteal $(ARGS)

chaos: setup ## Break everything for ten minutes and judge what is left (SEED=5 MINUTES=2 SEEDS=3 BUSY=2; docs/chaos.md)
	@exec .venv/bin/python -m tests.chaos

containers: setup ## Build what the Dockerfile builds and run docker-compose.yml's services without an engine (needs haproxy)
	@exec .venv/bin/python -m tests.containers

test-postgres: setup ## Test store, claims, takeover, log, submissions and the five modes on DATABASE_URL, else on Debian's Postgres
	@exec .venv/bin/python -m tests.on_postgres -n $(WORKERS) --dist worksteal $(ARGS)

# Packages of other makes, in folders of their own: they would change what is locked for us.
CLIENTS = .outlast/clients
test-clients: setup ## Test with clients of other makes: the OpenAI Agents SDK and, where node is, openai and the AI SDK
	@uv=$$(sh infra/setup.sh uv) && export UV_SYSTEM_CERTS=$${UV_SYSTEM_CERTS:-1} && mkdir -p $(CLIENTS)/node && \
	{ [ -x $(CLIENTS)/python/bin/python ] || "$$uv" venv --quiet --python .venv/bin/python $(CLIENTS)/python; } && \
	"$$uv" pip install --quiet --python $(CLIENTS)/python/bin/python -r tests/clients/requirements.txt && \
	if command -v node >/dev/null; then cp tests/clients/node/package.json $(CLIENTS)/node/ && \
		npm install --prefix $(CLIENTS)/node --silent --no-audit --no-fund --no-package-lock; \
	else echo "node is not here: its clients are left out"; fi && \
	TEST_CLIENTS=1 .venv/bin/pytest -q tests/clients $(ARGS)

setup: ## Make .venv hold the locked packages and this checkout
	@sh infra/setup.sh

setup-lint:
	@sh infra/setup.sh lint

lint: setup-lint ## Check style, types and the import contracts
	.venv/bin/ruff check --quiet
	.venv/bin/ruff format --quiet --check
	.venv/bin/pyright
	.venv/bin/lint-imports --no-logo

format: setup-lint ## Format the code and mend what ruff can mend
	.venv/bin/ruff check --quiet --fix-only
	.venv/bin/ruff format --quiet

# One lock holds every version; the others are compiled against it.
COMPILE = "$$uv" pip compile --quiet --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" $(ARGS)
lock: ## Lock the dependencies of pyproject.toml anew (ARGS=--upgrade for the newest, ARGS="--upgrade-package X" for one)
	@uv=$$(sh infra/setup.sh uv) && export UV_SYSTEM_CERTS=$${UV_SYSTEM_CERTS:-1} && set -x && \
	$(COMPILE) pyproject.toml --extra dev --extra databricks --extra otel --extra mlflow --group test -o requirements.lock && \
	$(COMPILE) --group lint -c requirements.lock -o requirements-lint.lock && \
	$(COMPILE) --group setup -c requirements.lock -o infra/setup.lock && \
	$(COMPILE) --group build -c requirements.lock -o infra/docker/build.lock && \
	$(COMPILE) pyproject.toml --extra api --extra otel -c requirements.lock -o infra/docker/api.lock && \
	$(COMPILE) pyproject.toml --extra worker --extra otel -c requirements.lock -o infra/docker/worker.lock && \
	$(COMPILE) pyproject.toml --extra migrate -c requirements.lock -o infra/docker/migrate.lock && \
	$(COMPILE) bench/peers/requirements.in -o bench/peers/requirements.lock

schema: setup ## Write infra/schema.sql, the migrations' result in one piece
	@.venv/bin/python -m tests.support.schema

bench: setup ## Measure throughput, latency and memory (ARGS="--only a,d" for some cases; see bench/README.md)
	@exec .venv/bin/python -m bench.run $(ARGS)

# The peers' packages are in an environment of their own: they would change what is locked for us.
PEERS = .outlast/bench-peers
bench-peers: setup ## Measure procrastinate, DBOS and plain Celery beside Outlast (ARGS="--only dbos" for some)
	@uv=$$(sh infra/setup.sh uv) && export UV_SYSTEM_CERTS=$${UV_SYSTEM_CERTS:-1} && \
	{ [ -x $(PEERS)/bin/python ] || "$$uv" venv --quiet --python .venv/bin/python $(PEERS); } && \
	"$$uv" pip sync --quiet --python $(PEERS)/bin/python --require-hashes bench/peers/requirements.lock && \
	exec .venv/bin/python -m bench.run_peers $(ARGS)
