"""Images in the rows of large Parquet files: read where they lie, and the same as if they had been held."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from image_tables import (
    COUNT,
    FOOTER,
    LABELS,
    PICTURES,
    TABLES,
    Counting,
    binary,
    counted,
    hub,
    picture,
    seen,
    small_parts,
    stream,
    written,
)
from pyarrow import fs

from raytl.core.errors import UserError
from raytl.tasks import Task, row_groups, rows
from raytl.tasks.items import EncodedItem, FileItem
from raytl.tasks.readers import read_labelled, read_unlabelled, table
from raytl.tasks.readers.listing import Place, TableOptions
from raytl.tasks.readers.table import list_table
from raytl.tasks.rows import MOST_READINGS, RowItem, Rows, _Reading


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """However small tables are."""
    small_parts(monkeypatch)
    monkeypatch.setattr(table, "HELD_BYTES", 0)
    yield
    rows._recent.clear()


@pytest.mark.parametrize("settings", [{}, {"row_group_size": 1000}, {"use_dictionary": False}])
@pytest.mark.parametrize("make", TABLES)
def test_a_task_is_the_same_wherever_its_images_are(
    tmp_path: Path, make: Callable[[Path], pa.Table], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)
    path = written(tmp_path / "data.parquet", make(tmp_path), **settings)
    held = read_labelled(path)
    monkeypatch.setattr(table, "HELD_BYTES", 0)
    there = read_labelled(path)
    assert {type(item) for item in held.images.items} <= {EncodedItem, FileItem}
    assert sum(isinstance(item, RowItem) for item in there.images.items) >= len(there.images) - 2
    assert seen(there) == seen(held)


def test_a_table_is_a_large_one_by_all_that_is_read_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in range(3):
        last = written(tmp_path / f"train-0000{part}-of-00003.parquet", hub(tmp_path).slice(20 * part, 20))
    monkeypatch.setattr(table, "HELD_BYTES", 2 * last.stat().st_size)
    assert {type(item) for item in read_labelled(last).images.items} == {EncodedItem}
    together = read_labelled(tmp_path).images
    assert {type(item) for item in together.items} == {RowItem}
    assert [item.read() for item in together.items] == PICTURES


def test_a_table_far_away_that_is_held_is_read_in_few_pieces(tmp_path: Path) -> None:
    path = written(tmp_path / "data.parquet", pa.table({"image": PICTURES * 8, "label": LABELS * 8}), row_group_size=40)
    counting = Counting()
    found = list_table(Place(counting, str(path), "data.parquet"))
    assert {type(entry.item) for entry in found.entries} == {EncodedItem}
    assert counting.reads < pq.ParquetFile(path).num_row_groups


def test_what_is_held_is_bounded_however_large_a_table_is(tmp_path: Path, in_place: None) -> None:
    image, mean = pa.array(PICTURES * 10, pa.binary()), sum(map(len, PICTURES)) / COUNT
    for path in (tmp_path / f"{number}.parquet" for number in range(3)):
        written(path, pa.table({"image": image, "label": LABELS * 10}), row_group_size=20, use_dictionary=False)
    before = pa.total_allocated_bytes()
    results = [read_labelled(path).images for path in sorted(tmp_path.iterdir())]
    assert all(len(images) == 10 * COUNT for images in results)
    allocated, held = [], []
    for images in results:
        assert len(pickle.dumps(images)) < len(images) * mean / 10
        for item in images.items:
            item.read()
            allocated.append(pa.total_allocated_bytes() - before)
            held.append(sum(images.items[0].rows.held_bytes() for images in results))
    assert max(held) <= rows.HELD_BYTES + rows.MOST_READINGS * row_groups.AT_ONCE_BYTES
    # Beside these, pages of the row groups that are being read: as they lie in the file, and unpacked.
    assert max(allocated) <= max(held) + rows.MOST_READINGS * 5 * 20 * mean < 10 * COUNT * mean


@pytest.mark.parametrize("row_group_size", [12, 1000])
def test_a_row_group_is_read_once_where_images_are_asked_for_in_order(
    tmp_path: Path, in_place: None, row_group_size: int
) -> None:
    path = written(tmp_path / "data.parquet", row_group_size=row_group_size)
    counting = Counting()
    items = counted(read_unlabelled(path).images, counting)
    assert [item.read() for item in items] == PICTURES
    assert counting.opened == 1
    assert counting.bytes < 1.1 * path.stat().st_size + FOOTER


def test_two_that_read_at_different_places_do_not_make_each_other_begin_anew(tmp_path: Path, in_place: None) -> None:
    path = written(tmp_path / "data.parquet", pa.table({"image": PICTURES * 8}), row_group_size=1000)
    counting = Counting()
    items = counted(read_unlabelled(path).images, counting)
    for first, second in zip(items[:240], items[240:], strict=True):
        assert first.read() == second.read()
    assert counting.bytes < 2.2 * path.stat().st_size + FOOTER


def test_eight_that_read_at_different_places_do_not_make_each_other_begin_anew(
    tmp_path: Path, in_place: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MOST_READINGS", MOST_READINGS)
    images = pa.table({"image": PICTURES * 8})
    path = written(tmp_path / "data.parquet", images, row_group_size=1000, use_dictionary=False)
    items = read_unlabelled(path).images.items
    batches, following = [], _Reading.next
    monkeypatch.setattr(_Reading, "next", lambda reading: batches.append(reading) or following(reading))
    assert [item.read() for item in items] == PICTURES * 8
    once = len(batches)
    for number in range(COUNT):
        assert {items[lane * COUNT + number].read() for lane in range(8)} == {PICTURES[number]}
    assert len(batches) - once <= 8 * once  # each may have had to begin with the row group's first image


def test_rows_are_read_at_once_by_the_size_of_those_in_their_row_group(tmp_path: Path, in_place: None) -> None:
    """Many thumbnails, and some photographs in row groups of their own between them."""
    small = [picture(number, 4) for number in range(400)]
    images = [*small[:200], *PICTURES, *small[200:]]
    path = written(tmp_path / "data.parquet", pa.table({"image": images}), row_group_size=20, use_dictionary=False)
    found = row_groups.parquet(path.open("rb"), far=False)
    groups = row_groups.parquet_groups(found, "image")
    batches = [batch.column("image") for batch in row_groups.parquet_rows(found, groups)]
    assert [image for batch in batches for image in batch.to_pylist()] == images
    assert max(batch.nbytes for batch in batches) < 1.2 * row_groups.AT_ONCE_BYTES
    assert max(map(len, batches)) > 100


def test_how_many_cores_there_are_is_not_asked_for_each_part_that_is_held(
    tmp_path: Path, in_place: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(rows, "cores", lambda: asked.append(1) or 64)
    monkeypatch.setattr(rows, "HELD_BYTES", 0)
    images = read_unlabelled(written(tmp_path / "data.parquet")).images
    for item in images.items:
        item.read()
    assert len(asked) <= len(images)


def test_images_are_found_in_any_order(tmp_path: Path, in_place: None) -> None:
    images = read_labelled(written(tmp_path / "data.parquet")).images
    order = np.random.default_rng(0).permutation(COUNT)
    arrived = pickle.loads(pickle.dumps(images.subset(order)))
    assert [item.read() for item in arrived.items] == [PICTURES[number] for number in order]
    assert arrived.items[0].read(8) == PICTURES[order[0]][:8]


def test_many_tables_are_not_all_open(tmp_path: Path, in_place: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_OPEN", 2)
    for number in range(6):
        written(tmp_path / f"{number}.parquet", hub(tmp_path).slice(10 * number, 10))
    images = read_labelled(tmp_path).images
    tables: set[Rows] = {item.rows for item in images.items}  # type: ignore[attr-defined]
    assert len(tables) == 6
    # Threads that read side by side may leave some open a moment longer, until the next one is read.
    images.items[0].read()
    assert sum(one._file is not None for one in tables) <= 2
    assert [item.read() for item in images.items] == PICTURES
    assert sum(one._file is not None for one in tables) <= 2


def test_a_file_that_is_replaced_is_read_as_it_was_by_who_has_it_open_and_refused_by_others(
    tmp_path: Path, in_place: None
) -> None:
    path = written(tmp_path / "data.parquet")
    images = read_labelled(path).images
    elsewhere = pickle.loads(pickle.dumps(images))
    kept = path.rename(tmp_path / "kept")
    with pytest.raises(UserError, match=r"data\.parquet row 1: the table is not there any more; put it back"):
        elsewhere.items[0].open()
    written(path, hub(tmp_path).take(list(range(COUNT))[::-1]))
    assert [item.read() for item in images.items] == PICTURES
    for item in elsewhere.items[:3]:
        with pytest.raises(UserError, match=r"data\.parquet row \d: is not what it was when the table was first read"):
            item.open()
    kept.replace(path)
    assert [item.read() for item in elsewhere.items] == PICTURES


def test_another_file_of_the_same_size_is_not_taken_for_the_first(
    tmp_path: Path, in_place: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (written(tmp_path / name, compression="none") for name in ("data.parquet", "other.parquet"))
    content = bytearray(other.read_bytes())
    place = content.index(PICTURES[3]) + len(PICTURES[3]) // 2
    content[place] ^= 255
    other.write_bytes(content)
    images = read_labelled(one).images
    other.replace(one)
    rows._recent.clear()
    first: RowItem = images.items[0]  # type: ignore[assignment]
    first.rows.forget()
    assert [item.read() for item in images.items[:3]] == PICTURES[:3]
    with pytest.raises(UserError, match="row 4: is not what it was"):
        images.items[3].read()
    with pytest.raises(UserError, match="row 5: is not what it was"):  # of which nobody knew what it had to be
        replace(images.items[4], digest="").read()  # type: ignore[type-var]


def test_a_table_that_is_cut_off_meanwhile_is_one_sentence(tmp_path: Path, in_place: None) -> None:
    path = written(tmp_path / "data.parquet")
    images = read_labelled(path).images
    rows_of: RowItem = images.items[0]  # type: ignore[assignment]
    rows_of.rows.forget()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"^[^\n]*data\.parquet row 31: is not what it was[^\n]*$"):
        images.items[30].open()


def damaged(path: Path) -> Path:
    """With a second row group that begins with nothing."""
    first = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = first.dictionary_page_offset or first.data_page_offset
    content[start : start + 64] = bytes(64)
    path.write_bytes(content)
    return path


def test_a_damaged_row_group_is_told_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = damaged(written(tmp_path / "data.parquet"))
    for held_bytes in (1 << 30, 0):
        monkeypatch.setattr(table, "HELD_BYTES", held_bytes)
        with pytest.raises(UserError, match=r"data\.parquet: not a readable Parquet file \(.*\); write it again"):
            read_labelled(path)


def test_a_row_group_that_is_damaged_meanwhile_fails_its_images_alone(tmp_path: Path, in_place: None) -> None:
    path = written(tmp_path / "data.parquet")
    images = read_labelled(path).images
    arrived = pickle.loads(pickle.dumps(images))
    damaged(path)
    assert [item.read() for item in arrived.items[:15]] == PICTURES[:15]
    with pytest.raises(UserError, match=r"row 20: cannot be read any more \(.*\); check the table"):
        arrived.items[19].read()
    assert [item.read() for item in arrived.items[32:]] == PICTURES[32:]


class Replacing(LocalFileSystem):
    """The local disk, where ``after`` takes the place of a file once that is open. opened: how often one was."""

    cachable = False

    def __init__(self, after: bytes) -> None:
        super().__init__()
        self.after, self.opened = after, 0

    def _open(self, path: str, *args: Any, **settings: Any) -> Any:
        file = super()._open(path, *args, **settings)
        self.opened += 1
        Path(path).unlink()
        Path(path).write_bytes(self.after)
        return file


@pytest.mark.parametrize("held_bytes", [1 << 30, 0])
def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_bytes: int
) -> None:
    small_parts(monkeypatch)
    monkeypatch.setattr(table, "HELD_BYTES", held_bytes)
    path = written(tmp_path / "captured-0.parquet")
    replacing = Replacing(written(tmp_path / "next", hub(tmp_path).slice(7)).read_bytes())
    images = read_labelled(str(path), filesystem=fs.PyFileSystem(fs.FSSpecHandler(replacing))).images
    assert [item.read() for item in images.items] == PICTURES  # type: ignore[attr-defined]
    assert replacing.opened == 1


def test_tables_at_an_address_are_read_where_they_lie_and_refused_where_they_change(
    tmp_path: Path, in_place: None
) -> None:
    memory = MemoryFileSystem()
    for part in range(2):
        content = written(tmp_path / "part", hub(tmp_path).slice(30 * part, 30)).read_bytes()
        memory.pipe(f"/rows/train-0000{part}-of-00002.parquet", content)
    images = read_labelled("/rows", filesystem=fs.PyFileSystem(fs.FSSpecHandler(memory))).images
    assert {type(item) for item in images.items} == {RowItem}
    arrived = pickle.loads(pickle.dumps(images))
    assert [item.read() for item in arrived.items] == PICTURES
    memory.pipe("/rows/train-00000-of-00002.parquet", content[:-1])
    elsewhere = pickle.loads(pickle.dumps(images))
    with pytest.raises(UserError, match=r"00000-of-00002\.parquet row 1: is not what it was"):
        elsewhere.items[0].read()
    memory.rm("/rows/train-00000-of-00002.parquet")
    with pytest.raises(UserError, match=r"00000-of-00002\.parquet row 1: the table is not there any more"):
        elsewhere.items[0].read()
    assert [item.read() for item in elsewhere.items[30:]] == PICTURES[30:]


@pytest.mark.parametrize("write", [written, stream])
def test_the_file_of_a_table_that_cannot_be_listed_does_not_stay_open(
    tmp_path: Path, in_place: None, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, pa.Table], Path]
) -> None:
    files: list[Any] = []
    monkeypatch.setattr(table, "opened", lambda *at: files.append(row_groups.opened(*at)) or files[-1])
    path = write(tmp_path / ("data.arrow" if write is stream else "data.parquet"), hub(tmp_path))
    with pytest.raises(UserError, match="kind"):
        list_table(Place(None, str(path), path.name), TableOptions(label="kind"))
    assert [file.closed for file in files] == [True]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    two = pa.Table.from_arrays([pa.array(PICTURES), pa.array(LABELS), pa.array(LABELS)], ["image", "label", "label"])
    with pytest.raises(UserError, match="two columns are named 'label'; rename one"):
        read_labelled(written(tmp_path / "data.parquet", two))


def test_names_that_are_no_utf_8_are_read(tmp_path: Path, in_place: None) -> None:
    path = written(tmp_path / "data.parquet").rename(tmp_path / "d\udcffta.parquet")
    assert [item.read() for item in read_labelled(path).images.items] == PICTURES  # type: ignore[attr-defined]


def test_a_task_has_the_same_name_for_caches_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "data.parquet", binary(tmp_path))
    held = Task(path)
    monkeypatch.setattr(table, "HELD_BYTES", 0)
    there = Task(path)
    assert there.data.fingerprint == held.data.fingerprint
    assert there.test is not None and held.test is not None and there.test.fingerprint == held.test.fingerprint
    assert there.problems == held.problems
