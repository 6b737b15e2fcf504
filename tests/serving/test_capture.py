"""What is captured is bounded, the least certain first, and can be searched with."""

from __future__ import annotations

import asyncio
import io
import shutil
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.testclient import TestClient

from raytl.core.errors import UserError
from raytl.serving.capture import Capture
from raytl.serving.http import create_http
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings, bundle_version
from raytl.tasks import read_unlabelled


def encoded(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def certain(*values: float):
    """What stands for prepared images, for probabilities, and for how certain they are."""
    nothing = np.empty((len(values), 0))
    return nothing, nothing, lambda arrays, rows: np.array(values)


def test_keeps_the_least_certain_within_the_limit_and_each_picture_once(tmp_path: Path) -> None:
    capture = Capture(tmp_path, 5)
    for seed in range(60):
        capture.note([encoded(seed), encoded(seed)], *certain(0.99 - seed / 100, 0.99 - seed / 100))
        capture.flush()
    capture.close()
    table = pq.read_table(tmp_path / "captured-0.parquet")
    assert table.column("image").to_pylist() == [encoded(seed) for seed in (59, 58, 57, 56, 55)]
    assert np.all(np.diff(table.column("certainty").to_numpy()) >= 0)
    assert stat.S_IMODE((tmp_path / "captured-0.parquet").stat().st_mode) == 0o600


def test_what_came_last_is_written_though_nothing_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raytl.serving.capture.WRITE_EVERY_S", 1.0)
    capture, file = Capture(tmp_path, 50), tmp_path / "captured-0.parquet"
    seen = []
    for seed in range(3):
        capture.note([encoded(seed)], *certain(0.5))
        until = time.monotonic() + 60
        while len(seen) <= seed and time.monotonic() < until:
            time.sleep(0.05)
            if file.exists():
                with file.open("rb") as written:  # a path would be opened twice, and the file replaced in between
                    seen = pq.read_table(written).column("image").to_pylist()
    capture.close()
    assert set(seen) == {encoded(seed) for seed in range(3)}


def test_a_new_replica_goes_on_where_one_ended_and_two_at_a_time_do_not_share(tmp_path: Path) -> None:
    first, second = Capture(tmp_path, 5), Capture(tmp_path, 5)
    for number, capture in enumerate((first, second)):
        capture.note([encoded(number)], *certain(0.5))
        capture.flush()
    first.close()
    again = Capture(tmp_path, 5)
    again.note([encoded(7)], *certain(0.4))
    again.close()
    second.close()
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == ["captured-0.parquet", "captured-1.parquet"]
    held = pq.read_table(tmp_path / "captured-0.parquet").column("image").to_pylist()
    assert held == [encoded(7), encoded(0)]


@pytest.mark.parametrize("folder_too", [False, True])
def test_what_was_taken_away_to_be_labelled_is_not_written_again(tmp_path: Path, folder_too: bool) -> None:
    """Nor does it stand in the way of what its model is more certain of."""
    folder = tmp_path / "captured"
    capture = Capture(folder, 5)
    for seed in range(30):
        capture.note([encoded(seed)], *certain(0.3))
        capture.flush()
    (folder / "captured-0.parquet").rename(tmp_path / "to be labelled.parquet")
    if folder_too:
        shutil.rmtree(folder)
    capture.note([encoded(40)], *certain(0.9))
    capture.flush()
    capture.note([encoded(41)], *certain(0.5))
    capture.close()
    held = pq.read_table(folder / "captured-0.parquet").column("image").to_pylist()
    assert held == [encoded(41), encoded(40)]


def test_what_is_not_written_yet_when_the_file_is_taken_away_is_in_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raytl.serving.capture.WRITE_EVERY_S", 3600.0)
    capture = Capture(tmp_path, 5)
    capture.note([encoded(0)], *certain(0.5))
    capture.flush()
    capture.note([encoded(1)], *certain(0.5))
    capture._thread.submit(lambda: None).result()  # it is kept
    (tmp_path / "captured-0.parquet").unlink()
    capture.close()
    assert pq.read_table(tmp_path / "captured-0.parquet").column("image").to_pylist() == [encoded(1)]


def test_a_folder_that_goes_before_anything_was_written_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raytl.serving.capture.WRITE_EVERY_S", 1e9)
    folder = tmp_path / "captured"
    capture = Capture(folder, 5)
    capture.note([encoded(0)], *certain(0.5))
    capture._thread.submit(capture._take_slot).result()
    shutil.rmtree(folder)
    capture.close()
    assert pq.read_table(folder / "captured-0.parquet").column("image").to_pylist() == [encoded(0)]


def test_another_model_begins_files_of_its_own(bundles: dict[str, Path], tmp_path: Path) -> None:
    service = Service()
    held = {}

    async def serve(name: str, seeds: range) -> None:
        settings = ServingSettings(bundle=str(bundles[name]), capture=str(tmp_path), capture_limit=4)
        before = None if service._live is None else service.live
        await service.apply(replace(settings, version=bundle_version(bundles[name])))
        for seed in seeds:
            await service.classify(service.live, [("x", encoded(seed))])
        if before is not None:  # a request that the model before began to answer
            await service.classify(before, [("x", encoded(99))])
        service.capture.flush()
        for file in tmp_path.glob("*.parquet"):
            held[file.name] = set(pq.read_table(file).column("image").to_pylist())

    asyncio.run(serve("first", range(12)))
    asyncio.run(serve("second", range(20, 24)))
    asyncio.run(serve("first", range(0)))
    service.close()
    first, second = (f"captured-{bundle_version(bundles[name])}-0.parquet" for name in ("first", "second"))
    assert set(held) == {first, second} and len(held[first]) == 4
    assert held[first] <= {encoded(seed) for seed in range(12)}
    assert held[second] == {encoded(seed) for seed in range(20, 24)}


def test_an_endpoint_captures_what_the_next_search_reads(bundles: dict[str, Path], tmp_path: Path) -> None:
    service = Service()
    settings = ServingSettings(bundle=str(bundles["first"]), capture=str(tmp_path / "kept"), capture_limit=8)
    asyncio.run(service.apply(settings))
    with TestClient(create_http(service), "http://127.0.0.1") as client:
        for seed in range(20):
            assert client.post("/v1/predict", content=encoded(seed)).status_code == 200
    service.close()
    read = read_unlabelled(tmp_path / "kept")
    assert len(read.images) == 8
    assert {item.open().size for item in read.images.items} == {(8, 8)}


def test_can_be_switched_off_and_a_full_disk_costs_no_answer(bundles: dict[str, Path], tmp_path: Path) -> None:
    service = Service()
    (tmp_path / "file").write_text("no folder")
    asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]), capture=str(tmp_path / "file" / "below"))))
    with TestClient(create_http(service), "http://127.0.0.1") as client:
        assert client.post("/v1/predict", content=encoded(0)).status_code == 200
        asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]))))
        assert service.capture is None
        assert client.post("/v1/predict", content=encoded(0)).status_code == 200


@pytest.mark.parametrize("then", ["", "other"])
def test_requests_go_on_while_what_was_captured_is_written(bundles: dict[str, Path], tmp_path: Path, then: str) -> None:
    service = Service()
    settings = ServingSettings(bundle=str(bundles["first"]), capture=str(tmp_path / "kept"))

    async def switch() -> None:
        await service.apply(settings)
        assert service.capture is not None
        loop, going_on, close = asyncio.get_running_loop(), threading.Event(), service.capture.close

        def close_slowly() -> None:
            loop.call_soon_threadsafe(going_on.set)
            assert going_on.wait(60)
            close()

        service.capture.close = close_slowly  # type: ignore[method-assign]
        await service.apply(replace(settings, capture=str(tmp_path / then) if then else ""))

    asyncio.run(switch())
    assert (None if service.capture is None else service.capture.folder) == (tmp_path / then if then else None)
    service.close()


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="capture_limit"):
        ServingSettings(bundle="b", capture_limit=0)
