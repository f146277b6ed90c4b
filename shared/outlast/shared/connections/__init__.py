"""The one door to Postgres: every connection of ours is made here.

The address is an async callable, asked anew for each connection, so that rotating credentials fit in. Every connection
is autocommit, named, kept alive, and ends what holds a lock too long: a process that is stopped within a transaction
must not stop a takeover. A server that is too old is refused. One that is away, or falls silent, is waited for; it
holds up no other connection.
"""

from .address import ConnInfo, fixed, place
from .connection import Connection
from .database import Database, Dedicated
from .second_loop import turns
from .session import PINNED_PLAN
from .versions import OLDEST_MAJOR

__all__ = ["OLDEST_MAJOR", "PINNED_PLAN", "ConnInfo", "Connection", "Database", "Dedicated", "fixed", "place", "turns"]
