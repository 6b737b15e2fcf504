"""Tar files that are not packed: each image is read where it lies, and is what it would be unpacked."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raytl.core.errors import UserError
from raytl.tasks.readers import archive, read_labelled
from raytl.tasks.readers.archive import Archive

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
def test_what_is_read_in_place_is_what_is_unpacked(tmp_path: Path, form: int) -> None:
    plain = written(tmp_path / "photos.tar", form)
    packed = tmp_path / "photos.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    here, unpacked = (read_labelled(path) for path in (plain, packed))
    assert here.images.fingerprint == unpacked.images.fingerprint
    shown = [
        [item.name.partition("photos.tar")[2].removeprefix(".gz") for item in one.images.items]
        for one in (here, unpacked)
    ]
    assert shown[0] == shown[1]
    assert [problem.message.replace(".gz", "") for problem in here.problems] == [
        problem.message.replace(".gz", "") for problem in unpacked.problems
    ]
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
        held, again = archive._unpacked(str(path))
        contents = archive._contents(str(path), number, 0)
        assert {name: contents.read(name) for name in contents.names} == held
        assert contents.again == again


def test_nothing_in_it_is_held(tmp_path: Path) -> None:
    contents = Archive(str(written(tmp_path / "photos.tar")), "photos.tar")._contents()
    assert not any(isinstance(held, bytes) and held for held in contents.held.values())


def test_more_than_memory_would_hold_is_read_if_it_is_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = written(tmp_path / "photos.tar")
    packed = tmp_path / "photos.tgz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    monkeypatch.setattr(archive, "MAX_BYTES", 3 * len(picture(0)))
    assert len(read_labelled(plain).images) == 12
    with pytest.raises(UserError, match=r"photos\.tgz: the archive cannot be read \(it holds more than"):
        read_labelled(packed)


def test_whether_it_is_packed_its_content_says(tmp_path: Path) -> None:
    written(tmp_path / "plain.tgz")
    (tmp_path / "packed.tar").write_bytes(gzip.compress((tmp_path / "plain.tgz").read_bytes()))
    assert not Archive(str(tmp_path / "plain.tgz"), "").unpacked
    assert Archive(str(tmp_path / "packed.tar"), "").unpacked
    assert Archive(str(tmp_path / "gone.tar"), "").unpacked
    assert len(read_labelled(tmp_path / "plain.tgz").images) == len(read_labelled(tmp_path / "packed.tar").images)


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
