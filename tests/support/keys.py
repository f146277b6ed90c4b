"""API keys made directly in the store."""

from __future__ import annotations

import os

from outlast.shared.connections import Database
from outlast.shared.domain.ids import new_uuid
from outlast.shared.domain.keys import KEY_BYTES, Identity, Scope, digest_of, hint_of, new_key
from outlast.shared.store import keys


async def a_key(database: Database, principal: str, *scopes: Scope, life_seconds: float | None = None) -> str:
    key = new_key(os.urandom(KEY_BYTES))
    identity, key_id = Identity(principal, frozenset(scopes)), new_uuid()
    await database.run(
        lambda c: keys.create(
            c, key_id=key_id, digest=digest_of(key), hint=hint_of(key), name="test", identity=identity,
            life_seconds=life_seconds,
        )
    )  # fmt: skip
    return key


async def revoked(database: Database, key: str) -> None:
    [found] = await database.run(lambda c: keys.matching(c, key_id=None, hint="", digest=digest_of(key)))
    await database.run(lambda c: keys.revoke(c, found.key_id))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}
