"""Tar files: each image is read where it lies, of packed ones on disk, and is what it would be unpacked."""

from __future__ import annotations

import base64
import bz2
import gc
import gzip
import io
import lzma
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raytl.core import tidying
from raytl.core.errors import UserError
from raytl.tasks.readers import archive, read_labelled, table, tars
from raytl.tasks.readers.archive import Archive
from raytl.tasks.readers.tars import inner, look_through
from raytl.tasks.rows import RowItem
from tests.tasks.pictures import encoded

DEEP = "very long/" * 30


def picture(number: int) -> bytes:
    """Of a class's shade."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 20 + 100 * (number % 2), 30)).save(file, "PNG")
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, to
    tar.addfile(info, io.BytesIO(data))


def extracted(path: Path) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """What the standard library unpacks, all of it; and names that come again."""
    held: dict[str, bytes] = {}
    again: list[str] = []
    with tarfile.open(path) as tar:
        for info in tar:
            if not (info.isfile() or info.islnk() or info.issym()):
                continue
            try:
                file = tar.extractfile(info)
            except (KeyError, RecursionError):
                file = None  # a link out of the archive, or in a circle
            again += [info.name] if inner(info.name) in held else []
            held[inner(info.name)] = b"" if file is None else file.read()
    return held, tuple(again)


def written(path: Path, form: int = tarfile.PAX_FORMAT) -> Path:
    """Names that are long, no UTF-8, there twice, and links."""
    with tarfile.open(path, "w", format=form) as tar:
        for number in range(8):
            add(tar, f"{['cat', 'dog'][number % 2]}/{number}.png", picture(number))
        add(tar, f"cat/{DEEP}10.png", picture(10))
        add(tar, "dog/\udcff\udcfe.png", picture(11))
        add(tar, "./cat/0.png", picture(20))
        add(tar, "cat/linked.png", kind=tarfile.LNKTYPE, to="cat/2.png")
        add(tar, "cat/2.png", picture(22))
        add(tar, "dog/there.png", kind=tarfile.SYMTYPE, to="../cat/linked.png")
        add(tar, "dog/circle.png", kind=tarfile.SYMTYPE, to="circle.png")
    return path


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_what_is_read_in_place_is_what_is_unpacked(tmp_path: Path, form: int, unpacked: Path) -> None:
    plain = written(tmp_path / "photos.tar", form)
    packed = tmp_path / "photos.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    here, there = (read_labelled(path) for path in (plain, packed))
    assert here.images.fingerprint == there.images.fingerprint
    shown = [
        [item.name.partition("photos.tar")[2].removeprefix(".gz") for item in one.images.items] for one in (here, there)
    ]
    assert shown[0] == shown[1]
    said = [problem.message.replace(".gz", "") for problem in there.problems]
    assert said.pop(0) == f"it is packed, and was unpacked once to {unpacked}, to be read in place there"
    assert [problem.message for problem in here.problems] == said
    inside = {item.path: item.read() for item in here.images.items}  # type: ignore[attr-defined]
    assert inside[f"/cat/{DEEP}10.png"] == picture(10)
    assert inside["/dog/\udcff\udcfe.png"] == picture(11)
    assert inside["/cat/0.png"] == picture(20)  # the last of two
    assert inside["/cat/linked.png"] == inside["/dog/there.png"] == picture(2)  # as it was when the link was made
    assert "/dog/circle.png" not in inside


def test_whatever_is_in_it_the_index_says_what_unpacking_gives(tmp_path: Path) -> None:
    rng = random.Random(0)
    names = ["a", "b", "./a", "d/a", "../a", "d/../a", "x" * 120 + "/y", "\udcff.png", "d", "é", "/abs", "d/e"]
    for number in range(200):
        path = tmp_path / f"{number}.tar"
        with tarfile.open(path, "w", format=rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])) as tar:
            for _ in range(rng.randrange(1, 14)):
                name, kind = (
                    rng.choice(names),
                    rng.choice([tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE]),
                )
                add(
                    tar,
                    name,
                    rng.randbytes(rng.randrange(900)) if kind == tarfile.REGTYPE else b"",
                    kind,
                    rng.choice(names),
                )
        held, again = extracted(path)
        contents = look_through([str(path)])
        assert {name: contents.read(name) for name in contents.names} == held
        assert contents.again == again


def test_nothing_in_it_is_held(tmp_path: Path) -> None:
    assert not any(look_through([str(written(tmp_path / "photos.tar"))]).pieces.values())


def packed(tmp_path: Path, ending: str) -> Path:
    plain = written(tmp_path / "photos.tar").read_bytes()
    path = tmp_path / f"photos{ending}"
    pack: dict[str, Callable[[bytes], bytes]] = {
        ".tar.gz": gzip.compress,
        ".tbz2": bz2.compress,
        ".tar.xz": lzma.compress,
        ".tar.zst": lambda data: pa.compress(data, "zstd", asbytes=True),
    }
    half = len(plain) // 2
    path.write_bytes(pack[ending](plain[:half]) + pack[ending](plain[half:]))  # as programs with threads write
    return path


ENDINGS = (".tar.gz", ".tbz2", ".tar.xz", ".tar.zst")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_packed_one_is_unpacked_on_disk_once_and_read_there(tmp_path: Path, ending: str, unpacked: Path) -> None:
    images = read_labelled(packed(tmp_path, ending)).images
    assert images.fingerprint == read_labelled(tmp_path / "photos.tar").images.fingerprint
    (copy,) = unpacked.iterdir()
    assert copy.read_bytes() == (tmp_path / "photos.tar").read_bytes()
    before = copy.stat().st_ino
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / f"photos{ending}").rename(tmp_path / "elsewhere" / f"mine{ending}")
    assert read_labelled(moved).images.fingerprint == images.fingerprint
    assert [path.stat().st_ino for path in copy.parent.iterdir()] == [before]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_packed_one_that_is_cut_off_is_refused_and_leaves_nothing(
    tmp_path: Path, ending: str, unpacked: Path
) -> None:
    path = packed(tmp_path, ending)
    os.truncate(path, path.stat().st_size - 20)
    with pytest.raises(UserError, match=r"photos\.[^\n]+: the archive cannot be read \([^\n]+\); unpack it"):
        read_labelled(path)
    assert not list(unpacked.iterdir())


def test_what_was_unpacked_and_went_is_unpacked_again(tmp_path: Path, unpacked: Path) -> None:
    items = read_labelled(packed(tmp_path, ".tar.gz")).images.items
    before = items[0].open().tobytes()
    (copy,) = unpacked.iterdir()
    copy.unlink()
    assert items[0].open().tobytes() == before
    assert copy.exists()


def test_what_would_unpack_to_too_much_for_the_cache_is_refused(
    tmp_path: Path, unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path, ".tar.gz")
    monkeypatch.setattr(tidying, "UNPACKED", replace(tidying.UNPACKED, limit_bytes=2**13))
    with pytest.raises(UserError, match=r"photos\.tar\.gz: it unpacks to more than 0 MiB; unpack it"):
        read_labelled(path)
    assert not list(unpacked.iterdir())


def test_whether_it_is_packed_its_content_says(tmp_path: Path) -> None:
    written(tmp_path / "plain.tgz")
    (tmp_path / "packed.tar").write_bytes(gzip.compress((tmp_path / "plain.tgz").read_bytes()))
    assert not Archive(str(tmp_path / "plain.tgz"), "").copies
    assert Archive(str(tmp_path / "packed.tar"), "").copies
    assert not Archive(str(tmp_path / "gone.tar"), "").at_hand("/1.png")
    assert len(read_labelled(tmp_path / "plain.tgz").images) == len(read_labelled(tmp_path / "packed.tar").images)


@pytest.mark.parametrize("kind", ["photos.tar", "photos.tar.gz"])
def test_where_its_files_lie_travels_with_the_images(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path, ".tar.gz").with_name(kind)
    images = read_labelled(path).images
    told, sent = [item.open().tobytes() for item in images.items], pickle.dumps(images.items)
    del images
    gc.collect()
    assert not archive._opened  # as in a process that has not looked the file through
    monkeypatch.setattr(tars, "places", None)
    assert [item.open().tobytes() for item in pickle.loads(sent)] == told


def test_an_archive_in_the_place_of_another_is_looked_through_again(tmp_path: Path) -> None:
    path = written(tmp_path / "photos.tar")
    item = next(item for item in read_labelled(path).images.items if item.name.endswith("cat/4.png"))
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        add(tar, "dog/0.png", picture(3))
        add(tar, "cat/4.png", picture(7))
    (tmp_path / "other.tar").replace(path)
    assert np.asarray(item.open())[0, 0, 0] == 7


def test_pieces_of_a_file_with_holes_are_put_together(tmp_path: Path) -> None:
    data = picture(5) + bytes(20_000)  # an image whose file ends in a hole
    # GNU's old form: the pieces that are there, in the header.
    info = tarfile.TarInfo("cat/5.png")
    info.size, info.type = len(picture(5)), tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, len(picture(5)))
    header[483:495] = b"%011o\0" % len(data)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    body = picture(5) + bytes(-len(picture(5)) % 512)
    path = tmp_path / "photos.tar"
    path.write_bytes(bytes(header) + body + bytes(1024))
    assert Archive(str(path), "photos.tar").open_input_file("/cat/5.png").read() == data


def test_one_that_is_cut_off_is_refused_at_once(tmp_path: Path) -> None:
    path = written(tmp_path / "photos.tar")
    os.truncate(path, 560)
    with pytest.raises(UserError, match=r"photos\.tar: the archive cannot be read \(unexpected end of data\)"):
        read_labelled(path)


def test_one_that_is_cut_off_meanwhile_is_one_sentence(tmp_path: Path) -> None:
    path = written(tmp_path / "photos.tar")
    item = max(read_labelled(path).images.items, key=lambda item: item.name)
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises(UserError, match=r"^[^\n]*photos\.tar[^\n]*$"):
        item.open()


def test_arrays_are_those_of_the_images(tmp_path: Path) -> None:
    images = read_labelled(written(tmp_path / "photos.tar")).images
    for item in images.items:
        number = item.name.rpartition("/")[2].partition(".")[0]
        if number.isdecimal() and int(number) not in (0, 2):
            assert np.asarray(item.open())[0, 0].tolist() == [int(number), 20 + 100 * (int(number) % 2), 30]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_a_large_table_in_one_is_unpacked_on_disk_and_read_there(
    tmp_path: Path, kind: str, name: str, unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = [np.random.default_rng(n).integers(0, 255, (32, 32, 3), dtype=np.uint8) for n in range(8)]
    pictures = [encoded(Image.fromarray(pixels)) for pixels in noise]
    rows = [{"image": data, "label": ["cat", "dog"][n % 2]} for n, data in enumerate(pictures)]
    if name.endswith("csv"):
        lines = (f"{base64.b64encode(row['image']).decode()},{row['label']}\n" for row in rows)  # type: ignore[arg-type]
        (tmp_path / name).write_text("image,label\n" + "".join(lines))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    path = tmp_path / f"photos.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.write(tmp_path / name, name)
    else:
        with tarfile.open(path, "w") as tar:
            tar.add(tmp_path / name, name)
    held = read_labelled(path)
    monkeypatch.setattr(table, "HELD_BYTES", 1000)
    here = read_labelled(path)
    assert all(isinstance(item, RowItem) for item in here.images.items)
    assert [item.read() for item in here.images.items] == pictures  # type: ignore[attr-defined]
    assert here.images.fingerprint == held.images.fingerprint
    (copy,) = unpacked.iterdir()
    assert copy.read_bytes() == (tmp_path / name).read_bytes()
    told = f"it is large, and was unpacked once to {unpacked}, to be read in place there"
    assert told in [problem.message for problem in here.problems]
