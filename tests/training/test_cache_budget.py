"""The array cache's limits: the user's budget, and a share of the disk that it never takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raytl.core.errors import UserError
from raytl.training.arrays import DEFAULT_BUDGET_BYTES, ArrayCache


def keep(cache: ArrayCache, *keys: str) -> set[str]:
    """Ask for entries of 1,128 bytes; what is on disk after that."""
    for key in keys:
        assert cache.get(key, lambda: np.ones(125)).sum() == 125
    return {path.stem for path in cache.root.glob("*.npy")}


def test_the_budget_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ArrayCache(tmp_path).budget_bytes == DEFAULT_BUDGET_BYTES
    monkeypatch.setenv("RAYTL_CACHE_BYTES", "2500")
    assert keep(ArrayCache(tmp_path), "a", "b", "c") == {"b", "c"}


@pytest.mark.parametrize("given", ["", "20G", "-1", "1.5"])
def test_a_budget_that_is_no_number_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("RAYTL_CACHE_BYTES", given)
    with pytest.raises(UserError, match=f"RAYTL_CACHE_BYTES is '{given}'; give a whole number of bytes, such as"):
        ArrayCache(tmp_path)


def test_room_is_made_before_an_entry_is_written(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, budget_bytes=2500)
    keep(cache, "a", "b")
    sizes = []

    def compute() -> np.ndarray:
        sizes.append(cache.size_bytes())
        return np.ones(250)

    cache.get("large", compute)
    assert {path.stem for path in tmp_path.glob("*.npy")} == {"large"}
    assert sizes == [2256]


def test_nothing_is_kept_on_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    assert keep(ArrayCache(tmp_path), "a") == {"a"}
    assert keep(ArrayCache(tmp_path, disk_reserve=1.0), "a", "b") == {"a"}
