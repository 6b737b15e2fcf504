"""``raytl cache``: what is kept is told by part, and goes when it is asked for."""

from __future__ import annotations

import os
import time
from pathlib import Path

DAY_S = 24 * 3600.0


def kept(home: Path, name: str, days_ago: float) -> Path:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"0" * 2048)
    os.utime(path, (time.time() - days_ago * DAY_S,) * 2)
    return path


def test_parts_are_told_and_cleared(raytl, place):
    home = place.folder / "home"
    old, new = kept(home, "arrays/old.npy", 40), kept(home, "arrays/new.npy", 1)
    source, lot = kept(home, "sources/model", 40), kept(home, "submitted/lot", 40)
    parts = {part["part"]: part for part in raytl("cache", "list", "--json").document["parts"]}
    assert (parts["arrays"]["entries"], parts["arrays"]["size_bytes"]) == (2, 4096)
    assert parts["recipes"]["entries"] == 0

    dry = raytl("cache", "clear", "--older-than", "30d", "--dry-run", "--json").document
    assert (dry["entries"], dry["deleted"]) == (1, False)
    assert old.exists()

    done = raytl("cache", "clear", "--older-than", "30d", "--yes")
    assert done.code == 0, done.err
    assert "removed 1 entr" in done.out
    assert [path.exists() for path in (old, source, new, lot)] == [False, True, True, True]

    assert raytl("cache", "clear", "submitted", "sources", "arrays", "--yes").code == 0
    assert not source.exists()
    assert not new.exists()
    assert not lot.exists()
    assert "nothing to remove" in raytl("cache", "clear").out


def test_an_unknown_part_is_refused(raytl):
    done = raytl("cache", "clear", "array", "--yes")
    assert done.code == 2
    assert "the cache has no part 'array'" in done.err
    assert "arrays" in done.err


def test_nothing_goes_without_a_word(raytl, place):
    path = kept(place.folder / "home", "arrays/a.npy", 1)
    done = raytl("cache", "clear")
    assert done.code == 2
    assert path.exists()
