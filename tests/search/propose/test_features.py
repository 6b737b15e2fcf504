"""How long an image takes through a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import MODEL, STAGES, data, workspace

from raytl.search.propose.features import forward_seconds


def test_a_network_is_timed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = workspace(tmp_path, data())
    first = forward_seconds(space, MODEL)
    assert len(first) == STAGES and all(seconds > 0 for seconds in first)
    loaded: list[str] = []
    monkeypatch.setattr(space, "source_model", loaded.append)
    assert forward_seconds(space, MODEL) == first and not loaded
