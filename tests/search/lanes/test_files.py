"""Files of a search as a process reads them: itself where that is possible, else by asking the driver."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from raytl.core.hashing import hash_bytes
from raytl.search.lanes.files import AT_ONCE_BYTES, MOST_AHEAD, Files, carried, read_ahead
from raytl.tasks.items import FileItem
from raytl.tasks.row_groups import parquet_groups
from raytl.tasks.rows import RowItem, Rows


def nobody(number: int, count: int) -> list[bytes]:
    raise AssertionError("nobody is to be asked")


class FarAway:
    """A file system that reads the local disk, or is refused everything. opened: names of what was asked of it."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.opened: list[str] = []
        self._refuses = refuses

    def open_input_file(self, path: str) -> Any:
        self.opened.append(Path(path).name)
        if self._refuses:
            raise ValueError("no keys")  # as what fsspec's raise, which is no OSError
        return Path(path).open("rb")


class Driver:
    """What is asked of the driver: (number, count). It has the files on its disk."""

    def __init__(self, items: Sequence[FileItem | RowItem]) -> None:
        self.asked: list[tuple[int, int]] = []
        self._items = items

    def __call__(self, number: int, count: int) -> list[bytes]:
        self.asked.append((number, count))
        return read_ahead(self._items[number : number + count])


@pytest.fixture
def local(tmp_path: Path) -> list[FileItem]:
    items = []
    for number in range(600):
        (tmp_path / str(number)).write_bytes(content := f"image {number}".encode())
        items.append(FileItem(str(number), str(tmp_path / str(number)), digest=hash_bytes(content)))
    return items


def test_what_is_far_away_is_opened_once_and_ahead_in_order(local: list[FileItem]) -> None:
    far = FarAway()
    files = Files([replace(item, filesystem=far) for item in local], nobody)
    assert [files.read(number) for number in range(600)] == [item.read() for item in local]
    assert sorted(far.opened, key=int) == [str(number) for number in range(600)]


def test_of_what_is_picked_here_and_there_nothing_else_is_read(local: list[FileItem]) -> None:
    far, picked = FarAway(), [5, 100, 200, 150, 599]
    files = Files([replace(item, filesystem=far) for item in local], nobody)
    assert [files.read(number) for number in picked] == [local[number].read() for number in picked]
    assert far.opened == [str(number) for number in picked]


def test_who_is_refused_asks_the_driver_for_more_each_time(local: list[FileItem]) -> None:
    far, driver = FarAway(refuses=True), Driver(local)
    files = Files([replace(item, filesystem=far) for item in local], driver)
    assert [files.read(number) for number in range(600)] == [item.read() for item in local]
    assert [number for number, _ in driver.asked] == sorted({number for number, _ in driver.asked})
    assert len(driver.asked) < 15 and driver.asked[-1][1] == MOST_AHEAD
    assert len(far.opened) <= 2  # the first and the one behind it


def test_another_file_at_the_same_place_is_not_taken_for_the_drivers(local: list[FileItem]) -> None:
    driver = Driver(local)
    here = [replace(item, path=local[(number + 1) % 3].path) for number, item in enumerate(local[:3])]
    files = Files(here, driver)
    assert [files.read(number) for number in range(3)] == [item.read() for item in local[:3]]
    assert driver.asked


