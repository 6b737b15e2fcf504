"""The array cache's limits: the user's budget, and a share of the disk that it never takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import data, workspace

from raytl.core.errors import UserError
from raytl.training import arrays
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


def test_nothing_is_kept_on_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keep(ArrayCache(tmp_path), "a") == {"a"}
    monkeypatch.setattr(arrays, "room_bytes", lambda folder: -10_000)
    assert keep(ArrayCache(tmp_path), "a", "b") == {"a"}


def test_where_what_trials_share_cannot_be_kept_a_search_says_so_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = data()
    assert not workspace(tmp_path, held).short_of_disk
    monkeypatch.setattr(arrays, "room_bytes", lambda folder: -10_000)
    said = workspace(tmp_path, held).short_of_disk
    assert str(tmp_path / "arrays") in said and "there is room for 0 MiB" in said
    assert said.endswith("free space there, or point RAYTL_HOME at another place")
    monkeypatch.undo()
    monkeypatch.setenv("RAYTL_CACHE_BYTES", "5000")
    assert workspace(tmp_path, held).short_of_disk.endswith("raise RAYTL_CACHE_BYTES")


def test_what_was_kept_before_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ArrayCache(tmp_path)
    keep(cache, "a", "b")
    monkeypatch.setattr(arrays, "room_bytes", lambda folder: -1128)
    assert cache.most_bytes() == 1128
    assert keep(cache, "c") == {"c"}


def test_large_files_are_kept_as_networks_see_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = replace(data(), image_side=4000)
    small = workspace(tmp_path, held, image_size=None)
    monkeypatch.setattr(arrays, "room_bytes", lambda folder: 20 * 3 * 224**2 * small.images)
    assert not small.short_of_disk
