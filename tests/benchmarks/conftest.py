"""The benchmarks are scripts beside the package; their parts that decide something are tested like it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(autouse=True)
def _nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that a benchmark fetches stays on the import path, where the tests that come after it find it."""

    def fetched(requirement: str) -> Path:
        pytest.fail(f"this test has a benchmark fetch {requirement}", pytrace=False)

    monkeypatch.setattr("packages.fetched", fetched)
