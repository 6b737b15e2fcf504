"""Images in base64 in large CSV and JSON files: they stay there, and are read one at a time."""

from __future__ import annotations

import base64
import csv
import io
import json
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import fs

from raytl.core.errors import UserError
from raytl.tasks import read_labelled, text_cells
from raytl.tasks.readers import table
from raytl.tasks.rows import RowItem


def picture(number: int, side: int = 40, kind: str = "PNG", **options: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


PICTURES = [picture(number) for number in range(12)]
LABELS = ["cat", "dog"] * 6
TEXTS = [base64.b64encode(data).decode() for data in PICTURES]


def in_csv(path: Path, texts: list[str] = TEXTS, *, mark: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=mark)
        writer.writerow(["label", "image", "note"])
        writer.writerows([label, text, 'he said "so"'] for label, text in zip(LABELS, texts, strict=True))
    return path


def in_json(path: Path, texts: list[str] = TEXTS, dump: Callable[[object], str] = json.dumps) -> Path:
    rows = [{"image": text, "label": label} for text, label in zip(texts, LABELS, strict=True)]
    path.write_text("\n".join(map(dump, rows)) + "\n")
    return path


def in_one_list(path: Path) -> Path:
    rows = [{"image": {"bytes": text}, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    path.write_text(json.dumps(rows))
    return path


def escaped(value: object) -> str:
    """As PHP writes it, and .NET."""
    return json.dumps(value).replace("/", "\\/").replace("+", "\\u002B")


WRAPPED = [base64.encodebytes(data).decode() for data in PICTURES]
FORMS: dict[str, Callable[[Path], Path]] = {
    "csv": lambda folder: in_csv(folder / "a.csv"),
    "semicolons": lambda folder: in_csv(folder / "a.csv", mark=";"),
    "tsv": lambda folder: in_csv(folder / "a.tsv", mark="\t"),
    "data URIs": lambda folder: in_csv(folder / "a.csv", [f"data:image/png;base64,{text}" for text in TEXTS]),
    "lines of 76": lambda folder: in_csv(folder / "a.csv", WRAPPED),
    "lines of 76, as on Windows": lambda folder: in_csv(
        folder / "a.csv", [text.replace("\n", "\r\n") for text in WRAPPED]
    ),
    "json lines": lambda folder: in_json(folder / "a.jsonl"),
    "json lines of 76": lambda folder: in_json(folder / "a.jsonl", WRAPPED),
    "escapes": lambda folder: in_json(folder / "a.jsonl", dump=escaped),
    "one list": lambda folder: in_one_list(folder / "a.jsonl"),
    "json lines by another name": lambda folder: in_json(folder / "a.json"),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "HELD_BYTES", 1000)
    monkeypatch.setattr(text_cells, "_CHUNK_BYTES", 5000)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_in_place_is_what_is_in_the_table(form: str, tmp_path: Path) -> None:
    path = FORMS[form](tmp_path)
    images = read_labelled(path).images
    assert all(isinstance(item, RowItem) for item in images.items)
    assert [item.read() for item in images.items] == PICTURES  # type: ignore[attr-defined]
    assert [images.classes[label] for label in images.labels] == LABELS
    assert [item.name for item in images.items] == [f"{path} row {row}" for row in range(1, 13)]


@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_same_task_that_it_is_when_it_is_held(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = FORMS[form](tmp_path)
    here = read_labelled(path)
    monkeypatch.setattr(table, "HELD_BYTES", 2**30)
    held = read_labelled(path)
    assert here.images.fingerprint == held.images.fingerprint
    assert here.problems == held.problems


@pytest.mark.parametrize("chunk_bytes", [1, 7, 4000, 4001, 10**6])
def test_wherever_a_piece_of_the_file_ends(chunk_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = in_csv(tmp_path / "a.csv", WRAPPED[:6] + [f"data:image/png;base64,{text}" for text in TEXTS[6:]])
    monkeypatch.setattr(text_cells, "_CHUNK_BYTES", chunk_bytes)
    light, cells = text_cells.light_text(str(path), None, is_json=False)
    assert len(light) < 12 * 100
    assert [cells.read(number, "") for number in range(12)] == PICTURES


def test_other_long_texts_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("path,label,code\n" + f'a.png,cat,{"ab12" * 300}\nb.png,dog,"{("ab12" * 19 + chr(10)) * 20}"\n')
    light, _ = text_cells.light_text(str(path), None, is_json=False)
    assert light == path.read_bytes()


def test_lines_of_one_column_are_looked_through_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("image\n" + "".join(f"{text}\n" for text in TEXTS))
    with path.open("rb") as file:
        assert max(map(len, text_cells._pieces(file))) < path.stat().st_size / 3
    light, cells = text_cells.light_text(str(path), None, is_json=False)
    assert len(light.splitlines()) == 13
    assert [cells.read(number, "") for number in range(12)] == PICTURES


def test_what_is_not_all_of_its_cell_stays_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"image": f'{TEXTS[0]}"', "html": f'<img src="{TEXTS[1]}">', "label": "cat"}))
    light, _ = text_cells.light_text(str(path), None, is_json=True)
    assert light == path.read_bytes()
    path = in_csv(tmp_path / "a.csv", [f"b'{text}'" for text in TEXTS])
    light, _ = text_cells.light_text(str(path), None, is_json=False)
    assert b"~base64~" not in light


def test_where_a_cell_holds_more_than_it_seemed_to_the_table_is_held(tmp_path: Path) -> None:
    path = in_csv(tmp_path / "a.csv", [f"data:image/png;base64,{text},{text}" for text in TEXTS], mark=";")
    assert b"~base64~" in text_cells.light_text(str(path), None, is_json=False)[0]
    items = read_labelled(path).images.items
    assert not any(isinstance(item, RowItem) for item in items)


def test_long_texts_that_are_no_images_tell_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"image": text, "label": label, "patient": "p" * 5000 + str(number // 4)}
        for number, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    images = read_labelled(path).images
    assert images.groups is not None
    assert len(set(images.groups.tolist())) == 3


def of_kind(kind: str) -> list[bytes]:
    """Of so many sizes that escapes are at every place of their beginning."""
    return [picture(number, 40 + 3 * number, kind) for number in range(12)]


@pytest.mark.parametrize("form", ["php", "net", "u002f", "spaces", "lines", "long lines", "lines in json", "uris"])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "GIF", "BMP"])
def test_of_whatever_kind_and_size(kind: str, form: str, tmp_path: Path) -> None:
    pictures = of_kind(kind)
    texts = [base64.b64encode(data).decode() for data in pictures]
    wrapped = [base64.encodebytes(data).decode() for data in pictures]
    path = {
        "php": lambda: in_json(tmp_path / "a.jsonl", texts, lambda row: json.dumps(row).replace("/", "\\/")),
        "net": lambda: in_json(tmp_path / "a.jsonl", texts, lambda row: json.dumps(row).replace("+", "\\u002B")),
        "u002f": lambda: in_json(tmp_path / "a.jsonl", texts, lambda row: json.dumps(row).replace("/", "\\u002f")),
        "spaces": lambda: in_json(tmp_path / "a.jsonl", [f"data:image/x;base64, {text}" for text in texts], escaped),
        "lines": lambda: in_csv(tmp_path / "a.csv", wrapped),
        "long lines": lambda: in_csv(tmp_path / "a.csv", ["\n".join((text[:2048], text[2048:])) for text in texts]),
        "lines in json": lambda: in_json(tmp_path / "a.jsonl", wrapped, escaped),
        "uris": lambda: in_csv(tmp_path / "a.csv", [f"data:image/x;base64,{text}" for text in texts], mark=";"),
    }[form]()
    images = read_labelled(path).images
    assert [item.read() for item in images.items] == pictures  # type: ignore[attr-defined]
    assert form == "long lines" or all(isinstance(item, RowItem) for item in images.items)


def test_what_is_in_utf_16_is_held(tmp_path: Path) -> None:
    images = read_labelled(in_csv(tmp_path / "a.csv", encoding="utf-16")).images
    assert not any(isinstance(item, RowItem) for item in images.items)
    assert [item.read() for item in images.items] == PICTURES  # type: ignore[attr-defined]


def test_they_travel_and_are_read_by_another_way(tmp_path: Path) -> None:
    items = read_labelled(in_csv(tmp_path / "a.csv")).images.items
    assert [item.read() for item in pickle.loads(pickle.dumps(items))] == PICTURES
    far = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    items = read_labelled("a.csv", filesystem=far).images.items
    assert [item.read() for item in items] == PICTURES  # type: ignore[attr-defined]


def test_a_file_that_is_another_by_then_is_one_sentence(tmp_path: Path) -> None:
    path = in_csv(tmp_path / "a.csv")
    items = read_labelled(path).images.items
    in_csv(tmp_path / "b.csv", TEXTS[::-1]).replace(path)
    with pytest.raises(UserError, match=r"a\.csv row 1: is not what it was when the table was first read; put it back"):
        items[0].open()
    path.unlink()
    with pytest.raises(UserError, match=r"a\.csv row 1: the table is not there any more; put it back"):
        items[0].open()


# The peak is a property of a process; what is read first is what any table takes.
_MEASURE = """
import resource, sys
from raytl.tasks import read_labelled
from raytl.tasks.readers import table

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

table.HELD_BYTES = 2**20
for path in sys.argv[1:]:
    before = peak()
    for item in read_labelled(path).images.items:
        item.read()
    print(peak() - before)
"""


def test_what_is_in_memory_is_little_of_the_file(tmp_path: Path) -> None:
    pictures = [picture(number, 512, compress_level=0) for number in range(32)]  # 25 MB
    texts = [base64.b64encode(data).decode() for data in pictures]
    paths = []
    for count in (4, 32):
        here = tmp_path / str(count)
        here.mkdir()
        labelled = list(zip(texts[:count], LABELS * 3, strict=False))
        (here / "a.csv").write_text("".join(f"{text},{label}\n" for text, label in [("image", "label"), *labelled]))
        (here / "a.jsonl").write_text(
            "".join(json.dumps({"image": text, "label": label}) + "\n" for text, label in labelled)
        )
        with tarfile.open(here / "a.tar.gz", "w:gz", compresslevel=1) as tar:
            for number, (_, label) in enumerate(labelled):
                info = tarfile.TarInfo(f"{label}/{number}.png")
                info.size = len(pictures[number])
                tar.addfile(info, io.BytesIO(pictures[number]))
        paths += [here / "a.csv", here / "a.jsonl", here / "a.tar.gz"]
    ran = subprocess.run([sys.executable, "-c", _MEASURE, *paths], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    taken = [int(line) for line in ran.stdout.split()]
    assert max(taken[3:]) < 12e6, taken
