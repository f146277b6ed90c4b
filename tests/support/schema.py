"""The whole schema as one text, for reading: ``python -m tests.support.schema`` writes ``infra/schema.sql``."""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
from pathlib import Path

from outlast.infra.embedded import Postgres
from outlast.infra.migrate import migrate, shipped
from outlast.shared.connections import Database, fixed

COMMITTED = Path(__file__).parents[2] / "infra/schema.sql"
HEADER = """-- What the migrations make, in one piece, for reading. The sentences behind the constraints stand in the
-- migrations (infra/outlast/infra/migrations). Written by `make schema`; a test compares it with a migrated database.

"""


def dumped(url: str) -> str:
    """The tables, constraints and indexes of a migrated database's `outlast` schema, without LangGraph's."""
    program = Postgres(Path(tempfile.gettempdir())).binaries.folder / "pg_dump"
    ours = ["--schema-only", "--schema=outlast", "--exclude-table=outlast.checkpoint*"]
    command = [program, *ours, "--no-owner", "--no-privileges", url]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kept = [line for line in dump.splitlines() if not re.match(r"--|SET |SELECT pg_catalog|\\|CREATE SCHEMA", line)]
    return HEADER + re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip().replace("outlast.", "") + "\n"


def write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        postgres = Postgres(Path(folder) / "postgres")
        postgres.start()
        try:
            asyncio.run(migrate(Database(fixed(postgres.url), schema="outlast", application="schema"), shipped()))
            COMMITTED.write_text(dumped(postgres.url))
        finally:
            postgres.stop()


if __name__ == "__main__":
    write()
