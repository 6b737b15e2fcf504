"""What a reader finds on an object store while a model takes the place of another, with a fault at any write."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import fs

from raytl.runs.storage.mirror import Outbox
from raytl.runs.storage.objects import Objects

BEFORE = {
    "model.json": b"before", "model.safetensors": b"before", "yardstick.safetensors": b"before",
    "features.safetensors": b"before", "reference.json": b"before",
}  # fmt: skip
AFTER = {"model.json": b"after", "model.safetensors": b"after", "reference.json": b"after"}


class Fragile(Objects):
    """A store that takes ``left`` more writes."""

    left: float = float("inf")

    def put(self, key: str, content: bytes | Path) -> None:
        self.burn()
        super().put(key, content)

    def delete(self, key: str) -> None:
        self.burn()
        super().delete(key)

    def burn(self) -> None:
        if not self.left:
            raise OSError("the store does not answer")
        self.left -= 1


@pytest.fixture
def store(tmp_path: Path) -> Fragile:
    return Fragile(fs.LocalFileSystem(), str(tmp_path / "store"), "store")


@pytest.fixture
def outbox(tmp_path: Path, store: Fragile) -> Outbox:
    return Outbox(tmp_path / "run", store, lambda: None)


def write(outbox: Outbox, files: dict[str, bytes]) -> None:
    """A model in the run's folder, in place of the one before."""
    folder = outbox.folder / "model"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    outbox.keep("model")


def send(outbox: Outbox) -> None:
    while outbox.send_one():
        pass


def found(store: Fragile) -> dict[str, bytes]:
    return {name.removeprefix("model/"): store.get(name) for name in store.list("model")}


def test_nothing_of_an_earlier_model_stays_beside_a_later_one(outbox: Outbox, store: Fragile) -> None:
    write(outbox, BEFORE)
    send(outbox)
    assert found(store) == BEFORE
    write(outbox, AFTER)
    send(outbox)
    assert found(store) == AFTER


def test_nothing_of_an_earlier_driver_stays_either(outbox: Outbox, store: Fragile, tmp_path: Path) -> None:
    write(outbox, BEFORE)
    send(outbox)
    other = Outbox(tmp_path / "elsewhere", store, lambda: None)
    write(other, AFTER)
    send(other)
    assert found(store) == AFTER


@pytest.mark.parametrize("pair", [(BEFORE, AFTER), (AFTER, BEFORE)], ids=["fewer files", "more files"])
def test_at_any_moment_what_has_a_document_is_one_model(outbox: Outbox, store: Fragile, pair: tuple) -> None:
    write(outbox, pair[0])
    send(outbox)
    write(outbox, pair[1])
    seen = []
    while outbox.waiting():
        store.left = 1
        try:
            send(outbox)
        except OSError:
            seen.append(found(store))
    whole = [files for files in seen if "model.json" in files]
    assert len(seen) > len(AFTER) and all(files in pair for files in whole)
    assert found(store) == pair[1]


def test_what_is_beside_a_folder_stays(outbox: Outbox, store: Fragile) -> None:
    for name in ("models/else", "model.json", "tags/best"):
        store.put(name, b"x")
    write(outbox, AFTER)
    send(outbox)
    names = {name for name in store.list() if not name.startswith("journal/")}
    assert names == {"models/else", "model.json", "tags/best", *(f"model/{name}" for name in AFTER)}
