"""Identifiers: UUIDs ordered by time inside, prefixed text on the wire."""

from __future__ import annotations

import base64
import os
import re
import time
from uuid import UUID

RESPONSE_PREFIX = "resp_"
_ITEM_ID = re.compile("[a-z]+_([0-9a-f]{32})([0-9a-f]{4,8})")


def uuid7(milliseconds: int, randomness: bytes) -> UUID:
    """A version 7 UUID (RFC 9562): 48 bits of Unix time, then 74 random bits of the ten bytes given."""
    tail = int.from_bytes(randomness[:10])
    value = (
        (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | (tail >> 62 & 0xFFF) << 64 | 0b10 << 62 | tail & (2**62 - 1)
    )
    return UUID(int=value)


def new_uuid() -> UUID:
    return uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def response_id(run_id: UUID) -> str:
    """The run's id on the wire."""
    return RESPONSE_PREFIX + run_id.hex


def parse_response_id(text: str) -> UUID | None:
    """The run's id, or None when the text cannot be one."""
    if len(text) != len(RESPONSE_PREFIX) + 32 or not text.startswith(RESPONSE_PREFIX):
        return None
    try:
        run_id = UUID(hex=text[len(RESPONSE_PREFIX) :])
    except ValueError:
        return None
    return run_id if response_id(run_id) == text else None


def item_id(run_id: UUID, prefix: str, index: int) -> str:
    """The id of an item: its run and its place in the output, so that whoever has the id finds the item.

    An output index is never given twice, by no attempt: neither is an id. Clients are told nothing about its form.
    """
    return f"{prefix}{run_id.hex}{index:04x}"


def parse_item_id(text: str) -> tuple[UUID, int] | None:
    """The run and the output index that `item_id` made this id, or a call's id, of; None for an id of another make."""
    match = _ITEM_ID.fullmatch(text)
    if match is None:
        return None
    run_id, index = UUID(hex=match[1]), int(match[2], 16)
    return (run_id, index) if f"{index:04x}" == match[2] else None


def short(run_id: UUID) -> str:
    """22 characters, for NOTIFY payloads."""
    return base64.urlsafe_b64encode(run_id.bytes)[:22].decode()


def from_short(text: str) -> UUID:
    return UUID(bytes=base64.urlsafe_b64decode(text + "=="))
