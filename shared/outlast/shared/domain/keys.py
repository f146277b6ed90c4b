"""API keys: how one looks, what is kept of it, and who calls with it."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

KEY_PREFIX = "sk-outlast-"
KEY_BYTES = 32
MAX_NAME_CHARACTERS = 256
_KEY = re.compile(KEY_PREFIX + "[A-Za-z0-9_-]{43}")  # 32 bytes in base64 for URLs
_HINT_CHARACTERS = len(KEY_PREFIX) + 6
_ID_PREFIX = "key_"


class Scope(StrEnum):
    """What a key opens beyond its principal's own runs."""

    ADMIN = "admin"
    """``/admin``, and everything that the other scopes open."""
    ACT_FOR_OTHERS = "act-for-others"
    """To name the principal of each request: for a gateway that has authenticated its users itself."""


class KeyState(StrEnum):
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is calling, and what else than their own runs is open to them."""

    principal: str
    scopes: frozenset[Scope] = frozenset()

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key. The key itself is nowhere."""

    key_id: UUID
    hint: str
    name: str
    identity: Identity
    state: KeyState
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


def new_key(randomness: bytes) -> str:
    """A key made of 32 random bytes."""
    assert len(randomness) == KEY_BYTES
    return KEY_PREFIX + base64.urlsafe_b64encode(randomness).decode().rstrip("=")


def is_key(text: str) -> bool:
    """Whether the text can be a key at all."""
    return _KEY.fullmatch(text) is not None


def digest_of(key: str) -> bytes:
    """What is kept of a key. A slow hash protects secrets that can be guessed; nobody guesses 256 random bits."""
    return hashlib.sha256(key.encode()).digest()


def hint_of(key: str) -> str:
    """Its first characters: enough to recognise it, far too little to guess the rest."""
    return key[:_HINT_CHARACTERS]


def key_name(key_id: UUID) -> str:
    """The key's id as people see it."""
    return _ID_PREFIX + key_id.hex


def parse_key_name(text: str) -> UUID | None:
    """The key's id, or None when the text cannot be one."""
    digits = text.removeprefix(_ID_PREFIX)
    return UUID(hex=digits) if re.fullmatch("[0-9a-f]{32}", digits) else None


def is_principal(name: str) -> bool:
    """Whether a principal may have this name: 1 to 256 printable characters."""
    return 1 <= len(name) <= MAX_NAME_CHARACTERS and name.isprintable()
