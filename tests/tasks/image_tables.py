"""Tables with images in them, as different programs write them, and what is read of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import feather

from raytl.tasks import Preprocessing, row_groups, rows
from raytl.tasks.images import Images
from raytl.tasks.readers import ReadResult
from raytl.tasks.rows import RowItem

COUNT = 60
FOOTER = 2**16  # bytes that Arrow looks for it in
HUB = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(number: int, side: int = 40) -> bytes:
    """Noise of a shade that tells two classes apart, as PNG: about 5 kB."""
    low = 20 + 120 * (number % 2)
    noise = np.random.default_rng(number).integers(low, low + 80, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


PICTURES = [picture(number) for number in range(COUNT)]
LABELS = [["dark", "light"][number % 2] for number in range(COUNT)]


def hub(root: Path) -> pa.Table:
    """As Hugging Face has them: numbers for labels, whose names stand in the metadata."""
    info = b'{"info": {"features": {"label": {"names": ["dark", "light"], "_type": "ClassLabel"}}}}'
    image = [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(PICTURES)]
    columns = {"image": pa.array(image, HUB), "label": [number % 2 for number in range(COUNT)]}
    return pa.table(columns).replace_schema_metadata({b"huggingface": info})


def binary(root: Path) -> pa.Table:
    """Bytes, words as a dictionary, a patient for two images, and what is of no interest beside them."""
    return pa.table(
        {
            "image": pa.array(PICTURES, pa.large_binary()),
            "mask": pa.array(PICTURES[::-1]),
            "label": pa.array(LABELS).dictionary_encode(),
            "patient": [f"p{number // 4}" for number in range(COUNT)],
            "embedding": pa.array([[0.5] * 9] * COUNT, pa.list_(pa.float32(), 9)),
            "split": ["test" if number >= 50 else "train" for number in range(COUNT)],
        }
    )


def base64_texts(root: Path) -> pa.Table:
    """Texts, one in two with a name of its kind in front."""
    texts = [base64.b64encode(data).decode() for data in PICTURES]
    return pa.table(
        {"picture": [f"data:image/png;base64,{t}" if n % 2 else t for n, t in enumerate(texts)], "label": LABELS}
    )


def lists(root: Path) -> pa.Table:
    """Lists of one, in a column whose name has a dot."""
    image = [[{"bytes": data, "path": None}] for data in PICTURES]
    return pa.table({"photo.image": pa.array(image, pa.list_(HUB)), "label": LABELS})


def mixed(root: Path) -> pa.Table:
    """In the table and in files, short and damaged ones, copies and none."""
    (root / "photos").mkdir()
    (root / "photos" / "7.png").write_bytes(PICTURES[7])
    image: list[Any] = [{"bytes": data, "path": None} for data in PICTURES]
    image[7] = {"bytes": None, "path": "photos/7.png"}
    image[8] = {"bytes": picture(8, 4), "path": None}
    image[9] = {"bytes": PICTURES[9][:2000], "path": None}
    image[10] = image[12]
    image[11] = None
    image[13] = {"bytes": b"", "path": None}
    return pa.table({"image": pa.array(image, HUB), "label": [None, *LABELS[1:]]})


TABLES: list[Callable[[Path], pa.Table]] = [hub, binary, base64_texts, lists, mixed]


def small_parts(patch: pytest.MonkeyPatch) -> None:
    """Have five images read at once, and few parts held and places read from."""
    patch.setattr(row_groups, "AT_ONCE_BYTES", 5 * len(PICTURES[0]))
    patch.setattr(rows, "HELD_BYTES", 20 * len(PICTURES[0]))
    patch.setattr(rows, "MOST_READINGS", 4)
    patch.setattr(rows, "cores", lambda: 1)


def written(path: Path, what: pa.Table | None = None, **settings: Any) -> Path:
    pq.write_table(hub(path) if what is None else what, path, **({"row_group_size": 16} | settings))
    return path


def stream(path: Path, what: pa.Table) -> Path:
    """As ``save_to_disk`` writes it."""
    with pa.ipc.new_stream(str(path), what.schema) as writer:
        writer.write_table(what, max_chunksize=16)
    return path


def packed(path: Path, what: pa.Table) -> Path:
    feather.write_feather(what, str(path), compression="lz4", chunksize=16)
    return path


def unpacked(path: Path, what: pa.Table) -> Path:
    feather.write_feather(what, str(path), compression="uncompressed", chunksize=16)
    return path


ARROW: list[Callable[[Path, pa.Table], Path]] = [stream, packed, unpacked]


def seen(result: ReadResult[Any]) -> dict[str, Any]:
    """What a task is made of."""
    images = result.images
    return {
        "fingerprint": images.fingerprint,
        "names": [item.name for item in images.items],
        "pixels": images.tensor(Preprocessing(16, 3)).numpy().tolist(),
        "groups": None if images.groups is None else images.groups.tolist(),
        "labels": images.labels.tolist(),
        "classes": images.classes,
        "problems": result.problems,
        "facts": [(fact.width, fact.mode, fact.pixels, fact.kind) for fact in result.facts],
        "rest": (result.has_test, result.group_names),
    }


class Counting:
    """A file system that reads the local disk. opened: how many files; bytes: how much of them; reads: how often."""

    def __init__(self) -> None:
        self.opened = self.bytes = self.reads = 0

    def open_input_file(self, path: str) -> Any:
        self.opened += 1
        return CountedFile(path, self)


class CountedFile(io.FileIO):
    def __init__(self, path: str, counting: Counting) -> None:
        super().__init__(path)
        self._counting = counting

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size)
        self._counting.bytes += len(data)
        self._counting.reads += 1
        return data


def counted(images: Images, counting: Counting) -> list[RowItem]:
    (known,) = {item.rows for item in images.items if isinstance(item, RowItem)}
    other = known.on(counting)
    return [replace(item, rows=other) for item in images.items if isinstance(item, RowItem)]
