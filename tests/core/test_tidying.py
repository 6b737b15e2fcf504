"""The cache is kept within bounds: what was not used for longest goes, what is in use and what is no entry stays."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from raytl.core import tidying
from raytl.core.tidying import (
    READ,
    SOURCES,
    SPARED_S,
    Entry,
    Part,
    entries,
    evict,
    remove,
    room_bytes,
    size_bytes,
    touch,
)

DAY_S = 24 * 3600.0


def used(path: Path, days_ago: float, size: int = 1000) -> Path:
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"0" * size)
    os.utime(path, (time.time() - days_ago * DAY_S,) * 2)
    return path


def bounded(limit_bytes: int) -> Part:
    return Part(SOURCES.name, SOURCES.holds, limit_bytes)


def test_what_was_not_used_for_longest_goes_until_the_rest_fits(tmp_path: Path) -> None:
    old, older, oldest = (used(tmp_path / "sources" / str(days), days) for days in (2, 5, 9))
    (tmp_path / "sources" / "9.lock").touch()
    evict(tmp_path, bounded(2000))
    assert not oldest.exists()
    assert older.exists()
    evict(tmp_path, bounded(500))
    assert not older.exists()
    assert not old.exists()
    assert (tmp_path / "sources" / "9.lock").exists()  # somebody may hold it


def test_what_was_used_within_a_day_stays_whatever_there_is(tmp_path: Path) -> None:
    new, touched, old = (used(tmp_path / "sources" / name, days) for name, days in (("a", 0.5), ("b", 9), ("c", 3)))
    touch(touched)
    assert [entry.path for entry in entries(tmp_path, SOURCES)] == [old, new, touched]
    evict(tmp_path, bounded(0))
    assert new.exists()
    assert touched.exists()
    assert not old.exists()
    evict(tmp_path, bounded(0), spared_s=0.0)
    assert entries(tmp_path, SOURCES) == []
    assert SPARED_S >= DAY_S


def test_what_would_not_be_the_same_again_stays(tmp_path: Path) -> None:
    own, other = used(tmp_path / "sources" / "own", 9), used(tmp_path / "sources" / "other", 5)
    evict(tmp_path, bounded(0), spares=lambda path: path == own)
    assert own.exists()
    assert not other.exists()


def test_of_runs_at_uris_only_the_copies_that_are_read_are_entries(tmp_path: Path) -> None:
    read = used(tmp_path / "runs" / "0123" / "read" / "photos", 3)
    written = used(tmp_path / "runs" / "0123" / "written" / "photos", 3)
    evict(tmp_path, Part(READ.name, READ.holds, 0, READ.entries))
    assert not read.exists()
    assert written.exists()  # it may not have been sent yet


def test_links_are_neither_counted_nor_followed(tmp_path: Path) -> None:
    kept = used(tmp_path / "elsewhere", 9)
    entry = used(tmp_path / "sources" / "a", 9)
    (entry / "link").symlink_to(kept, target_is_directory=True)
    assert size_bytes(entry) == 1000
    evict(tmp_path, bounded(0), spared_s=0.0)
    assert not entry.exists()
    assert (kept / "model.safetensors").exists()


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_removing_passes_over_what_is_gone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.npy"
    if kind == "file":
        path.touch()
    remove(Entry(path, 0, 0.0))
    assert not path.exists()
    touch(path)  # nothing is made
    assert not path.exists()


def test_an_empty_cache_has_no_entries(tmp_path: Path) -> None:
    assert entries(tmp_path, SOURCES) == []
    evict(tmp_path, SOURCES)


@pytest.mark.parametrize(("total", "free", "room"), [(100, 30, 25), (100, 3, -2), (2**42, 100 * 2**30, 98 * 2**30)])
def test_a_twentieth_of_a_disk_stays_free_and_no_more_than_2_gib(
    total: int, free: int, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a disk of 4 TB the cache kept nothing where 200 GB were free."""
    monkeypatch.setattr(tidying.shutil, "disk_usage", lambda folder: SimpleNamespace(total=total, free=free))
    assert room_bytes(tmp_path) == room
