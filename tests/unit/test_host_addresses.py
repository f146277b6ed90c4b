"""Which names lead to this machine alone, and which are meant by a pattern."""

from __future__ import annotations

import pytest

from outlast.shared.domain.addresses import is_among, is_loopback, name_in


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost", "localhost"), ("LocalHost:8000", "localhost"), ("localhost.", "localhost"), ("[::1]:80", "::1"),
        ("127.0.0.1:8000", "127.0.0.1"), ("example.com:", "example.com"), ("::1", None), ("", None), (":80", None),
        ("a b", None), ("localhost:80:80", None), ("localhost:80@evil.example", None), ("evil.example/localhost", None),
        ("[::1", None), ("[]", None), ("localhost:x", None), ("localhost\n", None),
    ],
)  # fmt: skip
def test_the_name_in_a_host_header(host: str, name: str | None) -> None:
    assert name_in(host) == name


def test_loopback_is_what_no_other_machine_can_be() -> None:
    for name in ("localhost", "a.localhost", "127.0.0.1", "127.8.9.10", "::1", "0:0:0:0:0:0:0:1"):
        assert is_loopback(name), name
    for name in (
        "",
        "evil.example",
        "localhost.evil.example",
        "xlocalhost",
        "10.0.0.1",
        "0.0.0.0",
        "::",
        "127.0.0.1.x",
    ):
        assert not is_loopback(name), name


def test_a_pattern_means_a_name_those_below_it_or_any() -> None:
    assert is_among("a.example", ("b.example", "a.example")) and is_among("x.a.example", ("*.a.example",))
    assert is_among("anything", ("*",))
    for name in ("a.example", "xa.example", "a.example.x"):
        assert not is_among(name, ("*.a.example", "b.example")), name
