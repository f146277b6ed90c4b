"""The settings and how they depend on one another."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from outlast.shared.by_agent import ByAgent, chosen
from outlast.shared.cores import cores
from outlast.shared.domain.addresses import name_in
from outlast.shared.domain.retry import RetryPolicy
from outlast.shared.domain.runs import Durability, Isolation, MultitaskStrategy

from . import graph_files, redis_url
from .fields import CONFIG_FILE, SettingsError, plain
from .graphs import GraphSettings
from .lakebase import LakebaseSettings

ISOLATED_QUEUE = "isolated"
"""Where runs wait that need a process to themselves."""
_MAX_RETRIES = 3
_TASK_TIMEOUT_SECONDS = 3600


class Settings(LakebaseSettings, GraphSettings, BaseSettings):  # type: ignore[override]  # pydantic merges model_config
    """One frozen object. Units are in the names; relations between settings are checked."""

    model_config = SettingsConfigDict(
        env_prefix="OUTLAST_",
        toml_file=CONFIG_FILE,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    redis_url: SecretStr | None = plain("redis_url", default=None)
    task_timeout_seconds: ByAgent[Annotated[int, Field(gt=0)]] = plain(
        "task_timeout_seconds", default_factory=lambda: {"*": _TASK_TIMEOUT_SECONDS}
    )
    """From a run's first claim to its end, over all attempts."""
    poll_interval_seconds: float = plain("poll_interval_seconds", default=1.0, gt=0)

    db_schema: str = Field(default="outlast", validation_alias=AliasChoices("OUTLAST_SCHEMA", "schema"))
    """The Postgres schema. Names on Redis and NOTIFY channels carry it, so two Outlasts may share both servers."""
    agents: Annotated[dict[str, str], NoDecode] = Field(default_factory=dict[str, str])
    """name -> module:attribute or ./file.py:attribute, or all graphs of a langgraph.json; the first is the default."""
    strict_models: bool = False
    """Refuse a ``model`` that names no agent, rather than run the default agent."""
    auth: Literal["none", "api_keys", "databricks"] | None = None
    """Who may call. Unset means none, and then only on a loopback address."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names by which a server without keys may be called, beside those of loopback; ``*`` is any name."""
    data_dir: str = ".outlast"
    """Where ``outlast dev`` keeps its embedded servers' data."""
    admins: Annotated[tuple[str, ...], NoDecode] = ()
    """With auth databricks: the users with the scope admin, by id or email."""
    token_key: SecretStr | None = Field(default=None, min_length=32)
    """What users' tokens are encrypted with on their way to the workers; without it they do not travel."""
    token_seconds: int = Field(default=3600, gt=0, le=86_400)
    """How long a user's token is kept at most."""

    tail: Literal["listen", "poll"] = "listen"
    """How an API replica learns of new events; poll where LISTEN cannot work (a transaction pooler)."""
    max_request_bytes: int = Field(default=16 * 2**20, gt=0)
    ping_seconds: float = Field(default=15.0, gt=0)
    """A silent stream gets a comment this often, so that no proxy closes it."""
    slow_client_seconds: float = Field(default=60.0, gt=0)
    """A client that takes nothing for so long is disconnected; it may come back and go on."""
    api_connections: int = Field(default=10, ge=2)

    max_queued: int = Field(default=1_000_000, gt=0)
    """Runs that may wait, of everybody together; beyond it a submission is answered with 429."""
    max_queued_per_principal: int | None = Field(default=None, gt=0)
    max_running_per_principal: int | None = Field(default=None, gt=0)
    """Runs of one principal that run at once on all workers together; the others wait in the queue."""
    max_running_per_agent: ByAgent[Annotated[int, Field(gt=0)]] = Field(default_factory=dict[str, int])
    """The same by agent."""

    durability: ByAgent[Durability] = Field(default_factory=lambda: {"*": Durability.SYNC})
    """When graphs write their checkpoints."""

    expire_queued_after_seconds: int | None = Field(default=None, gt=0)
    """A run that no worker has taken for so long fails; unset: it waits."""
    disconnect_seconds: float = Field(default=5.0, ge=0)
    """A run in the foreground is cancelled when its client has been away for so long."""
    multitask_strategy: ByAgent[MultitaskStrategy] = Field(default_factory=lambda: {"*": MultitaskStrategy.ENQUEUE})
    """What becomes of a run whose thread has another one that has not ended."""

    children: int | None = Field(default=None, gt=0, le=256)
    """Processes of one worker that run agents; unset: one for each core."""
    preload: Annotated[tuple[str, ...], NoDecode] = ("outlast.worker.agents.langgraph",)
    """Modules loaded once for all children of a worker: they share the memory, and start without the wait."""
    concurrency: int = Field(default=100, gt=0)
    """Runs at once in one child of a worker."""
    event_loop: Literal["uvloop", "asyncio"] = "uvloop"
    """On which agents run: the faster one, or the one that their code can patch."""
    isolation: ByAgent[Isolation] = Field(default_factory=lambda: {"*": Isolation.SHARED})
    """Whether runs of an agent share a process with others."""
    isolated_children: int | None = Field(default=None, gt=0, le=256)
    """Processes of one worker for agents that do not share one: as many of their runs at once; unset: one a core."""
    grace_seconds: float = Field(default=5.0, ge=0)
    """How long an agent's code may go on after it has been cancelled, or its time is up."""
    stall_seconds: float = Field(default=5.0, gt=0)
    """A child whose event loop stands still for so long is killed: code that blocks it holds up all its runs."""
    max_attempts: int = Field(default=5, gt=0)
    """A run whose attempts have so often ended with the death of their process is not tried again."""
    max_retries: ByAgent[Annotated[int, Field(ge=0)]] = Field(default_factory=lambda: {"*": _MAX_RETRIES})
    """How often a run is tried again after a transient error."""
    retry_seconds: float = Field(default=1.0, gt=0)
    """Before a run's first retry; twice as long before each further one."""
    queues: Annotated[tuple[str, ...], NoDecode] = ("default",)
    worker_connections: int = Field(default=6, ge=2)
    connection_life_seconds: float = Field(default=3000, gt=0, le=3000)
    """A connection is replaced after so long: less than rotating credentials and a managed database's sessions last."""
    rest_after_seconds: float = Field(default=30, ge=0)
    """After so long with nothing to do a process leaves the database alone, so that it can be suspended; 0: never."""
    lease_seconds: float = Field(default=6.0, gt=0)
    beat_seconds: float = Field(default=1.5, gt=0)
    """How often leases are renewed, cancels noticed and unannounced runs looked for."""
    self_fence_seconds: float | None = Field(default=None, gt=0)
    """So long after the last renewal a child suspends its runs; unset: three quarters of the lease."""
    sweep_seconds: float = Field(default=0.5, gt=0)
    """How often dead workers' runs are looked for while anything is queued or running."""
    drain_seconds: float = Field(default=25.0, ge=0)
    """How long a stopping worker lets its runs go on before it hands them back."""
    buffer_events: int = Field(default=1000, gt=0)
    """Events of one run that may wait for the database; beyond it the agent waits."""
    buffer_bytes: int = Field(default=2**20, gt=0)
    flush_min_interval_ms: float = Field(default=0.0, ge=0)
    """Wait at least so long between two flushes: fewer, larger commits where Postgres is the scarce resource."""
    health_port: int | None = Field(default=None, ge=1, le=65535)
    """Where a worker tells a host how it is; unset: nowhere."""

    retention_days: float = Field(default=30, ge=0, le=36_500)
    """A run is removed so long after its end; 0: never."""
    unstored_seconds: float = Field(default=600, gt=0, le=36_500 * 86_400)
    """The same for runs of requests with ``store: false``."""

    otel: bool | None = None
    """Trace runs with OpenTelemetry. Unset: where the standard variables name a collector."""
    mlflow: bool | None = None
    """Trace runs in MLflow, with what is said in them. Unset: where MLflow's variables are set."""
    log_format: Literal["console", "json"] | None = None
    """Unset: console on a terminal, else JSON."""
    log_level: str = Field(default="info", validation_alias=AliasChoices("OUTLAST_LOG_LEVEL", "LOG_LEVEL", "log_level"))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @field_validator("agents", mode="before")
    @classmethod
    def _parse_agents(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        agents: dict[str, str] = {}
        for entry in filter(None, map(str.strip, value.split(","))):
            if "=" not in entry and graph_files.is_graph_file(entry):
                agents |= graph_files.agents_in(entry)
            else:
                name, _, target = entry.partition("=")
                agents[name.strip()] = target.strip()
        return agents

    @field_validator("agents")
    @classmethod
    def _check_agents(cls, agents: dict[str, str]) -> dict[str, str]:
        for name, target in agents.items():
            if not (name and all(target.rpartition(":"))):
                raise ValueError(
                    f"{name or '(no name)'}={target}: write name=module:attribute, name=./file.py:attribute, "
                    "or langgraph.json for all graphs of that file"
                )
        return agents

    @field_validator("queues", "preload", "admins", "allowed_hosts", mode="before")
    @classmethod
    def _parse_list(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(host.lower().strip("[]") for host in hosts)
        if any(
            name_in(host.removeprefix("*.")) != name.removeprefix("*.") for host, name in zip(hosts, names, strict=True)
        ):
            raise ValueError("example.com, *.example.com or [fd00::1], without a scheme and a port; * is any name")
        return names

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        given = url.get_secret_value().strip()  # a file's last line end is no part of it
        if wrong := redis_url.wrong_with(given):
            raise ValueError(wrong)
        return SecretStr(given)

    @field_validator("db_schema")
    @classmethod
    def _check_schema(cls, name: str) -> str:
        # NOTIFY channels hold 63 bytes and carry the schema's name; Postgres keeps pg_ for itself.
        if not 1 <= len(name.encode()) <= 48 or name.startswith("pg_") or not name.isprintable():
            raise ValueError("1 to 48 bytes of printable text that does not begin with pg_")
        return name

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        if self.beat_seconds * 3 > self.lease_seconds:
            raise ValueError("OUTLAST_LEASE_SECONDS must be at least three times OUTLAST_BEAT_SECONDS")
        if self.sweep_seconds * 3 > self.lease_seconds:
            raise ValueError("OUTLAST_LEASE_SECONDS must be at least three times OUTLAST_SWEEP_SECONDS")
        if not self.beat_seconds * 2 <= self.self_fence < self.lease_seconds:
            raise ValueError(
                "OUTLAST_SELF_FENCE_SECONDS must be at least twice OUTLAST_BEAT_SECONDS "
                "and less than OUTLAST_LEASE_SECONDS"
            )
        return self

    @property
    def self_fence(self) -> float:
        """Seconds after the last renewal in which an attempt may go on: less than its lease lasts."""
        return self.self_fence_seconds or 0.75 * self.lease_seconds

    @property
    def worker_children(self) -> int:
        return self.children or cores()

    def durability_of(self, agent: str) -> Durability:
        return chosen(self.durability, agent, Durability.SYNC)

    def timeout_of(self, agent: str) -> int:
        """Seconds."""
        return chosen(self.task_timeout_seconds, agent, _TASK_TIMEOUT_SECONDS)

    def multitask_strategy_of(self, agent: str) -> MultitaskStrategy:
        return chosen(self.multitask_strategy, agent, MultitaskStrategy.ENQUEUE)

    def retry_policy(self, agent: str) -> RetryPolicy:
        return RetryPolicy(chosen(self.max_retries, agent, _MAX_RETRIES), self.retry_seconds)

    def is_isolated(self, agent: str) -> bool:
        """Whether each of its runs has a process to itself."""
        return chosen(self.isolation, agent, Isolation.SHARED) is Isolation.PROCESS

    def queue_of(self, agent: str) -> str:
        return ISOLATED_QUEUE if self.is_isolated(agent) else "default"

    @property
    def shared_queues(self) -> tuple[str, ...]:
        """Those from which children take runs that share a process; all, when no agent asks for one of its own."""
        return self.queues if self.isolated_queues else (*self.queues, ISOLATED_QUEUE)

    @property
    def isolated_queues(self) -> tuple[str, ...]:
        return (ISOLATED_QUEUE,) if any(map(self.is_isolated, self.agents)) else ()

    @property
    def served_queues(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.shared_queues, *self.isolated_queues)))

    @property
    def isolated_worker_children(self) -> int:
        return (self.isolated_children or cores()) if self.isolated_queues else 0

    @property
    def default_agent(self) -> str | None:
        return next(iter(self.agents), None)

    def required_database_url(self) -> str:
        if self.database_url is None:
            raise SettingsError(
                "DATABASE_URL is not set: the URL of a Postgres, as in postgresql://user:password@host/name "
                "(for Lakebase: LAKEBASE_AUTOSCALING_ENDPOINT or LAKEBASE_INSTANCE_NAME)"
            )
        return self.database_url.get_secret_value()

    def required_redis_url(self) -> str:
        if self.redis_url is None:
            raise SettingsError("REDIS_URL is not set: the URL of a Redis or Valkey, as in redis://host:6379/0")
        return self.redis_url.get_secret_value()
