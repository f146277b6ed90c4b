"""The driver's errors as ours, for every connection: what a retry may mend, and what is said of it."""

from __future__ import annotations

import psycopg

from .domain.errors import LeaseLost, SchemaMismatch, Unavailable

_LEASE_LOST = "OL001"  # raised by the function fence() of our schema
_SCHEMA_ERRORS = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InvalidSchemaName,
)
# What a retry may mend though the driver files it elsewhere: a failover has left us with a standby, or a session was
# ended because it slept within a transaction, or a new server has not been given its grants yet. And the driver takes a
# statement for prepared that it has sent behind one which failed in the same pipeline.
_PASSING = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidSqlStatementName,
)
_LASTING = (psycopg.errors.ProgramLimitExceeded,)  # of the data: no retry makes it smaller
READ_ONLY = "25006"
NOT_PREPARED = "26000"
_SENTENCES = {
    "25P03": "The database ended a transaction that had been idle for too long.",
    "25P04": "The database did not finish a transaction within its time limit.",
    NOT_PREPARED: "The database did not know a prepared statement.",
    READ_ONLY: "The database is read-only.",
    "40001": "The database could not order concurrent changes.",
    "40P01": "The database could not order concurrent changes.",
    "42501": "The database does not let its user do this.",
    "53100": "The database's disk is full.",
    "53200": "The database is out of memory.",
    "53300": "The database takes no more connections.",
    "55P03": "The database did not grant a lock within its time limit.",
    "57014": "The database did not finish a statement within its time limit.",
}


class NoAnswer(psycopg.OperationalError):
    """A server that is reached, and has not answered a statement for longer than one may take."""


def translated(error: psycopg.Error) -> Exception:
    """The driver's error as ours; itself when nothing is known of it."""
    if isinstance(error, _SCHEMA_ERRORS):
        return SchemaMismatch(f"{str(error).splitlines()[0]}: run `outlast migrate`")
    if error.sqlstate == _LEASE_LOST:
        return LeaseLost()
    if isinstance(error, _PASSING) and not isinstance(error, _LASTING):
        return Unavailable(_sentence(error), reason=_reason(error))
    return error


def _sentence(error: psycopg.Error) -> str | None:
    """What a client is told; None when the database could not be reached."""
    if isinstance(error, NoAnswer):
        return "The database did not answer in time."
    return _SENTENCES.get(error.sqlstate or "")


def _reason(error: psycopg.Error) -> str:
    """What the server said, without the address, which may hold a password."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].rpartition(": ")[2].strip() if lines else type(error).__name__
