"""A user's token is stored nowhere, whatever an agent does with it: what is written passes here."""

from __future__ import annotations

from outlast.agent import Secret


def masked(text: str, secret: Secret | None) -> str:
    """The text with stars for the secret. Both are as JSON writes them: a token has nothing that JSON escapes."""
    return text if secret is None else text.replace(word := secret.reveal(), "*" * len(word))


def masked_bytes(data: bytes, secret: Secret | None) -> bytes:
    """The same; of the same length, which a serialised form may have noted."""
    return data if secret is None else data.replace(word := secret.reveal().encode(), b"*" * len(word))
