"""The form of REDIS_URL: one that kombu and redis-py take alike. What is wrong is named; the value never is."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

_FORMS = "redis://[user:password@]host:6379/0, rediss://… for TLS, or unix:///path/to/socket?db=0"
_QUOTED = "percent-encode what a user or password holds of / ? # @ : and spaces"
_TLS_OPTIONS: dict[str, tuple[str, ...]] = {
    "ssl_cert_reqs": ("none", "optional", "required"),
    "ssl_check_hostname": ("true", "false"),
    "ssl_ca_certs": (),
    "ssl_certfile": (),
    "ssl_keyfile": (),
}
"""Those that both take, and the values that mean the same to both; none: any."""


def wrong_with(url: str) -> str | None:
    """What is wrong, and the way out; None: nothing."""
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if "sentinel" in scheme:
        return f"Sentinel is not supported: name a service or proxy that follows the primary, as {_FORMS}"
    if "cluster" in scheme:
        return f"cluster clients are not supported: name one address that serves all keys, as {_FORMS}"
    if scheme not in ("redis", "rediss", "unix"):
        return f"not a supported address: write {_FORMS}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # it quotes the value
        return f"the host or the port cannot be read: write {_FORMS}; {_QUOTED}"
    if "@" in parts.path + parts.query + parts.fragment:
        return f"the password ends the host early: {_QUOTED}"
    if any(character.isspace() for character in url):
        return f"it holds a space: {_QUOTED}"
    if scheme != "unix" and (not parts.hostname or port == 0):
        return f"it names no host, or port 0: write {_FORMS}"
    if scheme == "unix" and not parts.path.strip("/"):
        return f"it names no socket: write {_FORMS}"
    options = parse_qs(parts.query, keep_blank_values=True)
    taken = {"db", *(_TLS_OPTIONS if scheme == "rediss" else ())}
    if not options.keys() <= taken:
        return f"behind the ? only {', '.join(sorted(taken))} is taken"
    for option, values in _TLS_OPTIONS.items():
        if values and any(value not in values for value in options.get(option, ())):
            return f"{option} is none of {', '.join(values)}"
    path = "" if scheme == "unix" else unquote(parts.path).strip("/")
    numbers = [path or "0", *options.get("db", [])]
    if not all(number.isascii() and number.isdigit() for number in numbers):
        return f"the database is not a number: write {_FORMS}"
    return None
