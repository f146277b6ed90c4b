"""Keys: how they look and what is kept of them."""

from __future__ import annotations

import subprocess
import sys
from uuid import UUID

import pytest

from outlast.shared.domain.keys import (
    Identity,
    Scope,
    digest_of,
    hint_of,
    is_key,
    is_principal,
    key_name,
    new_key,
    parse_key_name,
)


def test_a_key_is_recognised_and_its_hint_gives_little_away() -> None:
    key = new_key(bytes(range(224, 256)))
    assert key.startswith("sk-outlast-") and is_key(key) and len(digest_of(key)) == 32
    assert key.startswith(hint_of(key)) and len(key) - len(hint_of(key)) >= 37  # 222 bits and more stay unknown
    for wrong in (key + "\n", key[:-1], f" {key}", key.replace("sk-", "sk_"), hint_of(key), ""):
        assert not is_key(wrong)


def test_a_key_is_named_by_its_id() -> None:
    key_id = UUID(int=7)
    assert parse_key_name(key_name(key_id)) == parse_key_name(key_id.hex) == key_id
    for wrong in ("", "key_", "key_" + "g" * 32, "key_" + "0" * 31, "key_" + "0" * 32 + "\n", "key_" + "١" * 32):
        assert parse_key_name(wrong) is None


def test_admin_includes_the_other_scopes_and_no_scope_includes_none() -> None:
    assert all(Identity("a", frozenset({Scope.ADMIN})).may(scope) for scope in Scope)
    assert not any(Identity("a").may(scope) for scope in Scope)
    assert not Identity("a", frozenset({Scope.ACT_FOR_OTHERS})).may(Scope.ADMIN)


@pytest.mark.parametrize(
    ("name", "may"), [("a", True), ("ä b@c", True), ("x" * 257, False), ("", False), ("a\0", False), ("\ud800", False)]
)
def test_a_principal_is_named_by_printable_text(name: str, may: bool) -> None:
    assert is_principal(name) == may


LOGGED = """
import logging
from outlast.shared import logs, settings
logs.configure(settings.load(log_format="console"), part="api")
def handle(header):
    raise RuntimeError("broke")
try:
    handle("sk-outlast-secret")
except RuntimeError:
    logging.getLogger("uvicorn.error").exception("in the application")
"""


def test_a_logged_exception_does_not_show_what_variables_held() -> None:
    script = LOGGED.replace('"sk-outlast-secret"', "'-'.join(('sk', 'outlast', 'secret'))")
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stderr
    assert "RuntimeError: broke" in said and "sk-outlast-secret" not in said
