"""The private Postgres and Valkey which stand in for DATABASE_URL and REDIS_URL in development and tests."""

from .errors import AlreadyRunning, EmbeddedError
from .postgres import Postgres
from .valkey import Valkey

__all__ = ["AlreadyRunning", "EmbeddedError", "Postgres", "Valkey"]
