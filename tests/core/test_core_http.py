"""A client for what is elsewhere, under every proxy that the environment may name."""

from __future__ import annotations

import sys

import pytest

from raytl.core.errors import UserError
from raytl.core.http import http_client


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "gopher://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_a_sentence(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setitem(sys.modules, "socksio", None)  # which nothing here needs, but may be installed
    with pytest.raises(UserError, match="http://model: cannot be reached through the proxy that ALL_PROXY"):
        http_client("http://model")


def test_no_proxy_is_looked_at_on_the_way_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1:9")
    http_client("http://127.0.0.1", trust_env=False).close()
