"""Numbers and addresses as sentences have them."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

UNREADABLE = "an address that cannot be read"


def counted(number: int, one: str, several: str | None = None) -> str:
    """As in: 1 worker, 2,000 workers."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def lasted(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = int(seconds) // 60
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"


def redis_place(url: str) -> str:
    """Where a Redis is, without user and password. What is not clearly an address is not shown at all."""
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
        strange = "@" in parts.path + parts.query + parts.fragment  # a password with / or # ends the host early
        if parts.scheme == "unix" and not strange:
            return f"{parts.path}, database {parse_qs(parts.query).get('db', ['0'])[0]}"
        if strange or not parts.hostname or not (parts.path.strip("/") or "0").isdigit():
            return UNREADABLE
    except ValueError:
        return UNREADABLE
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}, database {parts.path.strip('/') or '0'}"
