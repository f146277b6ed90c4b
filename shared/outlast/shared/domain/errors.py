"""What can go wrong, by kind. A class's docstring is its default message. No error knows HTTP."""

from __future__ import annotations


class OutlastError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None, *, param: str | None = None, code: str | None = None) -> None:
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.param = param
        self.code = code or self.default_code
        super().__init__(self.message)

    default_code: str | None = None

    @property
    def told(self) -> str:
        """What a client is told: the message without what is only for operators."""
        return self.message


class Invalid(OutlastError):
    """The request is not valid."""

    default_code = "invalid_value"


class NotFound(OutlastError):
    """There is no such thing, or it is another principal's."""

    default_code = "not_found"


class RunNotFound(NotFound):
    """No response with this id was found."""

    default_code = "response_not_found"


class Unauthenticated(OutlastError):
    """The API key is missing or not valid."""

    default_code = "invalid_api_key"


class NotAllowed(OutlastError):
    """The API key does not open this."""

    default_code = "insufficient_scope"


class AlreadyFinished(OutlastError):
    """The run has finished already."""

    default_code = "already_finished"


class CannotRetry(OutlastError):
    """The run cannot be retried."""

    default_code = "cannot_retry"


class IdempotencyKeyReused(OutlastError):
    """The idempotency key has been used for another request."""

    default_code = "idempotency_key_reused"


class ThreadBusy(OutlastError):
    """The conversation has a run that has not ended, and this one was not to wait for it."""

    default_code = "thread_busy"


class QueueFull(OutlastError):
    """Too many runs are waiting."""

    default_code = "queue_full"

    def __init__(self, message: str | None = None, *, code: str | None = None, retry_after_seconds: int = 1) -> None:
        super().__init__(message, code=code)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(OutlastError):
    """The database cannot be reached."""

    default_code = "unavailable"

    def __init__(self, message: str | None = None, *, reason: str = "") -> None:
        """``reason`` is what the server or the network said: it names users and hosts, so clients do not see it."""
        self._told = message or (type(self).__doc__ or "")
        super().__init__(f"{self._told.rstrip('.')}: {reason}" if reason else self._told)

    @property
    def told(self) -> str:
        return self._told


class Stopping(Unavailable):
    """The server is being stopped; ask again."""


class Busy(Unavailable):
    """All connections of this process to the database are busy."""


class SchemaMismatch(OutlastError):
    """The database's schema is not the one this release needs."""

    default_code = "schema_mismatch"


class Unfit(OutlastError):
    """Connections to the database share sessions of the server: a pooler in between works by transaction. Let
    DATABASE_URL name the server itself, or a pooler in session mode (pool_mode = session)."""

    default_code = "unfit_database"


class LeaseLost(OutlastError):
    """This attempt may not write any more: the run was taken over, cancelled or deleted."""

    default_code = "lease_lost"
