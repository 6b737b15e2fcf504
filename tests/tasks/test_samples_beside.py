"""Tar files that are read as one: beside tables, damaged, with names in common, with several images a sample."""

from __future__ import annotations

import base64
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raytl.core import tidying
from raytl.core.errors import UserError
from raytl.tasks import read_labelled
from raytl.tasks.items import FileItem
from raytl.tasks.readers import archive, read_unlabelled, table
from tests.tasks.test_archives_in_place import picture
from tests.tasks.test_samples import LABELS, folder, said, samples, shard


class TestTablesBesideTarFiles:
    """Of what the tar files hold, or of other images."""

    def test_that_name_what_they_hold_are_read_against_them(self, tmp_path: Path) -> None:
        for number in range(2):
            files = {f"{n}.png": picture(n) for n in range(5 * number, 5 * number + 5)}
            shard(tmp_path / f"images-{number}.tar", files)
        (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{n}.png,{LABELS[n]}\n" for n in range(10)))
        images = read_labelled(tmp_path).images
        assert [images.classes[label] for label in images.labels] == LABELS
        assert [item.open().tobytes() for item in images.items] == [picture_of(n) for n in range(10)]

    def test_give_groups_that_the_samples_do_not(self, tmp_path: Path) -> None:
        for number in range(2):
            shard(tmp_path / f"data-{number}.tar", samples(range(10 * number, 10 * number + 10)))
        rows = [f"{n:06d}.png,{LABELS[n % 2]},p{n // 4}" for n in range(20)]
        (tmp_path / "meta.csv").write_text("\n".join(["path,label,patient", *rows]))
        images = read_labelled(tmp_path).images
        assert images.groups is not None
        assert len(set(images.groups.tolist())) == 5

    def test_with_images_in_them_are_the_data(self, tmp_path: Path) -> None:
        for number in range(2):
            shard(tmp_path / f"images-{number}.tar", {f"{n}.png": picture(n + 20) for n in range(5)})
        cells = pa.array([picture(n) for n in range(10)], pa.binary())
        pq.write_table(pa.table({"image": cells, "label": LABELS}), tmp_path / "train.parquet")
        images = read_labelled(tmp_path).images
        assert [item.open().tobytes() for item in images.items] == [picture_of(n) for n in range(10)]

    def test_of_images_elsewhere_are_the_data(self, tmp_path: Path) -> None:
        elsewhere = folder(tmp_path / "elsewhere", {f"{n}.png": picture(n) for n in range(10)})
        for number in range(2):
            shard(tmp_path / "data" / f"videos_{number}.tar", {f"{n}.mp4": b"x" for n in range(5)})
        rows = [f"{elsewhere}/{n}.png,{LABELS[n]}" for n in range(10)]
        (tmp_path / "data" / "train.csv").write_text("\n".join(["path,label", *rows]))
        assert len(read_labelled(tmp_path / "data").images) == 10

    def test_of_addresses_are_none(self, tmp_path: Path) -> None:
        for number in range(2):
            shard(tmp_path / f"{number:05d}.tar", samples(range(10 * number, 10 * number + 10)))
            urls = [f"http://127.0.0.1:1/{n}.png" for n in range(10)]
            pq.write_table(pa.table({"url": urls, "key": [*map(str, range(10))]}), tmp_path / f"{number:05d}.parquet")
        assert len(read_labelled(tmp_path).images) == 20
        assert len(read_unlabelled(tmp_path).images) == 20

    def test_that_are_large_are_read_where_they_are(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpacked: Path
    ) -> None:
        for number in range(2):
            shard(tmp_path / f"images-{number}.tar", {f"{5 * number + n}.png": picture(n) for n in range(5)})
        (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{n}.png,{LABELS[n]}\n" for n in range(10)))
        monkeypatch.setattr(table, "HELD_BYTES", 10)
        read = read_labelled(tmp_path)
        assert len(read.images) == 10
        assert not unpacked.exists()
        assert not any("unpacked" in message for message in said(read))


def picture_of(number: int) -> bytes:
    with Image.open(io.BytesIO(picture(number))) as image:
        return image.tobytes()


def test_tar_files_without_images_are_not_read_as_one(tmp_path: Path) -> None:
    for number in range(2):
        shard(tmp_path / f"videos_{number}.tar", {f"{n}.mp4": b"x" for n in range(5)})
    with pytest.raises(UserError, match="no images found; unpack what it holds"):
        read_labelled(tmp_path)


@pytest.mark.parametrize("common", ["README.txt", ".DS_Store", "__MACOSX/._x", "cat/patient0_5.png"])
def test_what_two_tar_files_have_in_common_renames_nothing_else(common: str, tmp_path: Path) -> None:
    for number in range(2):
        files = {f"{LABELS[n % 2]}/patient{n // 2}_{number}.png": picture(10 * number + n) for n in range(10)}
        shard(tmp_path / f"data-{number}.tar", files | {common: picture(100 + number)})
    images = read_labelled(tmp_path).images
    names = [item.name.rpartition("/")[2] for item in images.items]
    assert sum("@" in name for name in names) == 2 * common.endswith(".png")
    assert images.groups is not None
    assert len(set(images.groups.tolist())) == 5 + 2 * common.endswith(".png")


def test_a_table_takes_no_other_s_place_that_has_its_name(tmp_path: Path) -> None:
    for number in range(2):
        rows = [f"{number}{n}.png,{LABELS[n]}" for n in range(10)]
        files = {f"{number}{n}.png": picture(10 * number + n) for n in range(10)}
        shard(tmp_path / f"data-{number}.tar", files | {"labels.csv": "\n".join(["path,label", *rows]).encode()})
    with pytest.raises(
        UserError, match=r"its tables data-0@labels\.csv and data-1@labels\.csv are of different images"
    ):
        read_labelled(tmp_path)


class TestSeveralImagesInASample:
    """One file says the label of all."""

    def test_are_kept_together(self, tmp_path: Path) -> None:
        files = {}
        for n in range(10):
            files |= {f"{n}.left.png": picture(n), f"{n}.right.png": picture(n + 20), f"{n}.cls": str(n % 2).encode()}
        read = read_labelled(shard(tmp_path / "a.tar", files))
        assert read.images.groups is not None
        assert read.images.groups.tolist() == [n // 2 for n in range(20)]
        assert "20 images are of 10 samples with several; those of one sample stay on one side of every split" in said(
            read
        )

    def test_the_names_of_patients_come_first(self, tmp_path: Path) -> None:
        files = {}
        for n in range(20):
            name = f"patient{n // 4}_{n}"
            files |= {f"{name}.a.png": picture(n), f"{name}.b.png": picture(n + 30), f"{name}.cls": b"01"[n % 2 :][:1]}
        read = read_labelled(shard(tmp_path / "a.tar", files))
        assert read.images.groups is not None
        assert len(set(read.images.groups.tolist())) == 5

    def test_what_the_user_says_comes_first(self, tmp_path: Path) -> None:
        files = {}
        for n in range(20):
            files |= {f"{n}x{n % 4}.a.png": picture(n), f"{n}x{n % 4}.b.png": picture(n + 30)}
            files[f"{n}x{n % 4}.cls"] = str(n % 3 % 2).encode()
        read = read_labelled(shard(tmp_path / "a.tar", files), group_by=r"x(\d)")
        assert read.images.groups is not None
        assert len(set(read.images.groups.tolist())) == 4

    @pytest.mark.parametrize("part", ["seg", "mask", "depth", "label", "semantic_seg", "mask_1"])
    def test_masks_are_left_out_and_said(self, part: str, tmp_path: Path) -> None:
        files = {}
        for n in range(10):
            files |= {f"{n}.png": picture(n), f"{n}.{part}.png": picture(n + 20), f"{n}.cls": str(n % 2).encode()}
        read = read_labelled(shard(tmp_path / "a.tar", files))
        assert [item.name.rpartition("/")[2] for item in read.images.items] == [f"{n}.png" for n in range(10)]
        what = f"10 images are named like a mask or the like of the same sample (first: 0.{part}.png); left out"
        assert what in said(read)

    def test_alone_they_are_images(self, tmp_path: Path) -> None:
        files = {}
        for n in range(10):
            files |= {f"{n}.depth.png": picture(n), f"{n}.cls": str(n % 2).encode()}
        assert len(read_labelled(shard(tmp_path / "a.tar", files)).images) == 10


@pytest.mark.parametrize("content", [b"", b"<html>404</html>" * 100, None])
def test_a_damaged_one_of_several_is_named(content: bytes | None, tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"data-{number}.tar", samples(range(10 * number, 10 * number + 10)))
    path = tmp_path / "data-1.tar"
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(UserError, match=r"/data-1\.tar: the tar file cannot be read \(.+\); fetch or write it again"):
        read_labelled(tmp_path)


def test_a_full_disk_says_how_to_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpacked: Path) -> None:
    for number in range(2):
        path = shard(tmp_path / f"data-{number}.tar", samples(range(10 * number, 10 * number + 10)))
        path.write_bytes(gzip.compress(path.read_bytes()))
    monkeypatch.setattr(tidying, "room_bytes", lambda folder: 0)
    with pytest.raises(UserError, match=r"no room for what it unpacks to; make room there, with `raytl cache clear`"):
        read_labelled(tmp_path)


def test_whether_one_image_is_at_hand_asks_for_its_tar_file_alone(tmp_path: Path) -> None:
    for number in range(2):
        shard(tmp_path / f"data-{number}.tar", samples(range(10 * number, 10 * number + 10)))
    items = read_labelled(tmp_path).images.items
    (tmp_path / "data-1.tar").unlink()
    assert [item.filesystem.at_hand(item.path) for item in (items[0], items[-1])] == [True, False]  # type: ignore[union-attr]


def test_a_file_named_like_the_mark_of_bzip2_may_be_the_first(tmp_path: Path) -> None:
    files = {f"{label}/{n}.png": picture(n) for n in range(10) for label in [["BZhao", "Li"][n % 2]]}
    assert len(read_labelled(shard(tmp_path / "a.tar", files)).images) == 10


def test_that_no_file_has_a_label_the_first_few_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for n in range(60):
        files |= {f"{n}.png": picture(n), f"{n}.json": json.dumps({"caption": "x", "width": n}).encode()}
    path, read, asked = shard(tmp_path / "a.tar", files), FileItem.read, list[str]()

    def counted(item: FileItem, *args: int, **options: int) -> bytes:
        asked.append(item.path)
        return read(item, *args, **options)

    monkeypatch.setattr(FileItem, "read", counted)
    with pytest.raises(UserError, match="no labels"):
        read_labelled(path)
    assert len([name for name in asked if name.endswith(".json")]) < 30


class TestOneOfASplitBesideSeveral:
    """``val.tar`` beside ``train-000000.tar``."""

    @pytest.mark.parametrize("names", [["train-0.tar", "train-1.tar", "val.tar"], ["train.tar", "val.tar"]])
    def test_is_a_task_with_splits(self, names: list[str], tmp_path: Path) -> None:
        for number, name in enumerate(names):
            shard(tmp_path / name, samples(range(10 * number, 10 * number + 10)))
        read = read_labelled(tmp_path)
        assert len(read.images) == 10 * len(names)
        assert any("and validation (10 images) are the target" in message for message in said(read))

    def test_may_not_be_of_the_same_split(self, tmp_path: Path) -> None:
        for number, name in enumerate(["train.tar", "train_masks.tar"]):
            shard(tmp_path / name, samples(range(10 * number, 10 * number + 10)))
        with pytest.raises(UserError, match="unpack what it holds"):
            read_labelled(tmp_path)

    @pytest.mark.parametrize(
        ("there", "lost"), [((1, 2), "1 is not there (0 or 3)"), ((1, 3), "1 is not there (2)"), ((0, 2), "(1)")]
    )
    def test_others_that_are_missing_are_said(self, there: tuple[int, ...], lost: str, tmp_path: Path) -> None:
        for number in there:
            shard(tmp_path / f"data_{number}_of_3.tar", samples(range(10 * number, 10 * number + 10)))
        assert any(message.endswith(lost) for message in said(read_labelled(tmp_path)))

    def test_the_last_that_is_missing_is_said(self, tmp_path: Path) -> None:
        for number in range(2):
            name = f"train-{number:05d}-of-00003.tar"
            shard(tmp_path / name, samples(range(10 * number, 10 * number + 10)))
        what = "of the tar files that train-00000-of-00003 is one of 1 is not there (2)"
        assert what in said(read_labelled(tmp_path))


def test_an_archive_is_hashed_once_for_all_tables_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpacked: Path
) -> None:
    files = {}
    for number in range(3):
        file = io.BytesIO()
        cells = pa.array([picture(10 * number + n) for n in range(10)], pa.binary())
        pq.write_table(pa.table({"image": cells, "label": LABELS}), file)
        files[f"train-{number:05d}-of-00003.parquet"] = file.getvalue()
    hashed, real = list[Path](), archive.hash_file

    def counted(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(archive, "hash_file", counted)
    monkeypatch.setattr(table, "HELD_BYTES", 1000)
    items = read_labelled(shard(tmp_path / "a.tar", files)).images.items
    assert len(items) == 30
    assert len(list(unpacked.iterdir())) == 3
    assert len(hashed) == 1


def test_a_table_that_went_from_the_cache_is_unpacked_by_who_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpacked: Path
) -> None:
    monkeypatch.setattr(table, "HELD_BYTES", 1000)
    texts = [base64.b64encode(noise(n)).decode() for n in range(10)]
    rows = "\n".join(["image,label", *(f"{text},{label}" for text, label in zip(texts, LABELS, strict=True))])
    path = shard(tmp_path / "a.tar", {"train.csv": rows.encode()})
    items = read_labelled(path).images.items
    for copy in unpacked.iterdir():
        copy.unlink()
    with pytest.raises(UserError, match=r"row 1: what its table was unpacked to went from the cache; run again"):
        items[0].open()
    assert read_labelled(path).images.items[0].open().tobytes() == items_of(texts[0])


def noise(number: int) -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (32, 32), np.random.default_rng(number).bytes(3072)).save(file, "PNG")
    return file.getvalue()


def items_of(text: str) -> bytes:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return image.tobytes()
