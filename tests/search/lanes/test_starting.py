"""A Ray of this machine's own that cannot be started."""

from __future__ import annotations

import pytest

from raytl.core.errors import UserError
from raytl.search.lanes.cluster import start


def test_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", "/dev/null/ray")
    with pytest.raises(
        UserError, match=r"a Ray of this machine's own cannot be started: .*; raytl doctor looks for"
    ) as said:
        start(1)
    assert "\n" not in str(said.value)
