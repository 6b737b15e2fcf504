"""What tests of data share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def unpacked(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where packed archives are unpacked: a cache of the test's own, made where it is of use."""
    home = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("RAYTL_HOME", str(home))
    yield home / "unpacked"
    shutil.rmtree(home, ignore_errors=True)
