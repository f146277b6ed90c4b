"""Lakebase: where the database is, and a login to it that is minted anew before it expires.

databricks-sdk is loaded by the first login only: who names a DATABASE_URL never waits for it.
"""

from .lakebase import Lakebase, lakebase_of
from .target import Branch, Endpoint, Instance, Target, target_of

__all__ = ["Branch", "Endpoint", "Instance", "Lakebase", "Target", "lakebase_of", "target_of"]
