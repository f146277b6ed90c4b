"""API keys, by the digest that is kept of them. Whether one has expired is for the database's clock to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from outlast.shared.connections import Connection
from outlast.shared.domain.keys import ApiKey, Identity, KeyState, Scope

TOUCH_SECONDS = 60
"""How precisely it is known when a key was last used."""

_STATE = """CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'active' END"""


@dataclass(frozen=True, slots=True)
class Found:
    """A key that somebody has shown."""

    key_id: UUID
    identity: Identity
    state: KeyState
    to_touch: bool
    """It was last written down as used longer than a minute ago."""


async def create(
    connection: Connection,
    *,
    key_id: UUID,
    digest: bytes,
    hint: str,
    name: str,
    identity: Identity,
    life_seconds: float | None,
) -> None:
    """Keep a new key; without a life in seconds it does not expire. Repeating it changes nothing."""
    await connection.execute(
        """INSERT INTO api_keys (id, digest, hint, principal, name, scopes, expires_at)
           VALUES (%s, %s, %s, %s, %s, %s::text[], now() + make_interval(secs => %s)) ON CONFLICT (id) DO NOTHING""",
        (key_id, digest, hint, identity.principal, name, sorted(identity.scopes), life_seconds),
    )


async def find(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, Found]:
    """The keys with these digests, in whichever state."""
    cursor = await connection.execute(
        f"""SELECT digest, id, principal, scopes, {_STATE},
                   last_used_at IS NULL OR last_used_at < now() - make_interval(secs => %s)
            FROM api_keys WHERE digest = ANY(%b::bytea[])""",
        (TOUCH_SECONDS, list(digests)),
        prepare=True,
    )
    return {
        bytes(digest): Found(key_id, _identity(principal, scopes), KeyState(state), to_touch)
        for digest, key_id, principal, scopes, state, to_touch in await cursor.fetchall()
    }


async def touch(connection: Connection, key_ids: Sequence[UUID]) -> None:
    """Write down that these keys are in use; those that another replica is writing down are left to it."""
    await connection.execute(
        """
        WITH used AS MATERIALIZED (
            SELECT id FROM api_keys
            WHERE id = ANY(%b::uuid[])
              AND (last_used_at IS NULL OR last_used_at < now() - make_interval(secs => %s))
            ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
        UPDATE api_keys SET last_used_at = now() WHERE id = ANY(ARRAY(SELECT id FROM used))
        """,
        (list(key_ids), TOUCH_SECONDS),
        prepare=True,
    )


_KEY = f"SELECT id, hint, name, principal, scopes, {_STATE}, created_at, expires_at, last_used_at FROM api_keys"


async def every(connection: Connection) -> list[ApiKey]:
    """All keys, the newest first."""
    cursor = await connection.execute(f"{_KEY} ORDER BY id DESC")
    return [_api_key(*row) for row in await cursor.fetchall()]


async def matching(connection: Connection, *, key_id: UUID | None, hint: str, digest: bytes) -> list[ApiKey]:
    """The keys that have this id, begin with this hint, or are the key with this digest."""
    cursor = await connection.execute(
        f"{_KEY} WHERE id = %s OR hint = %s OR digest = %s ORDER BY id DESC", (key_id, hint, digest)
    )
    return [_api_key(*row) for row in await cursor.fetchall()]


async def revoke(connection: Connection, key_id: UUID) -> bool:
    """End a key for good. False when it was revoked before, which it stays."""
    cursor = await connection.execute(
        "UPDATE api_keys SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL", (key_id,)
    )
    return cursor.rowcount == 1


def _identity(principal: str, scopes: Sequence[str]) -> Identity:
    return Identity(principal, frozenset(Scope(scope) for scope in scopes))


def _api_key(
    key_id: UUID,
    hint: str,
    name: str,
    principal: str,
    scopes: Sequence[str],
    state: str,
    created_at: datetime,
    expires_at: datetime | None,
    last_used_at: datetime | None,
) -> ApiKey:
    identity = _identity(principal, scopes)
    return ApiKey(key_id, hint, name, identity, KeyState(state), created_at, expires_at, last_used_at)
