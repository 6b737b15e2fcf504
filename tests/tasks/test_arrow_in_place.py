"""Images in large Arrow files: read where they lie, record batch by record batch."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from image_tables import ARROW, COUNT, FOOTER, PICTURES, TABLES, Counting, counted, hub, seen, small_parts

from raytl.core.errors import UserError
from raytl.tasks import rows
from raytl.tasks.readers import read_labelled, table
from raytl.tasks.rows import RowItem


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small tables are."""
    small_parts(monkeypatch)
    monkeypatch.setattr(table, "HELD_BYTES", 0)


@pytest.mark.parametrize("write", ARROW)
@pytest.mark.parametrize("make", TABLES)
def test_so_is_that_of_an_arrow_file(
    tmp_path: Path,
    make: Callable[[Path], pa.Table],
    write: Callable[[Path, pa.Table], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    what = make(tmp_path)
    path = write(tmp_path / "data.arrow", what)
    held = read_labelled(path)
    monkeypatch.setattr(table, "HELD_BYTES", 0)
    there = read_labelled(path)
    assert seen(there) == seen(held)
    words_stand_for_others = any(pa.types.is_dictionary(kind) for kind in what.schema.types)
    assert any(isinstance(item, RowItem) for item in there.images.items) != words_stand_for_others


@pytest.mark.parametrize("write", ARROW)
def test_record_batches_are_found_in_any_order_and_read_once_in_order(
    tmp_path: Path, in_place: None, write: Callable[[Path, pa.Table], Path]
) -> None:
    path = write(tmp_path / "data.arrow", hub(tmp_path))
    images, counting = read_labelled(path).images, Counting()
    items = counted(images, counting)
    assert [item.read() for item in items] == PICTURES
    assert counting.opened == 1
    assert counting.bytes < 1.1 * path.stat().st_size + FOOTER
    order = np.random.default_rng(0).permutation(COUNT)
    arrived = pickle.loads(pickle.dumps(images.subset(order)))
    assert [item.read() for item in arrived.items] == [PICTURES[number] for number in order]


@pytest.mark.parametrize("write", ARROW)
def test_an_arrow_file_that_changes_or_goes_is_one_sentence(
    tmp_path: Path, in_place: None, write: Callable[[Path, pa.Table], Path]
) -> None:
    path = write(tmp_path / "data.arrow", hub(tmp_path))
    images = read_labelled(path).images
    elsewhere = pickle.loads(pickle.dumps(images))
    kept = path.rename(tmp_path / "kept")
    with pytest.raises(UserError, match=r"data\.arrow row 3: the table is not there any more; put it back"):
        elsewhere.items[2].open()
    write(path, hub(tmp_path).slice(1))
    with pytest.raises(UserError, match=r"data\.arrow row 3: is not what it was when the table was first read"):
        elsewhere.items[2].open()
    assert [item.read() for item in images.items] == PICTURES
    kept.replace(path)
    assert [item.read() for item in elsewhere.items] == PICTURES
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"data\.arrow: not a readable Arrow file \(.*\); write it again"):
        read_labelled(path)


@pytest.mark.parametrize("write", ARROW)
def test_no_more_record_batches_are_held_than_there_is_room_for(
    tmp_path: Path, in_place: None, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, pa.Table], Path]
) -> None:
    monkeypatch.setattr(rows, "cores", lambda: 64)
    images = read_labelled(write(tmp_path / "data.arrow", pa.concat_tables([hub(tmp_path)] * 6))).images
    batch = max(sum(map(len, PICTURES[first : first + 16])) for first in range(0, COUNT, 16))
    held = []
    for item in images.items:
        assert isinstance(item, RowItem)
        item.read()
        held.append(item.rows.held_bytes())
    assert max(held) < rows.HELD_BYTES + rows.MOST_READINGS * 1.2 * batch < 6 * sum(map(len, PICTURES)) / 3