def test_large_files_come_a_few_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(AT_ONCE_BYTES // 4 + 1))
    item = FileItem("large", str(tmp_path / "large"))
    assert len(read_ahead([item] * 20)) == 4
    (tmp_path / "large").write_bytes(bytes(AT_ONCE_BYTES + 1))
    assert len(read_ahead([item] * 20)) == 1


def test_nothing_is_read_beyond_a_bad_file(local: list[FileItem]) -> None:
    far = FarAway()
    for items in (local, [replace(item, filesystem=far) for item in local]):
        some = [*items[:3], replace(items[3], digest="of something else"), *items[4:]]
        assert read_ahead(some) == [item.read() for item in items[:3]]


def test_a_file_system_that_does_not_travel_holds_up_nothing_else(local: list[FileItem]) -> None:
    one = FarAway()
    one.opened = threading.Lock()  # type: ignore[assignment]
    arrived = pickle.loads(pickle.dumps(carried([replace(local[0], filesystem=one), local[1]])))
    driver = Driver(local)
    files = Files(arrived, driver)
    assert [files.read(0), files.read(1)] == [local[0].read(), local[1].read()]
    assert [number for number, _ in driver.asked] == [0]


def test_files_of_one_file_system_share_it_again_where_they_arrive(local: list[FileItem]) -> None:
    far = fs.SubTreeFileSystem(str(Path(local[0].path).parent), fs.LocalFileSystem())
    items = [replace(item, path=item.name, filesystem=far) for item in local[:9]]
    arrived = pickle.loads(pickle.dumps(carried(items)))
    assert len({id(item.filesystem) for item in arrived}) == 1
    files = Files(arrived, nobody)
    assert [files.read(number) for number in range(9)] == [item.read() for item in local[:9]]


@pytest.fixture
def rows(tmp_path: Path) -> list[RowItem]:
    """Images in the rows of a table: texts, which is all that is asked of them here."""
    contents = [f"image {number}".encode() for number in range(600)]
    pq.write_table(pa.table({"image": contents}), tmp_path / "table.parquet", row_group_size=50, compression="none")
    with pq.ParquetFile(tmp_path / "table.parquet") as found:
        groups = parquet_groups(found, "image")
    table = Rows(str(tmp_path / "table.parquet"), None, "image", groups, (tmp_path / "table.parquet").stat().st_size)
    return [RowItem(str(number), table, number, hash_bytes(content)) for number, content in enumerate(contents)]


def test_rows_of_a_table_are_read_where_it_is(rows: list[RowItem]) -> None:
    arrived = pickle.loads(pickle.dumps(carried(rows)))
    files = Files(arrived, nobody)
    assert [files.read(number) for number in range(600)] == [item.read() for item in rows]


def test_who_has_no_such_table_asks_the_driver_for_more_each_time(tmp_path: Path, rows: list[RowItem]) -> None:
    driver = Driver(rows)
    expected = [item.read() for item in rows]
    arrived = pickle.loads(pickle.dumps(rows))
    (tmp_path / "table.parquet").unlink()
    files = Files(arrived, driver)
    assert [files.read(number) for number in range(600)] == expected
    assert len(driver.asked) < 15 and driver.asked[-1][1] == MOST_AHEAD


def test_who_has_another_table_of_the_same_size_asks_the_driver(tmp_path: Path, rows: list[RowItem]) -> None:
    expected, driver = [item.read() for item in rows], Driver(rows)
    arrived = pickle.loads(pickle.dumps(rows))
    content = (tmp_path / "table.parquet").read_bytes()
    (tmp_path / "table.parquet").unlink()  # the driver has it open
    (tmp_path / "table.parquet").write_bytes(content.replace(b"image 1", b"image 7"))
    files = Files(arrived, driver)
    assert [files.read(number) for number in range(600)] == expected
    assert driver.asked[0][0] == 1  # and then on, without looking at each row here


def test_rows_of_a_table_far_away_are_read_by_one_request_for_many(rows: list[RowItem]) -> None:
    far = FarAway()
    table = rows[0].rows.on(far)
    moved: list[RowItem | FileItem] = [replace(item, rows=table) for item in rows]
    files = Files(moved, nobody)
    assert [files.read(number) for number in range(600)] == [item.read() for item in rows]
    assert far.opened == ["table.parquet"]
    refused = FarAway(refuses=True)
    files = Files([replace(item, rows=table.on(refused)) for item in rows], driver := Driver(rows))
    assert [files.read(number) for number in range(5)] == [item.read() for item in rows[:5]]
    assert driver.asked
