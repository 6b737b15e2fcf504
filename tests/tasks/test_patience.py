"""A storage that does not answer is asked again for a while, which is told, and others are read meanwhile.

The storage is S3's protocol, by a server that is stopped.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from raytl.core.errors import StorageWarning, UserError
from raytl.tasks import read_labelled, waiting
from raytl.tasks.readers import list_path, patience, table
from raytl.tasks.readers.listing import open_uri
from raytl.tasks.readers.loading import load
from tests.s3 import S3Server, s3_server
from tests.tasks.test_text_in_place import LABELS, PICTURES

pytestmark = pytest.mark.filterwarnings("ignore::raytl.core.errors.StorageWarning")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        filesystem, _ = open_uri(server.uri(""))
        rows = pa.table({"image": pa.array(PICTURES, pa.binary()), "label": LABELS})
        pq.write_table(rows, "bucket/a.parquet", filesystem=filesystem, row_group_size=1)
        for number, (data, label) in enumerate(zip(PICTURES, LABELS, strict=True)):
            with filesystem.open_output_stream(f"bucket/photos/{label}/{number}.png") as file:
                file.write(data)
        yield server


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "ENDURED_ANSWER_S", 1.0)
    monkeypatch.setattr(patience, "ENDURED_ATTEMPTS", 2)
    monkeypatch.setattr(waiting, "TOLD_S", 0.5)
    waiting._silent.clear()


@pytest.fixture
def stopped(server: S3Server) -> Iterator[S3Server]:
    yield server
    server.go_on()


def first(read: Any) -> Any:
    return read.images.items[0]


class TestAStorageThatDoesNotAnswer:
    def test_is_an_error_after_a_while_and_told_before(self, stopped: S3Server) -> None:
        item = first(read_labelled(stopped.uri("photos")))
        stopped.pause()
        refused = pytest.raises(UserError, match=r"cat/0\.png: cannot be read \(.*Timeout.*; sign in to where it is")
        waited = pytest.warns(StorageWarning, match=r"^s3://bucket/photos/cat/0\.png: waited for since ")
        with waited as told, refused:
            item.read()
        assert len(told) == 1

    def test_is_left_alone_for_a_while_then(self, stopped: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(waiting, "GIVEN_UP_S", 1.0)
        first_one, second = read_labelled(stopped.uri("photos")).images.items[:2]
        stopped.pause()
        for item, why in ((first_one, "Timeout"), (second, "it has not answered for a while")):
            with pytest.raises(UserError, match=rf"cannot be read \(.*{why}"):
                item.read()  # type: ignore[union-attr]
        stopped.go_on()
        waiting._silent.clear()  # as it is forgotten
        assert second.read() == PICTURES[10]  # type: ignore[union-attr]

    def test_leaves_no_images_out_that_are_there(self, stopped: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(waiting, "GIVEN_UP_S", 1.0)
        listing = list_path(stopped.uri("photos"))
        load(listing)
        stopped.pause()
        with pytest.raises(UserError, match=r"^s3://bucket/photos/cat/0\.png: cannot be read \("):
            load(listing)

    def test_is_asked_again(self, stopped: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(patience, "ENDURED_ATTEMPTS", 8)  # of which a busy machine takes some
        item = first(read_labelled(stopped.uri("photos")))
        stopped.pause()
        threading.Timer(1.3, stopped.go_on).start()
        assert item.read() == PICTURES[0]

    def test_keeps_nobody_from_tables_elsewhere(
        self, stopped: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(table, "HELD_BYTES", 1000)
        pq.write_table(pa.table({"image": pa.array(PICTURES, pa.binary()), "label": LABELS}), tmp_path / "a.parquet")
        here = first(read_labelled(tmp_path / "a.parquet"))
        there = read_labelled(stopped.uri("a.parquet")).images.items[-1]
        errors: list[UserError] = []

        def ask() -> None:
            try:
                there.open()
            except UserError as error:
                errors.append(error)

        there.rows.forget()  # type: ignore[attr-defined]
        stopped.pause()
        thread = threading.Thread(target=ask)
        thread.start()
        for _ in range(1000):
            if waiting._asked:
                break
            time.sleep(0.01)
        assert waiting._asked
        assert here.read() == PICTURES[0]
        assert thread.is_alive()
        thread.join()
        assert "a.parquet row 12: cannot be read any more" in str(errors[0])


def test_where_it_is_sent_it_has_as_much_patience() -> None:
    made = patience.enduring(fs.S3FileSystem(region="us-east-1"))
    sent = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(made))))
    assert sent.equals(made)
    assert sent.__reduce__()[1][1] == 2
    assert sent.__reduce__()[1][0]["request_timeout"] == 1.0


def test_of_the_disk_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_watch", None)
    with waiting.waiting("a.png", None):
        assert not waiting._asked
