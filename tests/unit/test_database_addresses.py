"""DATABASE_URL is refused at once when libpq would refuse it, in words that show nothing of it."""

from __future__ import annotations

import pytest

from outlast.shared.connections import Database
from outlast.shared.settings import SettingsError, load

WRONG = {
    "postgresql://u:hunter2@h/db?bogus=1": "does not know (bogus)",
    "host=h bogus=hunter2": "does not know",
    "postgresql://u:p@ss?hunter2=1@h/db": "does not know",
    "postgresql://u:hunter2 2@h/db": "holds a space",
    "postgresql://u:hunter2%zz@h/db": "Write %25",
    "postgresql://u:p@h:hunter2/db": "the port is not a number",
    "postgresql://u:p@h:65536/db": "the port is not a number",
    "postgresql://u:hunter2/2@h/db": "percent-encode",
    "postgresql://u:hunter2@h/db?sslmode=hunter2": "sslmode is none of disable,",
    "postgresql+asyncpg://u:hunter2@h/db": "begin with postgresql://",
    "mysql://u:hunter2@h/db": "begin with postgresql://",
    "postgresql://u:hunter2@[::1/db": "libpq understands",
    "host=h password='hunter2": "libpq understands",
    "hunter2": "libpq understands",
}


@pytest.mark.parametrize("url", WRONG)
def test_a_wrong_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Database.of(load(database_url=url), application="tests")
    assert raised.value.message.startswith("DATABASE_URL: ") and WRONG[url] in raised.value.message
    assert "hunter2" not in f"{raised.value!r}{raised.value.__cause__!r}"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%2Fw%20d@h:5432/db?sslmode=require&application_name=x",
        "postgres://a:b@h1:1,h2:2/db?target_session_attrs=read-write",
        "postgresql://h1,h2:3/x",
        "postgresql:///x?host=/tmp&port=5432",
        "host=h port=5433 dbname=x password='a b'",
        "service=mine",
    ],
)
def test_what_libpq_takes_is_taken(url: str) -> None:
    Database.of(load(database_url=url), application="tests")
